"""Model-based reinforcement learning 0.5, 1.0, 1.5 and 2.0 as four loops over the same parts.

All randomness of a trial comes from the run's seed and the trial's number, so that a run that was killed goes on from its
last checkpoint to the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dynamics.catalog import LearnedModel
from dynamics.dataset import transition_data
from dynamics.metrics import ModelMetrics, evaluate_model
from dynamics.neural_ensemble import FitReport
from dynamics.reward import RewardModel
from dynamics.value import ValueModel
from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata
from episodes.store import EpisodeStore
from planners.sampling import SamplingPlanner
from policies.episode_loop import EpisodeSource, Recording, make_episode, run_episode
from policies.neural_policy import NeuralPolicy
from policies.planning_ahead import PlanningAhead
from policies.policy import Policy
from policies.policy_search import PolicySearchConfig, improve_policy
from policies.receding_horizon import RecedingHorizonPolicy
from policies.simple import RandomPolicy
from policies.trial import TrialRecord
from robots.errors import ConfigurationError, UnknownNameError, VersionError
from robots.observation import Observation

SHORTEST_JUDGED = 2
"""A model is judged on at least so many periods that it has not learned from."""


class LearningListener(Protocol):
    """Is told what a learning run does: progress, metrics, checkpoints."""

    def trial_started(self, trial: int, provenance: str, steps: int) -> None: ...

    def fitting(self, trial: int) -> None: ...

    def fitted(self, trial: int, report: FitReport) -> None: ...

    def stepped(self, trial: int, recording: Recording) -> None: ...

    def trial_finished(self, record: TrialRecord, episode: Episode) -> None: ...


@dataclass(frozen=True)
class LearningConfig:
    """The course of a run."""

    trials: int = 12
    """Trials in all, random ones included."""
    random_trials: int = 1
    """Trials with random commands, before anything is learned."""
    episode_steps: int = 200
    """Control periods a trial lasts."""
    refit_every: int | None = None
    """Fit again after this many control periods within a trial (1.5 only), beside the fit before every trial; None: never."""
    replan_every: int = 1
    """Control periods between plans (1.5 only)."""
    plan_ahead: bool = False
    """Plan for the coming period while the present one acts: for robots that do not wait, as real ones."""
    hold: int = 1
    """Control periods that a random command is held in every other random trial: what changes every period moves a slow
    machine nowhere."""

    def __post_init__(self) -> None:
        for name in ("trials", "random_trials", "episode_steps", "replan_every", "hold"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"LearningConfig.{name}: expected at least 1, got {getattr(self, name)}")
        if self.refit_every is not None and self.refit_every < 1:
            raise ConfigurationError(f"LearningConfig.refit_every: expected at least 1 control period, got {self.refit_every}")


@dataclass
class Learner:
    """What the four loops share: a robot, what it lived through, a model, a planner."""

    source: EpisodeSource
    store: EpisodeStore
    model: LearnedModel
    reward_model: RewardModel | None
    value_model: ValueModel | None
    planner: SamplingPlanner
    policy: NeuralPolicy | None
    config: LearningConfig
    policy_search: PolicySearchConfig
    seed: int
    listener: LearningListener
    stop_after: int | None = None
    """No trial begins that could end after so many control periods of the whole run; None: all trials are lived."""

    def __post_init__(self) -> None:
        self.records: list[TrialRecord] = []
        self.episodes: dict[int, Episode] = {}
        self._fit_seconds, self._fit_report, self._steps_since_fit = 0.0, None, 0

    def remaining(self) -> Iterator[int]:
        """Yield the trials that are still to come, each once those before it are recorded."""
        while len(self.records) < self.config.trials and not self._would_pass_the_stop():
            yield len(self.records)

    def _would_pass_the_stop(self) -> bool:
        lived = sum(record.steps for record in self.records)
        return self.stop_after is not None and lived + self.config.episode_steps > self.stop_after

    def is_random(self, trial: int) -> bool:
        """Return whether trial `trial` collects random data: the first few, and all until a reward to be learned has varied,
        because before that there is nothing to aim at and a random trial costs no planning."""
        if trial < self.config.random_trials:
            return True
        if self.reward_model is None or self.model.fits > 0:
            return False
        costs = np.concatenate([episode.cost for episode in self.episodes.values()])
        return bool(np.ptp(costs) == 0.0)

    def fit(self, trial: int, partial: Episode | None = None) -> None:
        """Fit the model, and the reward model where there is one, to all episodes (and the one being lived)."""
        self.listener.fitting(trial)
        started = time.perf_counter()
        episodes = dict(self.episodes)
        if partial is not None:
            episodes[trial] = partial
        data = transition_data(episodes, self.source.state_space)
        workers = self.planner.evaluator.workers
        self._fit_report = self.model.fit(data, workers)
        beside = [learned for learned in (self.reward_model, self.value_model) if learned is not None]
        workers.map(lambda learned: learned.fit(data), beside)
        self.planner.evaluator.refresh()
        self._steps_since_fit = 0
        self._fit_seconds += time.perf_counter() - started
        self.listener.fitted(trial, self._fit_report)

    def improve_policy(self, trial: int) -> None:
        """Search for a better policy through the model, from all states lived so far."""
        started = time.perf_counter()
        assert self.policy is not None
        policy, evaluator = self.policy, self.planner.evaluator
        starts = torch.from_numpy(np.concatenate([episode.x for episode in self.episodes.values()]))
        if not any(record.provenance == policy.provenance for record in self.records):
            policy.standardise(starts.float())
        evaluator.workers.map(lambda _: improve_policy(policy, self.model, evaluator.cost, starts, self.policy_search,
                                                       trial_seed(self.seed, trial)), [None])
        self._fit_seconds += time.perf_counter() - started

    def run(self, trial: int, policy: Policy, by_model: bool, refit_within: bool = False) -> None:
        """Live one trial, keep the episode, judge the model on it before it learns from it, and record all."""
        config, provenance = self.config, policy.provenance
        started = time.perf_counter() - self._fit_seconds
        self.listener.trial_started(trial, provenance, config.episode_steps)
        seed = trial_seed(self.seed, trial)

        def watch(observation: Observation, recording: Recording) -> None:
            self.listener.stepped(trial, recording)
            self._steps_since_fit += recording.steps > 0
            due = config.refit_every is not None and self._steps_since_fit >= config.refit_every
            if refit_within and due and 0 < recording.steps < config.episode_steps and not recording.terminated:
                spec = self.source.robot.spec
                self.fit(trial, make_episode(self.source, recording, EpisodeMetadata(
                    self.source.task, spec.fingerprint(), spec.to_json(), seed, trial, provenance, self.model.fits, self.source.clock)))

        episode = run_episode(self.source, policy, config.episode_steps, seed=seed, trial=trial, provenance=provenance,
                              model_version=lambda: self.model.fits if by_model else None, watch=watch)
        metrics = None
        unseen = min(self._steps_since_fit, episode.steps)  # what was lived since the last fit, which may lie within the trial
        if by_model and unseen >= SHORTEST_JUDGED:
            lived = (episode.x[-unseen - 1:], episode.applied[-unseen:])
            metrics = evaluate_model(self.model, *(torch.from_numpy(values.copy()) for values in lived))
        self.store.write(trial, episode)
        self.episodes[trial] = episode
        record = self._record(trial, provenance, by_model, seed, episode, metrics, time.perf_counter() - started)
        self.records.append(record)
        self._fit_seconds, self._fit_report = 0.0, None
        self.listener.trial_finished(record, episode)

    def _record(self, trial: int, provenance: str, by_model: bool, seed: int, episode: Episode, metrics: ModelMetrics | None,
                seconds: float) -> TrialRecord:
        plan = episode.planned_seconds * 1e3
        report = self._fit_report
        return TrialRecord(
            trial, provenance, self.model.fits if by_model else None, episode.total_return, episode.steps, episode.terminated, seed,
            {name: float(values.sum()) for name, values in episode.cost_terms.items()},
            self._fit_seconds, max((m.updates for m in report.members), default=0) if report else 0,
            _finite(report.training_loss) if report else None, _finite(report.validation_loss) if report else None,
            *((metrics.normalised_rmse, metrics.one_step_rmse, _finite(metrics.negative_log_likelihood),
               {str(level): share for level, share in metrics.coverage.items() if np.isfinite(share)},
               {str(k): error for k, error in metrics.k_step_rmse.items()}) if metrics else (None, {}, None, {}, {})),
            float(np.median(plan)) if len(plan) else None, float(np.percentile(plan, 99)) if len(plan) else None, seconds)

    def run_random(self, trial: int) -> None:
        """Live one trial with random commands."""
        self.run(trial, RandomPolicy(self.source.command, self.config.hold if trial % 2 else 1), by_model=False)

    def planning_policy(self, replan_every: int) -> RecedingHorizonPolicy | PlanningAhead:
        """Return the planner as a policy; playing plans to their end is called open loop."""
        name, command = type(self.planner).__name__.lower(), self.source.command
        provenance = f"{name} open loop" if replan_every == self.planner.horizon else name
        policy = RecedingHorizonPolicy(self.planner, self.source.state_space, command, provenance, replan_every)
        return PlanningAhead(policy, self.model, self.source.robot.spec.control_dt) if self.config.plan_ahead else policy

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that later trials depend on, by name."""
        state: dict[str, Tensor] = {}
        for prefix, part in self._parts():
            state |= {f"{prefix}.{name}": value for name, value in part.tensors().items()}
        state["steps_since_fit"] = torch.tensor(self._steps_since_fit)
        return state

    def _parts(self) -> list[tuple[str, LearnedModel | RewardModel | ValueModel | NeuralPolicy]]:
        """Return all that is learned, by its name in a checkpoint."""
        named = (("model", self.model), ("reward", self.reward_model), ("value", self.value_model), ("policy", self.policy))
        return [(name, part) for name, part in named if part is not None]

    def restore(self, tensors: Mapping[str, Tensor], records: list[TrialRecord]) -> None:
        """Take over a checkpoint; the episodes of its trials are read from the store.

        ShapeError, VersionError or StoreError (all UserError) where it does not belong to this learner.
        """
        if "steps_since_fit" not in tensors:
            raise VersionError("checkpoint: expected the entry 'steps_since_fit', got none; it was written by another version")
        for prefix, learned in self._parts():
            start = f"{prefix}."
            learned.load_tensors({name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)})
        self._steps_since_fit = int(tensors["steps_since_fit"])
        self.planner.evaluator.refresh()
        self.records = list(records)
        self.episodes = {trial: self.store.read(trial) for trial in range(len(records))}


