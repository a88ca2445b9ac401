"""What the recorder's process tells the bridge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STATUS_DTYPE = np.dtype([("rows", "<u8"), ("events", "<u8"), ("bytes", "<u8"), ("flushed_ns", "<i8"), ("failures", "<u8"),
                         ("finished", "u1"), ("error", "S239")])
"""As `RecorderStatus`, on a board."""


@dataclass(frozen=True)
class RecorderStatus:
    """How the recording goes."""

    alive: bool
    """Whether the recorder's process runs."""
    rows: int
    """Servo rows on the disk."""
    events: int
    """Events on the disk."""
    bytes: int
    """Size of the file on the disk [byte]."""
    dropped: int
    """Rows and events that found no room in their rings: they are in no log."""
    flushed_ns: int
    """When everything was last on the disk, on the host's monotonic clock [ns]."""
    failures: int
    """Times that the disk took nothing."""
    error: str
    """Why the log is not being written, in words; empty while all is well."""
