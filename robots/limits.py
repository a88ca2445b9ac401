"""Limits of joints and commands."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from robots.errors import ConfigurationError
from robots.validation import checked_array


@dataclass(frozen=True)
class JointLimits:
    """What each of `nv` joints may do. Infinity means the machine states no limit.

    Symmetric quantities are magnitudes; only positions have two sides.
    """

    position_min: np.ndarray
    """(nv,) lowest position [rad or m]."""
    position_max: np.ndarray
    """(nv,) highest position [rad or m]."""
    velocity_max: np.ndarray
    """(nv,) highest speed [rad/s or m/s]."""
    acceleration_max: np.ndarray
    """(nv,) highest acceleration [rad/s^2 or m/s^2]."""
    jerk_max: np.ndarray
    """(nv,) highest jerk [rad/s^3 or m/s^3]."""
    torque_max: np.ndarray
    """(nv,) highest torque or force [N·m or N]."""
    torque_rate_max: np.ndarray
    """(nv,) highest rate of torque [N·m/s or N/s]."""

    def __post_init__(self) -> None:
        n = len(np.atleast_1d(self.position_min))
        for field in fields(self):
            array = checked_array(f"JointLimits.{field.name}", getattr(self, field.name), (n,), finite=False)
            if np.isnan(array).any():
                raise ConfigurationError(f"JointLimits.{field.name}: got NaN, expected a number or infinity")
            object.__setattr__(self, field.name, array)
            if not field.name.startswith("position") and (array <= 0).any():
                raise ConfigurationError(f"JointLimits.{field.name}: expected positive magnitudes, got {array.tolist()}")
        if (self.position_min >= self.position_max).any():
            raise ConfigurationError("JointLimits: position_min must lie below position_max for every joint, "
                                     f"got {self.position_min.tolist()} and {self.position_max.tolist()}")

    @classmethod
    def unlimited(cls, n: int) -> JointLimits:
        """Limits of `n` joints about which nothing is stated."""
        inf = np.full(n, np.inf)
        return cls(-inf, inf, inf, inf, inf, inf, inf)


def clip_to_box(values: np.ndarray, minimum: np.ndarray, maximum: np.ndarray) -> np.ndarray:
    """Return `values` (n,) clipped to [minimum, maximum]; the input is left as it was."""
    return np.minimum(np.maximum(values, minimum), maximum)
