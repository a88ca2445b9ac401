"""Where the links are: the end effector's box and speed, and what must not touch."""

from __future__ import annotations

import mujoco
import numba
import numpy as np

from hw_bridge.safety.config import Workspace
from hw_bridge.safety.rules import Rule
from robots.arms.arm import Arm


class Geometry:
    """Checks poses of one arm. Holds its own engine state; not for use from two threads at once."""

    def __init__(self, arm: Arm, workspace: Workspace) -> None:
        self.workspace = workspace
        self._minimum, self._maximum = np.array(workspace.minimum), np.array(workspace.maximum)
        self._model = arm.model()
        self._model.geom_margin[:] = 0.5 * workspace.clearance
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site(arm.spec.end_effector_frames[0]).id
        self._q, self._position = self._data.qpos, self._data.site_xpos[self._site]
        outside(self._position, self._minimum, self._maximum)  # compiles it
        self._jacobian = np.zeros((3, self._model.nv))
        self._torque = np.zeros(self._model.nv)
        speed(self._jacobian, self._torque)

    def violation(self, q: np.ndarray) -> Rule:
        """Return WORKSPACE or COLLISION where pose `q` (nv,) breaks them, else NONE."""
        data, model = self._data, self._model
        self._q[:] = q
        mujoco.mj_kinematics(model, data)
        if outside(self._position, self._minimum, self._maximum):
            return Rule.WORKSPACE
        mujoco.mj_collision(model, data)
        return Rule.COLLISION if data.ncon else Rule.NONE

    def words(self, q: np.ndarray) -> str:
        """Return what is wrong with pose `q` (nv,), for people; empty where nothing is."""
        rule = self.violation(q)
        if rule is Rule.WORKSPACE:
            position = self._data.site_xpos[self._site].round(3).tolist()
            return f"the end effector at {position} m is outside its box {self.workspace.minimum} to {self.workspace.maximum}"
        if rule is Rule.COLLISION:
            contact = self._data.contact[0]
            names = [self._model.body(int(self._model.geom_bodyid[g])).name or "the surroundings" for g in (contact.geom1, contact.geom2)]
            return f"{names[0]} and {names[1]} are {contact.dist:.3f} m apart, less than the clearance of {self.workspace.clearance} m"
        return ""

    def tool_speed(self, dq: np.ndarray) -> float:
        """Return the end effector's speed [m/s] at the pose last asked about, for joint velocities `dq` (nv,)."""
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian, None, self._site)
        return speed(self._jacobian, dq)

    def gravity(self, q: np.ndarray) -> np.ndarray:
        """Return (nv,) torques [N·m] that hold the arm, without payload, still at `q` (nv,); valid until the next call."""
        self._data.qpos[:] = q
        self._data.qvel[:] = 0.0
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_crb(self._model, self._data)
        mujoco.mj_rne(self._model, self._data, 0, self._torque)
        return self._torque


@numba.njit(cache=True)
def outside(position: np.ndarray, minimum: np.ndarray, maximum: np.ndarray) -> bool:
    """Return whether a position (3,) lies outside a box."""
    for i in range(3):  # noqa: SIM110 - numba compiles loops, not generators
        if position[i] < minimum[i] or position[i] > maximum[i]:
            return True
    return False


@numba.njit(cache=True)
def speed(jacobian: np.ndarray, dq: np.ndarray) -> float:
    """Return the length of jacobian (3, nv) times dq (nv,)."""
    square = 0.0
    for row in range(3):
        rate = 0.0
        for i in range(dq.shape[0]):
            rate += jacobian[row, i] * dq[i]
        square += rate * rate
    return np.sqrt(square)
