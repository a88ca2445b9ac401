"""The sockets of Franka's control interface: one client at a time, commands over TCP, states and set-points over UDP."""

from __future__ import annotations

import contextlib
import socket

import numpy as np

from hw_bridge.twins.channel import Channel, WireFaults
from hw_bridge.twins.franka.wire import COMMAND, CONNECT, HEADER, PORT, Request, message
from robots.errors import ConfigurationError

MESSAGE_MAX = 65536


class FrankaLink:
    """Nothing here blocks. While a client is connected nobody listens: a second one is refused, as the real arm does."""

    def __init__(self, address: str, version: int, faults: WireFaults, generator: np.random.Generator) -> None:
        if not address.startswith("127."):
            raise ConfigurationError(f"the twin listens on loopback only (127.x.x.x), got {address!r}")
        self.address, self.version = address, version
        self.broken = 0
        """Datagrams of another size than a set-point's."""
        self._faults = faults
        self._outward: Channel[bytes] = Channel(faults, generator, lambda packet: packet[:-1])
        self._inward: Channel[bytes] = Channel(faults, generator, lambda packet: packet[:-1])
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._udp: socket.socket | None = None
        self._peer: tuple[str, int] | None = None
        self._buffer, self._held = bytearray(), bytearray()
        self._listen()

    @property
    def connected(self) -> bool:
        """Whether a client gets states."""
        return self._peer is not None

    def requests(self) -> list[tuple[Request, int, bytes]]:
        """Return what the client asked for since the last call: request, its number, its payload. CONNECT is answered here."""
        if self._listener is not None:
            with contextlib.suppress(BlockingIOError):
                self._client, _ = self._listener.accept()
                self._client.setblocking(False)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._listener.close()
                self._listener = None
        if self._client is None:
            return []
        try:
            received = self._client.recv(MESSAGE_MAX)
            if not received:
                self.drop()
                return []
            self._buffer += received
        except BlockingIOError:
            pass
        except OSError:
            self.drop()
            return []
        if self._faults.half_open:
            return []
        self._flush()
        return [request for request in self._parse() if self._accept(*request)]

    def set_points(self, now: float) -> list[np.ndarray]:
        """Return the set-points () of `COMMAND` that arrived by `now` [s], oldest first."""
        if self._udp is None:
            return []
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                self._inward.push(self._udp.recv(MESSAGE_MAX), now)
        found = []
        for packet in self._inward.due(now):
            if len(packet) == COMMAND.itemsize:
                found.append(np.frombuffer(packet, COMMAND)[0])
            else:
                self.broken += 1
        return found

    def send_state(self, state: bytes, now: float) -> None:
        """Send a state at `now` [s], and whatever was held back until now."""
        if self._peer is None or self._udp is None:
            return
        self._outward.push(state, now)
        for packet in self._outward.due(now):
            with contextlib.suppress(OSError):
                self._udp.sendto(packet, self._peer)

    def answer(self, request: Request, number: int, status: int, rest: bytes = b"") -> None:
        """Answer a request; a MOVE is answered twice."""
        if self._client is not None:
            self._held += message(request, number, status, rest)
            if not self._faults.half_open:
                self._flush()

    def drop(self) -> None:
        """Let go of the client and listen for the next."""
        for open_socket in (self._client, self._udp):
            if open_socket is not None:
                open_socket.close()
        self._client = self._udp = self._peer = None
        self._buffer.clear()
        self._held.clear()
        if self._listener is None:
            self._listen()

    def close(self) -> None:
        """Close every socket."""
        self.drop()
        self._listener.close()

    def _flush(self) -> None:
        """Send what is to be sent over TCP: a connection that was dead for a while loses nothing."""
        if not self._held or self._client is None:
            return
        try:
            self._client.settimeout(0.2)
            self._client.sendall(self._held)
            self._client.setblocking(False)
            self._held.clear()
        except OSError:
            self.drop()

    def _listen(self) -> None:
        self._listener = socket.create_server((self.address, PORT), backlog=1)
        self._listener.setblocking(False)

    def _parse(self) -> list[tuple[Request, int, bytes]]:
        found = []
        while len(self._buffer) >= HEADER.size:
            command, number, size = HEADER.unpack_from(self._buffer)
            if not HEADER.size <= size <= MESSAGE_MAX or command > max(Request):
                self.drop()
                return []
            if len(self._buffer) < size:
                break
            found.append((Request(command), number, bytes(self._buffer[HEADER.size : size])))
            del self._buffer[:size]
        return found

    def _accept(self, request: Request, number: int, payload: bytes) -> bool:
        """Answer a CONNECT and return False; True for what others must answer."""
        if request is not Request.CONNECT:
            return self.connected
        version, port = CONNECT.unpack_from(payload)
        same = version == self.version
        self.answer(request, number, 0 if same else 1, int(self.version).to_bytes(2, "little"))
        if same:
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind((self.address, 0))
            self._udp.setblocking(False)
            self._peer = (self._client.getpeername()[0], port)
        return False
