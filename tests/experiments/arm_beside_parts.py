"""What the tests of planning beside an arm share: a run that learned from an imagined arm, and a planner that is slow on any computer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dynamics.dataset import transition_data
from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from dynamics.workers import Workers
from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata
from experiments.arm_reach_beside import RunPlanner
from experiments.arm_reaching import ArmReachingConfig, bridge_config, reaching_model
from experiments.arm_run import ArmRun, ArmRunConfig
from hw_bridge.reaching import draw_goals, offset_command, reaching_state_space
from planners.icem import ICEMConfig
from policies.asynchronous.request_planner import RequestPlanner
from policies.uncertainty_gate import GateConfig
from robots.arms.ur5e import ur5e

ARM = ur5e()
SLOW = 0.12
"""What a plan takes at least [s]; a control period is 0.1 s."""
CONFIG = ArmReachingConfig(
    ensemble=EnsembleConfig(members=2, hidden=(32,), weight_decay=(1e-4,), fit=FitConfig(batch_size=64, epochs=15)),
    search=ICEMConfig(horizon=10, population=48, iterations=2, elites=6, beta=1.0, initial_std=0.5, act_on_mean=True),
    gate=GateConfig(slow_from=1e6, stop_at=2e6))  # two small networks that never saw this arm disagree; they are followed all the same


def imagined(seed: int, steps: int = 60) -> Episode:
    """An arm that is held by springs and dampers where it is told to be."""
    space, random, nv = reaching_state_space(ARM), np.random.default_rng(seed), ARM.spec.nv
    x, u = np.zeros((steps + 1, space.nx)), random.uniform(-CONFIG.reaching.offset, CONFIG.reaching.offset, (steps, nv))
    q, dq, held = ARM.home + random.uniform(-0.3, 0.3, nv), np.zeros(nv), np.zeros(nv)
    for k in range(steps + 1):
        x[k, :nv], x[k, nv + 3 : 2 * nv + 3], x[k, 2 * nv + 3 : 3 * nv + 3] = q, dq, held - q if k else 0.0
        held = q + u[min(k, steps - 1)]
        for _ in range(50):
            dq = dq + 0.002 * (200.0 * (held - q) - 20.0 * dq)
            q = q + 0.002 * dq
    x[:, nv : nv + 3] = draw_goals(ARM, CONFIG.reaching, [seed])
    metadata = EpisodeMetadata("ur5e-reach", ARM.spec.fingerprint(), ARM.spec.to_json(), seed, seed, "random", None)
    return Episode(0.1 * np.arange(steps + 1), x + 1e-4 * random.normal(size=x.shape), u, u, np.zeros(steps), False, True, space.names,
                   offset_command(ARM, CONFIG.reaching).names, metadata)


def learned_run(path: Path) -> ArmRun:
    """A run as `reflexarc retrain` leaves it."""
    config = ArmRunConfig("ur5e", 1.0, bridge_config("ur5e", "", CONFIG).safety.fingerprint(), reaching=CONFIG)
    run, episodes = ArmRun.create(path, config), {seed: imagined(seed) for seed in range(4)}
    for index, episode in episodes.items():
        run.store().write(index, episode)
    model, workers = reaching_model(ARM, CONFIG), Workers(1)
    model.fit(transition_data(episodes, reaching_state_space(ARM)), workers)
    workers.close()
    run.save([], {f"model.{name}": value for name, value in model.tensors().items()} | {"steps_since_fit": torch.tensor(0)})
    return run


class SlowPlanner:
    """A planner that takes its time."""

    def __init__(self, planner) -> None:
        self.planner, self.horizon, self.parameterisation = planner, planner.horizon, planner.parameterisation

    def plan(self, x0, previous, generator, deadline=None):
        time.sleep(SLOW)
        return self.planner.plan(x0, previous, generator, deadline)


@dataclass(frozen=True)
class SlowRunPlanner(RunPlanner):
    """Makes a run's planner, slowed down."""

    def __call__(self) -> RequestPlanner:
        made = super().__call__()
        return RequestPlanner(SlowPlanner(made.planner), made.model, made.command)
