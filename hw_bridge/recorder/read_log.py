"""A log read back, whole or cut off: every whole chunk counts, and what is missing is said."""

from __future__ import annotations

import io
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Metadata
from mcap.stream_reader import get_chunk_data_stream

from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import EVENT_DTYPE, servo_dtype
from hw_bridge.recorder.mcap_file import EVENTS_TOPIC, MESSAGE, RECORD, mapped, read_event, whole_records
from hw_bridge.recorder.mcap_log import METADATA, ROWS_TOPIC
from robots.errors import StoreError


@dataclass(frozen=True)
class Log:
    """What a log holds."""

    header: LogHeader
    rows: np.ndarray
    """(n,) of `servo_dtype(nv)`, in the order in which they were pushed."""
    events: np.ndarray
    """(m,) of EVENT_DTYPE."""
    complete: bool
    """Whether the log was finished."""
    damage: tuple[str, ...]
    """What could not be read, in words."""


def read_log(path: Path) -> Log:
    """Return a log, finished or cut off anywhere. StoreError where it is no log or lacks its header, VersionError for another version's."""
    path = Path(path)
    with mapped(path, "a log made by `reflexarc deploy` or `reflexarc record`") as data:
        return _LogReader(path, data).read()


class _LogReader:
    """One pass over the records of a file."""

    def __init__(self, path: Path, data: mmap) -> None:
        self.path, self.data = path, data
        self.header: LogHeader | None = None
        self.message = np.dtype([])
        self.rows: list[np.ndarray] = []
        self.events: list[np.ndarray] = []
        self.channels: dict[int, str] = {}
        self.damage: list[str] = []
        self.complete = False

    def read(self) -> Log:
        for opcode, start, end in whole_records(self.data, self.path, self.damage):
            self._record(opcode, self.data[start:end], start - RECORD.size)
            if self.complete:
                break
        if self.header is None:
            raise StoreError(f"{self.path}: has no header of this software; it is another kind of MCAP file, or was cut off as it began")
        rows = np.concatenate([np.zeros(0, servo_dtype(self.header.nv)), *self.rows])
        events = np.concatenate([np.zeros(0, EVENT_DTYPE), *self.events])
        return Log(self.header, rows, events, self.complete, tuple(self.damage))

    def _record(self, opcode: int, content: bytes, position: int) -> None:
        if opcode == Opcode.METADATA:
            metadata = Metadata.read(_stream(content))
            if metadata.name == METADATA:
                self.header = LogHeader.from_text(metadata.metadata["header"])
                self.message = np.dtype([("opcode", "u1"), ("length", "<u8"), ("channel", "<u2"), ("sequence", "<u4"), ("log_time", "<u8"),
                                         ("publish_time", "<u8"), ("encapsulation", "V4"), ("row", servo_dtype(self.header.nv))])
        elif opcode == Opcode.CHUNK and self.header is not None:
            try:
                stream, length = get_chunk_data_stream(Chunk.read(_stream(content)), validate_crc=True)
                self._chunk(stream.read(length))
            except Exception as error:  # whatever a decompressor makes of damaged bytes
                self.damage.append(f"the chunk at byte {position} is damaged ({type(error).__name__}: {error}): its rows are lost")
        elif opcode == Opcode.FOOTER:
            self.complete = True

    def _chunk(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            opcode, length = RECORD.unpack_from(data, position)
            start = position + RECORD.size
            if opcode == Opcode.CHANNEL:
                channel = Channel.read(_stream(data[start : start + length]))
                self.channels[channel.id] = channel.topic
            elif opcode == Opcode.MESSAGE:
                number = MESSAGE.unpack_from(data, start)[0]
                if self.channels.get(number) == ROWS_TOPIC:
                    position += self._run_of_rows(data, position, number)
                    continue
                if self.channels.get(number) == EVENTS_TOPIC:
                    self.events.append(read_event(data[start + MESSAGE.size : start + length]))
            position = start + length

    def _run_of_rows(self, data: bytes, position: int, channel: int) -> int:
        """Take the rows that follow one another from `position` on; return their bytes."""
        size = self.message.itemsize
        records = np.frombuffer(data, self.message, (len(data) - position) // size, position)
        row = (records["opcode"] == Opcode.MESSAGE) & (records["length"] == size - RECORD.size) & (records["channel"] == channel)
        count = len(row) if row.all() else int(row.argmin())
        if count == 0:
            raise ValueError(f"a row of {RECORD.unpack_from(data, position)[1]} bytes, expected {size - RECORD.size}")
        self.rows.append(records["row"][:count].copy())
        return count * size


def _stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))
