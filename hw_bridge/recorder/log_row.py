"""One row of the log a servo period, and one an event: what they hold, and how a loop writes them in a microsecond."""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

from hw_bridge.drivers.driver import VendorState
from hw_bridge.realtime.ring import Ring
from robots.command import CommandMode

MODE_CODES = {mode: code for code, mode in enumerate(CommandMode)}
"""What a command mode is called in a row."""
NO_MODE = 255
"""The mode of what was not there: no action was heard, nothing was written."""
VENDOR_CODES = {state: code for code, state in enumerate(VendorState)}
"""What the vendor's state is called in a row."""

VECTORS = ("q", "dq", "tau", "action", "target", "reference", "reference_rate", "written")
"""The (nv,) entries of a servo row: measured positions, velocities and torques; the policy's newest action as it came; what was made
of it for this period (interpolated); what was followed, in the policy's mode, and its rate; and the set-point that the supervisor let
through. NaN where there was none; but what was followed stays where it was left, and is 0 before the first time."""
EVENT_BYTES = 240
"""An event's words, in UTF-8."""
FAREWELL = b"end\n"
"""What a bridge that ends tells its recorder; one that was killed tells nothing."""


class Level(IntEnum):
    """How much an event matters, as Foxglove's log panel counts."""

    INFO = 2
    WARNING = 3
    ERROR = 4
    FATAL = 5


def servo_dtype(nv: int) -> np.dtype:
    """Return the dtype of a servo row of `nv` joints. It has no gaps: its bytes are the message in the log."""
    return np.dtype([
        ("tick", "<u8"), ("wake_ns", "<i8"), ("received_ns", "<i8"), ("device_s", "<f8"), ("dt_ns", "<i8"), ("lateness_ns", "<i8"),
        ("action_sequence", "<i8"), ("action_stamp_ns", "<i8"), ("observation_age_ns", "<i8"), ("rules", "<u8"),
        *((name, "<f8", (nv,)) for name in VECTORS),
        ("bus_errors", "<u4"), ("generation", "<u4"), ("action_mode", "u1"), ("written_mode", "u1"), ("state", "u1"), ("vendor", "u1"),
        ("spare", "<u4"),
    ])


EVENT_DTYPE = np.dtype([("stamp_ns", "<i8"), ("tick", "<u8"), ("level", "u1"), ("kind", "S23"), ("text", f"S{EVENT_BYTES}")])
"""An event: when on the host's monotonic clock [ns], in which period, how much it matters, of what kind (transition, fault, operator,
recorder), and its words."""


class ServoRing(Ring):
    """The ring of servo rows; `push_row` packs one straight out of the loop's arrays."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        vector = f"{self.dtype['q'].itemsize}s"
        self._pack_into = struct.Struct("<Qqqdqq" "qqqQ" + vector * len(VECTORS) + "IIBBBB4x").pack_into
        self._row_bytes = self.dtype.itemsize

    def push_row(self, tick: int, wake_ns: int, received_ns: int, device_s: float, dt_ns: int, lateness_ns: int, action_sequence: int,
                 action_stamp_ns: int, observation_age_ns: int, rules: int, q: np.ndarray, dq: np.ndarray, tau: np.ndarray,
                 action: np.ndarray, target: np.ndarray, reference: np.ndarray, reference_rate: np.ndarray, written: np.ndarray,
                 bus_errors: int, generation: int, action_mode: int, written_mode: int, state: int, vendor: int) -> bool:
        """Add one row, or count it as dropped and return False. Every array must be (nv,) float64: its length is not looked at.

        Pass everything by position: names cost half a microsecond.
        """
        head = self._head
        if head >= self._full_at and not self._has_room():
            return False
        self._pack_into(self._memory, (head & self._mask) * self._row_bytes, tick, wake_ns, received_ns, device_s, dt_ns, lateness_ns,
                        action_sequence, action_stamp_ns, observation_age_ns, rules, q.tobytes(), dq.tobytes(), tau.tobytes(),
                        action.tobytes(), target.tobytes(), reference.tobytes(), reference_rate.tobytes(), written.tobytes(), bus_errors,
                        generation, action_mode, written_mode, state, vendor)
        self._head = head + 1
        self._pushed[0] = head + 1
        return True


class EventRing(Ring):
    """The ring of events."""

    def push_event(self, stamp_ns: int, tick: int, kind: str, text: str, level: Level = Level.INFO) -> bool:
        """Add one event, its words cut to EVENT_BYTES, or count it as dropped and return False."""
        return self.push(event_row(stamp_ns, tick, kind, text, level).tobytes())


def event_row(stamp_ns: int, tick: int, kind: str, text: str, level: Level) -> np.ndarray:
    """Return an event, () of EVENT_DTYPE."""
    row = np.zeros((), EVENT_DTYPE)
    row["stamp_ns"], row["tick"], row["level"] = stamp_ns, tick, level
    row["kind"], row["text"] = cut(kind, 23), cut(text, EVENT_BYTES)
    return row


def cut(text: str, size: int) -> bytes:
    """Return at most `size` bytes of UTF-8 of `text`, with no half character at its end."""
    return text.encode(errors="replace")[:size].decode(errors="ignore").encode()
