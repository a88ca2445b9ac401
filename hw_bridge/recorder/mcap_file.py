"""An MCAP file that grows: written in whole chunks that are on the disk before they count, read back as far as it goes."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from hw_bridge.recorder.log_row import EVENT_DTYPE, cut
from robots.errors import StoreError

EVENTS_TOPIC = "/events"
CDR_LITTLE_ENDIAN = b"\x00\x01\x00\x00"
"""What every CDR message begins with."""
RECORD = struct.Struct("<BQ")
"""Opcode and length, before the content of every record."""
MESSAGE = struct.Struct("<HIQQ")
"""Channel, sequence, log time, publish time, before a message's data."""
_EVENT_SCHEMA = {
    "title": "foxglove.Log", "type": "object",
    "properties": {
        "timestamp": {"type": "object", "title": "time", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}},
        "level": {"type": "integer"}, "message": {"type": "string"}, "name": {"type": "string"}, "file": {"type": "string"},
        "line": {"type": "integer"}, "tick": {"type": "integer"}, "stamp_ns": {"type": "integer"},
    },
}


class _Pending:
    """What the MCAP library has written and the disk has not."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.stored = 0

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def tell(self) -> int:
        return self.stored + len(self.data)

    def flush(self) -> None:
        """Nothing: `McapFile.flush` decides when."""


class McapFile:
    """A file that is being written. After `flush` has returned, all that was added is on the disk, whatever happens next.

    Those who derive from it register their channels at `_writer`, then call `_begin`.
    """

    def __init__(self, path: Path, software_version: str, wall_offset_ns: int, compression: CompressionType) -> None:
        """Make the file. StoreError where it cannot be made, or exists already. `wall_offset_ns`: from monotonic times to the file's."""
        self.path, self.wall_offset_ns = Path(path), wall_offset_ns
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            if self.path.exists():
                raise StoreError(f"{self.path}: exists already; a log is never written over. Take another name") from error
            raise StoreError(f"{self.path}: the log cannot be made ({error.strerror})") from error
        self._pending = _Pending()
        self._writer = Writer(self._pending, compression=compression, chunk_size=1 << 30)
        self._writer.start(library=f"reflexarc {software_version}")

    def _begin(self) -> None:
        """Register the events and put the beginning on the disk; where that fails, StoreError, and no file is left."""
        event = self._writer.register_schema("foxglove.Log", "jsonschema", json.dumps(_EVENT_SCHEMA).encode())
        self._events = self._writer.register_channel(EVENTS_TOPIC, "json", event)
        try:
            self.flush()
            _sync_folder(self.path.parent)
        except StoreError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    @property
    def size(self) -> int:
        """Bytes that are on the disk."""
        return self._pending.stored

    def add_events(self, events: np.ndarray) -> None:
        """Add events (n,) of EVENT_DTYPE."""
        for event in events:
            stamp = int(event["stamp_ns"]) + self.wall_offset_ns
            message = {"timestamp": {"sec": stamp // 10**9, "nsec": stamp % 10**9}, "level": int(event["level"]),
                       "message": event["text"].decode(errors="replace"), "name": event["kind"].decode(errors="replace"), "file": "",
                       "line": 0, "tick": int(event["tick"]), "stamp_ns": int(event["stamp_ns"])}
            self._writer.add_message(self._events, stamp, json.dumps(message).encode(), stamp)

    def flush(self) -> None:
        """Put all that was added on the disk, as one chunk. StoreError where there is no room or the disk fails: what was added is
        kept in memory for the next `flush`, and the file ends with the last whole chunk."""
        self._writer.flush()
        self._store()

    def finish(self) -> None:
        """Write the index and the footer. StoreError as `flush`; the file then lacks them, and is readable without."""
        self._writer.finish()
        self._store()

    def close(self) -> None:
        """Close the file as it is; harmless twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _store(self) -> None:
        pending, written = memoryview(self._pending.data), 0
        try:
            while written < len(pending):
                written += os.pwrite(self._file, pending[written:], self._pending.stored + written)
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._pending.stored)
            raise StoreError(f"{self.path}: {error.strerror}; the log ends at {self._pending.stored} bytes until there is room") from error
        finally:
            pending.release()
        self._pending.stored += written
        self._pending.data.clear()


@contextmanager
def mapped(path: Path, expected: str) -> Iterator[mmap]:
    """A context with the content of a file in memory as it is read; StoreError, which says what was `expected`, where it cannot be."""
    try:
        with path.open("rb") as file:
            data = mmap(file.fileno(), 0, access=ACCESS_READ)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); expected {expected}") from error
    with data:
        yield data


def whole_records(data: mmap, path: Path, damage: list[str]) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, start and end of the content of every record of a file, up to where writing was cut off: that is said in `damage`.

    StoreError where `data`, the content of `path`, is no MCAP file.
    """
    if data[: len(MCAP0_MAGIC)] != MCAP0_MAGIC:
        raise StoreError(f"{path}: is no MCAP file; expected a log made by `reflexarc deploy` or `reflexarc record`")
    position, end = len(MCAP0_MAGIC), len(data)
    while position < end:
        start = position + RECORD.size
        opcode, length = RECORD.unpack_from(data, position) if start <= end else (0, end)
        if start + length > end:
            damage.append(f"the last {end - position} bytes are no whole record: writing was cut off")
            return
        yield opcode, start, start + length
        position = start + length


def read_event(content: bytes) -> np.ndarray:
    """Return the event (1,) of EVENT_DTYPE that `McapFile.add_events` made this message of."""
    message = json.loads(content)
    event = np.zeros(1, EVENT_DTYPE)
    event["stamp_ns"], event["tick"], event["level"] = message["stamp_ns"], message["tick"], message["level"]
    event["kind"], event["text"] = cut(message["name"], 23), cut(message["message"], EVENT_DTYPE["text"].itemsize)
    return event


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
