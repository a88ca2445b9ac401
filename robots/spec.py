"""What a machine is: names, limits, how it is commanded, and who compensates gravity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError, UnknownNameError
from robots.limits import JointLimits


class TorqueConvention(StrEnum):
    """What a commanded torque means on this machine."""

    TOTAL = "total"
    """The torque at the joint: the controller compensates nothing."""
    GRAVITY_COMPENSATED = "gravity_compensated"
    """On top of the machine's own gravity compensation."""
    GRAVITY_AND_FRICTION_COMPENSATED = "gravity_and_friction_compensated"
    """On top of the machine's own gravity and friction compensation."""
    NONE = "none"
    """The machine takes no torques."""


@dataclass(frozen=True)
class CameraSpec:
    """A camera a robot carries."""

    name: str
    width: int
    """[pixel]"""
    height: int
    """[pixel]"""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ConfigurationError(f"camera {self.name!r}: expected a positive size, got {self.width} x {self.height}")


@dataclass(frozen=True)
class RobotSpec:
    """A machine's description; validates itself on construction."""

    name: str
    joint_names: tuple[str, ...]
    """nv names, one a degree of freedom, in the order of `Observation.dq`."""
    nq: int
    """Length of `Observation.q` (differs from nv where a joint is a quaternion)."""
    limits: JointLimits
    control_dt: float
    """Control period [s]."""
    commands: tuple[CommandSpec, ...]
    """Every way to command it; the first is the default."""
    cameras: tuple[CameraSpec, ...] = ()
    end_effector_frames: tuple[str, ...] = ()
    """Frames whose pose can be reported or commanded; the first is `Observation.ee_pose`'s."""
    torque_convention: TorqueConvention = TorqueConvention.TOTAL

    def __post_init__(self) -> None:
        for name in ("joint_names", "commands", "cameras", "end_effector_frames"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "torque_convention", TorqueConvention(self.torque_convention))
        if not (np.isfinite(self.control_dt) and self.control_dt > 0):
            raise ConfigurationError(f"robot {self.name!r}: control_dt must be positive and finite [s], got {self.control_dt}")
        if self.nq < self.nv:
            raise ConfigurationError(f"robot {self.name!r}: nq ({self.nq}) cannot be below nv ({self.nv})")
        if len(self.limits.velocity_max) != self.nv:
            raise ConfigurationError(f"robot {self.name!r}: limits are for {len(self.limits.velocity_max)} joints, there are {self.nv}")
        if not self.commands:
            raise ConfigurationError(f"robot {self.name!r}: expected at least one way to command it, got none")
        if len({command.mode for command in self.commands}) != len(self.commands):
            raise ConfigurationError(f"robot {self.name!r}: a command mode is listed twice")

    @property
    def nv(self) -> int:
        """Number of degrees of freedom."""
        return len(self.joint_names)

    def command(self, mode: CommandMode | str | None = None) -> CommandSpec:
        """Return the command spec of `mode` (None: the default); UnknownNameError if the robot lacks it."""
        if mode is None:
            return self.commands[0]
        for command in self.commands:
            if command.mode == mode:
                return command
        raise UnknownNameError("command mode", str(mode), [command.mode for command in self.commands])

    def to_json(self) -> dict:
        """Return the spec as plain JSON values, infinities as the string 'inf' or '-inf'."""

        def plain(array: np.ndarray) -> list:
            return [float(v) if np.isfinite(v) else str(v) for v in array]

        return {
            "name": self.name, "joint_names": list(self.joint_names), "nq": self.nq, "control_dt": self.control_dt,
            "limits": {name: plain(value) for name, value in vars(self.limits).items()},
            "commands": [{"mode": str(c.mode), "names": list(c.names), "minimum": plain(c.minimum), "maximum": plain(c.maximum),
                          "unit": c.unit, "gripper": c.gripper} for c in self.commands],
            "cameras": [{"name": c.name, "width": c.width, "height": c.height} for c in self.cameras],
            "end_effector_frames": list(self.end_effector_frames), "torque_convention": str(self.torque_convention),
        }

    def fingerprint(self) -> str:
        """Return a short hash of the spec: two robots with the same one take the same commands."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]
