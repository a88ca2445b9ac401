"""The log's file: MCAP, written in whole chunks that are on the disk before they count.

Rows are CDR as ROS 2 has it (topic /servo, schema ros2msg), events are Foxglove's log messages in JSON (topic /events): Foxglove and
PlotJuggler open the file as it is. A row's bytes in memory are its CDR message; nothing is converted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from mcap.writer import CompressionType, Writer

from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import servo_dtype
from robots.errors import StoreError

ROWS_TOPIC, EVENTS_TOPIC = "/servo", "/events"
METADATA = "reflexarc"
"""Name of the MCAP metadata record that holds the header."""
CDR_LITTLE_ENDIAN = b"\x00\x01\x00\x00"
"""What every CDR message begins with."""
_ROS_TYPES = {"<u8": "uint64", "<i8": "int64", "<f8": "float64", "<u4": "uint32", "|u1": "uint8"}
_EVENT_SCHEMA = {
    "title": "foxglove.Log", "type": "object",
    "properties": {
        "timestamp": {"type": "object", "title": "time", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}},
        "level": {"type": "integer"}, "message": {"type": "string"}, "name": {"type": "string"}, "file": {"type": "string"},
        "line": {"type": "integer"}, "tick": {"type": "integer"}, "stamp_ns": {"type": "integer"},
    },
}


def row_definition(nv: int) -> str:
    """Return the ROS 2 definition of a servo row's message."""
    lines = []
    for name, (dtype, _) in servo_dtype(nv).fields.items():
        base, shape = dtype.subdtype or (dtype, ())
        lines.append(f"{_ROS_TYPES[base.str]}{''.join(f'[{n}]' for n in shape)} {name}")
    return "\n".join(lines) + "\n"


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
        """Nothing: `McapLog.flush` decides when."""


class McapLog:
    """A log that is being written. After `flush` has returned, all that was added is on the disk, whatever happens next."""

    def __init__(self, path: Path, header: LogHeader) -> None:
        """Make the file with its header. StoreError where it cannot be made, or exists already."""
        self.path, self.header = Path(path), header
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            if self.path.exists():
                raise StoreError(f"{self.path}: exists already; a log is never written over. Take another name") from error
            raise StoreError(f"{self.path}: the log cannot be made ({error.strerror})") from error
        self._pending = _Pending()
        self._writer = Writer(self._pending, compression=CompressionType.ZSTD, chunk_size=1 << 30)
        self._writer.start(library=f"reflexarc {header.software_version}")
        self._writer.add_metadata(METADATA, {"header": header.to_text()})
        row = self._writer.register_schema("reflexarc_msgs/msg/ServoRow", "ros2msg", row_definition(header.nv).encode())
        event = self._writer.register_schema("foxglove.Log", "jsonschema", json.dumps(_EVENT_SCHEMA).encode())
        self._rows = self._writer.register_channel(ROWS_TOPIC, "cdr", row)
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

    def add_rows(self, rows: np.ndarray) -> None:
        """Add servo rows (n,), stamped with the moment they woke at."""
        data, size = rows.tobytes(), rows.dtype.itemsize
        stamps = (rows["wake_ns"] + self.header.wall_offset_ns).tolist()
        sequences = (rows["tick"] & 0xFFFFFFFF).tolist()
        for i, (stamp, sequence) in enumerate(zip(stamps, sequences, strict=True)):
            self._writer.add_message(self._rows, stamp, CDR_LITTLE_ENDIAN + data[size * i : size * (i + 1)], stamp, sequence)

    def add_events(self, events: np.ndarray) -> None:
        """Add events (n,)."""
        for event in events:
            stamp = int(event["stamp_ns"]) + self.header.wall_offset_ns
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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
