"""What planning beside the robot knows before the robot moves, and what it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from dynamics.state_space import Channel, Kind, StateSpace
from policies.asynchronous.committed_plan import CommittedPlan, Way
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.exchange import PlanRequest
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.request_planner import RequestPlanner
from policies.asynchronous.worker import InlineWorker
from robots.errors import ConfigurationError, UnknownNameError
from tests.policies.asynchronous_parts import COMMAND, DT, MEASURED, PERIOD, SPACE, CountingPlanner, Slider, live_a_period, slider, timed


def test_what_a_plan_takes_is_learned_once_and_before_the_robot_begins():
    _, worker, policy = timed(CountingPlanner(), lambda n: 0.5, AsynchronousConfig(rehearsals=4))
    policy.reset(7)
    assert len(worker.requests) == 1 + 4 and not policy.report.planning and not policy.report.handovers
    policy.act(Slider().reset(0))
    assert len(worker.requests) == 6 and worker.requests[5].seed == 7 and not len(worker.requests[5].way.actions)
    policy.reset(8)
    assert len(worker.requests) == 6


def test_plans_without_actions_teach_no_delay_and_are_not_tried_for_ever():
    _, worker, policy = timed(CountingPlanner(fails=[2, 3]), lambda n: 0.1 if n in (2, 3) else 2.5, AsynchronousConfig(rehearsals=3))
    policy.reset(7)
    assert len(worker.requests) == 1 + 3 and len(policy._delays) == 1 and policy._delays.periods(PERIOD) == 3
    _, worker, policy = timed(CountingPlanner(fails=range(99)), lambda n: 0.1, AsynchronousConfig(rehearsals=3))
    policy.reset(7)
    assert len(worker.requests) == 1 + 3


def test_plans_without_actions_teach_no_delay_in_an_episode_either():
    clock, _, policy = timed(CountingPlanner(fails=range(5, 40)), lambda n: 2.5 if n < 5 else 0.05)
    robot = Slider()
    policy.reset(0)
    observation = robot.reset(0)
    for _ in range(12):
        observation = live_a_period(policy, robot, observation, clock)
    assert policy.report.failures.total() > 3 and policy._delays.periods(PERIOD) == 3
    assert len(policy._delays) == 1 + len(policy.report.delays) == 2, "of a rehearsal, and of the only plan that came"


def test_acting_is_rehearsed_too(monkeypatch):
    acted = []
    monkeypatch.setattr(CommittedPlan, "command_for", lambda plan, *_: acted.append(plan.actions[0, 0]))
    _, _, policy = timed(CountingPlanner(), lambda n: 0.1, AsynchronousConfig(rehearsals=3))
    policy.reset(7)
    assert acted == [400.0], "what is done in a period was done once before the robot moves"
    policy.reset(8)
    assert len(acted) == 1


def test_it_is_rehearsed_in_a_state_that_is_one():
    space = StateSpace([Channel("q", ("z", "w", "i", "j", "k"), (0, 1, 2, 3, 4))])
    turning = StateSpace([Channel("q", ("z",), (0,)), Channel("q", ("w", "i", "j", "k"), (1, 2, 3, 4), Kind.QUATERNION)])
    heard = []

    class Listening(InlineWorker):
        def submit(self, request):
            heard.append(request)
            super().submit(PlanRequest(np.zeros(2), Way.nowhere(np.zeros(2), SPACE, 1)))

    for where, x in ((space, [0, 0, 0, 0, 0]), (turning, [0, 1, 0, 0, 0])):
        worker = Listening(RequestPlanner(CountingPlanner(), slider(), COMMAND))
        AsynchronousPolicy(worker, where, COMMAND, DT, "beside", MEASURED).reset(0)
        assert heard[-1].x.tolist() == x and heard[-1].way.states.tolist() == [x, x]


@pytest.mark.parametrize(("options", "error"), [
    ({"delay_periods": 0}, ConfigurationError), ({"quantile": 0.0}, ConfigurationError), ({"quantile": 1.5}, ConfigurationError),
    ({"window": 0}, ConfigurationError), ({"rehearsals": 0}, ConfigurationError), ({"window": 10}, ConfigurationError),
    ({"patience": float("nan")}, ConfigurationError),
    ({"when_spent": "brake"}, UnknownNameError)])
def test_bad_options_are_refused(options, error):
    with pytest.raises(error):
        AsynchronousConfig(**options)
