"""Learning to reach on an arm behind the bridge, real or a twin: the parts of a run, and how well it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dynamics.catalog import LearnedModel, make_model
from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from dynamics.workers import Workers
from episodes.episode import Episode
from episodes.metadata import Clock
from episodes.store import EpisodeStore
from hw_bridge.bridge import BridgeConfig
from hw_bridge.client import BridgeClient
from hw_bridge.reaching import (
    MissingWay,
    ReachingConfig,
    ReachingCost,
    ReachingRobot,
    draw_goals,
    offset_command,
    reaching_state_space,
    reflex_state_space,
)
from hw_bridge.robot import BridgeRobot
from hw_bridge.safety.config import Compliance, Interpolation, SafetyConfig
from planners.catalog import make_planner
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.icem import ICEMConfig
from planners.sampling import SamplingPlanner
from policies.distillation import DistillationConfig, DistillationReport, Progress, distil
from policies.episode_loop import EpisodeSource, run_episode
from policies.model_based import Learner, LearningConfig, LearningListener
from policies.neural_policy import NeuralPolicy
from policies.policy import Policy
from policies.policy_search import PolicySearchConfig, improve_policy
from policies.receding_horizon import RecedingHorizonPolicy
from policies.student import ThroughView
from policies.uncertainty_gate import GateConfig, GatedPolicy, UncertaintyGate, usual_spread
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ConfigurationError, UnknownNameError

FINAL_PERIODS = 5
"""An episode's final error is the mean distance of its last control periods."""
_COMPLIANCE: Mapping[str, Compliance] = {
    "ur5e": Compliance((800.0, 800.0, 600.0, 150.0, 150.0, 80.0), (70.0, 70.0, 55.0, 12.0, 12.0, 6.0)),
}
"""Soft enough that what the arm carries shows, damped so that it does not swing."""
UNSEEN_GOALS = 1_000_000
"""Seeds of goals from here on are no trial's."""
_TAUGHT_GOALS = 2_000_000
"""Seeds of the goals that networks are taught with; no episode's."""


@dataclass(frozen=True)
class ArmReachingConfig:
    """How an arm learns to reach."""

    seed: int = 0
    reaching: ReachingConfig = ReachingConfig()
    learning: LearningConfig = LearningConfig(trials=10, random_trials=4, episode_steps=60, hold=4, plan_ahead=True)
    ensemble: EnsembleConfig = EnsembleConfig(hidden=(128, 128, 128), beyond=0.2, fit=FitConfig(
        batch_size=64, epochs=1000, largest_updates=1500, patience=100, products="bfloat16"))
    search: ICEMConfig = ICEMConfig(horizon=8, population=80, iterations=4, elites=10, beta=1.0, initial_std=0.3,
                                    act_on_mean=True)
    evaluation: EvaluationConfig = EvaluationConfig(propagation="E", particles=1)  # a plan must be ready within its period
    gate: GateConfig = GateConfig()
    distillation: DistillationConfig = DistillationConfig()
    polish: PolicySearchConfig = PolicySearchConfig(horizon=12, rollouts=200, updates=300, learning_rate=1e-3)
    """What a distilled network learns through the model after its teacher had its say."""


def bridge_config(robot: str, address: str, config: ArmReachingConfig, log: Path | None = None, **options: str) -> BridgeConfig:
    """Return the bridge of a compliant arm that reaches; UnknownNameError for one whose compliance nobody has chosen."""
    if robot not in _COMPLIANCE:
        raise UnknownNameError("arm that can reach", robot, _COMPLIANCE)
    # Targets are held, not led to: what the arm will do next then depends on nothing but what is observed and commanded.
    safety = SafetyConfig(policy_period=config.reaching.period, action_age_max=4.0 * config.reaching.period, tracking_error_max=0.4,
                          compliance=_COMPLIANCE[robot], interpolation=Interpolation.HOLD)
    return BridgeConfig(robot, address, safety=safety, log="" if log is None else str(log), task=f"{robot}-reach", options=options)


def at_servo_rate(safety: SafetyConfig, arm: Arm) -> SafetyConfig:
    """Return the rules of a bridge whose policy answers in every servo period."""
    return replace(safety, policy_period=arm.spec.control_dt, action_age_max=max(50 * arm.spec.control_dt, 0.1))


def reaching_robot(client: BridgeClient, config: ReachingConfig, period: float) -> ReachingRobot:
    """Return the arm behind a bridge as those who reach command it, once in `period` seconds."""
    return ReachingRobot(BridgeRobot(client, CommandMode.JOINT_POSITION, period, spread=config.spread, start_speed=config.start_speed),
                         config)


def reaching_model(arm: Arm, config: ArmReachingConfig) -> LearnedModel:
    """Return a model that has learned nothing yet."""
    return make_model("probabilistic-ensemble", reaching_state_space(arm), arm.spec.nv, config.reaching.period, config.ensemble,
                      config.seed)


def reaching_planner(arm: Arm, config: ArmReachingConfig, model: LearnedModel, workers: Workers) -> SamplingPlanner:
    """Return what plans through `model`."""
    evaluator = PlanEvaluator(model, ReachingCost(arm, config.reaching), config.evaluation, workers)
    return make_planner("icem", evaluator, offset_command(arm, config.reaching), config.reaching.period, config.search)


