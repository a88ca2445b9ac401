"""What keeps a camera's pictures: its log, flushed now and then, and what is wrong with the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hw_bridge.cameras.camera_log import CameraHeader, CameraLog
from hw_bridge.recorder.log_row import Level, event_row
from hw_bridge.recorder.process import LAST_ATTEMPTS_S, check_room
from robots.errors import StoreError
from robots.observation import CameraFrame


class Keeper:
    """A camera's log on a disk that may be full."""

    def __init__(self, path: Path, header: CameraHeader, flush_s: float, free_bytes: int) -> None:
        """StoreError where the log cannot be begun."""
        check_room(path, free_bytes)
        self._log, self._flush_s, self._flushed = CameraLog(path, header), flush_s, time.monotonic()
        self._added = self.stored = 0
        """Pictures that were added, and those of them that are on the disk."""
        self.error = ""
        """Why the disk takes nothing, in words; empty while it does."""

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._log.size

    def add(self, frame: CameraFrame) -> None:
        """Compress a picture and add it: it is on the disk after the next flush."""
        self._log.add_picture(frame)
        self._added += 1

    def note(self, kind: str, text: str, level: Level) -> None:
        """Add words."""
        self._log.add_events(event_row(time.monotonic_ns(), 0, kind, text, level)[None])

    def flush_if_due(self) -> None:
        """Flush once the flush interval has passed since the last time."""
        if time.monotonic() - self._flushed >= self._flush_s:
            self._flushed = time.monotonic()
            self._try(self._log.flush)

    def settle(self) -> bool:
        """Flush; return whether that worked before the patience ended."""
        ends = time.monotonic() + LAST_ATTEMPTS_S
        while not self._try(self._log.flush):
            if time.monotonic() > ends:
                return False
            time.sleep(0.1)
        return True

    def finish(self) -> bool:
        """Put all on the disk with the footer, and close; return whether that worked."""
        whole = not self.error and self._try(self._log.finish)
        self._log.close()
        return whole

    def _try(self, store: Callable[[], None]) -> bool:
        try:
            store()
        except StoreError as error:
            self.error = str(error)
            return False
        self.error, self.stored = "", self._added
        return True
