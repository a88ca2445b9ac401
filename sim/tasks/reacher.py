"""Reach a goal with a seven-joint arm, as in PETS (Chua et al. 2018, https://arxiv.org/abs/1805.12114)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mujoco
import numpy as np
import torch
from torch import Tensor

from dynamics.state_space import Channel, Kind, StateSpace, Target
from planners.cost import Cost
from sim.mujoco_robot import Moment, MujocoRobot, MujocoScene, Start
from sim.task import CameraRequest, Task

JOINTS = ("shoulder_pan", "shoulder_lift", "upper_arm_roll", "elbow_flex", "forearm_roll", "wrist_flex", "wrist_roll")
GOAL_CENTRE = (0.0, 0.25, 0.0)
"""Mean of the goals [m]."""

STATE_SPACE = StateSpace([
    Channel("q", JOINTS[:4], (0, 1, 2, 3)),
    Channel("q", JOINTS[4:5], (4,), Kind.ANGLE),  # the two rolls have no stops: they may turn many times
    Channel("q", JOINTS[5:6], (5,)),
    Channel("q", JOINTS[6:7], (6,), Kind.ANGLE),
    Channel("goal", ("goal_x", "goal_y", "goal_z"), (0, 1, 2), target=Target.CONSTANT, model_input=False),
    Channel("dq", tuple(f"{name}_rate" for name in JOINTS), tuple(range(7))),
])


def tip_position(q: Tensor, base: float = -0.188, hand: float = 0.16828) -> Tensor:
    """Return the tip (..., 3) [m] in the world frame for joint angles q (..., 7) [rad]; `base`: y of the first axis, `hand`: length of
    the hand from the wrist to the tip [m].

    Carries the tip's offset from the wrist back through the chain, one plane rotation a joint: pan about z, lift, elbow and
    wrist about y, the rolls about x. The last roll turns about the axis the tip lies on and does not matter.
    """
    sine, cosine = torch.sin(q[..., :6]).unbind(-1), torch.cos(q[..., :6]).unbind(-1)
    x, z = hand * cosine[5], -hand * sine[5]  # wrist flex; y is still zero
    y, z = -sine[4] * z, cosine[4] * z  # forearm roll
    x = x + 0.321
    x, z = cosine[3] * x + sine[3] * z, cosine[3] * z - sine[3] * x  # elbow flex
    y, z = cosine[2] * y - sine[2] * z, sine[2] * y + cosine[2] * z  # upper-arm roll
    x = x + 0.4
    x, z = cosine[1] * x + sine[1] * z, cosine[1] * z - sine[1] * x  # shoulder lift
    x = x + 0.1
    x, y = cosine[0] * x - sine[0] * y, sine[0] * x + cosine[0] * y  # shoulder pan
    return torch.stack([x, y + base, z], dim=-1)


class ReacherCost(Cost):
    """Squared distance [m^2] of the tip from the goal + 0.01 |u|^2."""

    pure = True

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"distance": self.terminal(x), "control": 0.01 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return (tip_position(x[..., :7]) - x[..., 7:10]).square().sum(-1)


def draw_start(model: mujoco.MjModel, generator: np.random.Generator) -> Start:
    """Stretch the arm out at rest; the goal comes from N(centre, 0.1^2)."""
    return Start(model.qpos0, np.zeros(model.nv), goals={"goal": np.array(GOAL_CENTRE) + generator.normal(0, 0.1, 3)})


def read_goal(moment: Moment) -> Mapping[str, np.ndarray]:
    """Report the goal (3,) [m]."""
    return {"goal": moment.data.body("goal").xpos}


SCENE = MujocoScene("reacher7", Path(__file__).parent.parent / "scenes" / "reacher7.xml", substeps=2, command_unit="N·m",
                    draw_start=draw_start, readout=read_goal, end_effector="tip")


def _make(cameras: CameraRequest) -> MujocoRobot:
    return MujocoRobot(SCENE, cameras)


def reacher7() -> Task:
    """Return the task: 3 s to bring the tip to a goal that every episode draws anew."""
    return Task("reacher7", "reach a goal with a seven-joint arm (PETS)", "mujoco", _make, STATE_SPACE, ReacherCost(),
                episode_steps=150, tags=frozenset({"arm", "pets"}))
