"""The one loop in which a policy drives a robot, simulated or real, and what it lived through is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from dynamics.state_space import StateSpace
from episodes.episode import Episode
from episodes.metadata import Clock, EpisodeMetadata
from planners.cost import Cost
from policies.planning_ahead import PlansAhead
from policies.policy import Policy
from robots.command import CommandSpec
from robots.errors import ConfigurationError, NonFiniteError, NumericalError
from robots.observation import Observation
from robots.robot import Robot

logger = logging.getLogger(__name__)


@dataclass
class Recording:
    """An episode while it is lived."""

    time: list[float] = field(default_factory=list)
    x: list[np.ndarray] = field(default_factory=list)
    commanded: list[np.ndarray] = field(default_factory=list)
    applied: list[np.ndarray] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    cost_terms: dict[str, list[float]] = field(default_factory=dict)
    plan_seconds: list[float] = field(default_factory=list)
    terminated: bool = False

    @property
    def steps(self) -> int:
        """Control periods lived so far."""
        return len(self.cost)


@dataclass(frozen=True)
class EpisodeSource:
    """What is the same for all episodes of a run."""

    robot: Robot
    state_space: StateSpace
    command: CommandSpec
    cost: Cost | None
    """The task's cost, or None: then the robot's reported reward is charged."""
    task: str
    clock: Clock = Clock.SIMULATED


Watch = Callable[[Observation, Recording], None]
"""Called with every observation, the first one included: progress, video, refits within an episode."""


def run_episode(source: EpisodeSource, policy: Policy, steps: int, *, seed: int, trial: int, provenance: str,
                model_version: Callable[[], int | None] = lambda: None, watch: Watch | None = None) -> Episode:
    """Let `policy` drive the robot for at most `steps` control periods and return what was lived.

    A diverged simulation or a plan without a finite cost ends the episode there (truncated); what was lived until then is
    kept. NumericalError if it happens before anything was lived. What `watch` raises is raised on.
    """
    if steps < 1:
        raise ConfigurationError(f"an episode needs at least 1 step, got {steps}")
    robot, recording = source.robot, Recording()
    policy.reset(seed)  # first: it may take its time, which a real robot that has begun does not have
    observation = robot.reset(seed)
    _observe(recording, observation, source.state_space.state(observation))
    if watch is not None:
        watch(observation, recording)
    while recording.steps < steps and not recording.terminated:
        try:
            observation = _live_period(source, policy, observation, recording)
        except (NumericalError, NonFiniteError) as error:
            if recording.steps == 0:
                raise
            logger.warning("episode of trial %d ends after %d of %d steps: %s", trial, recording.steps, steps, error)
            break
        if watch is not None:
            watch(observation, recording)
    metadata = EpisodeMetadata(source.task, robot.spec.fingerprint(), robot.spec.to_json(), seed, trial, provenance, model_version(),
                               source.clock)
    return make_episode(source, recording, metadata)


def make_episode(source: EpisodeSource, recording: Recording, metadata: EpisodeMetadata) -> Episode:
    """Return what was lived so far as an episode."""
    steps = recording.steps
    return Episode(np.array(recording.time[: steps + 1]), np.array(recording.x[: steps + 1]), np.array(recording.commanded),
                   np.array(recording.applied), np.array(recording.cost), recording.terminated, not recording.terminated,
                   source.state_space.names, source.command.names, metadata,
                   {name: np.array(values) for name, values in recording.cost_terms.items()}, np.array(recording.plan_seconds))


def _live_period(source: EpisodeSource, policy: Policy, observation: Observation, recording: Recording) -> Observation:
    """Let `policy` act for one control period, add it to `recording` once all of it is known, and return what was observed."""
    command = policy.act(observation)
    applied = source.robot.send(command)
    if isinstance(policy, PlansAhead):
        policy.ahead(observation, applied)
    observation = source.robot.tick()
    state = source.state_space.state(observation)
    cost, terms = _charge(source.cost, recording.x[-1], applied.values, state, observation)
    recording.commanded.append(command.values)
    recording.applied.append(applied.values)
    recording.cost.append(cost)
    for name, value in terms.items():
        recording.cost_terms.setdefault(name, []).append(value)
    seconds = getattr(policy, "plan_seconds", None)
    recording.plan_seconds.append(np.nan if seconds is None else seconds)
    recording.terminated = observation.terminated
    _observe(recording, observation, state)
    return observation


def _observe(recording: Recording, observation: Observation, state: np.ndarray) -> None:
    recording.time.append(observation.stamp_ns * 1e-9)
    recording.x.append(state)


def _charge(cost: Cost | None, x: np.ndarray, u: np.ndarray, x_next: np.ndarray,
            observation: Observation) -> tuple[float, dict[str, float]]:
    """Return the cost of a lived period and its terms."""
    if cost is None:
        if observation.reward is None:
            raise ConfigurationError("this task has no cost in torch, so the robot must report a reward (Observation.extra['reward']); "
                                     "it did not")
        return -observation.reward, {"reward": -observation.reward}
    with torch.no_grad():
        terms = {name: float(value) for name, value in
                 cost.transition_terms(*(torch.from_numpy(np.array(v)) for v in (x, u, x_next))).items()}
    total = sum(terms.values())
    if not np.isfinite(total):
        raise NonFiniteError(f"the task's cost is {total} at state {x_next.tolist()} and command {u.tolist()}")
    return total, terms
