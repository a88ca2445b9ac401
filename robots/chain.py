"""Forward kinematics in torch: differentiable, for any batch of joint positions."""

from __future__ import annotations

import mujoco
import numpy as np
import torch
from torch import Tensor

from robots.errors import ConfigurationError, UnknownNameError


class Chain:
    """The hinges between the world and one site of a MuJoCo model, as products of homogeneous transforms.

    ConfigurationError where the way to the site holds joints other than hinges; UnknownNameError for a site the model lacks.
    """

    def __init__(self, model: mujoco.MjModel, site: str) -> None:
        names = [model.site(i).name for i in range(model.nsite)]
        if site not in names:
            raise UnknownNameError("site", site, [name for name in names if name])
        end = model.site(site)
        bodies = []
        body = int(end.bodyid[0])
        while body:
            bodies.append(body)
            body = int(model.body_parentid[body])
        self.nq = int(model.nq)
        self._joints: list[int] = []
        fixed, axes = [np.eye(4)], []
        for body in reversed(bodies):
            fixed[-1] = fixed[-1] @ _transform(model.body_pos[body], model.body_quat[body])
            first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
            for joint in range(first, first + count):
                if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
                    raise ConfigurationError(f"Chain: expected hinges on the way to site {site!r}, "
                                             f"joint {model.joint(joint).name!r} is none")
                anchor = _transform(model.jnt_pos[joint], np.array([1.0, 0, 0, 0]))
                fixed[-1] = fixed[-1] @ anchor
                axes.append(model.jnt_axis[joint] / np.linalg.norm(model.jnt_axis[joint]))
                self._joints.append(int(model.jnt_qposadr[joint]))
                fixed.append(np.linalg.inv(anchor))
        fixed[-1] = fixed[-1] @ _transform(model.site_pos[end.id], model.site_quat[end.id])
        self._rotations = [torch.from_numpy(t[:3, :3].copy()) for t in fixed]
        self._offsets = [torch.from_numpy(t[:3, 3].copy()) for t in fixed]
        self._cross = [torch.from_numpy(_cross(axis)) for axis in axes]
        self._square = [torch.from_numpy(_cross(axis) @ _cross(axis)) for axis in axes]

    def position(self, q: Tensor) -> Tensor:
        """Return the site's position (..., 3) [m] in the world frame at joint positions q (..., nq) [rad]."""
        # Carried back from the tip: a vector times a matrix a joint, instead of a product of matrices.
        point = self._offsets[-1].to(q).expand(*q.shape[:-1], 3)
        for i in range(len(self._joints) - 1, -1, -1):
            angle = q[..., self._joints[i], None]
            turned = point @ self._cross[i].to(q).T
            point = point + torch.sin(angle) * turned + (1.0 - torch.cos(angle)) * (point @ self._square[i].to(q).T)  # Rodrigues
            point = point @ self._rotations[i].to(q).T + self._offsets[i].to(q)
        return point


def _transform(position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, np.ascontiguousarray(quaternion, float))
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation.reshape(3, 3), position
    return transform


def _cross(axis: np.ndarray) -> np.ndarray:
    return np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
