"""Policies without a model."""

from __future__ import annotations

import numpy as np
import pytest

from policies.policy import Policy
from policies.simple import RandomPolicy, ScriptedPolicy, playback
from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError, NonFiniteError, ShapeError
from robots.observation import NO_POSE, Observation

COMMAND = CommandSpec(CommandMode.ACTUATOR, ("a", "b"), np.array([-1.0, 2.0]), np.array([0.5, 6.0]), "N")


def seen(period: int = 0) -> Observation:
    return Observation(5_000_000_000 + 100_000_000 * period, np.zeros(1), np.zeros(1), np.zeros(1), NO_POSE)


def played(policy: Policy, seed: int, periods: int) -> np.ndarray:
    policy.reset(seed)
    return np.array([policy.act(seen(t)).values for t in range(periods)])


def test_random_commands_fill_the_box_and_follow_the_seed():
    policy = RandomPolicy(COMMAND)
    assert isinstance(policy, Policy)
    values = played(policy, 1, 500)
    assert (values >= COMMAND.minimum).all() and (values <= COMMAND.maximum).all()
    assert np.ptp(values[:, 0]) > 1.4 and np.ptp(values[:, 1]) > 3.8
    assert np.array_equal(played(policy, 1, 500), values) and not np.array_equal(played(policy, 2, 500), values)


def test_random_commands_are_held():
    values = played(RandomPolicy(COMMAND, hold=3), 0, 9)
    assert (values[0:3] == values[0]).all() and (values[3:6] == values[3]).all() and not (values[0] == values[3]).any()
    with pytest.raises(ConfigurationError):
        RandomPolicy(COMMAND, hold=0)


def test_scripts_see_the_time_since_the_episode_began_and_are_clipped():
    times = []
    policy = ScriptedPolicy(COMMAND, lambda seconds, observation: (times.append(seconds), np.array([9.0, 3.0]))[1])
    assert np.array_equal(played(policy, 0, 3), [[0.5, 3.0]] * 3)
    played(policy, 1, 1)
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.0])


def test_scripts_that_leave_the_numbers_or_the_shape_are_refused():
    with pytest.raises(NonFiniteError):
        ScriptedPolicy(COMMAND, lambda s, o: np.array([np.nan, 3.0])).act(seen())
    with pytest.raises(ShapeError):
        ScriptedPolicy(COMMAND, lambda s, o: np.zeros(3)).act(seen())


def test_playback_plays_one_command_a_period_and_holds_the_last():
    values = np.array([[0.0, 2.0], [0.1, 3.0], [0.2, 4.0]])
    assert np.array_equal(played(playback(COMMAND, values, 0.1), 0, 5), values[[0, 1, 2, 2, 2]])
    with pytest.raises(ConfigurationError, match="at least one"):
        playback(COMMAND, np.zeros((0, 2)), 0.1)
