"""Observations: what a robot tells of itself after one control period."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from robots.errors import ShapeError
from robots.validation import checked_array


@dataclass(frozen=True)
class CameraFrame:
    """One picture with the times that belong to it."""

    image: np.ndarray
    """(height, width, channels) uint8, read-only; three channels are RGB."""
    captured_ns: int
    """When the light fell in [ns]."""
    received_ns: int
    """When the picture arrived [ns]."""
    sequence: int
    """Counts up by one a picture; a gap is a lost one."""

    def __post_init__(self) -> None:
        image = np.array(self.image)
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ShapeError(f"CameraFrame.image: expected (height, width, channels) uint8, got {image.shape} {image.dtype}")
        image.setflags(write=False)
        object.__setattr__(self, "image", image)


@dataclass(frozen=True)
class Observation:
    """All that is known of the robot at one instant; read-only, sharing no memory with the robot.

    A non-finite entry raises NonFiniteError: a diverged simulation or a broken sensor is refused here.
    """

    stamp_ns: int
    """Time of the observation [ns]: simulated time in a simulator, the host's monotonic clock on hardware."""
    q: np.ndarray
    """(nq,) generalised positions [rad, m; quaternions wxyz]."""
    dq: np.ndarray
    """(nv,) generalised velocities [rad/s, m/s]."""
    tau: np.ndarray
    """(nv,) generalised actuator forces [N·m, N]."""
    ee_pose: np.ndarray
    """(7,) position [m] and quaternion wxyz of the end effector in the base frame; NaN where there is none."""
    frames: Mapping[str, CameraFrame] = field(default_factory=dict)
    """Newest picture of every camera."""
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further named vectors (n,): object poses, goals, a task's own features; `reward` (1,) and `terminated` (1,)
    where the task reports them."""

    def __post_init__(self) -> None:
        for name in ("q", "dq", "tau"):
            object.__setattr__(self, name, checked_array(f"Observation.{name}", getattr(self, name), (None,)))
        object.__setattr__(self, "ee_pose", checked_array("Observation.ee_pose", self.ee_pose, (7,), finite=False))
        object.__setattr__(self, "frames", MappingProxyType(dict(self.frames)))
        extra = {name: checked_array(f"Observation.extra[{name!r}]", value, (None,)) for name, value in self.extra.items()}
        object.__setattr__(self, "extra", MappingProxyType(extra))

    @property
    def reward(self) -> float | None:
        """The reward that the task reported for the period that just passed, or None."""
        return float(self.extra["reward"][0]) if "reward" in self.extra else None

    @property
    def terminated(self) -> bool:
        """True where the task reported that it ended here (fell over, left the arena)."""
        return bool(self.extra["terminated"][0]) if "terminated" in self.extra else False


NO_POSE = np.full(7, np.nan)
"""The `ee_pose` of a machine without an end effector."""
NO_POSE.setflags(write=False)
