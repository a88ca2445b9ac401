"""Joint positions that bring a frame to a pose, through mink (https://github.com/kevinzakka/mink)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import mink
import mujoco
import numpy as np

from robots.errors import ConfigurationError
from robots.kinematics import Kinematics
from robots.validation import checked_array, checked_pose

_LIMIT_TOLERANCE = 1e-6
_QP_SOLVER = "daqp"


class InverseKinematicsStatus(StrEnum):
    """How a search ended."""

    SOLVED = "solved"
    """Both errors are within their tolerances."""
    STALLED = "stalled"
    """The joints came to rest away from the target: out of reach, or a local minimum; another start may help."""
    ITERATION_LIMIT = "iteration_limit"
    """Still moving when the iterations ran out."""
    NO_STEP = "no_step"
    """The quadratic program of a step had no solution."""


@dataclass(frozen=True)
class InverseKinematicsResult:
    """Where a search ended; `q` is within the joint limits whatever the status."""

    q: np.ndarray
    """(nq,) joint positions [rad, m]."""
    position_error: float
    """Distance to the target [m]."""
    rotation_error: float
    """Angle to the target [rad]."""
    status: InverseKinematicsStatus
    iterations: int
    """Steps taken."""


@dataclass(frozen=True)
class InverseKinematicsConfig:
    """When to stop, and how boldly to step."""

    position_tolerance: float = 1e-4
    """[m]"""
    rotation_tolerance: float = 1e-3
    """[rad]"""
    iterations_max: int = 200
    """Steps at most."""
    damping: float = 1e-6
    """Levenberg-Marquardt damping of a step; raises near singular arms for smaller steps."""
    stall_step: float = 1e-6
    """A step whose largest entry is below this [rad or m] has stalled."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ConfigurationError(f"InverseKinematicsConfig.{name}: expected a positive finite number, got {value}")


class InverseKinematics:
    """Solves for one frame of one machine, respecting its joint limits."""

    def __init__(self, kinematics: Kinematics, config: InverseKinematicsConfig | None = None) -> None:
        self.kinematics = kinematics
        self.config = config or InverseKinematicsConfig()
        self._limits = [mink.ConfigurationLimit(kinematics.model)]
        self._task = mink.FrameTask(kinematics.frame, kinematics.kind.value, position_cost=1.0, orientation_cost=1.0, lm_damping=1e-3)

    def solve(self, pose_target: np.ndarray, q_start: np.ndarray) -> InverseKinematicsResult:
        """Return positions near `q_start` (nq,) that bring the frame to `pose_target` (7,): position [m], quaternion wxyz.

        A pose out of reach is a status, not an error. Raises NonFiniteError, ShapeError, or ConfigurationError where the
        quaternion is not of length one or the start lies outside the joint limits.
        """
        target = checked_pose("pose_target", pose_target)
        start = checked_array("q_start", q_start, (self.kinematics.model.nq,))
        self._require_within_limits(start)
        self._task.set_target(mink.SE3(wxyz_xyz=np.concatenate([target[3:], target[:3]])))
        configuration = mink.Configuration(self.kinematics.model, start.copy())
        status, step = InverseKinematicsStatus.ITERATION_LIMIT, 0
        for step in range(self.config.iterations_max + 1):
            if self._is_reached(configuration):
                status = InverseKinematicsStatus.SOLVED
                break
            if step == self.config.iterations_max:
                break
            try:  # with dt = 1 the velocity is the step itself
                move = mink.solve_ik(configuration, [self._task], 1.0, _QP_SOLVER, damping=self.config.damping, limits=self._limits)
            except mink.NoSolutionFound:
                status = InverseKinematicsStatus.NO_STEP
                break
            if np.abs(move).max() < self.config.stall_step:
                status = InverseKinematicsStatus.STALLED
                break
            configuration.integrate_inplace(move, 1.0)
        return InverseKinematicsResult(self._within_limits(configuration.q), *self._errors(configuration), status, step)

    def _is_reached(self, configuration: mink.Configuration) -> bool:
        position_error, rotation_error = self._errors(configuration)
        return position_error <= self.config.position_tolerance and rotation_error <= self.config.rotation_tolerance

    def _errors(self, configuration: mink.Configuration) -> tuple[float, float]:
        """Return the distance [m] and the angle [rad] from the frame to the target."""
        goal = self._task.transform_target_to_world
        assert goal is not None, "solve sets the target before it looks at errors"
        pose = configuration.get_transform_frame_to_world(self.kinematics.frame, self.kinematics.kind.value)
        distance = np.linalg.norm(goal.translation() - pose.translation())
        return float(distance), float(np.linalg.norm((goal.rotation().inverse() @ pose.rotation()).log()))

    def _require_within_limits(self, start: np.ndarray) -> None:
        below, above = self._scalar_limits()
        outside = np.flatnonzero((start < below - _LIMIT_TOLERANCE) | (start > above + _LIMIT_TOLERANCE))
        if len(outside):
            i = outside[0]
            raise ConfigurationError(f"q_start: entry {i} is {start[i]}, outside its limits [{below[i]}, {above[i]}]; clip it first")

    def _within_limits(self, q: np.ndarray) -> np.ndarray:
        """Return a copy of q (nq,) with what rounding put beyond a limit brought back to it."""
        return np.clip(q, *self._scalar_limits())

    def _scalar_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest positions (nq,) of limited hinges and slides, infinite elsewhere."""
        model = self.kinematics.model
        scalar = (model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE) | (model.jnt_type == mujoco.mjtJoint.mjJNT_SLIDE)
        joints = np.flatnonzero(scalar & (model.jnt_limited != 0))
        below, above = np.full(model.nq, -np.inf), np.full(model.nq, np.inf)
        below[model.jnt_qposadr[joints]], above[model.jnt_qposadr[joints]] = model.jnt_range[joints].T
        return below, above