def new_network(arm: Arm, config: ArmReachingConfig) -> NeuralPolicy:
    """Return a network that has been taught nothing yet."""
    return NeuralPolicy(reflex_state_space(arm), offset_command(arm, config.reaching), config.distillation.hidden, config.seed)


def distil_reaching(arm: Arm, config: ArmReachingConfig, model: LearnedModel, episodes: Sequence[Episode],
                    progress: Progress = lambda done, planned: None) -> tuple[NeuralPolicy, DistillationReport]:
    """Return a network that reaches as planning through `model` does, taught in the model's imagination from where `episodes` have been,
    then polished by backpropagation through the model.
    """
    workers = Workers(1)  # one plan is too little work for two threads
    try:
        return _distil(arm, config, model, reaching_planner(arm, config, model, workers), episodes, progress)
    finally:
        workers.close()


def _distil(arm: Arm, config: ArmReachingConfig, model: LearnedModel, planner: SamplingPlanner, episodes: Sequence[Episode],
            progress: Progress) -> tuple[NeuralPolicy, DistillationReport]:
    policy = new_network(arm, config)
    starts = _imagined_starts(arm, config, episodes)
    student, command = ThroughView(policy, MissingWay(arm)), policy.command
    report = distil(student, lambda: RecedingHorizonPolicy(planner, model.state_space, command, "teacher"), model, starts,
                    config.distillation, config.seed, progress)
    improve_policy(student, model, planner.evaluator.cost, starts, config.polish, config.seed)
    return policy, report


def _imagined_starts(arm: Arm, config: ArmReachingConfig, episodes: Sequence[Episode]) -> torch.Tensor:
    """Return every lived state with a goal drawn anew, (n, nx)."""
    if not episodes:
        raise ConfigurationError("distil: expected at least one lived episode to begin from, got none")
    x = np.concatenate([episode.x for episode in episodes])
    nv = arm.spec.nv
    x[:, nv : nv + 3] = draw_goals(arm, config.reaching, range(_TAUGHT_GOALS, _TAUGHT_GOALS + len(x)))
    return torch.from_numpy(x)


def gate_of(model: LearnedModel, episodes: Sequence[Episode], config: GateConfig) -> UncertaintyGate:
    """Return a gate that takes for usual what the model is unsure of in `episodes`."""
    if not episodes:
        raise ConfigurationError("gate: expected at least one lived episode to learn from what is usual, got none")
    x, u = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*((e.x[:-1], e.applied) for e in episodes), strict=True))
    return UncertaintyGate(model, usual_spread(model, x, u, config), config)


def gated(policy: Policy, gate: UncertaintyGate, robot: ReachingRobot, every: int = 1) -> GatedPolicy:
    """Return `policy` slowed where the gate is unsure, and held where it shuts; judged at every `every`-th command."""
    return GatedPolicy(policy, gate, reaching_state_space(robot.arm), robot.throttle, robot.hold, every)


class ArmReaching:
    """A learner whose robot is a bridge. `close` lets go of the bridge's boards and the threads."""

    def __init__(self, client: BridgeClient, config: ArmReachingConfig, episodes: Path, listener: LearningListener,
                 threads: int | None = None) -> None:
        self.config, self.arm = config, client.arm
        self.robot = reaching_robot(client, config.reaching, config.reaching.period)
        self.cost, self._space = ReachingCost(client.arm, config.reaching), reaching_state_space(client.arm)
        self._source = EpisodeSource(self.robot, self._space, self.robot.spec.command(), self.cost, f"{client.arm.spec.name}-reach",
                                     Clock.MONOTONIC)
        self._workers, self._listener = Workers(threads), listener
        self.learner = self._learner(EpisodeStore(episodes))

    def _learner(self, store: EpisodeStore) -> Learner:
        config = self.config
        model = reaching_model(self.arm, config)
        planner = reaching_planner(self.arm, config, model, self._workers)
        return Learner(self._source, store, model, None, None, planner, None, config.learning, PolicySearchConfig(), config.seed,
                       self._listener)

    def gate(self) -> UncertaintyGate:
        """Return a gate that takes for usual what the model is unsure of where it has been."""
        lived = list(self.learner.episodes.values()) or list(self.learner.store)  # a model trained anew has lived no trial of its own
        return gate_of(self.learner.model, lived, self.config.gate)

    def reach(self, seeds: Sequence[int], steps: int = 40, planning: Policy | None = None) -> list[Episode]:
        """Reach for the goals that `seeds` draw, without learning, and return what was lived. `planning`: what plans; None: the learner."""
        policy = gated(self.learner.planning_policy(1) if planning is None else planning, self.gate(), self.robot)
        return [run_episode(self._source, policy, steps, seed=seed, trial=i, provenance=policy.provenance) for i, seed in enumerate(seeds)]

    def distil(self, progress: Progress = lambda done, planned: None) -> tuple[NeuralPolicy, DistillationReport]:
        """Return a network that reaches as the planner does; the arm is not moved."""
        return distil_reaching(self.arm, self.config, self.learner.model, list(self.learner.episodes.values()), progress)

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
