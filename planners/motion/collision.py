"""Whether an arm touches itself or what stands around it."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from planners.motion.pairs import GeomPairs, find_pairs, geom_name
from planners.motion.scene import Scene
from robots.arms.arm import Arm
from robots.errors import ConfigurationError
from robots.validation import checked_array

FAR = 1e3
"""[m] distances beyond this are not told apart."""
LOOKED_AT_FIRST = (1.0, 0.5, 0.25, 0.75)
"""Shares of a motion: most motions that collide do so at one of these, which is found sooner than on the way there."""


@dataclass(frozen=True)
class CollisionConfig:
    """How much room an arm keeps, and how finely motions are looked at."""

    margin: float = 0.002
    """[m] closer than this counts as a collision."""
    resolution: float = 0.001
    """[m] between two looks at a pair of geoms they approach by at most this. Up to the margin, nothing can slip through between them."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.margin) and self.margin >= 0):
            raise ConfigurationError(f"CollisionConfig.margin: expected 0 or more [m], got {self.margin}")
        if not (np.isfinite(self.resolution) and self.resolution > 0):
            raise ConfigurationError(f"CollisionConfig.resolution: expected a positive length [m], got {self.resolution}")


@dataclass(frozen=True)
class Clearance:
    """The closest pair of geoms."""

    distance: float
    """[m] negative where they overlap; infinite where there is nothing to collide with."""
    pair: tuple[str, str] | None
    """Names of the geoms."""


