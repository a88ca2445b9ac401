"""Run with a planar half-cheetah, as in PETS (Chua et al. 2018, https://arxiv.org/abs/1805.12114)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mujoco
import numpy as np
from torch import Tensor

from dynamics.state_space import Channel, Kind, StateSpace, Target
from planners.cost import Cost
from sim.mujoco_robot import Moment, MujocoRobot, MujocoScene, Start
from sim.task import CameraRequest, Task

JOINTS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")

STATE_SPACE = StateSpace([
    Channel("forward_velocity", ("forward_velocity",), (0,), target=Target.ABSOLUTE, model_input=False),
    Channel("q", ("height",), (1,)),
    Channel("q", ("pitch",), (2,), Kind.ANGLE),
    Channel("q", JOINTS, tuple(range(3, 9))),
    Channel("dq", ("root_x_rate", "height_rate", "pitch_rate", *(f"{name}_rate" for name in JOINTS)), tuple(range(9))),
])


class HalfCheetahCost(Cost):
    """-(forward velocity [m/s]) + 0.1 |u|^2."""

    pure = True

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"velocity": -x[..., 0], "control": 0.1 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return -x[..., 0]


def draw_start(model: mujoco.MjModel, generator: np.random.Generator) -> Start:
    """Stand still: positions and velocities from N(reference, 0.001^2)."""
    return Start(q=model.qpos0 + generator.normal(0, 0.001, model.nq), dq=generator.normal(0, 0.001, model.nv))


def read_forward_velocity(moment: Moment) -> Mapping[str, np.ndarray]:
    """Report the mean forward velocity (1,) [m/s] over the period that just passed; zero after a reset."""
    return {"forward_velocity": (moment.data.qpos[:1] - moment.q_before[:1]) / moment.control_dt}


SCENE = MujocoScene("half-cheetah", Path(__file__).parent.parent / "scenes" / "half_cheetah.xml", substeps=5,
                    command_unit="share of the motor's torque", draw_start=draw_start, readout=read_forward_velocity)


def _make(cameras: CameraRequest) -> MujocoRobot:
    return MujocoRobot(SCENE, cameras)


def half_cheetah() -> Task:
    """Return the task: run as far as possible in 50 s."""
    return Task("half-cheetah", "run with a planar half-cheetah (PETS)", "mujoco", _make, STATE_SPACE, HalfCheetahCost(),
                episode_steps=1000, tags=frozenset({"locomotion", "contact", "pets"}))
