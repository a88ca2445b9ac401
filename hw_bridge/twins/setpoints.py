"""Judge of the set-points that reach a twin: did the supervisor let one through that breaks a limit?"""

from __future__ import annotations

import math

import numpy as np

from robots.limits import JointLimits

_KEPT = 100


class SetpointJudge:
    """Keeps words on every set-point beyond the limits, joint by joint, with the time that truly passed between them."""

    def __init__(self, joint_names: tuple[str, ...], limits: JointLimits, control_dt: float, step: float) -> None:
        self._names, self._limits, self._step = joint_names, limits, step
        self._slack = control_dt
        """Arrival may be this much closer than sending was [s]: the wire and the scheduler bunch packets."""
        self._last: list[tuple[float, float] | None] = [None] * len(joint_names)
        self.count = 0
        """How many were found."""
        self.words: list[str] = []
        """The first hundred of them."""

    def begin(self, joint: int, q: float, now: float) -> None:
        """The joint stands at `q` [rad]: what comes next is measured from there."""
        self._last[joint] = (q, now)

    def position(self, joint: int, target: float, now: float) -> None:
        """Judge a target [rad] that arrived at `now` [s]."""
        name = self._names[joint]
        if not math.isfinite(target):
            self._note(f"{name}: target {target}")
            return
        low, high = self._limits.position_min[joint], self._limits.position_max[joint]
        if not low - self._step <= target <= high + self._step:
            self._note(f"{name}: target {target:.3f} rad, limits {low:.3f} to {high:.3f}")
        last, self._last[joint] = self._last[joint], (target, now)
        if last is not None:
            reach = self._limits.velocity_max[joint] * (now - last[1] + self._slack) * 1.02 + 2.0 * self._step
            if abs(target - last[0]) > reach:
                self._note(f"{name}: target jumped {target - last[0]:+.3f} rad in {1000 * (now - last[1]):.1f} ms, allowed {reach:.3f}")

    def velocity(self, joint: int, target: float, resolution: float) -> None:
        """Judge a velocity [rad/s] that is sent in steps of `resolution`."""
        self._magnitude(joint, target, float(self._limits.velocity_max[joint]) + resolution, "rad/s")

    def torque(self, joint: int, target: float, resolution: float) -> None:
        """Judge a torque [N·m] that is sent in steps of `resolution`."""
        self._magnitude(joint, target, float(self._limits.torque_max[joint]) + resolution, "N·m")

    def _magnitude(self, joint: int, target: float, top: float, unit: str) -> None:
        if not np.isfinite(target) or abs(target) > top:
            self._note(f"{self._names[joint]}: target {target:.3f} {unit}, limit {top:.3f}")

    def _note(self, words: str) -> None:
        self.count += 1
        if len(self.words) < _KEPT:
            self.words.append(words)
