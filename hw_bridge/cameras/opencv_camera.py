"""Cameras of this computer (V4L2: USB cameras, CSI cameras with a driver) through OpenCV."""

from __future__ import annotations

import math
import time

from robots.errors import ConfigurationError, HardwareError, MissingExtraError
from robots.observation import CameraFrame

EXTRA = "cameras"
KERNEL_CLOCK = "the kernel's own stamp as the picture's buffer was filled (V4L2, monotonic)"
GRAB_CLOCK = "when grab() returned: late by the exposure, the transfer and the queue"
BELIEVED_S = 1.0
"""A kernel's stamp is believed up to this age [s]: an older one, or one in the future, is of another clock."""
GAP = 1.5
"""Pictures are missing where a gap is longer than so many of the stated periods."""


class OpenCvCamera:
    """A camera that OpenCV can open. Pictures that are missing at the stated rate are counted in `CameraFrame.sequence`; a camera that
    slows down in poor light counts as missing pictures.
    """

    def __init__(self, source: str, width: int = 0, height: int = 0, rate: float = 0.0, backend: int | None = None) -> None:
        """`source`: a device, as /dev/video0; 0 for a size or rate: the device's own. `backend`: OpenCV's number of its way
        in, None: V4L2. A size or rate that the device does not take is refused.
        """
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("a camera of this computer", EXTRA) from error
        self._cv2, self.source = cv2, source
        self._capture = cv2.VideoCapture(source, cv2.CAP_V4L2 if backend is None else backend)
        try:
            self._open(width, height, rate)
        except BaseException:
            self.close()
            raise

    def _open(self, width: int, height: int, rate: float) -> None:
        cv2, capture = self._cv2, self._capture
        if not capture.isOpened():
            raise HardwareError(f"camera {self.source}: cannot be opened; is it plugged in, does this user belong to the group 'video', "
                                "does another program use it? v4l2-ctl --list-devices shows what there is")
        wanted = {cv2.CAP_PROP_FRAME_WIDTH: width, cv2.CAP_PROP_FRAME_HEIGHT: height, cv2.CAP_PROP_FPS: rate}
        for name, value in wanted.items():
            if value:
                capture.set(name, value)
        got = {name: capture.get(name) for name in wanted}
        if any(value and not math.isclose(got[name], value, rel_tol=0.01) for name, value in wanted.items()):
            raise ConfigurationError(f"camera {self.source}: gives {_words(got.values())} where {_words(wanted.values())} was asked for; "
                                     f"v4l2-ctl --list-formats-ext -d {self.source} shows what it can (0: its own)")
        self.width, self.height = int(got[cv2.CAP_PROP_FRAME_WIDTH]), int(got[cv2.CAP_PROP_FRAME_HEIGHT])
        if self.width < 1 or self.height < 1:
            raise HardwareError(f"camera {self.source}: states a size of {self.width} x {self.height}; it is no camera for pictures")
        stated = got[cv2.CAP_PROP_FPS]
        self.rate = stated if math.isfinite(stated) and stated > 0 else 0.0
        self.clock = KERNEL_CLOCK if capture.getBackendName() == "V4L2" else GRAB_CLOCK
        self._sequence, self._last_ns = -1, 0

    def read(self) -> CameraFrame | None:
        if not self._capture.grab():
            raise HardwareError(f"camera {self.source}: gives no picture any more; was it unplugged?")
        received_ns = time.monotonic_ns()
        captured_ns = self._captured_ns(received_ns)
        taken, picture = self._capture.retrieve()
        if not taken or picture.shape != (self.height, self.width, 3):
            raise HardwareError(f"camera {self.source}: gave a picture that is none, or not of {self.width} x {self.height}")
        self._sequence += 1 + missing(captured_ns - self._last_ns, self.rate, self._sequence < 0)
        self._last_ns = captured_ns
        return CameraFrame(self._cv2.cvtColor(picture, self._cv2.COLOR_BGR2RGB), captured_ns, received_ns, self._sequence)

    def _captured_ns(self, received_ns: int) -> int:
        """Return the kernel's stamp of what was grabbed; `received_ns`, from then on, where it is no stamp of the monotonic clock."""
        if self.clock == KERNEL_CLOCK:
            stamp_ns = round(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6)
            if 0 <= received_ns - stamp_ns <= BELIEVED_S * 1e9:
                return stamp_ns
            self.clock = GRAB_CLOCK
        return received_ns

    def close(self) -> None:
        self._capture.release()


def missing(gap_ns: int, rate: float, first: bool = False) -> int:
    """Return how many pictures are missing in a gap of `gap_ns` at `rate` [1/s]; none where no rate is stated, or before the `first`."""
    periods = gap_ns * 1e-9 * rate
    return 0 if first or periods <= GAP else round(periods) - 1


def _words(values: object) -> str:
    width, height, rate = values
    return f"{width:g} x {height:g} at {rate:g}/s"
