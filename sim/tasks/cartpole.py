"""Swing up a pole on a cart, as in PETS (Chua et al. 2018, https://arxiv.org/abs/1805.12114)."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import torch
from torch import Tensor

from dynamics.state_space import Channel, Kind, StateSpace
from planners.cost import Cost
from sim.mujoco_robot import MujocoRobot, MujocoScene, Start
from sim.task import CameraRequest, Task

POLE_LENGTH = 0.6
"""From the hinge to the tip [m]."""

STATE_SPACE = StateSpace([
    Channel("q", ("cart",), (0,)),
    Channel("q", ("angle",), (1,), Kind.ANGLE),
    Channel("dq", ("cart_velocity", "angle_rate"), (0, 1)),
])


class CartpoleCost(Cost):
    """-exp(-(distance of the tip from upright over the origin / pole length)^2) + 0.01 u^2; angle 0 hangs."""

    pure = True

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"tip": self.terminal(x), "control": 0.01 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        cart, angle = x[..., 0], x[..., 1]
        across = cart - POLE_LENGTH * torch.sin(angle)
        below = POLE_LENGTH * torch.cos(angle) + POLE_LENGTH
        return -torch.exp(-(across.square() + below.square()) / POLE_LENGTH**2)


def draw_start(model: mujoco.MjModel, generator: np.random.Generator) -> Start:
    """Hang near the origin: positions and velocities from N(0, 0.1^2)."""
    return Start(q=generator.normal(0, 0.1, model.nq), dq=generator.normal(0, 0.1, model.nv))


SCENE = MujocoScene("cartpole", Path(__file__).parent.parent / "scenes" / "cartpole.xml", substeps=2, command_unit="100 N",
                    draw_start=draw_start, end_effector="tip")


def _make(cameras: CameraRequest) -> MujocoRobot:
    return MujocoRobot(SCENE, cameras)


def cartpole() -> Task:
    """Return the task: 8 s to swing up from hanging and stay up."""
    return Task("cartpole", "swing a pole up by moving its cart (PETS)", "mujoco", _make, STATE_SPACE, CartpoleCost(),
                episode_steps=200, solved_return=170.0, tags=frozenset({"swing-up", "pets"}))
