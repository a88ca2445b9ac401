"""From one commanded end-effector pose to the next: differential inverse kinematics by mink, within what the joints may do in a step."""

from __future__ import annotations

from dataclasses import dataclass

import mink
import mujoco
import numpy as np

from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.geometry import Geometry
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, UserError
from robots.validation import checked_pose

_WHOLE = 6
"""Joints that move the end effector, from which on it takes any orientation."""
_ITERATIONS = 60
_CONVERGED = 1e-8
"""A move whose largest entry is below this [rad] ends the search."""
_DAMPING = 1e-8
_SOLVER = "daqp"


@dataclass(frozen=True)
class PoseConfig:
    """When a commanded pose counts as reachable."""

    period: float = 0.05
    """Control period: one pose in so many seconds [s]."""
    position_tolerance: float = 1e-4
    """[m]"""
    rotation_tolerance: float | None = None
    """[rad]; None: 1e-3 where six joints or more move the end effector. With fewer any orientation is taken, as near as the joints bring it
    at the demanded position."""
    step_share: float = 0.9
    """Share of what the velocity limits allow that a step may use: the rest is for catching up."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigurationError(f"PoseConfig.{name}: expected a positive finite number, got {value}")
        if self.step_share > 1:
            raise ConfigurationError(f"PoseConfig.step_share: expected at most 1, got {self.step_share}")


class PoseRefused(UserError):
    """A pose that cannot be commanded from the one before. `possible` (7,): as far towards it as a period allows."""

    def __init__(self, words: str, possible: np.ndarray) -> None:
        super().__init__(words)
        self.possible = possible


class PoseSteps:
    """Joint positions for poses of one arm's end effector. Holds its own engine state; not for use from two threads at once."""

    def __init__(self, arm: Arm, safety: SafetyConfig, config: PoseConfig | None = None) -> None:
        self.arm, self.config = arm, config or PoseConfig()
        limits, margin = arm.spec.limits, safety.position_margin
        self.low, self.high = limits.position_min + margin, limits.position_max - margin
        """(nv,) lowest and highest positions that are commanded [rad]."""
        self.stride = limits.velocity_max * safety.speed * self.config.period * self.config.step_share
        """(nv,) furthest that a joint goes in a step [rad]."""
        self._distance = safety.workspace.tool_speed_max * self.config.period * self.config.step_share
        self._kinematics, self._geometry = arm.kinematics(), Geometry(arm, safety.workspace)
        moved = np.abs(self._kinematics.jacobian(arm.home)).max(axis=0) > 1e-9
        self.idle = tuple(np.flatnonzero(~moved).tolist())
        """Joints that do not move the end effector (a gripper's): no pose tells where they go, so they stay."""
        whole = int(moved.sum()) >= _WHOLE
        self.rotation_tolerance = self.config.rotation_tolerance or (1e-3 if whole else np.pi)
        """[rad]"""
        # Where not every orientation can be had, it must not pull the position away: its price is low.
        self._task = mink.FrameTask(self._kinematics.frame, self._kinematics.kind.value, 1.0, 1.0 if whole else 0.003)
        self._configuration = mink.Configuration(self._kinematics.model)

    def forward(self, q: np.ndarray) -> np.ndarray:
        """Return the pose (7,) of joint positions q (nv,): position [m] and quaternion wxyz."""
        return self._kinematics.forward(q)

    def step(self, pose: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return joint positions (nv,) [rad] for `pose` (7,), one control period after those of `last` (nv,) were commanded.

        PoseRefused, in words, for a pose out of reach, further than a period allows, or one at which the arm touches itself;
        ConfigurationError for a quaternion that is not of length one.
        """
        pose, last = checked_pose("pose", pose), np.clip(last, self.low, self.high)
        here = self.forward(last)
        q = self._search(pose, last, np.maximum(last - self.stride, self.low), np.minimum(last + self.stride, self.high))
        distance = float(np.linalg.norm(pose[:3] - here[:3]))
        if self._reached(q, pose) and distance <= self._distance:
            wrong = self._geometry.words(q)
            if wrong:
                raise PoseRefused(f"{_words(pose)} is refused: {wrong}", here)
            return q
        self._refuse(pose, last, here)
        raise AssertionError  # _refuse always raises

    def _refuse(self, pose: np.ndarray, last: np.ndarray, here: np.ndarray) -> None:
        """Raise PoseRefused: is the pose beyond what a period allows, or out of reach at all?"""
        q = self._search(pose, last, self.low, self.high)
        there = self.forward(q)
        far, turn = _apart(here, pose)
        with np.errstate(divide="ignore"):
            shares = self.stride / np.abs(q - last)
        tool = 0.98 * self._distance / max(float(np.linalg.norm(there[:3] - here[:3])), 1e-9)  # the way there is not quite straight
        possible = self.forward(last + min(float(shares.min()), tool, 1.0) * (q - last))
        if not self._reached(q, pose):
            missed, turned = _apart(there, pose)
            stuck = [name for name, angle, low, high in zip(self.arm.spec.joint_names, q, self.low, self.high, strict=True)
                     if min(angle - low, high - angle) < 1e-6]
            at = f", with {' and '.join(stuck)} at {'its' if len(stuck) == 1 else 'their'} limit" if stuck else ""
            raise PoseRefused(f"{_words(pose)} is out of reach: the nearest that was found from here is {1e3 * missed:.1f} mm and "
                              f"{np.degrees(turned):.1f} degrees away{at}", possible)
        slowest = "the tool's speed limit" if tool < shares.min() else f"{self.arm.spec.joint_names[int(np.argmin(shares))]}'s speed limit"
        went, turned = _apart(here, possible)
        raise PoseRefused(f"{_words(pose)} is {1e3 * far:.1f} mm and {np.degrees(turn):.1f} degrees from the last command; within a period "
                          f"of {self.config.period:g} s {slowest} allows {1e3 * went:.1f} mm and {np.degrees(turned):.1f} degrees: "
                          "send poses on the way", possible)

    def _search(self, pose: np.ndarray, start: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return joint positions (nv,) within [low, high] at which the end effector is nearest to `pose`, searched from `start`."""
        self._task.set_target(mink.SE3(np.concatenate([pose[3:], pose[:3]])))
        configuration, limits = self._configuration, [_Box(low, high)]
        configuration.update(start)
        for _ in range(_ITERATIONS):
            try:  # with dt = 1 the velocity is the move itself
                move = mink.solve_ik(configuration, [self._task], 1.0, _SOLVER, damping=_DAMPING, limits=limits)
            except mink.NoSolutionFound:
                break
            configuration.update(np.clip(configuration.q + move, low, high))
            if np.abs(move).max() < _CONVERGED:
                break
        return configuration.q.copy()

    def _reached(self, q: np.ndarray, pose: np.ndarray) -> bool:
        missed, turned = _apart(self.forward(q), pose)
        return missed <= self.config.position_tolerance and turned <= self.rotation_tolerance


class _Box(mink.Limit):
    """Joint positions within [low, high]."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high = low, high
        self._sides = np.vstack([np.eye(len(low)), -np.eye(len(low))])

    def compute_qp_inequalities(self, configuration: mink.Configuration, dt: float) -> mink.Constraint:
        return mink.Constraint(self._sides, np.concatenate([self._high - configuration.q, configuration.q - self._low]))


def _apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return how far two poses (7,) are apart [m] and how far turned [rad]."""
    turn = np.empty(3)
    mujoco.mju_subQuat(turn, one[3:], other[3:])
    return float(np.linalg.norm(one[:3] - other[:3])), float(np.linalg.norm(turn))


def _words(pose: np.ndarray) -> str:
    return f"the pose at ({', '.join(f'{value:.3f}' for value in pose[:3])}) m"
