"""Which geoms of an arm's model must keep apart, and how fast two of them can approach each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from robots.errors import ConfigurationError

CHECKED_TYPES = {int(kind) for kind in (
    mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_MESH)}


@dataclass(frozen=True)
class GeomPairs:
    """The pairs to check, as MuJoCo filters them, and in words those that may touch."""

    first: np.ndarray
    """(P,) numbers of geoms; a plane is always the first of its pair."""
    second: np.ndarray
    """(P,)"""
    lever: np.ndarray
    """(P, nv) by how much a point of one geom can move relative to the other per unit of a joint [m/rad, or 1 for slides], at most."""
    allowed: tuple[str, ...]
    """One sentence a pair of bodies that may touch, with the reason."""

    def without(self, touching: np.ndarray, reason: str, model: mujoco.MjModel) -> GeomPairs:
        """Return the pairs less those marked in `touching` (P,), which are told as allowed for `reason`."""
        words = tuple(f"{geom_name(model, a)} and {geom_name(model, b)}: {reason}"
                      for a, b in zip(self.first[touching], self.second[touching], strict=True))
        return GeomPairs(self.first[~touching], self.second[~touching], self.lever[~touching], self.allowed + words)


def geom_name(model: mujoco.MjModel, geom: int) -> str:
    """Return a geom's name, or where it stands if it has none."""
    return model.geom(geom).name or f"geom {geom} of {model.body(model.geom_bodyid[geom]).name}"


def find_pairs(model: mujoco.MjModel) -> GeomPairs:
    """Return the pairs of geoms that can collide: by their contact bits, on bodies that move relative to each other, and neither
    neighbours nor excluded in the model's file. ConfigurationError for a kind of geom that cannot be checked.
    """
    colliding = [g for g in range(model.ngeom) if model.geom_contype[g] or model.geom_conaffinity[g]]
    for g in colliding:
        if model.geom_type[g] not in CHECKED_TYPES:
            raise ConfigurationError(f"{geom_name(model, g)}: geoms of type {mujoco.mjtGeom(model.geom_type[g]).name} cannot be checked; "
                                     "describe it by boxes or meshes")
    apart = [(a, b) for i, a in enumerate(colliding) for b in colliding[i + 1:] if _may_collide(model, a, b)]
    neighbours = sorted({_bodies(model, *pair) for pair in apart})
    reasons = {bodies: reason for bodies in neighbours if (reason := _reason_to_touch(model, *bodies))}
    kept = [pair for pair in apart if _bodies(model, *pair) not in reasons]
    kept = [(b, a) if model.geom_type[b] == mujoco.mjtGeom.mjGEOM_PLANE else (a, b) for a, b in kept]
    first, second = np.array(kept, dtype=np.int64).reshape(-1, 2).T.copy()
    lever = np.array([_lever(model, a, b) for a, b in kept]).reshape(-1, model.nv)
    allowed = tuple(f"{model.body(a).name} and {model.body(b).name}: {reason}" for (a, b), reason in reasons.items())
    return GeomPairs(first, second, lever, allowed)


def _bodies(model: mujoco.MjModel, a: int, b: int) -> tuple[int, int]:
    """Return the bodies of two geoms, the lower number first."""
    first, second = sorted(int(model.geom_bodyid[g]) for g in (a, b))
    return first, second


def _may_collide(model: mujoco.MjModel, a: int, b: int) -> bool:
    bits = (model.geom_contype[a] & model.geom_conaffinity[b]) | (model.geom_contype[b] & model.geom_conaffinity[a])
    first, second = (model.body_weldid[body] for body in _bodies(model, a, b))
    return bool(bits) and first != second


def _reason_to_touch(model: mujoco.MjModel, first: int, second: int) -> str:
    """Return why two bodies may touch, empty where they may not."""
    links = [int(model.body_weldid[body]) for body in (first, second)]
    parents = [int(model.body_weldid[model.body_parentid[link]]) for link in links]
    if 0 not in links and (links[0] == parents[1] or links[1] == parents[0]):
        return "neighbours, one joint apart"
    return "excluded in the arm's model file" if (first << 16) + second in model.exclude_signature else ""


def _lever(model: mujoco.MjModel, a: int, b: int) -> np.ndarray:
    """Return the bounds (nv,) for one pair: joints that carry both geoms move them together and count nothing."""
    lever_a, lever_b = dict(_levers(model, a)), dict(_levers(model, b))
    bounds = np.zeros(model.nv)
    for joint in lever_a.keys() ^ lever_b.keys():
        bounds[model.jnt_dofadr[joint]] = lever_a.get(joint, 0.0) + lever_b.get(joint, 0.0)
    return bounds


def _levers(model: mujoco.MjModel, geom: int) -> Iterator[tuple[int, float]]:
    """Yield every joint that moves the geom with the largest distance from its anchor to a point of the geom, over all poses:
    the lengths of the links in between laid end to end."""
    point, beyond = model.geom_pos[geom], float(model.geom_rbound[geom])
    body = int(model.geom_bodyid[geom])
    while body:
        for joint in reversed(range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body])):
            is_hinge = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE
            yield joint, float(np.linalg.norm(point - model.jnt_pos[joint])) + beyond if is_hinge else 1.0
            # what the joint itself does to the body's origin, seen from the joints before it
            beyond += 2 * float(np.linalg.norm(model.jnt_pos[joint])) if is_hinge else float(np.abs(model.jnt_range[joint]).max())
        beyond += float(np.linalg.norm(point))
        point, body = model.body_pos[body], int(model.body_parentid[body])
