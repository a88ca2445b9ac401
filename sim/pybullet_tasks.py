"""Reaching with PyBullet's arms: the names, the cost and the tasks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from dynamics.state_space import Channel, StateSpace, Target
from planners.cost import Cost
from robots.command import CommandMode
from robots.errors import UnknownNameError
from sim.pybullet_arms import BulletArm, kuka, panda
from sim.pybullet_robot import PyBulletRobot
from sim.task import Task

PREFIX = "bullet:"
EPISODE_STEPS = 100
"""Control periods of an episode: 5 s."""
_TASKS = {
    "bullet:kuka-reach": (kuka, CommandMode.JOINT_TORQUE),
    "bullet:kuka-reach-position": (kuka, CommandMode.JOINT_POSITION),
    "bullet:panda-reach": (panda, CommandMode.JOINT_TORQUE),
    "bullet:panda-reach-position": (panda, CommandMode.JOINT_POSITION),
}


class ReachCost(Cost):
    """Distance of the tip from the goal, squared, speed and effort, over x = (q (n,), dq (n,), tip (3,), goal (3,)).

    - distance: 10 |tip - goal|^2 [m^2]
    - speed: 0.01 |dq|^2 [rad^2/s^2]
    - effort: 0.01 |u / u_max|^2 for torques u; 0.01 |u - q|^2 [rad^2] for positions u, which keeps the target near the arm.
    """

    pure = True
    DISTANCE, SPEED, EFFORT = 10.0, 0.01, 0.01

    def __init__(self, arm: BulletArm, mode: CommandMode) -> None:
        self._n = len(arm.joint_names)
        self._torque_box = torch.tensor(arm.torque_box, dtype=torch.float64)
        self._mode = mode

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        torques = self._mode is CommandMode.JOINT_TORQUE
        effort = u / self._torque_box.to(u) if torques else u - x[..., :self._n]
        return {**self._state_terms(x), "effort": self.EFFORT * effort.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        terms = self._state_terms(x)
        return terms["distance"] + terms["speed"]

    def _state_terms(self, x: Tensor) -> dict[str, Tensor]:
        n = self._n
        distance = x[..., 2 * n:2 * n + 3] - x[..., 2 * n + 3:2 * n + 6]
        return {"distance": self.DISTANCE * distance.square().sum(-1), "speed": self.SPEED * x[..., n:2 * n].square().sum(-1)}


def pybullet_names() -> list[str]:
    """Return the names of PyBullet's tasks."""
    return list(_TASKS)


def make_pybullet_task(name: str) -> Task:
    """Return the task 'bullet:...'."""
    if name not in _TASKS:
        raise UnknownNameError("PyBullet task", name, _TASKS)
    make_arm, mode = _TASKS[name]
    arm = make_arm()
    n = len(arm.joint_names)
    space = StateSpace([
        Channel("q", tuple(f"q_{joint}" for joint in arm.joint_names), tuple(range(n))),
        Channel("dq", tuple(f"dq_{joint}" for joint in arm.joint_names), tuple(range(n))),
        Channel("tip", ("tip_x", "tip_y", "tip_z"), (0, 1, 2)),
        Channel("goal", ("goal_x", "goal_y", "goal_z"), (0, 1, 2), target=Target.CONSTANT, model_input=False),
    ])
    return Task(name=name, summary=describe_pybullet(name), engine="pybullet", make=partial(PyBulletRobot, name, arm, mode),
                state_space=space, cost=ReachCost(arm, mode), episode_steps=EPISODE_STEPS)


def describe_pybullet(name: str) -> str:
    """Return one line on a task."""
    make_arm, mode = _TASKS[name]
    machine = {"panda": "Franka Panda", "kuka": "KUKA iiwa 14"}[make_arm().name]
    return f"PyBullet: a {machine} brings its tip to a goal, commanded by {str(mode).replace('_', ' ')}s"
