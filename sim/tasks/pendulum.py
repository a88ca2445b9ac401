"""Swing up a pendulum whose motor is too weak to lift it at once."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from torch import Tensor

from dynamics.state_space import Channel, Kind, StateSpace, wrap_angle
from planners.cost import Cost
from sim.mujoco_robot import MujocoRobot, MujocoScene, Start
from sim.task import CameraRequest, Task

STATE_SPACE = StateSpace([Channel("q", ("angle",), (0,), Kind.ANGLE), Channel("dq", ("angle_rate",), (0,))])


class PendulumCost(Cost):
    """angle^2 + 0.1 rate^2 + 0.001 torque^2, the angle [rad] from upright in [-pi, pi]: Gymnasium's Pendulum-v1."""

    pure = True

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"angle": wrap_angle(x[..., 0]) ** 2, "rate": 0.1 * x[..., 1] ** 2, "torque": 0.001 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return wrap_angle(x[..., 0]) ** 2 + 0.1 * x[..., 1] ** 2


def draw_start(model: mujoco.MjModel, generator: np.random.Generator) -> Start:
    """Hang almost straight and almost at rest."""
    return Start(q=np.array([np.pi]) + generator.normal(0, 0.1, 1), dq=generator.normal(0, 0.1, 1))


SCENE = MujocoScene("pendulum", Path(__file__).parent.parent / "scenes" / "pendulum.xml", substeps=5, command_unit="N·m",
                    draw_start=draw_start, end_effector="tip")


def _make(cameras: CameraRequest) -> MujocoRobot:
    return MujocoRobot(SCENE, cameras)


def pendulum() -> Task:
    """Return the task: 10 s to swing up from hanging and stay up."""
    return Task("pendulum", "swing a torque-limited pendulum up from hanging", "mujoco", _make, STATE_SPACE, PendulumCost(),
                episode_steps=200, tags=frozenset({"swing-up"}))
