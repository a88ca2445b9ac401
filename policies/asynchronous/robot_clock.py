"""The robot's own clock, without the time for which the robot waited for its first plan."""

from __future__ import annotations


class RobotClock:
    """Stamps of observations as if the first plan had taken no time. A robot waits for it at rest: meanwhile an arm's clock goes on, a
    simulation's stands. Which one it is, the second stamp tells, which lies a period after the first command.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._begun_ns = self._waited_ns = self._rested_ns = 0

    def waited(self, stamp_ns: int, waited_ns: int) -> None:
        """The robot that was seen at `stamp_ns` then waited for a plan, for `waited_ns` of the host's time [ns]."""
        self._begun_ns, self._waited_ns = stamp_ns, waited_ns

    def read(self, stamp_ns: int) -> int:
        """Return `stamp_ns` without the wait [ns]. Periods that were skipped, which the first command lasted on, are left in it."""
        if self._waited_ns and stamp_ns > self._begun_ns:
            beyond = stamp_ns - self._begun_ns - self._period_ns
            self._rested_ns, self._waited_ns = min(max(beyond, 0), self._waited_ns), 0
        return stamp_ns - self._rested_ns
