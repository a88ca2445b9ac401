"""What stands around an arm and what it carries, as shapes that are added to the arm's own MuJoCo model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from robots.arms.arm import Arm
from robots.errors import ConfigurationError
from robots.validation import checked_array, checked_pose

EVERY_BIT = 0x7FFFFFFF
"""Contact bits: a shape meets every geom that can collide at all."""


@dataclass(frozen=True)
class Shape(ABC):
    """A solid with a name of its own."""

    name: str
    pose: np.ndarray
    """(7,) of its centre: position [m] and quaternion wxyz; in the arm's base frame, of a payload in the end effector's frame."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("a shape needs a name: collisions are told by it")
        object.__setattr__(self, "pose", checked_pose(f"pose of {self.name!r}", self.pose))

    @abstractmethod
    def describe(self, spec: mujoco.MjSpec) -> dict[str, object]:
        """Return what a geom of this shape is made of, after adding to `spec` what it refers to."""


@dataclass(frozen=True)
class Box(Shape):
    """A cuboid."""

    size: np.ndarray
    """(3,) edge lengths [m]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size", _positive(self.name, "size", self.size, (3,)))

    def describe(self, spec: mujoco.MjSpec) -> dict[str, object]:
        return {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": self.size / 2}


@dataclass(frozen=True)
class Sphere(Shape):
    """A ball."""

    radius: float
    """[m]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.name, "radius", self.radius, ())

    def describe(self, spec: mujoco.MjSpec) -> dict[str, object]:
        return {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": [self.radius, 0.0, 0.0]}


@dataclass(frozen=True)
class Cylinder(Shape):
    """A cylinder about its own z."""

    radius: float
    """[m]"""
    height: float
    """[m]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.name, "radius and height", [self.radius, self.height], (2,))

    def describe(self, spec: mujoco.MjSpec) -> dict[str, object]:
        return {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "size": [self.radius, self.height / 2, 0.0]}


@dataclass(frozen=True)
class Mesh(Shape):
    """The convex hull of a mesh: a hollow counts as filled. Cut what is to be reached into into several meshes."""

    file: Path
    """STL or OBJ."""
    scale: float = 1.0
    """[m] per unit of the file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.name, "scale", self.scale, ())
        if not Path(self.file).is_file():
            raise ConfigurationError(f"mesh {self.name!r}: there is no file {self.file}")

    def describe(self, spec: mujoco.MjSpec) -> dict[str, object]:
        spec.add_mesh(name=self.name, file=str(Path(self.file).resolve()), scale=[self.scale] * 3)
        return {"type": mujoco.mjtGeom.mjGEOM_MESH, "meshname": self.name}


@dataclass(frozen=True)
class Scene:
    """Obstacles that stand still, and at most one thing in the hand."""

    obstacles: tuple[Shape, ...] = ()
    payload: Shape | None = None
    """Fixed to the end effector. What holds it, the end effector's body and that body's neighbours, may touch it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "obstacles", tuple(self.obstacles))

    def model(self, arm: Arm) -> mujoco.MjModel:
        """Return the arm's model with the shapes in it; ConfigurationError names a shape that cannot be built or a name taken twice."""
        spec = mujoco.MjSpec.from_file(str(arm.model_file))
        for shape in self.obstacles:
            _add(spec, spec.worldbody, shape, shape.pose)
        if self.payload is not None:
            site = spec.site(arm.spec.end_effector_frames[0])
            _add(spec, site.parent, self.payload, _chained(site.pos, site.quat, self.payload.pose))
        try:
            return spec.compile()
        except ValueError as error:
            raise ConfigurationError(f"scene of {arm.spec.name!r} cannot be built: {error}") from error


def _add(spec: mujoco.MjSpec, parent: mujoco.MjsBody, shape: Shape, pose: np.ndarray) -> None:
    """Add a shape as a body of its own: what the arm's file says of the parent's contacts is not meant for it."""
    if any(shape.name == taken.name for taken in (*spec.geoms, *spec.bodies)):
        raise ConfigurationError(f"scene: the name {shape.name!r} is taken; shapes need names that the arm's geoms and bodies do not bear")
    body = parent.add_body(name=shape.name, pos=pose[:3], quat=pose[3:])
    body.add_geom(name=shape.name, contype=EVERY_BIT, conaffinity=EVERY_BIT, **shape.describe(spec))


def _chained(position: np.ndarray, quaternion: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return pose (7,) given in a frame, in the frame that this one lies in."""
    moved, turned = np.empty(3), np.empty(4)
    mujoco.mju_rotVecQuat(moved, pose[:3], quaternion)
    mujoco.mju_mulQuat(turned, quaternion, pose[3:])
    return np.concatenate([position + moved, turned])


def _positive(name: str, what: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    array = checked_array(f"{what} of {name!r}", value, shape)
    if (array <= 0).any():
        raise ConfigurationError(f"{what} of {name!r}: expected positive lengths [m], got {array.tolist()}")
    return array
