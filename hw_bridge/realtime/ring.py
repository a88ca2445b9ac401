"""Rows of one size on their way from one process to another, in order, without a lock."""

from __future__ import annotations

import struct
from typing import Self

import numpy as np

from hw_bridge.realtime.segment import Segment
from robots.errors import ConfigurationError

_SIZES = struct.Struct("<QQ")
"""Size of a row and number of rows, at the start of the segment."""
_PUSHED, _DROPPED, _TAKEN, _ROWS = 64, 72, 128, 192
"""Where the counts stand, each on a cache line of the process that writes it, and where the rows begin."""


class Ring:
    """One process pushes, one takes. A full ring never waits: the row is dropped and counted.

    Relies on other processors seeing this one's writes in their order, as x86-64 guarantees; on processors that do not (ARM), on
    the hundreds of instructions that the interpreter runs between a row and its count.
    """

    def __init__(self, segment: Segment, dtype: np.dtype) -> None:
        self._segment = segment
        self.dtype = np.dtype(dtype)
        memory = segment.memory
        size, self.rows = _SIZES.unpack_from(memory)
        self._pushed = memory[_PUSHED : _PUSHED + 8].cast("Q")
        self._dropped = memory[_DROPPED : _DROPPED + 8].cast("Q")
        self._taken = memory[_TAKEN : _TAKEN + 8].cast("Q")
        self._memory = memory[_ROWS : _ROWS + size * self.rows]
        self._places = tuple(slice(size * i, size * (i + 1)) for i in range(self.rows))
        self._table = np.frombuffer(self._memory, self.dtype)
        self._mask = self.rows - 1
        self._head = self._pushed[0]
        self._full_at = self._taken[0] + self.rows

    @classmethod
    def create(cls, name: str, dtype: np.dtype, rows: int) -> Self:
        """Make a ring of `rows` rows, a power of two; it vanishes when this process closes it, and soon after it was killed."""
        dtype = np.dtype(dtype)
        if rows < 2 or rows & (rows - 1):
            raise ConfigurationError(f"ring {name!r}: expected a power of two of rows, got {rows}")
        if dtype.hasobject or dtype.itemsize == 0:
            raise ConfigurationError(f"ring {name!r}: expected a dtype of plain numbers or bytes, got {dtype}")
        segment = Segment.create(name, _ROWS + dtype.itemsize * rows)
        _SIZES.pack_into(segment.memory, 0, dtype.itemsize, rows)
        return cls(segment, dtype)

    @classmethod
    def attach(cls, name: str, dtype: np.dtype) -> Self:
        """Open the ring that another process made. HardwareError if there is none, ConfigurationError if its rows are others."""
        segment = Segment.attach(name)
        size = _SIZES.unpack_from(segment.memory)[0]
        if size != np.dtype(dtype).itemsize:
            segment.close()
            raise ConfigurationError(f"ring {name!r} holds rows of {size} bytes, expected {np.dtype(dtype).itemsize}: the processes run "
                                     "different versions or were told different arms")
        return cls(segment, dtype)

    @property
    def name(self) -> str:
        """The name that others attach to."""
        return self._segment.name

    @property
    def pushed(self) -> int:
        """Rows that found room so far."""
        return self._pushed[0]

    @property
    def dropped(self) -> int:
        """Rows that found none."""
        return self._dropped[0]

    def push(self, row: bytes | bytearray | memoryview) -> bool:
        """Add one row of exactly the dtype's size, or count it as dropped and return False."""
        head = self._head
        if head >= self._full_at and not self._has_room():
            return False
        self._memory[self._places[head & self._mask]] = row
        self._head = head + 1
        self._pushed[0] = head + 1
        return True

    def take(self, most: int | None = None) -> np.ndarray:
        """Return the rows (n,) that were pushed and not yet taken, oldest first, at most so many; a copy."""
        first, end = self._taken[0], self._pushed[0]
        if most is not None:
            end = min(end, first + most)
        start, count = first & self._mask, end - first
        rows = self._table[start : start + count].copy()
        if len(rows) < count:
            rows = np.concatenate([rows, self._table[: count - len(rows)]])
        self._taken[0] = end
        return rows

    def close(self) -> None:
        """Let go of the ring; it vanishes where this process made it. Harmless twice."""
        self._table = np.zeros(0, self.dtype)
        for view in (self._memory, self._pushed, self._dropped, self._taken):
            view.release()
        self._segment.close()

    def _has_room(self) -> bool:
        """Look again how far the taker is; a row for which there is no room is counted."""
        self._full_at = self._taken[0] + self.rows
        if self._head < self._full_at:
            return True
        self._dropped[0] += 1
        return False
