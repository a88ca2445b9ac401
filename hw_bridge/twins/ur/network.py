"""The controller's three ports on one address, served without blocking from the controller's own loop."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable

from hw_bridge.twins.ur import dashboard, rtde
from hw_bridge.twins.ur.controller import Controller
from hw_bridge.twins.ur.dashboard import Nameplate
from hw_bridge.twins.ur.rtde import RtdeSession
from hw_bridge.twins.ur.wire import Pipe, WireFaults
from robots.errors import ConfigurationError

SCRIPT_PORT = 30003
UNSENT_MAX = 1 << 20
"""A client that leaves this much unread [bytes] is cut off."""


class Connection:
    """One client's socket: what came in and is not yet a whole message, what must go out and did not fit."""

    def __init__(self, endpoint: socket.socket, on_bytes: Callable[[Connection, float], None]) -> None:
        endpoint.setblocking(False)
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.on_bytes = endpoint, on_bytes
        self.received, self._unsent = bytearray(), b""
        self.lost = False

    def send(self, data: bytes) -> None:
        """Send now what fits, the rest with the next call."""
        data = self._unsent + data
        if not data:
            return
        try:
            self._unsent = data[self.socket.send(data):]
        except BlockingIOError:
            self._unsent = data
        except OSError:
            self.lost = True
        self.lost |= len(self._unsent) > UNSENT_MAX

    def receive(self) -> None:
        """Take what has arrived."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received += data
        self.lost |= not data


class _RtdeConnection(Connection):
    def __init__(self, endpoint: socket.socket, on_bytes: Callable[[Connection, float], None], session: RtdeSession,
                 faults: WireFaults) -> None:
        super().__init__(endpoint, on_bytes)
        self.session = session
        self.inbound, self.outbound = Pipe(faults, corruptible=False), Pipe(faults, corruptible=True)


class Network:
    """Listens on `address` and serves all that connect."""

    def __init__(self, address: str, controller: Controller, plate: Nameplate, faults: WireFaults) -> None:
        self.plate = plate
        self._controller, self._faults = controller, faults
        self._selector = selectors.DefaultSelector()
        self._connections: list[Connection] = []
        self._owners: dict[str, RtdeSession] = {}
        for port, make in ((rtde.PORT, self._open_rtde), (SCRIPT_PORT, self._open_script), (dashboard.PORT, self._open_dashboard)):
            try:
                server = socket.create_server((address, port))
            except OSError as error:
                raise ConfigurationError(f"cannot listen on {address}:{port} ({error.strerror}): does another twin run there? "
                                         "Take another --address, such as 127.0.0.3") from error
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ, make)

    def wait(self, timeout: float) -> list[selectors.SelectorKey]:
        """Return what has something to be read, after at most `timeout` seconds."""
        return [key for key, _ in self._selector.select(max(timeout, 0.0))]

    def serve(self, ready: list[selectors.SelectorKey], now: float) -> None:
        """Take what `wait` found; while half open, nothing is taken from clients at all."""
        for key in ready:
            if isinstance(key.data, Connection):
                if not self._faults.half_open:
                    key.data.receive()
                    key.data.on_bytes(key.data, now)
            else:
                with contextlib.suppress(OSError):
                    endpoint, _ = key.fileobj.accept()
                    connection = key.data(endpoint)
                    self._connections.append(connection)
                    self._selector.register(endpoint, selectors.EVENT_READ, connection)
        self._drop_lost()

    def cycle(self, cycle: int, now: float) -> None:
        """Carry late messages on and send this cycle's data."""
        if self._faults.half_open:
            return
        for connection in self._connections:
            if isinstance(connection, _RtdeConnection):
                for package in connection.inbound.take(now):
                    connection.session.answer(package, now)
                data = connection.session.data(cycle)
                out = connection.outbound
                connection.send(b"".join(out.through(data, now) if data else out.take(now)))
        self._drop_lost()

    def clients(self) -> int:
        """Return how many connections there are to all ports."""
        return len(self._connections)

    def _drop_lost(self) -> None:
        if not any(c.lost for c in self._connections):
            return
        for connection in [c for c in self._connections if c.lost]:
            self._connections.remove(connection)
            self._selector.unregister(connection.socket)
            connection.socket.close()
            if isinstance(connection, _RtdeConnection):
                connection.session.close()

    def _open_rtde(self, endpoint: socket.socket) -> Connection:
        return _RtdeConnection(endpoint, self._on_rtde, RtdeSession(self._controller, self.plate.firmware, self._owners), self._faults)

    def _on_rtde(self, connection: Connection, now: float) -> None:
        try:
            for package in rtde.messages(connection.received):
                if package[2] == rtde.DATA:
                    for due in connection.inbound.through(package, now):
                        connection.session.answer(due, now)
                else:
                    connection.send(connection.session.answer(package, now))
        except ValueError:
            connection.lost = True

    def _open_script(self, endpoint: socket.socket) -> Connection:
        return Connection(endpoint, self._on_script)

    def _on_script(self, connection: Connection, now: float) -> None:
        if connection.received.endswith(b"\nend\n"):
            script = connection.received.decode("utf-8", "replace")
            connection.received.clear()
            if self.plate.remote:
                self._controller.load(script)

    def _open_dashboard(self, endpoint: socket.socket) -> Connection:
        connection = Connection(endpoint, self._on_dashboard)
        connection.send(dashboard.BANNER.encode() + b"\n")
        return connection

    def _on_dashboard(self, connection: Connection, now: float) -> None:
        *lines, rest = bytes(connection.received).split(b"\n")
        connection.received[:] = rest
        for line in lines:
            connection.send(dashboard.answer(line.decode("utf-8", "replace"), self._controller, self.plate).encode() + b"\n")
