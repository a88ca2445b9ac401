"""Cameras that play files: a video, or a folder of pictures."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np

from robots.errors import ConfigurationError, HardwareError
from robots.observation import CameraFrame

PICTURES = (".png", ".jpg", ".jpeg")
FOLDER_RATE = 30.0
"""Pictures a second of a folder where nobody says another [1/s]."""


class FileCamera(ABC):
    """A file's pictures at its own pace or another's, all of them: what is read late is played late, nothing is skipped."""

    clock = "when it was played"

    def __init__(self, path: Path, rate: float | None, loop: bool) -> None:
        """`rate`: pictures a second, None: the file's own, inf: as fast as they are read; `loop`: begin again at the end."""
        if rate is not None and not rate > 0:
            raise ConfigurationError(f"{path}: expected a rate above 0 pictures a second, got {rate}")
        self.path, self._loop = Path(path), loop
        self._pictures = self._endless()
        self._first: np.ndarray | None = self._next()
        if self._first is None:
            raise ConfigurationError(f"{path}: holds no picture")
        self.height, self.width = self._first.shape[:2]
        self._pace = self._own_rate() if rate is None else rate
        self.rate = self._pace if math.isfinite(self._pace) else 0.0
        self._sequence, self._began = -1, 0.0

    @abstractmethod
    def _play(self) -> Iterator[np.ndarray]:
        """Yield the file's pictures (height, width, 3) uint8 once, in their order. ConfigurationError where one cannot be read."""

    @abstractmethod
    def _own_rate(self) -> float:
        """Return the file's own pictures a second."""

    def _endless(self) -> Iterator[np.ndarray]:
        picture = None
        for picture in self._play():
            yield picture
        while self._loop and picture is not None:
            yield from self._play()

    def _next(self) -> np.ndarray | None:
        return next(self._pictures, None)

    def read(self) -> CameraFrame | None:
        image, self._first = (self._next() if self._first is None else self._first), None
        if image is None:
            return None
        if image.shape != (self.height, self.width, 3):
            raise HardwareError(f"{self.path}: a picture of {image.shape[1]} x {image.shape[0]} after others of {self.width} x "
                                f"{self.height}; all must be of one size")
        self._sequence += 1
        if self._sequence == 0:
            self._began = time.monotonic()
        while (early := self._began + self._sequence / self._pace - time.monotonic()) > 0:
            time.sleep(early)
        now_ns = time.monotonic_ns()
        return CameraFrame(image, now_ns, now_ns, self._sequence)

    def close(self) -> None:
        self._pictures = iter(())


class VideoFile(FileCamera):
    """A video file, read with PyAV."""

    def _play(self) -> Iterator[np.ndarray]:
        try:
            with av.open(str(self.path)) as container:
                for frame in container.decode(self._stream(container)):
                    yield frame.to_ndarray(format="rgb24")
        except (OSError, ValueError, av.FFmpegError) as error:
            raise ConfigurationError(f"{self.path}: cannot be played: {error}; expected a video file") from error

    def _own_rate(self) -> float:
        with av.open(str(self.path)) as container:
            return float(self._stream(container).average_rate or FOLDER_RATE)

    def _stream(self, container: av.container.InputContainer) -> av.video.VideoStream:
        if not container.streams.video:
            raise ConfigurationError(f"{self.path}: holds no video")
        return container.streams.video[0]


class PictureFolder(FileCamera):
    """The PNG and JPEG pictures of a folder, in the order of their names."""

    def _play(self) -> Iterator[np.ndarray]:
        for path in sorted(p for p in self.path.iterdir() if p.suffix.lower() in PICTURES):
            try:
                yield iio.imread(path, plugin="pillow", mode="RGB")
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"{path}: cannot be read: {error}; expected a PNG or JPEG picture") from error

    def _own_rate(self) -> float:
        return FOLDER_RATE
