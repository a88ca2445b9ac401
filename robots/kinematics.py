"""Forward kinematics and Jacobians of a frame on a machine that MuJoCo describes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

import mujoco
import numpy as np

from robots.errors import UnknownNameError
from robots.validation import checked_array


class FrameKind(StrEnum):
    """What a frame is attached to in the model."""

    SITE = "site"
    BODY = "body"


class Kinematics:
    """Poses and velocities of one frame, in the world frame. Holds its own engine state: no simulation is disturbed.

    Raises UnknownNameError for a frame the model lacks. Not for use from two threads at once.
    """

    def __init__(self, model: mujoco.MjModel, frame: str, kind: FrameKind = FrameKind.SITE) -> None:
        self.model = model
        self.frame = frame
        self.kind = FrameKind(kind)
        count, element = (model.nsite, model.site) if self.kind is FrameKind.SITE else (model.nbody, model.body)
        names = [element(i).name for i in range(count)]
        if frame not in names:
            raise UnknownNameError(str(self.kind), frame, [name for name in names if name])
        self._number = names.index(frame)
        self._data = mujoco.MjData(model)

    @classmethod
    def from_file(cls, path: Path | str, frame: str, kind: FrameKind = FrameKind.SITE) -> Self:
        """Return the kinematics of a frame in an MJCF or URDF file."""
        return cls(mujoco.MjModel.from_xml_path(str(path)), frame, kind)

    def forward(self, q: np.ndarray) -> np.ndarray:
        """Return the pose (7,): position [m] and unit quaternion wxyz with w >= 0, for positions q (nq,)."""
        self._place(q)
        position, rotation = self._frame()
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, rotation)
        return np.concatenate([position, -quaternion if quaternion[0] < 0 else quaternion])

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """Return the Jacobian (6, nv) at positions q (nq,).

        Rows 0-2 give the velocity of the frame's origin [m/s], rows 3-5 its angular velocity [rad/s], both along the
        world's axes, per generalised velocity dq (nv,).
        """
        self._place(q)
        jacobian = np.empty((6, self.model.nv))
        compute = mujoco.mj_jacSite if self.kind is FrameKind.SITE else mujoco.mj_jacBody
        compute(self.model, self._data, jacobian[:3], jacobian[3:], self._number)
        return jacobian

    def _place(self, q: np.ndarray) -> None:
        self._data.qpos[:] = checked_array("q", q, (self.model.nq,))
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)

    def _frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the frame's position (3,) and rotation matrix (9,), row by row."""
        if self.kind is FrameKind.SITE:
            return self._data.site_xpos[self._number], self._data.site_xmat[self._number]
        return self._data.xpos[self._number], self._data.xmat[self._number]
