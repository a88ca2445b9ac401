"""When a loop's next period begins: on an absolute schedule, slept for and then waited out, with every lateness counted."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass

import numpy as np

from robots.errors import ConfigurationError

BIN_NS = 256
"""Width of a bin of the histogram of lateness [ns]."""
BINS = 8192
"""Bins; the last one holds everything later than 2.1 ms."""
SPARE_NS = 15_000
"""The watch of the clock should begin at least so long before the deadline [ns]; it is made longer where it does not."""
LENGTHEN_NS, SHORTEN_NS = 25_000, 50
"""By how much a watch that began too late is lengthened, and every other shortened [ns]: one in five hundred begins too late."""


@dataclass(frozen=True)
class ScheduleConfig:
    """A loop's period, and how it waits."""

    period_ns: int
    """[ns]"""
    spin_ns: int = 200_000
    """The loop sleeps until at most so long before its deadline and then watches the clock [ns]: longer than a sleep is late."""
    miss_ns: int | None = None
    """A period that begins later than this is a missed deadline [ns]; None: a tenth of the period."""

    def __post_init__(self) -> None:
        if self.period_ns < 1:
            raise ConfigurationError(f"ScheduleConfig.period_ns: expected a positive time [ns], got {self.period_ns}")
        if self.spin_ns < 0:
            raise ConfigurationError(f"ScheduleConfig.spin_ns: expected at least 0 [ns], got {self.spin_ns}")
        if self.miss_ns is not None and self.miss_ns < 0:
            raise ConfigurationError(f"ScheduleConfig.miss_ns: expected at least 0 [ns], got {self.miss_ns}")


class Schedule:
    """Deadlines a period apart on the host's monotonic clock. `wait` allocates nothing that the garbage collector looks at.

    The watch of the clock keeps a processor busy, so it is no longer than need be: its length follows how late sleeps end here, and
    how long the rehearsal takes, up to `spin_ns`.

    A deadline that is missed by less than a period leaves the schedule as it is: the next period is shorter. One that is missed by a
    period or more moves the schedule: the next deadline is a whole period away, and what was left out is counted, never made up for.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self._period, self._longest = config.period_ns, config.spin_ns
        self._spin = config.spin_ns
        """How long before the deadline the sleep ends [ns]."""
        self._miss = config.period_ns // 10 if config.miss_ns is None else config.miss_ns
        self._late = array("q", bytes(8 * BINS))
        self.start()

    def start(self) -> None:
        """Begin anew: the first deadline is a period from now, and nothing was counted yet."""
        self._late[:] = array("q", bytes(8 * BINS))
        self.ticks = self.misses = self.skipped = 0
        """Periods begun; those that began too late; those that were left out after a miss of more than a period."""
        self.worst_ns = self.lateness_ns = self.dt_ns = 0
        """Largest lateness, the newest one, and the measured time between the newest two periods [ns]."""
        self.wake_ns = time.monotonic_ns()
        """When the newest period began [ns]."""
        self.deadline_ns = self.wake_ns + self._period
        """When the next one is due [ns]."""

    def start_over(self) -> None:
        """Put the next deadline a period from now and keep the counts: the loop did something slow on purpose."""
        self.wake_ns = time.monotonic_ns()
        self.deadline_ns = self.wake_ns + self._period

    def wait(self) -> int:
        """Return when the next period began, on the host's monotonic clock [ns], as soon as it has."""
        self.sleep()
        return self.spin()

    def sleep(self) -> None:
        """Sleep until shortly before the next period. What is done between this and `spin` delays nothing if it is short: a rehearsal
        of the period's work brings its code and data back into the processor's caches, which others filled meanwhile."""
        idle = self.deadline_ns - self._spin - time.monotonic_ns()
        if idle > 0:
            time.sleep(idle * 1e-9)  # clock_nanosleep on the monotonic clock, to an absolute time

    def spin(self) -> int:
        """Watch the clock until the next period begins, and return when it did [ns]."""
        now_ns = time.monotonic_ns
        deadline = self.deadline_ns
        if deadline - now_ns() < SPARE_NS:
            self._spin = min(self._spin + LENGTHEN_NS, self._longest)
        else:
            self._spin -= SHORTEN_NS
        while (now := now_ns()) < deadline:
            pass
        late = now - deadline
        self.ticks += 1
        self.dt_ns = now - self.wake_ns
        self.wake_ns = now
        self.lateness_ns = late
        self._late[min(late // BIN_NS, BINS - 1)] += 1
        if late > self.worst_ns:
            self.worst_ns = late
        if late > self._miss:
            self.misses += 1
        if late >= self._period:
            self.skipped += late // self._period
            self.deadline_ns = now + self._period
        else:
            self.deadline_ns = deadline + self._period
        return now

    def histogram(self) -> list[int]:
        """Return how many periods began late, by bins of BIN_NS; the last bin holds all that were later."""
        return self._late.tolist()

    def lateness_quantile(self, share: float) -> float:
        """Return the lateness [ns] that `share` of all periods did not exceed: the upper end of its bin, or the worst; NaN before any."""
        if not 0.0 <= share <= 1.0:
            raise ConfigurationError(f"lateness_quantile: expected a share within 0 and 1, got {share}")
        if self.ticks == 0:
            return float("nan")
        counts = np.cumsum(np.frombuffer(self._late, np.int64)[:-1])
        number = int(np.searchsorted(counts, max(share * self.ticks, 1.0)))
        if number < len(counts):
            return float(min((number + 1) * BIN_NS, self.worst_ns))
        return float(self.worst_ns)
