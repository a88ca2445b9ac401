"""The beat of a twin: simulated time that follows the monotonic clock and skips what it slept through."""

from __future__ import annotations

import time


class Pace:
    """Ticks of `period` [s]. After a pause longer than `patience` [s] (SIGSTOP, a busy machine) the missed ticks are dropped."""

    def __init__(self, period: float, patience: float = 0.05) -> None:
        self.period, self.patience = period, patience
        self.skipped = 0
        """Ticks that were dropped so far."""
        self._next = time.monotonic() + period

    def wait(self) -> int:
        """Sleep until the next tick and return how many are due (at least 1)."""
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
            now = time.monotonic()
        due = 1 + max(0, int((now - self._next) / self.period))
        if due * self.period > self.patience:
            self.skipped += due - 1
            self._next, due = now, 1
        self._next += due * self.period
        return due
