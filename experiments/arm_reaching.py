"""Learning to reach on an arm behind the bridge, real or a twin: the parts of a run, and how well it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dynamics.catalog import make_model
from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from dynamics.workers import Workers
from episodes.episode import Episode
from episodes.metadata import Clock
from episodes.store import EpisodeStore
from hw_bridge.bridge import BridgeConfig
from hw_bridge.client import BridgeClient
from hw_bridge.reaching import ReachingConfig, ReachingCost, ReachingRobot, reaching_state_space
from hw_bridge.robot import BridgeRobot
from hw_bridge.safety.config import Compliance, Interpolation, SafetyConfig
from planners.catalog import make_planner
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.icem import ICEMConfig
from policies.episode_loop import EpisodeSource, run_episode
from policies.model_based import Learner, LearningConfig, LearningListener
from policies.policy_search import PolicySearchConfig
from robots.command import CommandMode
from robots.errors import ConfigurationError, UnknownNameError

FINAL_PERIODS = 5
"""An episode's final error is the mean distance of its last control periods."""
_COMPLIANCE: Mapping[str, Compliance] = {
    "ur5e": Compliance((800.0, 800.0, 600.0, 150.0, 150.0, 80.0), (70.0, 70.0, 55.0, 12.0, 12.0, 6.0)),
}
"""Soft enough that what the arm carries shows, damped so that it does not swing."""


@dataclass(frozen=True)
class ArmReachingConfig:
    """How an arm learns to reach."""

    seed: int = 0
    reaching: ReachingConfig = ReachingConfig()
    learning: LearningConfig = LearningConfig(trials=10, random_trials=4, episode_steps=60, hold=4)
    ensemble: EnsembleConfig = EnsembleConfig(hidden=(128, 128, 128), beyond=0.2, fit=FitConfig(
        batch_size=64, epochs=1000, largest_updates=1500, patience=100, products="bfloat16"))
    search: ICEMConfig = ICEMConfig(horizon=8, population=80, iterations=4, elites=10, beta=1.0, initial_std=0.3)
    evaluation: EvaluationConfig = EvaluationConfig(propagation="E", particles=1)  # a plan must be ready early in its period


def bridge_config(robot: str, address: str, config: ArmReachingConfig, log: Path | None = None, **options: str) -> BridgeConfig:
    """Return the bridge of a compliant arm that reaches; UnknownNameError for one whose compliance nobody has chosen."""
    if robot not in _COMPLIANCE:
        raise UnknownNameError("arm that can reach", robot, _COMPLIANCE)
    safety = SafetyConfig(policy_period=config.reaching.period, action_age_max=4.0 * config.reaching.period, tracking_error_max=0.4,
                          compliance=_COMPLIANCE[robot], interpolation=Interpolation.LINEAR)
    return BridgeConfig(robot, address, safety=safety, log="" if log is None else str(log), task=f"{robot}-reach", options=options)


class ArmReaching:
    """A learner whose robot is a bridge. `close` lets go of the bridge's boards and the threads."""

    def __init__(self, client: BridgeClient, config: ArmReachingConfig, episodes: Path, listener: LearningListener,
                 threads: int | None = None) -> None:
        self.config = config
        self.robot = ReachingRobot(BridgeRobot(client, CommandMode.JOINT_POSITION, config.reaching.period, spread=config.reaching.spread),
                                   config.reaching)
        self.cost, self._space = ReachingCost(client.arm), reaching_state_space(client.arm)
        self._command = self.robot.spec.command()
        self._source = EpisodeSource(self.robot, self._space, self._command, self.cost, f"{client.arm.spec.name}-reach", Clock.MONOTONIC)
        self._workers, self._listener = Workers(threads), listener
        self.learner = self._learner(EpisodeStore(episodes))

    def _learner(self, store: EpisodeStore) -> Learner:
        config, period = self.config, self.config.reaching.period
        model = make_model("probabilistic-ensemble", self._space, self._command.nu, period, config.ensemble, config.seed)
        evaluator = PlanEvaluator(model, self.cost, config.evaluation, self._workers)
        planner = make_planner("icem", evaluator, self._command, period, config.search)
        return Learner(self._source, store, model, None, None, planner, None, config.learning, PolicySearchConfig(), config.seed,
                       self._listener)

    def reach(self, seeds: Sequence[int], steps: int = 40) -> list[Episode]:
        """Reach for the goals that `seeds` draw, without learning, and return what was lived."""
        policy = self.learner.planning_policy(1)
        return [run_episode(self._source, policy, steps, seed=seed, trial=i, provenance=policy.provenance) for i, seed in enumerate(seeds)]

    def final_errors(self, episodes: Sequence[Episode]) -> np.ndarray:
        """Return how far from its goal every episode ended (n,) [m], by the arm's own encoders."""
        return np.array([float(self.cost.distance(torch.from_numpy(e.x[-FINAL_PERIODS:].copy())).mean()) for e in episodes])

    def relearn(self, episodes: Sequence[Episode], folder: Path) -> None:
        """Forget the model and learn one from `episodes` alone, as when the arm is not what it was; kept in `folder`."""
        if not episodes:
            raise ConfigurationError("relearn: expected at least one episode to learn from, got none")
        learner = self._learner(EpisodeStore(folder))
        for trial, episode in enumerate(episodes):
            learner.store.write(trial, episode)
            learner.episodes[trial] = episode
        learner.config = replace(learner.config, trials=len(episodes))
        learner.fit(len(episodes))
        self.learner = learner

    def close(self) -> None:
        self.robot.close()
        self._workers.close()
