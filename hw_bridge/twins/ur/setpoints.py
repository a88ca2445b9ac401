"""Judges every set-point on arrival: did the one who sent it keep the arm's limits?"""

from __future__ import annotations

import numpy as np

from robots.limits import JointLimits

MARGIN = 1.001
"""For rounding."""
SLACK_S = 0.01
"""Set-points may arrive this much closer together than they were sent [s]."""
KEPT = 100
"""Violations that are kept in words; all are counted."""


class SetPointAudit:
    """Violations of positions, velocities and torques as they arrive. A position may move no farther than the joint's top speed
    allows in the time that truly passed. What arrives in a bunch after a silence shares the time of that silence, and `SLACK_S` beside.
    """

    def __init__(self, limits: JointLimits, names: tuple[str, ...]) -> None:
        self._limits, self._names = limits, names
        self.violations: list[str] = []
        self.count = 0
        self.received = 0
        self.restart()

    def restart(self) -> None:
        """Forget the last target: a new program begins from where the arm stands."""
        self._last: np.ndarray | None = None

    def position(self, target: np.ndarray, now: float) -> None:
        """Judge a target (6,) [rad] that arrived at `now` [s]."""
        limits = self._limits
        if not self._finite("position", target, now):
            return
        outside = (target < limits.position_min) | (target > limits.position_max)
        for i in np.flatnonzero(outside) if outside.any() else ():
            self._note(now, i, f"position {target[i]:.4f} rad, limits {limits.position_min[i]:.4f} to {limits.position_max[i]:.4f}")
        if self._last is not None:
            passed = now - self._then
            self._budget = passed + np.maximum(np.minimum(self._budget, SLACK_S), self._budget - passed)
            way = np.abs(target - self._last) / (limits.velocity_max * MARGIN)
            jumped = way > self._budget
            for i in np.flatnonzero(jumped) if jumped.any() else ():
                self._note(now, i, f"target jumped by {target[i] - self._last[i]:.4f} rad in {1e3 * passed:.2f} ms")
            self._budget = np.maximum(self._budget - way, 0.0)
        else:
            self._budget = np.full(len(target), SLACK_S)
        self._last, self._then = target, now

    def velocity(self, target: np.ndarray, now: float) -> None:
        """Judge target speeds (6,) [rad/s]."""
        self._magnitude("velocity", target, self._limits.velocity_max, "rad/s", now)

    def torque(self, target: np.ndarray, now: float) -> None:
        """Judge torques (6,) [N·m]."""
        self._magnitude("torque", target, self._limits.torque_max, "N·m", now)

    def _magnitude(self, what: str, target: np.ndarray, top: np.ndarray, unit: str, now: float) -> None:
        if self._finite(what, target, now):
            excess = np.abs(target) > top * MARGIN
            for i in np.flatnonzero(excess) if excess.any() else ():
                self._note(now, i, f"{what} {target[i]:.4f} {unit}, limit {top[i]:.4f}")

    def _finite(self, what: str, target: np.ndarray, now: float) -> bool:
        self.received += 1
        finite = np.isfinite(target)
        if finite.all():
            return True
        for i in np.flatnonzero(~finite):
            self._note(now, i, f"non-finite {what} {target[i]}")
        return False

    def _note(self, now: float, joint: int, words: str) -> None:
        self.count += 1
        if len(self.violations) < KEPT:
            self.violations.append(f"{now:.4f} s: {self._names[joint]}: {words}")
