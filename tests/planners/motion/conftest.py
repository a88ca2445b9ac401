"""A UR5e that has to get past a wall, and a check of its paths that owes the checker nothing: MuJoCo's own contacts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import mujoco
import numpy as np
import pytest

from planners.motion.scene import Box, Scene
from robots.arms.arm import Arm
from robots.arms.ur5e import ur5e

FINE = 1e-3
"""[m] between two looks, of the geom that moves most."""


def pose(x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z, 1.0, 0.0, 0.0, 0.0])


WALL = Scene((Box("wall", pose(0.65, 0.0, 0.3), np.array([0.6, 0.05, 0.6])), Box("roof", pose(0.5, 0.0, 1.1), np.array([0.6, 0.6, 0.05]))))
START = np.array([np.pi - 1.0, -1.0, 1.3, -1.8, -1.57, 0.0])
GOAL = np.array([np.pi + 0.9, -1.0, 1.3, -1.8, -1.57, 0.0])
BEHIND = np.array([np.pi, -1.0, 1.3, -1.8, -1.57, 0.0])
"""Half way of the straight line from START to GOAL, in the wall."""


def touching(model: mujoco.MjModel, data: mujoco.MjData, q: np.ndarray) -> bool:
    data.qpos[:] = q
    mujoco.mj_forward(model, data)
    return bool((data.contact.dist < 0).any())


def looks(model: mujoco.MjModel, data: mujoco.MjData, start: np.ndarray, end: np.ndarray) -> int:
    """Return how many steps of at most FINE of any geom a straight motion takes: its centre's way plus what its turning adds."""
    count, way = 100, np.zeros(model.ngeom)
    places = []
    for s in np.linspace(0.0, 1.0, count + 1):
        data.qpos[:] = start + s * (end - start)
        mujoco.mj_kinematics(model, data)
        places.append((data.geom_xpos.copy(), data.geom_xmat.reshape(-1, 3, 3).copy()))
    for (x, r), (y, t) in pairwise(places):
        cosine = np.clip((np.einsum("gij,gij->g", r, t) - 1) / 2, -1, 1)
        way = np.maximum(way, np.linalg.norm(y - x, axis=1) + model.geom_rbound * np.arccos(cosine))
    return int(np.ceil(way.max() * count / FINE)) + 1


@pytest.fixture(scope="session", name="path_touches")
def _path_touches() -> Callable[[Arm, Scene, np.ndarray], bool]:
    """path_touches(arm, scene, points (N, nv)): whether MuJoCo finds a contact anywhere, looked at every millimetre"""
    def path_touches(arm: Arm, scene: Scene, points: np.ndarray) -> bool:
        model = scene.model(arm)
        data = mujoco.MjData(model)
        for start, end in pairwise(points):
            steps = looks(model, data, start, end)
            if any(touching(model, data, start + s * (end - start)) for s in np.linspace(0.0, 1.0, steps + 1)):
                return True
        return False
    return path_touches


@pytest.fixture(scope="session", name="touches")
def _touches() -> Callable[[mujoco.MjModel, mujoco.MjData, np.ndarray], bool]:
    return touching


@pytest.fixture(scope="session")
def arm() -> Arm:
    return ur5e()


@pytest.fixture(scope="session")
def wall() -> Scene:
    return WALL


@pytest.fixture(scope="session")
def around_the_wall() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """start, goal, and half way between them, in the wall"""
    return START, GOAL, BEHIND
