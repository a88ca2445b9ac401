"""From a policy's targets to a target, its rate and its acceleration at any instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numba
import numpy as np

from hw_bridge.safety.config import Interpolation


class Interpolator:
    """Follows the newest target from wherever the last interpolation stood. Times in seconds on one clock."""

    def __init__(self, kind: Interpolation, period: float, extrapolation: float, n: int) -> None:
        self.kind, self.period, self.extrapolation = Interpolation(kind), period, extrapolation
        self._at = np.zeros((3, n))
        self._from, self._from_rate = np.zeros(n), np.zeros(n)
        self._to, self._to_rate = np.zeros(n), np.zeros(n)
        self._since = 0.0
        self._targets = 0

    def warm_up(self) -> None:
        """Compile what `at` needs, so that no first call costs a period."""
        if self.kind in _CURVES:
            _CURVES[self.kind](self._from, self._from_rate, self._to, self._to_rate, 0.5, self.period, self._at)

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
        t, (value, rate, bend) = now - self._since, self._at
        if self.kind is Interpolation.HOLD or self._targets == 0:
            value[:], rate[:], bend[:] = self._to, 0.0, 0.0
        elif t >= self.period:
            beyond = t - self.period
            value[:] = self._to + self._to_rate * min(beyond, self.extrapolation)
            rate[:] = self._to_rate if beyond < self.extrapolation else 0.0
            bend[:] = 0.0
        else:
            _CURVES[self.kind](self._from, self._from_rate, self._to, self._to_rate, max(t / self.period, 0.0), self.period, self._at)
        return value, rate, bend


Curve = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, float, np.ndarray], None]
"""Writes value, rate and acceleration (3, n) at share s of a period T [s] on the way from (begin, its rate) to (end, its rate)."""


@numba.njit(cache=True)
def _linear(begin: np.ndarray, begin_rate: np.ndarray, end: np.ndarray, end_rate: np.ndarray, s: float, T: float, at: np.ndarray) -> None:
    for i in range(begin.shape[0]):
        step = end[i] - begin[i]
        at[0, i], at[1, i], at[2, i] = begin[i] + s * step, step / T, 0.0


@numba.njit(cache=True)
def _minimum_jerk(begin: np.ndarray, begin_rate: np.ndarray, end: np.ndarray, end_rate: np.ndarray, s: float, T: float,
                  at: np.ndarray) -> None:
    for i in range(begin.shape[0]):
        step = end[i] - begin[i]
        at[0, i] = begin[i] + step * (s * s * s * (10.0 - 15.0 * s + 6.0 * s * s))
        at[1, i] = step * (30.0 * s * s * (1.0 - s) ** 2 / T)
        at[2, i] = step * (60.0 * s * (1.0 - s) * (1.0 - 2.0 * s) / (T * T))


@numba.njit(cache=True)
def _cubic(begin: np.ndarray, begin_rate: np.ndarray, end: np.ndarray, end_rate: np.ndarray, s: float, T: float, at: np.ndarray) -> None:
    for i in range(begin.shape[0]):
        step, first, last = end[i] - begin[i], begin_rate[i] * T, end_rate[i] * T
        curve, twist = 3.0 * step - 2.0 * first - last, first + last - 2.0 * step
        at[0, i] = begin[i] + s * (first + s * (curve + s * twist))
        at[1, i] = (first + s * (2.0 * curve + 3.0 * s * twist)) / T
        at[2, i] = (2.0 * curve + 6.0 * s * twist) / (T * T)


_CURVES: Mapping[Interpolation, Curve] = {Interpolation.LINEAR: _linear, Interpolation.MINIMUM_JERK: _minimum_jerk,
                                          Interpolation.CUBIC: _cubic}
