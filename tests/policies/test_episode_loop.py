"""The loop keeps what was lived: what was applied, when, at which cost, and how it ended."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from dynamics.state_space import Channel, StateSpace
from planners.cost import Cost
from policies.episode_loop import EpisodeSource, run_episode
from policies.simple import RandomPolicy, ScriptedPolicy
from robots.command import Command, CommandMode, CommandSpec
from robots.errors import ConfigurationError, NonFiniteError, NumericalError
from robots.limits import JointLimits
from robots.observation import NO_POSE, Observation
from robots.spec import RobotSpec

SPACE = StateSpace([Channel("q", ("p",), (0,))])
COMMAND = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-1.0]), np.array([1.0]), "N")
SPEC = RobotSpec("slider", ("p",), 1, JointLimits.unlimited(1), 0.1, (COMMAND,))


class Slider:
    """p += applied, where only half of a command is applied; diverges or ends after some periods."""

    spec = SPEC

    def __init__(self, diverges_after: int = 99, ends_after: int = 99, reward: bool = False) -> None:
        self.diverges_after, self.ends_after, self.reward = diverges_after, ends_after, reward

    def reset(self, seed: int) -> Observation:
        self.p, self.periods, self.applied = float(seed), 0, 0.0
        return self.observe()

    def send(self, command: Command) -> Command:
        self.applied = 0.5 * float(command.values[0])
        return Command(command.mode, np.array([self.applied]))

    def tick(self) -> Observation:
        self.periods += 1
        self.p += self.applied
        if self.periods > self.diverges_after:
            self.p = np.nan
        return self.observe()

    def observe(self) -> Observation:
        extra = {"terminated": np.array([float(self.periods >= self.ends_after)])}
        if self.reward:
            extra["reward"] = np.array([7.0 + self.periods])
        return Observation(1_000_000_000 + 100_000_000 * self.periods, np.array([self.p]), np.zeros(1), np.zeros(1), NO_POSE, extra=extra)

    def close(self) -> None:
        pass


class PositionCost(Cost):
    """p^2 and u."""

    def terms(self, x, u):
        return {"position": x[..., 0].square(), "command": u[..., 0]}

    def terminal(self, x):
        return x[..., 0]


def source(robot: Slider, cost: Cost | None = PositionCost()) -> EpisodeSource:  # noqa: B008
    return EpisodeSource(robot, SPACE, COMMAND, cost, "slide")


def constant(value: float) -> ScriptedPolicy:
    return ScriptedPolicy(COMMAND, lambda seconds, observation: np.array([value]))


def run(robot: Slider, steps: int = 4, cost: Cost | None = PositionCost(), policy=None, **options):  # noqa: B008
    return run_episode(source(robot, cost), policy or constant(0.8), steps, seed=2, trial=5, provenance="script", **options)


def test_what_was_applied_is_kept_beside_what_was_commanded():
    episode = run(Slider())
    assert episode.commanded.tolist() == [[0.8]] * 4 and episode.applied.tolist() == [[0.4]] * 4
    np.testing.assert_allclose(episode.x[:, 0], [2.0, 2.4, 2.8, 3.2, 3.6])
    np.testing.assert_allclose(episode.time, 1.0 + 0.1 * np.arange(5))
    assert episode.truncated and not episode.terminated
    meta = episode.metadata
    assert (meta.task, meta.seed, meta.trial, meta.provenance, meta.model_version) == ("slide", 2, 5, "script", None)
    assert meta.robot_fingerprint == SPEC.fingerprint()


def test_periods_are_charged_for_the_state_they_led_to_and_what_was_applied():
    episode = run(Slider(), 2)
    np.testing.assert_allclose(episode.cost_terms["position"], [2.4**2, 2.8**2])
    np.testing.assert_allclose(episode.cost_terms["command"], [0.4, 0.4])
    np.testing.assert_allclose(episode.cost, [2.4**2 + 0.4, 2.8**2 + 0.4])


def test_without_a_cost_the_reported_reward_is_charged_and_must_be_there():
    np.testing.assert_allclose(run(Slider(reward=True), 3, cost=None).cost, [-8.0, -9.0, -10.0])
    with pytest.raises(ConfigurationError, match="reward"):
        run(Slider(), cost=None)


def test_a_task_that_ends_terminates_the_episode():
    episode = run(Slider(ends_after=3), 10)
    assert episode.steps == 3 and episode.terminated and not episode.truncated


@pytest.mark.parametrize("lived", [1, 3])
def test_divergence_truncates_and_keeps_what_was_lived(lived, caplog):
    with caplog.at_level(logging.WARNING):
        episode = run(Slider(diverges_after=lived), 10)
    assert episode.steps == lived and episode.truncated and not episode.terminated and np.isfinite(episode.x).all()
    assert f"ends after {lived} of 10 steps" in caplog.text


def test_divergence_before_anything_was_lived_is_raised():
    with pytest.raises(NonFiniteError):
        run(Slider(diverges_after=0))


def test_a_policy_without_a_plan_ends_the_episode_and_a_bug_is_raised():
    def failing(error: Exception) -> ScriptedPolicy:
        def script(seconds, observation):
            if seconds > 0.15:
                raise error
            return np.zeros(1)
        return ScriptedPolicy(COMMAND, script)

    assert run(Slider(), policy=failing(NumericalError("no plan"))).steps == 2
    with pytest.raises(KeyError):
        run(Slider(), policy=failing(KeyError("bug")))


def test_a_cost_that_is_not_finite_truncates():
    class Cliff(PositionCost):
        def terms(self, x, u):
            return {"position": torch.where(x[..., 0] > 3.0, torch.nan, x[..., 0])}

    assert run(Slider(), 10, cost=Cliff()).steps == 2


def test_watchers_see_every_observation_the_first_included():
    seen = []
    run(Slider(), 3, watch=lambda observation, recording: seen.append((float(observation.q[0]), recording.steps, len(recording.x))))
    assert [s[1:] for s in seen] == [(0, 1), (1, 2), (2, 3), (3, 4)] and seen[0][0] == 2.0


def test_what_a_watcher_raises_is_no_end_of_the_episode():
    def failing(observation, recording):
        if recording.steps == 2:
            raise NumericalError("the refit diverged")

    with pytest.raises(NumericalError, match="refit"):
        run(Slider(), 4, watch=failing)


def test_one_seed_gives_one_episode():
    a, b = (run(Slider(), 6, policy=RandomPolicy(COMMAND)) for _ in range(2))
    assert a.x.tobytes() == b.x.tobytes() and a.commanded.tobytes() == b.commanded.tobytes()


def test_planning_times_are_kept_where_there_are_any_and_versions_are_asked_at_the_end():
    policy = constant(0.1)
    assert np.isnan(run(Slider(), policy=policy).plan_seconds).all()
    policy.plan_seconds = 0.02
    versions = iter([3])
    episode = run(Slider(), policy=policy, model_version=lambda: next(versions))
    assert episode.plan_seconds.tolist() == [0.02] * 4 and episode.metadata.model_version == 3


def test_an_episode_of_no_steps_is_refused():
    with pytest.raises(ConfigurationError, match="at least 1 step"):
        run(Slider(), 0)
