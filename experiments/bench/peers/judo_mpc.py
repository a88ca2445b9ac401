"""Measures judo (`judo-rai` 0.1.0) as it is installed: what its controller takes for every plan by MPPI through MuJoCo,
and what the model pays that it controls.

Run by `.peers/judo/bin/python` (`make bench-peers` builds it); imports nothing of Reflexarc. The last line of the output is one JSON
object. Its rollouts get as many threads as it is told, where it would take one for every rollout itself.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from judo.controller.controller import Controller, ControllerConfig
from judo.optimizers.mppi import MPPI, MPPIConfig
from judo.tasks.base import Task, TaskConfig
from judo.utils.mj_rollout_backend import MJRolloutBackend
from mujoco.rollout import Rollout


@dataclass
class SquaresConfig(TaskConfig):
    """Nothing to set."""


class Squares(Task[SquaresConfig]):
    """Charges |x|^2 + 0.1 |u|^2 in every period: the cost that Reflexarc's side of the comparison charges too."""

    name = "squares"
    config_t = SquaresConfig

    def reward(self, states: np.ndarray, sensors: np.ndarray, controls: np.ndarray,
               system_metadata: dict[str, Any] | None = None) -> np.ndarray:
        return -(np.square(states).sum((-1, -2)) + 0.1 * np.square(controls).sum((-1, -2)))


class FewThreads(MJRolloutBackend):
    """judo's own rollouts, on as many threads as the machine has cores: its own way is a thread for every rollout."""

    def __init__(self, model: mujoco.MjModel, rollouts: int, threads: int) -> None:
        super().__init__(model, rollouts)
        self._rollout_obj.close()
        _, data = zip(*self._model_data_pairs, strict=True)
        self._rollout_obj = _FewData(Rollout(nthread=threads), list(data)[:threads])


class _FewData:
    """A rollout that passes on as many MjData as it has threads, as MuJoCo wants it."""

    def __init__(self, rollout: Rollout, data: list[mujoco.MjData]) -> None:
        self._rollout, self._data = rollout, data

    def rollout(self, models: list[mujoco.MjModel], data: list[mujoco.MjData], *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        return self._rollout.rollout(models, self._data, *arguments)


def main() -> None:
    """Control the model by plans; print the time of each [s], and what was paid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="MJCF file")
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--plans", type=int, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--push", type=float, default=0.5, help="standard deviation of the first velocities")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task = Squares(options.model)
    optimizer = MPPI(MPPIConfig(num_rollouts=options.rollouts, num_nodes=options.nodes), task.nu)
    controller = Controller(ControllerConfig(horizon=options.steps * task.dt, spline_order="linear"), task, optimizer)
    assert controller.num_timesteps == options.steps, (controller.num_timesteps, options.steps)
    controller.rollout_backend = FewThreads(task.model, options.rollouts, options.threads)
    data = mujoco.MjData(task.model)
    data.qvel[:] = np.random.default_rng(options.seed).normal(0.0, options.push, task.model.nv)
    np.random.seed(options.seed)  # noqa: NPY002 judo draws from NumPy's own generator
    seconds, cost = [], 0.0
    for _ in range(options.plans):
        controller.current_state, controller.time = np.concatenate([data.qpos, data.qvel]), data.time
        started = time.perf_counter()
        controller.update_action()
        seconds.append(time.perf_counter() - started)
        data.ctrl[:] = controller.action(data.time)
        mujoco.mj_step(task.model, data)
        cost += float(np.square(data.qpos).sum() + np.square(data.qvel).sum() + 0.1 * np.square(data.ctrl).sum())
    print(json.dumps({"seconds": seconds, "cost": cost, "mujoco": mujoco.__version__}))


if __name__ == "__main__":
    main()
