"""Push a cylinder to a goal with a seven-joint arm, as in PETS (Chua et al. 2018, https://arxiv.org/abs/1805.12114)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mujoco
import numpy as np
from torch import Tensor

from dynamics.state_space import Channel, StateSpace, Target
from planners.cost import Cost
from sim.mujoco_robot import Moment, MujocoRobot, MujocoScene, Start
from sim.task import CameraRequest, Task
from sim.tasks.reacher import JOINTS, tip_position

OBJECT_START = (0.15, -0.25)
"""Mean of the object's start [m]: x, y from its place in the scene, which is above the goal."""

STATE_SPACE = StateSpace([
    Channel("q", JOINTS, tuple(range(7))),
    Channel("dq", tuple(f"{name}_rate" for name in JOINTS), tuple(range(7))),
    Channel("ee_pose", ("tip_x", "tip_y", "tip_z"), (0, 1, 2)),
    Channel("object", ("object_x", "object_y", "object_z"), (0, 1, 2), model_input=False),
    Channel("goal", ("goal_x", "goal_y", "goal_z"), (0, 1, 2), target=Target.CONSTANT, model_input=False),
], differences=(("tip_x", "object_x"), ("tip_y", "object_y"), ("tip_z", "object_z")))
"""Where the object stands is one number an episode, and would tell a model which episode it is in; what counts is where from the tip."""


def pusher_tip(q: Tensor) -> Tensor:
    """Return the tip (..., 3) [m] for joint angles q (..., 7) [rad]: the arm's geometry is known, a model would have to learn it."""
    return tip_position(q, base=-0.6, hand=0.1)


class PusherCost(Cost):
    """0.5 |tip - object|_1 + 1.25 |object - goal|_1 [m] + 0.1 |u|^2, charged in the state that a period left."""

    pure = True

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return self._state_terms(x) | {"control": 0.1 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        terms = self._state_terms(x)
        return terms["near"] + terms["goal"]

    def transition_terms(self, x: Tensor, u: Tensor, x_next: Tensor) -> dict[str, Tensor]:
        return self.terms(x, u)

    def _state_terms(self, x: Tensor) -> dict[str, Tensor]:
        tip, pushed, goal = pusher_tip(x[..., :7]), x[..., 17:20], x[..., 20:23]
        return {"near": 0.5 * (tip - pushed).abs().sum(-1), "goal": 1.25 * (pushed - goal).abs().sum(-1)}


def draw_start(model: mujoco.MjModel, generator: np.random.Generator) -> Start:
    """Stretch the arm out, its joints turning at up to 0.005 rad/s; the object comes from N(start, 0.025^2)."""
    q, dq = model.qpos0.copy(), np.zeros(model.nv)
    across, along = np.array(OBJECT_START) + generator.normal(0, 0.025, 2)
    q[model.joint("object_x").qposadr[0]] = across
    q[model.joint("object_y").qposadr[0]] = along
    dq[:7] = generator.uniform(-0.005, 0.005, 7)
    return Start(q, dq)


def read_positions(moment: Moment) -> Mapping[str, np.ndarray]:
    """Report the object (3,) and the goal (3,) [m]."""
    return {"object": moment.data.body("object").xpos, "goal": moment.data.body("goal").xpos}


SCENE = MujocoScene("pusher7", Path(__file__).parent.parent / "scenes" / "pusher7.xml", substeps=4, command_unit="N·m",
                    draw_start=draw_start, readout=read_positions, end_effector="tip")


def _make(cameras: CameraRequest) -> MujocoRobot:
    return MujocoRobot(SCENE, cameras)


def pusher7() -> Task:
    """Return the task: 6 s to push the cylinder onto the goal."""
    return Task("pusher7", "push a cylinder to a goal with a seven-joint arm (PETS)", "mujoco", _make, STATE_SPACE, PusherCost(),
                episode_steps=150, tags=frozenset({"arm", "contact", "pets"}))
