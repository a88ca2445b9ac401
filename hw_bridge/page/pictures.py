"""The cameras of one bridge, as the page shows them: how old each newest picture is, and the picture itself, small enough for a page."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hw_bridge.cameras.camera_log import compressed
from hw_bridge.cameras.view import CameraView
from robots.errors import ReflexarcError
from robots.observation import CameraFrame

WIDTH_MAX = 640
"""Wider pictures are thinned out [pixel]."""
STALE_S, STALE_PERIODS = 0.5, 3.0
"""A picture older than this [s], or than so many of the camera's own periods, is not shown as live."""
_RETRY_S = 1.0


@dataclass
class _Seen:
    """What is known of one camera."""

    view: CameraView | None = None
    tried: float = -_RETRY_S
    """When it was last looked for, on the monotonic clock [s]."""
    words: str = ""
    """What was last said of it."""
    live: bool = False


class Pictures:
    """Looks at cameras by name; one that is not there, or not any more, is looked for again. Any thread may call it."""

    def __init__(self, bridge: str, names: Sequence[str], note: Callable[[str, str], None]) -> None:
        """`note(kind, words)` is told what happens to a camera."""
        self._bridge, self._note, self._lock = bridge, note, threading.Lock()
        self._seen = {name: _Seen() for name in names}

    def told(self) -> list[dict[str, object]]:
        """Return every camera as plain JSON values, and note what changed."""
        with self._lock:
            return [self._tell(name, seen) for name, seen in self._seen.items()]

    def newest(self, name: str) -> bytes | None:
        """Return the newest picture of a camera as a JPEG; None where there is none."""
        with self._lock:
            frame = self._frame(self._seen[name]) if name in self._seen else None
        if frame is None:
            return None
        step = -(-frame.image.shape[1] // WIDTH_MAX)
        return compressed(frame.image[::step, ::step], "jpeg")

    def _tell(self, name: str, seen: _Seen) -> dict[str, object]:
        if seen.view is None and time.monotonic() - seen.tried > _RETRY_S:
            self._look_for(name, seen)
        frame = self._frame(seen)
        status = None if seen.view is None else seen.view.status()
        stale_s = max(STALE_S, STALE_PERIODS / status.stated_rate) if status is not None and status.stated_rate else STALE_S
        age = None if frame is None else (time.monotonic_ns() - frame.captured_ns) * 1e-9
        live = age is not None and age <= stale_s
        words = "not there" if status is None else status.words
        if not live and time.monotonic() - seen.tried > _RETRY_S:
            self._look_for(name, seen)
        if words != seen.words or live != seen.live:
            self._note(f"camera {name}", words or ("live" if live else "gives no picture any more"))
            seen.words, seen.live = words, live
        return {"name": name, "sequence": None if frame is None else frame.sequence, "age_s": age, "stale_s": stale_s,
                "words": words, "rate": None if status is None else status.rate, "missing": None if status is None else status.missing,
                "unlogged": None if status is None else status.unlogged}

    def _frame(self, seen: _Seen) -> CameraFrame | None:
        return None if seen.view is None else seen.view.newest()

    def _look_for(self, name: str, seen: _Seen) -> None:
        """Open its boards: those of a camera that was started again are others."""
        seen.tried = time.monotonic()
        with contextlib.suppress(ReflexarcError):
            before, seen.view = seen.view, CameraView(self._bridge, name)
            if before is not None:
                before.close()

    def close(self) -> None:
        """Let go of all boards."""
        with self._lock:
            for seen in self._seen.values():
                if seen.view is not None:
                    seen.view.close()
                    seen.view = None
