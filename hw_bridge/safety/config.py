"""What the supervisor enforces beyond the arm's own limits, in one frozen, hashed configuration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np

from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ConfigurationError


class Interpolation(StrEnum):
    """How set-points at servo rate come from a policy's slower targets."""

    HOLD = "hold"
    """The newest target at once."""
    LINEAR = "linear"
    """A straight line to the target, one policy period long."""
    CUBIC = "cubic"
    """A cubic to the target that passes it at the rate of the last two targets, and goes on so for at most `extrapolation` seconds."""
    MINIMUM_JERK = "minimum_jerk"
    """Flash and Hogan's quintic, at rest at the target."""


@dataclass(frozen=True)
class Workspace:
    """Where the end effector may be, in the base frame."""

    minimum: tuple[float, float, float] = (-np.inf, -np.inf, -np.inf)
    """Lowest corner of the box [m]."""
    maximum: tuple[float, float, float] = (np.inf, np.inf, np.inf)
    """Highest corner [m]."""
    tool_speed_max: float = 1.0
    """Highest speed of the end effector's origin [m/s]; ISO/TS 15066 and makers' reduced modes say 0.25 beside people."""
    clearance: float = 0.005
    """Links that do not touch by design must stay this far apart, and from what the arm's model has around it [m]."""

    def __post_init__(self) -> None:
        if len(self.minimum) != 3 or len(self.maximum) != 3 or not np.less(self.minimum, self.maximum).all():
            raise ConfigurationError(f"Workspace: expected minimum < maximum, three numbers each, got {self.minimum} and {self.maximum}")
        if not self.tool_speed_max > 0 or not (np.isfinite(self.clearance) and self.clearance >= 0):
            raise ConfigurationError("Workspace: expected a positive tool speed and a clearance of 0 or more, got "
                                     f"{self.tool_speed_max} m/s and {self.clearance} m")


@dataclass(frozen=True)
class Compliance:
    """How softly an arm that takes torques follows joint positions, one number a joint."""

    stiffness: tuple[float, ...]
    """[N·m/rad]"""
    damping: tuple[float, ...]
    """[N·m·s/rad]"""

    def __post_init__(self) -> None:
        for name in ("stiffness", "damping"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        values = np.array([self.stiffness, self.damping]) if len(self.stiffness) == len(self.damping) else np.array([])
        if not values.size or not (np.isfinite(values).all() and (values > 0).all()):
            raise ConfigurationError("Compliance: expected as many positive dampings as stiffnesses, got "
                                     f"{self.stiffness} and {self.damping}")


@dataclass(frozen=True)
class SafetyConfig:
    """Rules of the supervisor. Times in seconds."""

    workspace: Workspace = Workspace()
    compliance: Compliance | None = None
    """Joint positions through torques, as a spring; None: through the arm's own position control."""
    policy_period: float = 0.05
    """How far apart the policy's targets are meant to be."""
    interpolation: Interpolation = Interpolation.CUBIC
    extrapolation: float = 0.05
    """How long a cubic may go on past its target while no new one comes."""
    speed: float = 1.0
    """Share of the arm's velocity limits that is used, 0 to 1."""
    acceleration: float = 1.0
    """Share of its acceleration limits."""
    position_margin: float = 0.01
    """Distance kept from position limits [rad]."""
    clamp_band: float = 0.5
    """A target further than this from the last set-point [rad; rad/s; share of the torque limit] is cut to it."""
    reject_band: float = 1.5
    """One further than this is not followed at all: the arm goes to HOLD."""
    tracking_error_max: float = 0.2
    """The arm may lag behind its set-points by this much [rad]; more is a collision, a payload or a lost arm."""
    observation_age_max: float = 0.02
    action_age_max: float = 0.2
    camera_age_max: float = 0.3
    """For every camera that the policy needs."""
    gap_max: float = 0.02
    """A loop that stood still longer begins anew from where the arm stands."""
    clock_drift_max: float = 0.05
    """The controller's clock and ours may drift apart by this within a second."""
    bus_errors_max: int = 20
    """Bad or missing answers within a second."""
    blend: float = 1.0
    """After `activate`, the speed limit rises from a tenth to its whole within this time."""
    rest_speed: float = 0.05
    """An arm slower than this in every joint stands still [rad/s]."""
    damping: float = 0.2
    """Torque mode's stop: damping as a share of (torque limit / velocity limit)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "interpolation", Interpolation(self.interpolation))
        for name in ("policy_period", "speed", "acceleration", "clamp_band", "reject_band", "tracking_error_max", "observation_age_max",
                     "action_age_max", "camera_age_max", "gap_max", "clock_drift_max", "bus_errors_max", "blend", "rest_speed", "damping"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigurationError(f"SafetyConfig.{name}: expected a positive finite number, got {getattr(self, name)}")
        for name in ("extrapolation", "position_margin"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigurationError(f"SafetyConfig.{name}: expected a finite number of 0 or more, got {getattr(self, name)}")
        if self.speed > 1 or self.acceleration > 1:
            raise ConfigurationError("SafetyConfig: speed and acceleration are shares of the arm's limits, at most 1, got "
                                     f"{self.speed} and {self.acceleration}")
        if self.clamp_band > self.reject_band:
            raise ConfigurationError(f"SafetyConfig: expected clamp_band <= reject_band, got {self.clamp_band} and {self.reject_band}")

    def fingerprint(self) -> str:
        """Return a short hash: two configurations with the same one enforce the same."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode()).hexdigest()[:16]

    def written_mode(self, mode: CommandMode) -> CommandMode:
        """Return what reaches the arm where policies command in `mode`."""
        return mode if self.compliance is None else CommandMode.JOINT_TORQUE

    def check(self, arm: Arm, mode: CommandMode) -> None:
        """Raise ConfigurationError where `arm` cannot be supervised in `mode` with these rules."""
        limits = arm.spec.limits
        arm.spec.command(mode)
        if mode not in (CommandMode.JOINT_POSITION, CommandMode.JOINT_VELOCITY, CommandMode.JOINT_TORQUE):
            raise ConfigurationError(f"the supervisor takes joint positions, velocities and torques, got {mode}; poses of the end effector "
                                     "are turned into joint positions before it")
        for name in ("velocity_max", "acceleration_max", "jerk_max"):
            if not np.isfinite(getattr(limits, name)).all():
                raise ConfigurationError(f"{arm.spec.name}: the supervisor needs a finite {name} for every joint; set the arm's limits")
        written = self.written_mode(mode)
        arm.spec.command(written)
        if written is CommandMode.JOINT_TORQUE and not (np.isfinite(limits.torque_max).all() and np.isfinite(limits.torque_rate_max).all()):
            raise ConfigurationError(f"{arm.spec.name}: torque control needs finite limits of torque and torque rate")
        soft = self.compliance
        if soft is not None and (mode is not CommandMode.JOINT_POSITION or len(soft.stiffness) != arm.spec.nv):
            raise ConfigurationError(f"compliance is for {CommandMode.JOINT_POSITION}, one stiffness a joint; got {mode} and "
                                     f"{len(soft.stiffness)} for the {arm.spec.nv} joints of {arm.spec.name}")
        room = limits.position_max - limits.position_min - 2 * self.position_margin
        if (room <= 0).any():
            raise ConfigurationError(f"{arm.spec.name}: a position margin of {self.position_margin} rad leaves joint "
                                     f"{arm.spec.joint_names[int(np.argmin(room))]} no room")
