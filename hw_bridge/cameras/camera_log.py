"""A camera's log: MCAP beside the arm's log, each picture compressed by itself, on the same monotonic clock.

Pictures are Foxglove's CompressedImage as ROS 2 has it (topic /camera/NAME, publish time: captured, log time: received), events are as
in the arm's log. Chunks are not compressed again, so that a reader finds every picture by its place in the file.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import imageio.v3 as iio
import numpy as np
from mcap.writer import CompressionType

from episodes.metadata import software_version
from hw_bridge.recorder.header import now_text, wall_offset_ns
from hw_bridge.recorder.mcap_file import CDR_LITTLE_ENDIAN, McapFile
from robots.errors import StoreError, VersionError
from robots.observation import CameraFrame

VERSION = 1
"""Of the format."""
METADATA = "reflexarc-camera"
"""Name of the MCAP metadata record that holds the header."""
JPEG_QUALITY = 90
_INFIX = ".camera-"
_SCHEMA = """builtin_interfaces/Time timestamp
string frame_id
uint8[] data
string format
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
_STAMP = struct.Struct("<iII")
_LENGTH = struct.Struct("<I")


def camera_log_path(log: Path, camera: str) -> Path:
    """Return where the pictures go that belong to the arm's `log`: LOG.camera-NAME.mcap."""
    return log.with_name(f"{log.stem}{_INFIX}{camera}.mcap")


def is_camera_log(path: Path) -> bool:
    """Return whether `path` is named as a camera's log."""
    return _INFIX in path.name


@dataclass(frozen=True)
class CameraHeader:
    """Whose pictures they are, and how they were stamped."""

    name: str
    source: str
    width: int
    height: int
    rate: float
    """Pictures a second that the camera states; 0: none."""
    clock: str
    """What the time of capture is."""
    format: str
    """jpeg or png."""
    software_version: str = field(default_factory=software_version)
    created_at: str = field(default_factory=now_text)
    """Wall-clock time, ISO 8601 in UTC."""
    wall_offset_ns: int = field(default_factory=wall_offset_ns)
    """Wall clock minus the host's monotonic clock at the start [ns]; the file's own times are monotonic plus this."""
    version: int = VERSION

    def to_text(self) -> str:
        """Return it as JSON on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what `to_text` wrote. VersionError if another version wrote it, StoreError if it is none."""
        try:
            values = json.loads(text)
            if values["version"] != VERSION:
                raise VersionError(f"the camera log's format is version {values['version']}, this software reads version {VERSION}")
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the camera log's header cannot be read: {error}") from error


class CameraLog(McapFile):
    """The log of one camera, while it is written."""

    def __init__(self, path: Path, header: CameraHeader) -> None:
        """Make the file with its header. StoreError where it cannot be made, or exists already."""
        super().__init__(path, header.software_version, header.wall_offset_ns, CompressionType.NONE)
        self.header = header
        self._writer.add_metadata(METADATA, {"header": header.to_text()})
        schema = self._writer.register_schema("foxglove_msgs/msg/CompressedImage", "ros2msg", _SCHEMA.encode())
        self._pictures = self._writer.register_channel(f"/camera/{header.name}", "cdr", schema)
        self._begin()

    def add_picture(self, frame: CameraFrame) -> None:
        """Compress a picture and add it."""
        captured, received = (stamp + self.wall_offset_ns for stamp in (frame.captured_ns, frame.received_ns))
        message = to_message(captured, self.header.name, compressed(frame.image, self.header.format), self.header.format)
        self._writer.add_message(self._pictures, received, message, captured, frame.sequence & 0xFFFFFFFF)


def compressed(image: np.ndarray, form: str) -> bytes:
    """Return a picture (height, width, 3) as a JPEG or PNG file."""
    options = {"quality": JPEG_QUALITY} if form == "jpeg" else {"compress_level": 1}
    return iio.imwrite("<bytes>", image, plugin="pillow", extension=f".{form}", **options)


def to_message(stamp_ns: int, frame_id: str, data: bytes, form: str) -> bytes:
    """Return a foxglove_msgs/CompressedImage in CDR."""
    name = frame_id.encode() + b"\0"
    head = _padded(_STAMP.pack(stamp_ns // 10**9, stamp_ns % 10**9, len(name)) + name)
    tail = form.encode() + b"\0"
    return b"".join((CDR_LITTLE_ENDIAN, head, _padded(_LENGTH.pack(len(data)) + data), _LENGTH.pack(len(tail)), tail))


def picture_place(message: bytes) -> tuple[int, int]:
    """Return where in a message that `to_message` made the picture's bytes begin and end; ValueError where it is none."""
    start = len(CDR_LITTLE_ENDIAN) + _STAMP.size
    if message[: len(CDR_LITTLE_ENDIAN)] != CDR_LITTLE_ENDIAN or len(message) < start:
        raise ValueError("no little-endian CDR message")
    name = _STAMP.unpack_from(message, len(CDR_LITTLE_ENDIAN))[2]
    at = start + name + -name % 4
    if len(message) < at + _LENGTH.size or len(message) < at + _LENGTH.size + _LENGTH.unpack_from(message, at)[0]:
        raise ValueError("a message that is too short for its picture")
    return at + _LENGTH.size, at + _LENGTH.size + _LENGTH.unpack_from(message, at)[0]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
