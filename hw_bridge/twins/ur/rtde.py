"""RTDE, port 30004: the protocol's answers for one connection, and who may write which input."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hw_bridge.twins.ur.controller import Controller
from hw_bridge.twins.ur.variables import INPUTS, OUTPUTS, Recipe

PORT = 30004
VERSION, CONTROLLER_VERSION, TEXT, DATA, OUTPUT_SETUP, INPUT_SETUP, START, PAUSE = 86, 118, 77, 85, 79, 73, 83, 80
CYCLES_A_SECOND = 500


def message(kind: int, payload: bytes) -> bytes:
    """Return a package with its header."""
    return struct.pack(">HB", len(payload) + 3, kind) + payload


def messages(buffer: bytearray) -> Iterator[bytes]:
    """Take whole packages off the front of `buffer`; ValueError where a header makes no sense."""
    while len(buffer) >= 3:
        size = buffer[0] << 8 | buffer[1]
        if size < 3:
            raise ValueError(f"RTDE header with size {size}, expected 3 or more")
        if len(buffer) < size:
            return
        yield bytes(buffer[:size])
        del buffer[:size]


class RtdeSession:
    """One connection to port 30004. `owners` tells for every input variable which session writes it, and is shared by all."""

    def __init__(self, controller: Controller, firmware: tuple[int, int, int, int], owners: dict[str, RtdeSession]) -> None:
        self._controller, self._firmware, self._owners = controller, firmware, owners
        self._inputs: dict[int, Recipe] = {}
        self._output: Recipe | None = None
        self._every = 1
        self._started = False
        self.unknown = 0
        """Packages that made no sense."""

    def answer(self, package: bytes, host_now: float) -> bytes:
        """Act on one package and return what is sent back; empty where nothing is."""
        kind, payload = package[2], package[3:]
        if kind == DATA:
            self._receive(payload, host_now)
            return b""
        if kind == VERSION:
            return message(kind, bytes([payload == b"\x00\x02"]))
        if kind == CONTROLLER_VERSION:
            return message(kind, struct.pack(">4I", *self._firmware))
        if kind == OUTPUT_SETUP:
            return message(kind, self._set_outputs(payload))
        if kind == INPUT_SETUP:
            return message(kind, self._set_inputs(payload))
        if kind in (START, PAUSE):
            self._started = kind == START and self._output is not None
            return message(kind, bytes([kind == PAUSE or self._started]))
        self.unknown += 1
        return b""

    def data(self, cycle: int) -> bytes:
        """Return the data package of this cycle; empty where none is due."""
        if not self._started or cycle % self._every:
            return b""
        return message(DATA, b"\x01" + self._output.pack(self._controller.values))

    def close(self) -> None:
        """Let go of the inputs."""
        for name in [name for name, owner in self._owners.items() if owner is self]:
            del self._owners[name]

    def _receive(self, payload: bytes, host_now: float) -> None:
        recipe = self._inputs.get(payload[0]) if payload else None
        values = recipe.unpack(payload[1:]) if recipe else None
        if values is None:
            self.unknown += 1
        else:
            self._controller.receive(recipe.names, values, host_now)

    def _set_outputs(self, payload: bytes) -> bytes:
        (frequency,) = struct.unpack_from(">d", payload)
        names = _names(payload[8:])
        kinds = [OUTPUTS.get(name, "NOT_FOUND") for name in names]
        if "NOT_FOUND" in kinds:
            return b"\x00" + ",".join(kinds).encode()
        self._every = max(1, round(CYCLES_A_SECOND / frequency)) if frequency > 0 else 1
        self._output = Recipe(names, kinds)
        return b"\x01" + ",".join(kinds).encode()

    def _set_inputs(self, payload: bytes) -> bytes:
        names = _names(payload)
        kinds = ["IN_USE" if self._owners.get(name, self) is not self else INPUTS.get(name, "NOT_FOUND") for name in names]
        if "NOT_FOUND" in kinds or "IN_USE" in kinds:
            return b"\x00" + ",".join(kinds).encode()
        self._owners.update(dict.fromkeys(names, self))
        number = len(self._inputs) + 1
        self._inputs[number] = Recipe(names, kinds)
        return bytes([number]) + ",".join(kinds).encode()


def _names(text: bytes) -> list[str]:
    return [name for name in text.decode("ascii", "replace").split(",") if name]
