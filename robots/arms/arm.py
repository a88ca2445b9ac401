"""An arm as its maker describes it: what the driver, the supervisor, the twin and a simulation all need to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from robots.errors import ConfigurationError
from robots.kinematics import FrameKind, Kinematics
from robots.spec import RobotSpec
from robots.validation import checked_array


@dataclass(frozen=True)
class Arm:
    """One arm. `model_file` is an MJCF whose joints are named as `spec.joint_names`, in that order, whose collision geoms leave
    out neighbouring links, and whose site `spec.end_effector_frames[0]` is the end effector; the base frame is its world frame.
    """

    spec: RobotSpec
    """Limits and commands at servo rate; `spec.control_dt` is the servo period."""
    model_file: Path
    home: np.ndarray
    """(nv,) a pose [rad] from which every joint can move both ways."""
    falls: bool
    """True where gravity moves the arm once its motors are off (servos); False where brakes hold it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", checked_array("Arm.home", self.home, (self.spec.nv,)))
        if not self.spec.end_effector_frames:
            raise ConfigurationError(f"arm {self.spec.name!r}: expected an end-effector frame")
        limits = self.spec.limits
        if (self.home < limits.position_min).any() or (self.home > limits.position_max).any():
            raise ConfigurationError(f"arm {self.spec.name!r}: its home lies outside its joint limits")

    def model(self) -> mujoco.MjModel:
        """Return the arm's model, compiled anew."""
        return mujoco.MjModel.from_xml_path(str(self.model_file))

    def kinematics(self) -> Kinematics:
        """Return the kinematics of the end effector."""
        return Kinematics(self.model(), self.spec.end_effector_frames[0], FrameKind.SITE)
