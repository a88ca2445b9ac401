"""An arm where people look at it: on a floor, in light, with the goal that it reaches for and what it carries."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import mujoco
import numpy as np

from robots.arms.arm import Arm
from sim.rendering import Quality, SceneRenderer

_GOAL_RADIUS = 0.035
"""[m]"""
_PENDING, _REACHED = (1.0, 0.6, 0.1, 0.5), (0.1, 0.9, 0.4, 0.5)
_BALL_DENSITY = 7850.0
"""Of the ball that stands for the payload: steel [kg/m^3]."""
_TURN, _RISE, _FIELD = np.deg2rad(50.0), np.deg2rad(15.0), np.deg2rad(40.0)
"""The camera stands so far to the side of where the end effector works, so high above the middle, and sees so much [rad]."""


class ArmScene:
    """Draws `arm` at any joint positions. Holds one OpenGL context until `close`; RenderingUnavailableError where there is none."""

    def __init__(self, arm: Arm, q: np.ndarray, points: np.ndarray, quality: Quality = Quality.FILM) -> None:
        """The camera sees all of the arm at joint positions q (n, nv) [rad], and points (m, 3) [m]."""
        spec, self._site = mujoco.MjSpec.from_file(str(arm.model_file)), arm.spec.end_effector_frames[0]
        self._qpos = [int(joint.qposadr[0]) for joint in map(arm.model().joint, arm.spec.joint_names)]
        _furnish(spec, self._site)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        links, tips = [], []
        for pose in q:
            self._pose(pose)
            links.append(self._data.xpos.copy())  # the first is the base
            tips.append(self._data.site(self._site).xpos.copy())
        _set_up(spec, np.concatenate([*links, tips, np.reshape(points, (-1, 3))]), np.mean(tips, axis=0))
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._goal, self._ball = self._model.geom("the_goal").id, self._model.geom("the_payload").id
        self._camera = self._model.camera("the_camera").id
        self._renderer = SceneRenderer(self._model, quality)

    def picture(self, q: np.ndarray, goal: np.ndarray, reached: bool, payload_kg: float, width: int, height: int) -> np.ndarray:
        """Return (height, width, 3) uint8: the arm at q (nv,) [rad], and goal (3,) [m], green once it is `reached`."""
        self._data.mocap_pos[0] = goal
        self._model.geom_rgba[self._goal] = _REACHED if reached else _PENDING
        self._model.geom_rgba[self._ball, 3] = 1.0 if payload_kg > 0 else 0.0
        self._model.geom_size[self._ball, 0] = ball_radius(payload_kg)
        self._pose(q)
        return self._renderer.picture(self._data, self._camera, width, height)

    def close(self) -> None:
        self._renderer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _pose(self, q: np.ndarray) -> None:
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)


def ball_radius(payload_kg: float) -> float:
    """Return the radius [m] of a steel ball of that mass."""
    return (3.0 * max(payload_kg, 0.0) / (4.0 * np.pi * _BALL_DENSITY)) ** (1.0 / 3.0)


def _furnish(spec: mujoco.MjSpec, site: str) -> None:
    """Take away the model's light, replace its floor by one for people, and add what is reached for and what is carried."""
    for thing in [*spec.lights, *(geom for geom in spec.geoms if geom.type == mujoco.mjtGeom.mjGEOM_PLANE)]:
        spec.delete(thing)
    spec.add_texture(name="the_sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
                     rgb1=[0.86, 0.90, 0.95], rgb2=[0.55, 0.62, 0.72], width=64, height=384)
    spec.add_texture(name="the_tiles", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER, width=256,
                     height=256, rgb1=[0.30, 0.34, 0.40], rgb2=[0.34, 0.38, 0.44], mark=mujoco.mjtMark.mjMARK_EDGE,
                     markrgb=[0.42, 0.46, 0.52])
    tiles = spec.add_material(name="the_tiles", reflectance=0.1, texrepeat=[2, 2], texuniform=True)
    tiles.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "the_tiles"
    world, sphere = spec.worldbody, mujoco.mjtGeom.mjGEOM_SPHERE
    world.add_geom(name="the_floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[30, 30, 0.1], material="the_tiles", rgba=[1, 1, 1, 1])
    goal = world.add_body(name="the_goal", mocap=True)
    goal.add_geom(name="the_goal", type=sphere, size=[_GOAL_RADIUS, 0, 0], contype=0, conaffinity=0)
    flange = spec.site(site)
    flange.parent.add_geom(name="the_payload", type=sphere, size=[0.03, 0, 0], pos=flange.pos, rgba=[0.07, 0.07, 0.09, 1.0], mass=0.0,
                           contype=0, conaffinity=0)


def _set_up(spec: mujoco.MjSpec, seen: np.ndarray, tip: np.ndarray) -> None:
    """Stand the camera where it sees points seen (n, 3), to the side of where the end effector works, tip (3,) [m]; light them."""
    middle = (seen.min(axis=0) + seen.max(axis=0)) / 2.0
    radius = float(np.linalg.norm(seen - middle, axis=1).max()) + 0.08
    azimuth = np.arctan2(tip[1], tip[0]) + _TURN
    back = np.array([np.cos(azimuth) * np.cos(_RISE), np.sin(azimuth) * np.cos(_RISE), np.sin(_RISE)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    up, quaternion = np.cross(back, right), np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, up, back], axis=1).ravel())
    world, sun = spec.worldbody, mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    world.add_camera(name="the_camera", pos=middle + back * radius / np.sin(_FIELD / 2.0), quat=quaternion, fovy=float(np.rad2deg(_FIELD)))
    key, fill = 0.45 * back - 0.45 * right + 1.1 * up, 0.5 * back + 0.9 * right + 0.4 * up
    world.add_light(name="the_key", pos=middle + 2.0 * key, dir=-key, type=sun, diffuse=[0.65] * 3, specular=[0.3] * 3, castshadow=True)
    world.add_light(name="the_fill", pos=middle + 2.0 * fill, dir=-fill, type=sun, diffuse=[0.25] * 3, specular=[0] * 3, castshadow=False)
    spec.stat.extent = 2.0 * radius
    spec.visual.map.shadowclip = 1.3  # narrower, what is not under the light would be speckled
