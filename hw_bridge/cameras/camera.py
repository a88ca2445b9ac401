"""The `Camera` protocol: something that takes pictures, one after the other."""

from __future__ import annotations

from typing import Protocol

from robots.observation import CameraFrame


class Camera(Protocol):
    """One open camera. It is opened by its construction: ConfigurationError for what cannot be, HardwareError where it does not answer."""

    width: int
    """Of every picture [pixel]."""
    height: int
    """Of every picture [pixel]."""
    rate: float
    """Pictures a second that it states; 0 where it states none."""
    clock: str
    """What `captured_ns` is, in words; it may change once the first pictures were seen."""

    def read(self) -> CameraFrame | None:
        """Wait for the next picture and return it, (height, width, 3) RGB, stamped on the host's monotonic clock; None where there will
        be none any more. Its number counts what was lost before it too. HardwareError where the camera fails.
        """
        ...

    def close(self) -> None:
        """Let go of it; harmless twice."""
        ...
