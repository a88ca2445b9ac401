"""A committed plan as a function of time: which action, which state, which feedback, and what comes after its end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamics.state_space import Channel, Kind, StateSpace, quaternion_exp
from policies.asynchronous.committed_plan import CommittedPlan, plan_at, way_along
from robots.command import CommandMode, CommandSpec

PERIOD, START = 20_000_000, 7_000_000_000
SPACE = StateSpace([Channel("q", ("angle",), (0,), Kind.ANGLE), Channel("dq", ("rate",), (0,))])
COMMAND = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-5.0]), np.array([5.0]), "N")


def committed(start=START, first=0.0, gains=None, states=True) -> CommittedPlan:
    actions = first + np.arange(3.0)[:, None]
    expected = np.array([[3.0, 0.0], [-3.0, 1.0], [-2.0, 2.0], [-1.0, 3.0]]) if states else None
    return CommittedPlan(start, start - PERIOD, PERIOD, actions, expected, gains)


@pytest.mark.parametrize(("periods", "action", "spent"), [(-0.5, 0, False), (0, 0, False), (0.999, 0, False), (1, 1, False),
                                                          (2.999, 2, False), (3, 2, True), (40, 2, True)])
def test_the_action_of_every_moment_and_the_last_one_after_the_end(periods, action, spent):
    at = START + round(periods * PERIOD)
    assert committed().action_at(at) == action and committed().spent_at(at) == spent
    assert committed().end_ns == START + 3 * PERIOD


def test_expected_states_lie_on_the_shortest_way_between_two():
    plan = committed()
    for periods, angle, rate in ((0, 3.0, 0.0), (0.5, np.pi, 0.5), (1, -3.0, 1.0), (1.5, -2.5, 1.5), (-1, 3.0, 0.0), (9, -1.0, 3.0)):
        expected = plan.expected_at(START + round(periods * PERIOD), SPACE)
        assert np.exp(1j * expected[0]) == pytest.approx(np.exp(1j * angle), abs=1e-12) and expected[1] == pytest.approx(rate)


def test_a_rotation_is_followed_on_its_manifold():
    space = StateSpace([Channel("q", ("w", "x", "y", "z"), (0, 1, 2, 3), Kind.QUATERNION)])
    axis = torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)
    states = torch.stack([quaternion_exp(t * axis) for t in (0.0, 1.0, 2.0)]).numpy()
    plan = CommittedPlan(START, START, PERIOD, np.zeros((2, 1)), states, None)
    np.testing.assert_allclose(plan.expected_at(START + PERIOD // 4, space), quaternion_exp(0.25 * axis).numpy(), atol=1e-9)


@pytest.mark.parametrize("jitter", [-4_000_000, 0, 4_000_000])
def test_a_period_that_begins_a_little_early_or_late_has_its_own_action(jitter):
    x = np.zeros(2)
    assert [committed().command_for(START + k * PERIOD + jitter, x, SPACE, COMMAND)[0] for k in range(3)] == [0.0, 1.0, 2.0]


def test_feedback_is_about_where_the_robot_was_expected_at_that_very_moment_and_stays_in_the_box():
    gains = np.array([[[0.0, 0.0]], [[0.5, 2.0]], [[0.0, 1000.0]]])
    plan = committed(gains=gains)
    at = START + PERIOD + PERIOD // 4  # expected: the rate 1.25, the angle -2.75
    assert plan.command_for(at, np.array([-2.75, 1.25]), SPACE, COMMAND)[0] == pytest.approx(1.0)
    off = plan.command_for(at, np.array([-2.75 + 2 * np.pi - 0.2, 1.5]), SPACE, COMMAND)[0]
    assert off == pytest.approx(1.0 + 0.5 * -0.2 + 2.0 * 0.25)
    assert plan.command_for(START + 2 * PERIOD, np.array([-2.0, -7.0]), SPACE, COMMAND)[0] == -5.0
    assert plan.command_for(START + 3 * PERIOD, np.array([9.0, 9.0]), SPACE, COMMAND)[0] == 2.0, "no feedback about a plan that is over"
    blind = committed(gains=gains, states=False)
    assert blind.command_for(at, np.array([9.0, 9.0]), SPACE, COMMAND)[0] == 1.0


def test_each_plan_decides_from_its_beginning_until_the_next_ones():
    plans = [committed(), committed(START + 2 * PERIOD, 10.0)]
    assert [plan_at(plans, START + k * PERIOD) is plans[1] for k in (-1, 0, 1, 2, 3, 9)] == [False, False, False, True, True, True]
    assert plan_at(plans, START + 2 * PERIOD - 3) is plans[1], "three nanoseconds early are not the period before"
    gains = np.full((3, 1, 2), 0.25)
    way = way_along([committed(gains=gains), committed(START + 2 * PERIOD, 10.0)], START, np.zeros(2), np.array([-1.0]), 6, SPACE)
    assert way.actions[:, 0].tolist() == [-1.0, 1.0, 10.0, 11.0, 12.0, 12.0]
    assert (way.gains[1] == 0.25).all() and not way.gains[[0, 2, 3, 4, 5]].any()
    np.testing.assert_allclose(way.states[1], [-3.0, 1.0])
