"""Any task as a Gymnasium environment, for libraries that speak Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch

from robots.command import Command
from robots.errors import UnknownNameError, UserError
from sim.task import Task
from sim.tasks import OWN_TASKS

_SEEDS = 2**31
_PICTURE_SIZE = (640, 480)


class TaskEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task as an environment; observations are states x (nx,) float64, actions commands u (nu,) float32.

    The reward is minus the task's cost of the period, or the engine's own where the task has no cost. An episode is
    truncated after the task's number of steps. Actions outside the command box are clipped, as the robot does;
    the true one is `info["applied"]` (nu,).
    """

    def __init__(self, task: Task, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UnknownNameError("render mode", render_mode, ["rgb_array"])
        self.task = task
        self.render_mode = render_mode
        self._robot = task.robot()
        command = self._robot.spec.command()
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, round(1 / self._robot.spec.control_dt))}
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (task.state_space.nx,), np.float64)
        self.action_space = gymnasium.spaces.Box(command.minimum.astype(np.float32), command.maximum.astype(np.float32), dtype=np.float32)
        self._mode = command.mode
        self._x: np.ndarray | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the robot's seed comes from `np_random`, so one seed fixes a whole run of episodes."""
        super().reset(seed=seed)
        observation = self._robot.reset(int(self.np_random.integers(_SEEDS)))
        self._x, self._steps = self.task.state_space.state(observation), 0
        return self._x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Command `action` (nu,) for one control period."""
        if self._x is None:
            raise UserError(f"environment of task {self.task.name!r} was not reset yet; call reset() before step()")
        applied = self._robot.send(Command(self._mode, action)).values
        observation = self._robot.tick()
        x, self._x = self._x, self.task.state_space.state(observation)
        self._steps += 1
        truncated = self._steps >= self.task.episode_steps
        reward = self._reward(x, applied, observation.reward)
        return self._x.copy(), reward, observation.terminated, truncated, {"applied": applied.copy()}

    def render(self) -> np.ndarray | None:
        """Return a picture (480, 640, 3) uint8 from the scene's first camera, or None without a render mode."""
        return None if self.render_mode is None else self._robot.render(*_PICTURE_SIZE)

    def close(self) -> None:
        """Release the engine."""
        self._robot.close()

    def _reward(self, x: np.ndarray, applied: np.ndarray, reported: float | None) -> float:
        if self.task.cost is not None:
            return -float(self.task.cost.transition(*(torch.tensor(array) for array in (x, applied, self._x))))
        if reported is None:
            raise UserError(f"task {self.task.name!r} has neither a cost nor a reported reward; give it one of the two")
        return reported


def make_task_env(task_name: str, render_mode: str | None = None) -> TaskEnv:
    """Return the environment of one of our own tasks by name; UnknownNameError for another name."""
    if task_name not in OWN_TASKS:
        raise UnknownNameError("task", task_name, OWN_TASKS)
    return TaskEnv(OWN_TASKS[task_name](), render_mode)


def register_with_gymnasium() -> tuple[str, ...]:
    """Register our own tasks as 'reflexarc/<task>-v0' and return these ids; calling it again changes nothing."""
    ids = tuple(f"reflexarc/{name}-v0" for name in OWN_TASKS)
    for name, identifier in zip(OWN_TASKS, ids, strict=True):
        if identifier not in gymnasium.registry:
            gymnasium.register(identifier, entry_point="sim.gymnasium_export:make_task_env", kwargs={"task_name": name})
    return ids
