"""Which camera, as a person names it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from hw_bridge.cameras.camera import Camera
from hw_bridge.cameras.file_cameras import PictureFolder, VideoFile
from hw_bridge.cameras.opencv_camera import OpenCvCamera
from robots.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_FLAGS = {"true": True, "false": False}
FORMATS = ("jpeg", "png")


@dataclass(frozen=True)
class CameraSource:
    """A camera and what is asked of it. As text: NAME=SOURCE, then further entries, as in `wrist=/dev/video0,width=640,height=480`."""

    name: str
    """What it is called, by policies and in logs."""
    source: str
    """A device (/dev/video0, or its number), a video file, or a folder of PNG or JPEG pictures."""
    width: int = 0
    """[pixel]; 0: its own."""
    height: int = 0
    """[pixel]; 0: its own."""
    rate: float = 0.0
    """Pictures a second; 0: its own; inf: a file as fast as it can be read."""
    loop: bool = False
    """A file begins again at its end."""
    format: str = "jpeg"
    """Of the pictures in the log: jpeg (lossy), or png (exact, ten times the space and the work)."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"--camera: expected a name of letters, digits, '_' and '-' before '=', got {self.name!r}")
        if not self.source:
            raise ConfigurationError(f"--camera {self.name}=: expected a device, a video file or a folder after '='")
        if self.width < 0 or self.height < 0 or (self.width == 0) is not (self.height == 0):
            raise ConfigurationError(f"--camera {self.name}: expected a width and a height above 0, or neither, got {self.width} x "
                                     f"{self.height}")
        if not self.rate >= 0:
            raise ConfigurationError(f"--camera {self.name}: expected a rate above 0 (0: its own), got {self.rate}")
        if self.format not in FORMATS:
            raise ConfigurationError(f"--camera {self.name}: expected format={' or format='.join(FORMATS)}, got {self.format!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the camera that NAME=SOURCE,KEY=VALUE,... names."""
        first, *entries = text.split(",")
        name, equals, source = first.partition("=")
        if not equals:
            raise ConfigurationError(f"--camera: expected NAME=SOURCE, as in wrist=/dev/video0, got {text!r}")
        kinds = {field.name: type(field.default) for field in fields(cls)[2:]}
        further = {}
        for entry in entries:
            key, equals, value = entry.partition("=")
            if key not in kinds:
                raise ConfigurationError(f"--camera {name}: unknown entry {entry!r}; known: {', '.join(f'{k}=' for k in kinds)}")
            try:
                further[key] = _FLAGS[value] if kinds[key] is bool and equals else True if kinds[key] is bool else kinds[key](value)
            except (ValueError, KeyError) as error:
                raise ConfigurationError(f"--camera {name}: {key}={value!r} is no {kinds[key].__name__}") from error
        return cls(name, source, **further)

    def to_text(self) -> str:
        """Return what `parse` reads."""
        further = [f"{field.name}={str(value).lower()}" for field in fields(self)[2:]
                   if (value := getattr(self, field.name)) != field.default]
        return ",".join([f"{self.name}={self.source}", *further])

    @property
    def device(self) -> Path | None:
        """The device's file; None where it is a file or a folder that is played."""
        if self.source.isdecimal():
            return Path(f"/dev/video{self.source}")
        return Path(self.source) if self.source.startswith("/dev/") else None

    def check(self) -> None:
        """Raise ConfigurationError where there is no such device, file or folder, or it cannot do what is asked."""
        if self.device is not None:
            if not self.device.exists():
                there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
                raise ConfigurationError(f"camera {self.name}: there is no device {self.device}; there are: {there}")
        elif not Path(self.source).exists():
            raise ConfigurationError(f"camera {self.name}: there is nothing at {self.source}; expected a device (/dev/video0, or its "
                                     "number), a video file, or a folder of PNG or JPEG pictures")
        elif self.width:
            raise ConfigurationError(f"camera {self.name}: {self.source} is played in its own size; leave width and height out")

    def open(self) -> Camera:
        """Return the open camera. ConfigurationError for what is not there or cannot be, HardwareError for a device that fails."""
        self.check()
        if self.device is not None:
            return OpenCvCamera(str(self.device), self.width, self.height, self.rate)
        return (PictureFolder if Path(self.source).is_dir() else VideoFile)(Path(self.source), self.rate or None, self.loop)
