"""From a policy's targets to a target, its rate and its acceleration at any instant."""

from __future__ import annotations

import numpy as np

from hw_bridge.safety.config import Interpolation


class Interpolator:
    """Follows the newest target from wherever the last interpolation stood. Times in seconds on one clock."""

    def __init__(self, kind: Interpolation, period: float, extrapolation: float, n: int) -> None:
        self.kind, self.period, self.extrapolation = Interpolation(kind), period, extrapolation
        self._value, self._rate, self._bend = np.zeros(n), np.zeros(n), np.zeros(n)
        self._from, self._from_rate = np.zeros(n), np.zeros(n)
        self._to, self._to_rate = np.zeros(n), np.zeros(n)
        self._since = 0.0
        self._targets = 0

    def reset(self, value: np.ndarray) -> None:
        """Stand at `value` (n,)."""
        self._from[:] = self._to[:] = value
        self._from_rate[:] = self._to_rate[:] = 0.0
        self._since, self._targets = 0.0, 0

    def target(self, value: np.ndarray, now: float, elapsed: float) -> None:
        """Head for `value` (n,) from `now` on; `elapsed` is the time since the target before was issued."""
        here, rate, _ = self.at(now)
        self._from[:], self._from_rate[:] = here, rate
        if self.kind is Interpolation.CUBIC and self._targets and 0.2 * self.period < elapsed < 3.0 * self.period:
            self._to_rate[:] = (value - self._to) / elapsed
        else:
            self._to_rate[:] = 0.0
        self._to[:] = value
        self._since, self._targets = now, self._targets + 1

    def at(self, now: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (value, rate, acceleration), each (n,), at `now`; valid until the next call."""
        t, period = now - self._since, self.period
        value, rate, bend = self._value, self._rate, self._bend
        bend[:] = 0.0
        if self.kind is Interpolation.HOLD or self._targets == 0:
            value[:], rate[:] = self._to, 0.0
        elif t >= period:
            beyond = min(t - period, self.extrapolation)
            value[:] = self._to + self._to_rate * beyond
            rate[:] = self._to_rate if t - period < self.extrapolation else 0.0
        else:
            s = max(t / period, 0.0)
            step = self._to - self._from
            if self.kind is Interpolation.LINEAR:
                value[:], rate[:] = self._from + s * step, step / period
            elif self.kind is Interpolation.MINIMUM_JERK:
                value[:] = self._from + step * (s * s * s * (10.0 - 15.0 * s + 6.0 * s * s))
                rate[:] = step * (30.0 * s * s * (1.0 - s) ** 2 / period)
                bend[:] = step * (60.0 * s * (1.0 - s) * (1.0 - 2.0 * s) / (period * period))
            else:
                begin, end = self._from_rate * period, self._to_rate * period
                curve, twist = 3.0 * step - 2.0 * begin - end, begin + end - 2.0 * step
                value[:] = self._from + s * (begin + s * (curve + s * twist))
                rate[:] = (begin + s * (2.0 * curve + 3.0 * s * twist)) / period
                bend[:] = (2.0 * curve + 6.0 * s * twist) / (period * period)
        return value, rate, bend
