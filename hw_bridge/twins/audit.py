"""What a twin thinks of the set-points it is sent: the invariant of the fault matrix is that this list stays empty."""

from __future__ import annotations

import numpy as np

from robots.command import CommandMode
from robots.limits import JointLimits

LISTED = 100
"""Violations kept in words; further ones are only counted."""
MARGIN = 0.02
"""Share by which a rate may exceed its limit before it counts: clocks are not exact."""


class CommandAudit:
    """Looks at every set-point that reaches a twin, whether the twin acts on it or not."""

    def __init__(self, limits: JointLimits, names: tuple[str, ...]) -> None:
        self.violations: list[str] = []
        self.count = 0
        self._limits, self._names = limits, names
        self._last: tuple[CommandMode, np.ndarray, float] | None = None

    def look(self, mode: CommandMode, values: np.ndarray, now: float) -> None:
        """Note what is wrong with `values` (nv,), sent at `now` [s]. The rate is judged against the last set-point of the same mode."""
        if not np.isfinite(values).all():
            self._note(f"non-finite {mode} {values.tolist()}")
            return
        low, high, rate = self._bounds(mode)
        for i in np.flatnonzero((values < low - 1e-9) | (values > high + 1e-9)):
            self._note(f"{mode} of {self._names[i]} {values[i]:.4f} outside {low[i]:.4f} to {high[i]:.4f}")
        if self._last is not None and self._last[0] == mode:
            elapsed = max(now - self._last[2], 0.0)
            step = np.abs(values - self._last[1])
            for i in np.flatnonzero(step > rate * elapsed * (1 + MARGIN) + 1e-6):
                self._note(f"{mode} of {self._names[i]} jumped by {step[i]:.4f} in {1e3 * elapsed:.2f} ms, limit {rate[i]:.3f} a second")
        self._last = (mode, values.copy(), now)

    def forget(self) -> None:
        """Start anew: the next set-point has no predecessor (a new motion began)."""
        self._last = None

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
