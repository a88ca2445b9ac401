"""What a camera's process tells: its newest picture, and how it goes; one board each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STATUS_DTYPE = np.dtype([("width", "<u4"), ("height", "<u4"), ("stated_rate", "<f8"), ("rate", "<f8"), ("pictures", "<u8"),
                         ("missing", "<u8"), ("logged", "<u8"), ("unlogged", "<u8"), ("bytes", "<u8"), ("ended", "u1"), ("failed", "u1"),
                         ("spare", "u1", (6,)), ("clock", "S96"), ("words", "S240")])
"""As `CameraStatus`."""


def picture_dtype(width: int, height: int) -> np.dtype:
    """Return the dtype of a picture; the board's own stamp is when it was captured."""
    return np.dtype([("received_ns", "<i8"), ("sequence", "<u8"), ("image", "u1", (height, width, 3))])


def board_names(bridge: str, camera: str) -> tuple[str, str]:
    """Return the names of a camera's boards: its pictures', its status's."""
    return f"{bridge}.camera-{camera}.picture", f"{bridge}.camera-{camera}.status"


@dataclass(frozen=True)
class CameraStatus:
    """How a camera goes."""

    width: int
    height: int
    stated_rate: float
    """Pictures a second that the camera states; 0: it states none."""
    rate: float
    """Pictures a second that came lately."""
    pictures: int
    """That came."""
    missing: int
    """That did not come, at the stated rate or by the camera's own numbers."""
    logged: int
    """That are on the disk."""
    unlogged: int
    """That came and are in no log: the disk or this computer was too slow for them."""
    bytes: int
    """Size of the log on the disk; 0: there is none."""
    ended: bool
    """Whether no picture will come any more."""
    failed: bool
    """Whether it ended because it failed, and not at the end of a file."""
    clock: str
    """What `captured_ns` is."""
    words: str
    """What is wrong, or why it ended; empty while all is well."""

    def line(self) -> str:
        """Return it in a few words."""
        told = [f"{self.rate:.1f}/s"]
        told += [f"{count} {what}" for count, what in ((self.missing, "missing"), (self.unlogged, "not logged")) if count]
        return " ".join([*told, *([f"({self.words})"] if self.words else [])])


def told_status(value: np.ndarray) -> CameraStatus:
    """Return what a record () of STATUS_DTYPE says."""
    fields = {name: value[name].item() for name in STATUS_DTYPE.names if name != "spare"}
    return CameraStatus(**{name: entry.decode(errors="replace") if isinstance(entry, bytes) else entry for name, entry in fields.items()}
                        | {name: bool(fields[name]) for name in ("ended", "failed")})
