"""Where the links are: the end effector's box and speed, and what must not touch."""

from __future__ import annotations

import mujoco
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
        self._jacobian = np.zeros((3, self._model.nv))
        self._torque = np.zeros(self._model.nv)

    def violation(self, q: np.ndarray) -> Rule:
        """Return WORKSPACE or COLLISION where pose `q` (nv,) breaks them, else NONE."""
        data, model = self._data, self._model
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        position = data.site_xpos[self._site]
        if (position < self._minimum).any() or (position > self._maximum).any():
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
        return float(np.linalg.norm(self._jacobian @ dq))

    def gravity(self, q: np.ndarray) -> np.ndarray:
        """Return (nv,) torques [N·m] that hold the arm, without payload, still at `q` (nv,); valid until the next call."""
        self._data.qpos[:] = q
        self._data.qvel[:] = 0.0
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_crb(self._model, self._data)
        mujoco.mj_rne(self._model, self._data, 0, self._torque)
        return self._torque
