"""The receiving half of Universal Robots' RTDE (TCP 30004): the controller's newest state, taken when it is asked for, without a thread.

ur_rtde has a receiving client too. Its thread asks every 100 us whether something has come, which costs a fifth of a processor core at
the priority that the servo loop needs, and its values are read one by one, so that two states may mix.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping

from robots.errors import HardwareError

PORT = 30004
_VERSION, _OUTPUTS, _START, _PAUSE, _DATA = 86, 79, 83, 80, 85
"""Types of packages."""
_HEADER = 3
"""A package's size (uint16, itself included) and type."""
_READ_BYTES = 1 << 16
"""Taken from the socket at once: more than half a second of states."""
PATIENCE_S = 0.1
"""Who asks after a longer time [s] is not told what has piled up: the stream is stopped and started again; either takes as long at most."""


class RtdeStream:
    """The variables named in `variables`, with their RTDE types, `frequency` times a second. HardwareError, in words, where the
    controller at `address` has no RTDE or other variables.
    """

    def __init__(self, address: str, variables: Mapping[str, str], frequency: float = 500.0, timeout: float = 2.0) -> None:
        self._address, self._received, self._state = address, bytearray(), b""
        try:
            self._socket = socket.create_connection((address, PORT), timeout)
        except OSError as error:
            raise HardwareError(f"{address}: no RTDE (port {PORT}): {error}. Enable it under Security, Services") from error
        try:
            self._set_up(variables, frequency)
        except OSError as error:
            self.close()
            raise HardwareError(f"{address}: RTDE (port {PORT}) ends while states are asked for: {error}") from error
        except HardwareError:
            self.close()
            raise
        self._socket.setblocking(False)
        self._asked, self._paused = time.monotonic(), False

    def _set_up(self, variables: Mapping[str, str], frequency: float) -> None:
        if self._ask(_VERSION, b"\x00\x02") != b"\x01":
            raise HardwareError(f"{self._address} does not speak version 2 of RTDE: update the controller")
        answer = self._ask(_OUTPUTS, struct.pack(">d", frequency) + ",".join(variables).encode())
        types = answer[1:].decode("ascii", "replace").split(",")
        if types != list(variables.values()):
            wrong = [f"{name}: {got}" for (name, wanted), got in zip(variables.items(), types, strict=False) if got != wanted]
            raise HardwareError(f"{self._address}: RTDE has other variables than expected: {', '.join(wrong) or types}: "
                                "update the controller")
        self._recipe = answer[:1]
        if self._ask(_START, b"") != b"\x01":
            raise HardwareError(f"{self._address}: RTDE does not start to send states")

    def _ask(self, kind: int, payload: bytes = b"", until: float | None = None) -> bytes:
        """Send a package and return the payload of its answer; what comes before it is dropped. OSError where there is none."""
        self._socket.sendall(struct.pack(">HB", len(payload) + _HEADER, kind) + payload)
        return self._await(kind, until)

    def _await(self, kind: int, until: float | None) -> bytes:
        """Return the payload of the first package of a kind."""
        while True:
            for arrived_kind, payload in self._packages():
                if arrived_kind == kind:
                    return payload
            if until is not None and not select.select([self._socket], [], [], max(until - time.monotonic(), 0.0))[0]:
                raise TimeoutError("the controller does not answer")
            arrived = self._socket.recv(_READ_BYTES)
            if not arrived:
                raise ConnectionResetError("the controller closed the connection")
            self._received += arrived

    def pause(self) -> None:
        """Ask for no more states until `newest` is called again: they would pile up, and a controller cuts off who leaves them lying."""
        self._paused = True  # whatever the answer: one that is late must not leave the stream still for good
        with contextlib.suppress(OSError, ValueError):
            self._ask(_PAUSE, until=time.monotonic() + PATIENCE_S)

    def _catch_up(self) -> None:
        """Wait for a state that is sent from now on."""
        if not self._paused:
            self.pause()
        self._paused, until = False, time.monotonic() + PATIENCE_S
        with contextlib.suppress(OSError, ValueError):  # a silent or dead wire: the last state's age shows it
            self._ask(_START, until=until)
            self._state = self._await(_DATA, until)[1:]

    def newest(self) -> bytes:
        """Return the newest state that has arrived, the variables' values packed big-endian in their order; empty before the first.

        Waits only where nobody asked for long, and then for at most twice `PATIENCE_S`. On a wire that is silent or dead the last state is
        returned again: its age is for the caller to judge.
        """
        now = time.monotonic()
        if self._paused or now - self._asked > PATIENCE_S:
            self._catch_up()
            now = time.monotonic()
        self._asked = now
        with contextlib.suppress(OSError):  # nothing more there, or the wire is dead
            self._received += self._socket.recv(_READ_BYTES)
        for kind, payload in self._packages():
            if kind == _DATA and payload[:1] == self._recipe:
                self._state = payload[1:]
        return self._state

    def _packages(self) -> Iterator[tuple[int, bytes]]:
        """Take whole packages off what was received, one by one: type and payload."""
        received = self._received
        while len(received) >= _HEADER:
            size = received[0] << 8 | received[1]
            if size < _HEADER:  # nonsense: what follows cannot be understood, and the silence is noticed
                self._socket.close()
                received.clear()
            elif len(received) < size:
                return
            else:
                package = bytes(received[:size])
                del received[:size]
                yield package[2], package[_HEADER:]

    def close(self) -> None:
        """Let go of the connection; harmless twice."""
        self._socket.close()
