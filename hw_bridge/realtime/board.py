"""The newest value of one writer, for many readers in other processes, without a lock."""

from __future__ import annotations

import struct
import time
import zlib
from typing import NamedTuple, Self

import numpy as np

from hw_bridge.realtime.segment import Segment
from robots.errors import ConfigurationError

_BOARD = struct.Struct("<QQ")
"""Count of the newest value, and the size of a value; then two slots."""
_SLOT = struct.Struct("<IIQq")
"""CRC32 of all that follows in the slot, nothing, count, stamp; then the value."""
_CHECKED = 8
ATTEMPTS = 16
"""Reads that may be torn before the last good value is returned again."""


class Reading(NamedTuple):
    """What a reader found."""

    value: np.ndarray | None
    """() of the board's dtype, a copy; None if nothing was ever written."""
    stamp_ns: int
    """When it was written, on the host's monotonic clock [ns]; 0 if never."""
    count: int
    """How many values were written; 0 if none."""


class Board:
    """One process creates it, one process writes, any number read; each of them opens it by name with the same dtype.

    A value is written into the slot that is not the newest, with its CRC, and only then named as the newest. A reader that was
    overtaken sees another count or a wrong CRC and reads again; a writer that is killed half way leaves the value before in place.
    """

    def __init__(self, segment: Segment, dtype: np.dtype) -> None:
        self._segment = segment
        self.dtype = np.dtype(dtype)
        self._stride = _slot_size(self.dtype)
        self._newest = segment.memory[:8].cast("Q")
        self._slots = tuple(segment.memory[start : start + _SLOT.size + self.dtype.itemsize]
                            for start in (_BOARD.size, _BOARD.size + self._stride))
        self._staging = bytearray(_SLOT.size + self.dtype.itemsize)
        self._checked = memoryview(self._staging)[_CHECKED:]
        self.record = np.frombuffer(self._staging, self.dtype, 1, _SLOT.size).reshape(())
        """() of the board's dtype: the writer fills it (`board.record["q"][:] = q`), then calls `publish`."""
        self._last = Reading(None, 0, 0)

    @classmethod
    def create(cls, name: str, dtype: np.dtype) -> Self:
        """Make the board; it vanishes when this process closes it, and soon after it was killed."""
        dtype = np.dtype(dtype)
        if dtype.hasobject or dtype.itemsize == 0:
            raise ConfigurationError(f"board {name!r}: expected a dtype of plain numbers or bytes, got {dtype}")
        segment = Segment.create(name, _BOARD.size + 2 * _slot_size(dtype))
        _BOARD.pack_into(segment.memory, 0, 0, dtype.itemsize)
        return cls(segment, dtype)

    @classmethod
    def attach(cls, name: str, dtype: np.dtype) -> Self:
        """Open the board that another process made. HardwareError if there is none, ConfigurationError if its values are others."""
        segment = Segment.attach(name)
        size = _BOARD.unpack_from(segment.memory)[1]
        if size != np.dtype(dtype).itemsize:
            segment.close()
            raise ConfigurationError(f"board {name!r} holds values of {size} bytes, expected {np.dtype(dtype).itemsize}: the processes "
                                     "run different versions or were told different arms")
        return cls(segment, dtype)

    @property
    def name(self) -> str:
        """The name that others attach to."""
        return self._segment.name

    def publish(self, stamp_ns: int | None = None) -> None:
        """Make `record` the newest value, stamped with now or with `stamp_ns` [ns]."""
        count = self._newest[0] + 1
        _SLOT.pack_into(self._staging, 0, 0, 0, count, time.monotonic_ns() if stamp_ns is None else stamp_ns)
        self._staging[:4] = zlib.crc32(self._checked).to_bytes(4, "little")
        self._slots[count & 1][:] = self._staging
        self._newest[0] = count

    def write(self, value: np.ndarray, stamp_ns: int | None = None) -> None:
        """Make `value`, () of the board's dtype, the newest one."""
        self.record[()] = value
        self.publish(stamp_ns)

    def read(self) -> Reading:
        """Return the newest value; never waits. Where every attempt was overtaken, the value that was read last is returned again."""
        for _ in range(ATTEMPTS):
            newest = self._newest[0]
            if newest == self._last.count:
                break
            slot = bytearray(self._slots[newest & 1])
            crc, _, count, stamp_ns = _SLOT.unpack_from(slot)
            if count == newest and crc == zlib.crc32(memoryview(slot)[_CHECKED:]):
                self._last = Reading(np.frombuffer(slot, self.dtype, 1, _SLOT.size).reshape(()), stamp_ns, count)
                break
        return self._last

    def close(self) -> None:
        """Let go of the board; it vanishes where this process made it. Harmless twice."""
        self._newest.release()
        for slot in self._slots:
            slot.release()
        self._segment.close()


def _slot_size(dtype: np.dtype) -> int:
    return -(-(_SLOT.size + dtype.itemsize) // 64) * 64
