"""What a twin thinks of the set-points it is sent: the invariant of the fault matrix is that this list stays empty."""

from __future__ import annotations

import numpy as np

from robots.command import CommandMode
from robots.limits import JointLimits

LISTED = 100
"""Violations kept in words; further ones are only counted."""
MARGIN = 0.02
"""Share by which a rate may exceed its limit before it counts: clocks are not exact."""
ROUNDING = 1e-9
"""Of a set-point [rad; rad/s]; differences over time make more of it."""


class CommandAudit:
    """Looks at every set-point that reaches a twin, whether the twin acts on it or not.

    Derivatives are judged by divided differences (times k!), which are mean values of a derivative: of a path that keeps its limits none
    is beyond them, however many set-points between were lost.
    """

    def __init__(self, limits: JointLimits, names: tuple[str, ...], exact_times: bool = False) -> None:
        """`exact_times`: set-points come with the times they were made for, not with those of their arrival; only then acceleration and
        jerk can be judged."""
        self.violations: list[str] = []
        self.count = 0
        self._limits, self._names, self._exact = limits, names, exact_times
        self._mode: CommandMode | None = None
        self._past: list[tuple[float, np.ndarray]] = []
        """Set-points before, newest first."""

    def look(self, mode: CommandMode, values: np.ndarray, now: float) -> None:
        """Note what is wrong with `values` (nv,), sent at `now` [s]. Rates are judged against the last set-points of the same mode."""
        if not np.isfinite(values).all():
            self._note(f"non-finite {mode} {values.tolist()}")
            return
        low, high, rate = self._bounds(mode)
        for i in np.flatnonzero((values < low - 1e-9) | (values > high + 1e-9)):
            self._note(f"{mode} of {self._names[i]} {values[i]:.4f} outside {low[i]:.4f} to {high[i]:.4f}")
        if mode != self._mode:
            self.forget()
        if self._past:
            before, last = self._past[0]
            elapsed, step = max(now - before, 0.0), np.abs(values - last)
            for i in np.flatnonzero(step > rate * elapsed * (1 + MARGIN) + 1e-6):
                self._note(f"{mode} of {self._names[i]} jumped by {step[i]:.4f} in {1e3 * elapsed:.2f} ms, limit {rate[i]:.3f} a second")
        if self._exact:
            self._bend(mode, values, now)
        self.begin(mode, values, now)

    def begin(self, mode: CommandMode, values: np.ndarray, now: float) -> None:
        """Take `values` (nv,) for the last set-point before what comes, without judging them."""
        self._past = [(now, values.copy()), *(self._past[:2] if mode == self._mode else [])]
        self._mode = mode

    def forget(self) -> None:
        """Start anew: the next set-point has no predecessor (a new motion began)."""
        self._past = []

    def _bend(self, mode: CommandMode, values: np.ndarray, now: float) -> None:
        """Judge the derivatives above the first that have a limit."""
        points = [(now, values), *self._past]
        differences = [point[1] for point in points]
        for k, limit in enumerate(self._derivatives(mode)[:len(self._past)], 1):
            spans = [points[i][0] - points[i + k][0] for i in range(len(points) - k)]
            if min(spans) <= 0.0:
                return
            differences = [k * (differences[i] - differences[i + 1]) / span for i, span in enumerate(spans)]
            for i in np.flatnonzero(np.abs(differences[0]) > limit * (1 + MARGIN) + ROUNDING / (spans[0] / k) ** k) if k > 1 else ():
                self._note(f"{mode} of {self._names[i]}: derivative {k} is {differences[0][i]:.3f}, limit {limit[i]:.3f}")

    def _derivatives(self, mode: CommandMode) -> list[np.ndarray]:
        limits = self._limits
        if mode is CommandMode.JOINT_POSITION:
            return [limits.velocity_max, limits.acceleration_max, limits.jerk_max]
        return [limits.acceleration_max, limits.jerk_max] if mode is CommandMode.JOINT_VELOCITY else []

    def _bounds(self, mode: CommandMode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        limits = self._limits
        if mode is CommandMode.JOINT_POSITION:
            return limits.position_min, limits.position_max, limits.velocity_max
        if mode is CommandMode.JOINT_VELOCITY:
            return -limits.velocity_max, limits.velocity_max, limits.acceleration_max
        return -limits.torque_max, limits.torque_max, limits.torque_rate_max

    def _note(self, words: str) -> None:
        self.count += 1
        if len(self.violations) < LISTED:
            self.violations.append(words)