def mbrl_0_5(learner: Learner) -> None:
    """Random data, one fit, plans played open loop; nothing that the planner lives through is learned from."""
    for trial in learner.remaining():
        if learner.is_random(trial):
            learner.run_random(trial)
            continue
        if learner.model.fits == 0:
            learner.fit(trial)
        learner.run(trial, learner.planning_policy(learner.planner.horizon), by_model=True)


def mbrl_1_0(learner: Learner) -> None:
    """As 0.5, but every episode joins the data and the model is fitted again before each: aggregation."""
    for trial in learner.remaining():
        if learner.is_random(trial):
            learner.run_random(trial)
            continue
        learner.fit(trial)
        learner.run(trial, learner.planning_policy(learner.planner.horizon), by_model=True)


def mbrl_1_5(learner: Learner) -> None:
    """As 1.0, but planning anew every period (or few), and fitting anew every N: mistakes of the model are seen and corrected."""
    for trial in learner.remaining():
        if learner.is_random(trial):
            learner.run_random(trial)
            continue
        learner.fit(trial)
        learner.run(trial, learner.planning_policy(learner.config.replan_every), by_model=True, refit_within=True)


def mbrl_2_0(learner: Learner) -> None:
    """A neural policy, improved by backpropagation through the model after every fit, acts without planning."""
    policy = learner.policy
    if policy is None:
        raise ConfigurationError("model-based RL 2.0 needs a neural policy; this learner has none")
    for trial in learner.remaining():
        if learner.is_random(trial):
            learner.run_random(trial)
            continue
        learner.fit(trial)
        learner.improve_policy(trial)
        learner.run(trial, policy, by_model=True)


ALGORITHMS: dict[str, Callable[[Learner], None]] = {"0.5": mbrl_0_5, "1.0": mbrl_1_0, "1.5": mbrl_1_5, "2.0": mbrl_2_0}


def algorithm(name: str) -> Callable[[Learner], None]:
    """Return the loop called `name`; UnknownNameError lists the known ones."""
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def trial_seed(seed: int, trial: int) -> int:
    """Return the seed of one trial of a run, below 2^32."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
