"""The log's file: MCAP, written in whole chunks that are on the disk before they count.

Rows are CDR as ROS 2 has it (topic /servo, schema ros2msg), events are Foxglove's log messages in JSON (topic /events): Foxglove and
PlotJuggler open the file as it is. A row's bytes in memory are its CDR message; nothing is converted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mcap.writer import CompressionType

from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import servo_dtype
from hw_bridge.recorder.mcap_file import CDR_LITTLE_ENDIAN, McapFile

ROWS_TOPIC = "/servo"
METADATA = "reflexarc"
"""Name of the MCAP metadata record that holds the header."""
_ROS_TYPES = {"<u8": "uint64", "<i8": "int64", "<f8": "float64", "<u4": "uint32", "|u1": "uint8"}


def row_definition(nv: int) -> str:
    """Return the ROS 2 definition of a servo row's message."""
    lines = []
    for name, (dtype, _) in servo_dtype(nv).fields.items():
        base, shape = dtype.subdtype or (dtype, ())
        lines.append(f"{_ROS_TYPES[base.str]}{''.join(f'[{n}]' for n in shape)} {name}")
    return "\n".join(lines) + "\n"


class McapLog(McapFile):
    """The log of an arm: servo rows and events."""

    def __init__(self, path: Path, header: LogHeader) -> None:
        """Make the file with its header. StoreError where it cannot be made, or exists already."""
        super().__init__(path, header.software_version, header.wall_offset_ns, CompressionType.ZSTD)
        self.header = header
        self._writer.add_metadata(METADATA, {"header": header.to_text()})
        row = self._writer.register_schema("reflexarc_msgs/msg/ServoRow", "ros2msg", row_definition(header.nv).encode())
        self._rows = self._writer.register_channel(ROWS_TOPIC, "cdr", row)
        self._begin()

    def add_rows(self, rows: np.ndarray) -> None:
        """Add servo rows (n,), stamped with the moment they woke at."""
        data, size = rows.tobytes(), rows.dtype.itemsize
        stamps = (rows["wake_ns"] + self.wall_offset_ns).tolist()
        sequences = (rows["tick"] & 0xFFFFFFFF).tolist()
        for i, (stamp, sequence) in enumerate(zip(stamps, sequences, strict=True)):
            self._writer.add_message(self._rows, stamp, CDR_LITTLE_ENDIAN + data[size * i : size * (i + 1)], stamp, sequence)
