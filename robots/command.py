"""Commands: what a robot is asked to do for one control period."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from robots.errors import ConfigurationError, UnknownNameError
from robots.limits import clip_to_box
from robots.validation import checked_array


class CommandMode(StrEnum):
    """What the numbers of a command mean."""

    ACTUATOR = "actuator"
    """The machine's own actuator inputs, in the units its `CommandSpec` names."""
    JOINT_TORQUE = "joint_torque"
    """Joint torques [N·m] or forces [N]."""
    JOINT_VELOCITY = "joint_velocity"
    """Joint velocities [rad/s or m/s]."""
    JOINT_POSITION = "joint_position"
    """Joint positions [rad or m]."""
    END_EFFECTOR_POSE = "end_effector_pose"
    """Position [m] and quaternion wxyz of the end effector in the base frame, (7,)."""


@dataclass(frozen=True)
class CommandSpec:
    """One way to command a robot: what the numbers mean, and the box they must lie in."""

    mode: CommandMode
    names: tuple[str, ...]
    """One name for each of the nu entries."""
    minimum: np.ndarray
    """(nu,) lowest value, in the units of `unit`."""
    maximum: np.ndarray
    """(nu,) highest value."""
    unit: str
    """Unit of the entries, for people, such as 'N·m'."""
    gripper: bool = False
    """True where the last entry is a gripper opening, 0 closed to 1 open."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", CommandMode(self.mode))
        object.__setattr__(self, "names", tuple(self.names))
        n = len(self.names)
        if n == 0:
            raise ConfigurationError("CommandSpec.names: expected at least one entry, got none")
        for side in ("minimum", "maximum"):
            object.__setattr__(self, side, checked_array(f"CommandSpec.{side}", getattr(self, side), (n,)))
        if (self.minimum >= self.maximum).any():
            raise ConfigurationError("CommandSpec: minimum must lie below maximum for every entry, "
                                     f"got {self.minimum.tolist()} and {self.maximum.tolist()}")

    @property
    def nu(self) -> int:
        """Number of entries of a command."""
        return len(self.names)

    def clip(self, values: np.ndarray) -> np.ndarray:
        """Return `values` (nu,) clipped into the box."""
        return clip_to_box(values, self.minimum, self.maximum)


@dataclass(frozen=True)
class Command:
    """`values` (nu,) in `mode`, read-only. Construction refuses NaN and infinity: they never reach a robot."""

    mode: CommandMode
    values: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", CommandMode(self.mode))
        object.__setattr__(self, "values", checked_array("Command.values", self.values, (None,)))


def admit(command: Command, specs: tuple[CommandSpec, ...]) -> Command:
    """Return `command` clipped into the box of its mode among `specs`.

    Raises UnknownNameError for a mode the robot lacks and ShapeError for a wrong length.
    """
    for spec in specs:
        if spec.mode == command.mode:
            checked_array(f"command in mode {spec.mode}", command.values, (spec.nu,))
            return Command(command.mode, spec.clip(command.values))
    raise UnknownNameError("command mode", command.mode, [spec.mode for spec in specs])