class CollisionChecker:
    """Checks configurations q (nv,) and paths of straight lines between them. Holds its own engine state; not for two threads at once.

    Pairs that may touch are told in `allowed`: neighbours, what the arm's file excludes, and geoms of the bare arm that are closer
    than the margin at home. Meshes count as their convex hulls.
    """

    def __init__(self, arm: Arm, scene: Scene | None = None, config: CollisionConfig | None = None) -> None:
        self.arm, self.scene, self.config = arm, scene or Scene(), config or CollisionConfig()
        self.model = self.scene.model(arm)
        scalar = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
        if self.model.nq != arm.spec.nv or not np.isin(self.model.jnt_type, scalar).all():
            raise ConfigurationError(f"arm {arm.spec.name!r}: expected {arm.spec.nv} hinges or slides in its model, those of its spec")
        self.checks = 0
        """Distances computed so far."""
        self._data = mujoco.MjData(self.model)
        self._take(find_pairs(self.model))
        self._take(self.pairs.without(self._touching_at_home(), "they touch at home", self.model))

    @property
    def allowed(self) -> tuple[str, ...]:
        """In words, the pairs that may touch."""
        return self.pairs.allowed

    def first_collision(self, q: np.ndarray) -> tuple[str, str] | None:
        """Return the names of a pair closer than the margin at q (nv,), None if there is none; ShapeError or NonFiniteError."""
        return self._names(self._collision_at(checked_array("q", q, (self.model.nq,)), self.config.margin))

    def is_free(self, q: np.ndarray) -> bool:
        """Return True where no pair is closer than the margin at q (nv,). An inner loop: q is not validated."""
        return self._collision_at(q, self.config.margin) is None

    def clearance(self, q: np.ndarray) -> Clearance:
        """Return the smallest distance at q (nv,) and the pair that has it."""
        self._place(checked_array("q", q, (self.model.nq,)))
        distances = [self._distance(k) for k in range(len(self.pairs.first))]
        if not distances:
            return Clearance(np.inf, None)
        closest = int(np.argmin(distances))
        return Clearance(distances[closest], self._names(closest))

    def first_path_collision(self, points: np.ndarray, margin: float | None = None) -> tuple[str, str] | None:
        """Return the names of a pair that comes closer than `margin` [m] (None: the configured one) on the way along points (N, nv),
        straight in between; None if none does.

        Every pair is looked at again only when, by the largest motion that the joints can give it, it may have come closer than the
        margin (Schwarzer, Saha and Latombe 2005, adaptive dynamic collision checking), and then after at most `resolution`.
        """
        points = checked_array("points", points, (None, self.model.nq))
        margin = self.config.margin if margin is None else margin
        if not len(points):
            return None
        hit = self._collision_at(points[0], margin)
        motions = np.abs(np.diff(points, axis=0)) @ self.pairs.lever.T  # (N - 1, P) [m]
        room = np.full(len(self.pairs.first), -1.0)  # (P,) motion that cannot bring a pair to the margin
        for n, motion in enumerate(motions):
            if hit is not None:
                break
            room -= motion
            short = np.flatnonzero(room < 0)
            if not len(short):
                continue
            self._place(points[n + 1])
            for k in short:
                distance = self._distance(k)
                if distance < margin:
                    return self._names(k)
                room[k] = distance - margin
            if (motion[short] > np.maximum(self.config.resolution, room[short])).any():
                hit = self._edge_collision(points[n], points[n + 1], margin)
        return self._names(hit)

    def edge_is_free(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Return True where the straight motion keeps the margin. An inner loop: start and end (nv,) are not validated."""
        return self._edge_collision(start, end, self.config.margin) is None

    def _collision_at(self, q: np.ndarray, margin: float) -> int | None:
        self._place(q)
        self._bound_distances()
        for k in np.flatnonzero(self._bounds < margin):
            if self._distance(k, margin) < margin:
                return k
        return None

    def _edge_collision(self, start: np.ndarray, end: np.ndarray, margin: float) -> int | None:
        change = end - start
        for share in LOOKED_AT_FIRST:
            hit = self._collision_at(start + share * change, margin)
            if hit is not None:
                return hit
        self._place(start)
        self._bound_distances()
        rate = self.pairs.lever @ np.abs(change)  # (P,) approach of a pair over the whole motion, at most [m]
        rate[rate == 0] = 1e-12
        shortest = self.config.resolution / rate
        safe = (self._bounds - margin) / rate  # (P,) share of the motion up to which a pair is known to be apart
        at = 0.0
        while at < 1.0:
            self._place(start + at * change)
            for k in np.flatnonzero(safe <= at):
                distance = self._distance(k)
                if distance < margin:
                    return k
                safe[k] = at + max((distance - margin) / rate[k], shortest[k])
            at = float(safe.min(initial=1.0))
        return None

    def _take(self, pairs: GeomPairs) -> None:
        """Check these pairs from now on."""
        self.pairs = pairs
        self._planes = np.flatnonzero(self.model.geom_type[pairs.first] == mujoco.mjtGeom.mjGEOM_PLANE)
        self._reach = self.model.geom_rbound[pairs.first] + self.model.geom_rbound[pairs.second]
        count = len(pairs.first)
        self._apart, self._other, self._bounds = np.empty((count, 3)), np.empty((count, 3)), np.empty(count)

    def _touching_at_home(self) -> np.ndarray:
        """Return a mask (P,) of the pairs of the bare arm's own geoms that are closer than the margin at home."""
        added = {shape.name for shape in (*self.scene.obstacles, self.scene.payload) if shape is not None}
        own = np.array([self.model.geom(g).name not in added for g in range(self.model.ngeom)], dtype=bool)
        self._place(self.arm.home)
        near = np.array([self._distance(k) < self.config.margin for k in range(len(self.pairs.first))], dtype=bool)
        return near & own[self.pairs.first] & own[self.pairs.second]

    def _place(self, q: np.ndarray) -> None:
        self._data.qpos[:] = q
        mujoco.mj_kinematics(self.model, self._data)

    def _bound_distances(self) -> None:
        """Write into `_bounds` (P,) how far apart the pairs' bounding spheres are, which their distances cannot be below."""
        places = self._data.geom_xpos
        np.take(places, self.pairs.second, axis=0, out=self._apart)
        np.take(places, self.pairs.first, axis=0, out=self._other)
        np.subtract(self._apart, self._other, out=self._apart)
        np.einsum("ij,ij->i", self._apart, self._apart, out=self._bounds)
        np.sqrt(self._bounds, out=self._bounds)
        if len(self._planes):
            normals = self._data.geom_xmat[self.pairs.first[self._planes]][:, 2::3]
            self._bounds[self._planes] = np.einsum("ij,ij->i", self._apart[self._planes], normals)
        np.subtract(self._bounds, self._reach, out=self._bounds)

    def _distance(self, pair: int, beyond: float = FAR) -> float:
        """Return the distance of a pair [m] as placed, or `beyond` where it is larger."""
        self.checks += 1
        return mujoco.mj_geomDistance(self.model, self._data, self.pairs.first[pair], self.pairs.second[pair], beyond, None)

    def _names(self, pair: int | None) -> tuple[str, str] | None:
        if pair is None:
            return None
        return geom_name(self.model, self.pairs.first[pair]), geom_name(self.model, self.pairs.second[pair])
