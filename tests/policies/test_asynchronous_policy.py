"""A planner beside the robot: plans begin when they should, their delay is taken away, and who cannot keep up is told of aloud."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.exchange import PlanningStopped
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.request_planner import RequestPlanner
from policies.asynchronous.robot_clock import RobotClock
from policies.asynchronous.worker import InlineWorker
from policies.episode_loop import EpisodeSource, run_episode
from policies.planning_ahead import PlanningAhead, PlansAhead
from policies.receding_horizon import RecedingHorizonPolicy
from policies.uncertainty_gate import GateConfig, GatedPolicy
from robots.errors import NumericalError
from tests.policies.asynchronous_parts import (
    COMMAND,
    DT,
    HORIZON,
    LAW,
    PERIOD,
    SPACE,
    CountingPlanner,
    LawPlanner,
    PositionCost,
    Slider,
    slider,
    timed,
)

NEVER = float("inf")


def declared(planner, delay, push=0.0, **options):
    config = AsynchronousConfig(delay_periods=delay, **options)
    return AsynchronousPolicy(InlineWorker(RequestPlanner(planner, slider(push), COMMAND)), SPACE, COMMAND, DT, "beside", config)


def live(policy, steps=10, robot=None):
    return run_episode(EpisodeSource(robot or Slider(), SPACE, COMMAND, PositionCost(), "slide"), policy, steps, seed=3, trial=0,
                       provenance="beside")


def lived(clock, policy, steps, tells=True, robot=None, stamped=lambda observation: observation):
    """Return what is commanded in every period of a robot that does not wait; `stamped` changes what is seen."""
    robot = robot or Slider()
    policy.reset(3)
    observation, commands = robot.reset(3), []
    begins = None
    for k in range(steps):
        if begins is not None:
            clock.now = begins + k * PERIOD
        command = policy.act(stamped(observation))
        begins = clock.now if begins is None else begins
        assert clock.now == begins + k * PERIOD, "a robot that moves is not waited with"
        commands.append(float(command.values[0]))
        applied = robot.send(command)
        if tells:
            policy.ahead(observation, applied)
        observation = robot.tick()
    return commands


@pytest.mark.parametrize(("taken", "expected"), [
    (0.2, [300, 400, 500, 600, 700, 800]),  # ready within the period: every period acts on a new plan
    (1.5, [300, 301, 400, 500, 501, 600]),  # ready two periods after its state; every other one is begun as soon as the one before is done
    (2.0, [300, 301, 400, 401, 500, 501]),
    (2.1, [300, 301, 302, 400, 401, 500])])
def test_plans_begin_when_they_were_foreseen_to_be_ready(taken, expected):
    clock, _, policy = timed(CountingPlanner(), lambda n: taken)
    assert lived(clock, policy, 6) == expected
    assert not policy.report.late and policy.report.useless == 0


@pytest.mark.parametrize("taken", [0.2, 2.1, 5.0, 7.0])
def test_the_first_plan_is_followed_from_its_beginning_also_where_the_robot_s_clock_goes_on_while_it_waits(taken):
    """An arm's stamps are the host's."""
    commands = []
    for going_on in (False, True):
        clock, _, policy = timed(CountingPlanner(), lambda n: taken)
        stamped = (lambda observation: replace(observation, stamp_ns=clock())) if going_on else (lambda observation: observation)  # noqa: B023
        commands.append(lived(clock, policy, 20, stamped=stamped))
    assert commands[0] == commands[1] and commands[1][:2] == [300, 301 if taken > 1 else 400]
    assert not policy.report.late and max(policy.report.ages) < (2 * np.ceil(taken) - 0.5) * DT, "who waits at rest does not grow older"
    clock, _, policy = timed(LawPlanner(), lambda n: taken)
    seen = []

    def noted(observation):
        seen.append(SPACE.state(observation))
        return replace(observation, stamp_ns=clock())

    np.testing.assert_allclose(lived(clock, policy, 12, stamped=noted), np.array(seen) @ LAW, atol=1e-9)


def test_the_robot_s_clock_is_read_without_the_wait_but_with_periods_that_were_skipped():
    def second(seen, waited=7 * PERIOD):
        clock = RobotClock(PERIOD)
        assert clock.read(40) == 40
        clock.waited(40, waited)
        assert clock.read(40) == 40
        first = clock.read(40 + seen)
        assert clock.read(40 + seen + 5 * PERIOD) == first + 5 * PERIOD
        return first - 40

    assert second(PERIOD) == PERIOD, "it stood while the robot waited"
    assert second(8 * PERIOD) == PERIOD, "it went on"
    assert second(11 * PERIOD) == 4 * PERIOD, "it went on, and three periods were skipped"
    assert second(PERIOD - 9) == PERIOD - 9 and second(8 * PERIOD + 9) == PERIOD + 9, "stamps that jitter"
    assert second(4 * PERIOD, 0) == 4 * PERIOD


def test_a_plan_that_is_ready_early_waits_for_its_time_while_the_next_one_is_made():
    clock, worker, policy = timed(CountingPlanner(), lambda n: 1.5 if n == 2 else 0.1)
    assert lived(clock, policy, 5) == [300, 301, 400, 500, 600]
    assert [request.later for request in worker.requests[3:]] == [2, 1, 1, 1, 1]


def test_a_late_plan_is_joined_where_it_should_be_by_then_counted_and_learned_from():
    clock, worker, policy = timed(CountingPlanner(), lambda n: 2.6 if n == 4 else 0.5)
    assert lived(clock, policy, 8) == [300, 301, 302, 402, 403, 404, 500, 600]
    assert policy.report.late == [2]
    assert [request.later for request in worker.requests[2:6]] == [1, 1, 5, 1], "the warm start is shifted by what has passed"


def test_a_plan_that_comes_after_its_own_end_is_not_acted_on():
    config = AsynchronousConfig(rehearsals=1, when_spent="hold")
    clock, _, policy = timed(CountingPlanner(), lambda n: HORIZON + 2.6 if n == 4 else 0.5, config)
    commands = lived(clock, policy, HORIZON + 5)
    assert commands[:HORIZON] == [300 + t for t in range(HORIZON)] and commands[HORIZON:] == [300 + HORIZON - 1] * 5
    assert policy.report.useless == 1 and policy.report.held == 5


def test_time_counts_not_calls_where_the_robot_skipped_periods():
    _, _, policy = timed(CountingPlanner(), lambda n: 0.5 if n < 4 else NEVER)
    robot = Slider()
    policy.reset(0)
    command = policy.act(robot.reset(0))
    robot.send(command)
    for _ in range(4):
        observation = robot.tick()
    assert command.values[0] == 300 and policy.act(observation).values[0] == 304


@pytest.mark.parametrize("delay", [1, 2, 3])
@pytest.mark.parametrize("gains", [False, True])
def test_compensated_a_delayed_plan_acts_as_one_that_took_no_time(delay, gains):
    in_no_time = live(RecedingHorizonPolicy(LawPlanner(), SPACE, COMMAND, "law"))
    episode = live(declared(LawPlanner(gains=gains), delay))
    np.testing.assert_allclose(episode.x, in_no_time.x, atol=1e-9)
    blind = live(declared(LawPlanner(), delay, compensate=False))
    assert np.abs(blind.x - in_no_time.x).max() > 0.05


@pytest.mark.parametrize("gains", [False, True])
def test_a_plan_is_made_for_where_the_robot_will_be_feedback_included(gains):
    """Kicked before the state is seen, so that the feedback has something to do on the way."""
    planner = LawPlanner(gains=gains)
    robot = Slider(kicks={1: 0.7})
    episode = live(declared(planner, 3), 10, robot)
    asked = torch.stack(planner.asked).numpy()
    assert len(asked) == 5  # from the states 0, 0, 3, 6 and 9, for the periods 0, 3, 6, 9 and 12
    np.testing.assert_allclose(asked[[0, 2, 3]], episode.x[[0, 6, 9]], atol=1e-6)
    assert np.abs(asked[1] - episode.x[3]).max() > 0.05, "nobody foresaw the kick"


def test_gains_bring_a_kicked_robot_back_where_the_same_plan_without_them_loses_it():
    ends = {}
    for gains in (True, False):
        clock, _, policy = timed(LawPlanner(push=4.0, gains=gains), lambda n: 0.5 if n < 4 else NEVER)
        robot = Slider(push=4.0, kicks={2: 0.5})
        lived(clock, policy, HORIZON, robot=robot)
        ends[gains] = float(robot.x.abs().max())
    assert ends[True] < 0.4 < 1.0 < ends[False]


def test_one_period_declared_is_planning_ahead():
    ours = live(declared(LawPlanner(), 1), robot=Slider(kicks={2: 0.4}))
    theirs = live(PlanningAhead(RecedingHorizonPolicy(LawPlanner(), SPACE, COMMAND, "law"), slider(), 1e6), robot=Slider(kicks={2: 0.4}))
    np.testing.assert_allclose(ours.commanded, theirs.commanded, atol=1e-5)  # which predicts in float32


def test_a_loop_that_does_not_tell_what_was_applied_gets_plans_all_the_same():
    clock, worker, policy = timed(CountingPlanner(), lambda n: 0.5)
    assert lived(clock, policy, 4, tells=False) == [300, 301, 400, 500]
    assert worker.requests[3].way.actions[0, 0] == 301


def test_a_plan_without_actions_takes_as_long_as_declared_too():
    commanded = live(declared(CountingPlanner(fails=[2]), 3)).commanded[:, 0]
    assert commanded.tolist() == [100, 101, 102, 103, 104, 105, 300, 301, 302, 400]


def test_a_first_plan_that_came_too_late_is_not_taken_for_the_one_asked_for_since():
    clock, worker, policy = timed(CountingPlanner(), lambda n: 1e4 if n == 3 else 0.5)
    policy.reset(3)
    observation = Slider().reset(3)
    with pytest.raises(PlanningStopped, match="did not answer"):
        policy.act(observation)
    clock.now += 10_000 * PERIOD
    assert policy.act(observation).values[0] == 400 and len(worker.requests) == 4


def test_a_spent_plan_stops_and_says_why_or_is_held_where_that_was_chosen(caplog):
    clock, _, policy = timed(CountingPlanner(), lambda n: 0.5 if n < 4 else NEVER)
    with pytest.raises(PlanningStopped, match=r"ended 0 ms ago and no newer one has come: the planner has not answered for 1\.2 s, "
                                              "so nothing is commanded.*To go on: plan less"):
        lived(clock, policy, HORIZON + 1)
    assert "no newer one has come" in policy.report.stopped and policy.report.periods == HORIZON + 1
    assert policy.report.without_fresh == pytest.approx(HORIZON / (HORIZON + 1))
    clock, _, policy = timed(CountingPlanner(), lambda n: 0.5 if n < 4 else NEVER, AsynchronousConfig(rehearsals=1, when_spent="hold"))
    assert lived(clock, policy, HORIZON + 3)[-4:] == [300 + HORIZON - 1] * 4
    assert policy.report.held == 3 and "3 periods a spent plan's last action was held" in policy.report.words()
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 3 and told[0] == told[1] and "has not answered for 400 ms; its plans take 50 ms" in told[0]
    assert "not answered for 1.2 s; its last action is held" in told[2]


def test_an_episode_whose_plan_is_spent_ends_and_keeps_what_was_lived():
    _, _, policy = timed(CountingPlanner(), lambda n: 0.5 if n < 4 else NEVER)
    assert isinstance(policy, PlansAhead)
    episode = live(policy, HORIZON + 5)
    assert episode.steps == HORIZON and episode.truncated and not episode.terminated
    assert np.isfinite(episode.plan_seconds[0]) and np.isnan(episode.plan_seconds[1:]).all()


def test_a_planner_slower_than_the_robot_is_told_of_aloud_once_and_one_that_keeps_up_is_not(caplog):
    with caplog.at_level(logging.WARNING):
        clock, _, policy = timed(CountingPlanner(), lambda n: 0.8)
        lived(clock, policy, 20)
        assert not caplog.records and not policy.report.too_slow and "slower" not in policy.report.words()
        clock, _, policy = timed(CountingPlanner(), lambda n: 2.6)
        lived(clock, policy, 30)
    assert len(caplog.records) == 1
    for words in ("260 ms", "100 ms", "67% of", "slower than the robot", "fewer candidates", "shorter horizon"):
        assert words in caplog.text, words
    report = policy.report
    assert report.too_slow and report.without_fresh == pytest.approx(2 / 3) and max(report.ages) == pytest.approx(5 * DT)


def test_the_advice_is_what_the_one_who_is_advised_can_follow():
    advised = AsynchronousConfig(rehearsals=1, advice="buy a computer")
    clock, _, policy = timed(CountingPlanner(), lambda n: 2.6 if n < 20 else NEVER, advised)
    with pytest.raises(PlanningStopped, match="To go on: buy a computer") as stop:
        lived(clock, policy, 80)
    assert "slower than the robot: buy a computer" in policy.report.words() and "candidates" not in str(stop.value)
    clock, _, policy = timed(CountingPlanner(), lambda n: 1e4, advised)
    with pytest.raises(PlanningStopped, match="did not answer within 60 s; buy a computer"):
        lived(clock, policy, 1)


def test_a_plan_without_actions_is_told_of_and_the_one_before_followed_until_it_is_spent(caplog):
    clock, _, policy = timed(CountingPlanner(fails=[5, 6]), lambda n: 0.5)
    assert lived(clock, policy, 6) == [300, 400, 401, 402, 700, 800]
    assert policy.report.failures == {"no finite cost": 2} and "no finite cost (2 times)" in policy.report.words()
    assert len(caplog.records) == 1 and "no finite cost" in caplog.text
    clock, _, policy = timed(CountingPlanner(fails=range(4, 99)), lambda n: 0.5)
    with pytest.raises(PlanningStopped, match="no plan: no finite cost, so nothing is commanded"):
        lived(clock, policy, HORIZON + 1)


def test_after_a_plan_without_actions_the_next_is_made_afresh():
    planner = CountingPlanner(fails=[5])
    clock, _, policy = timed(planner, lambda n: 0.5)
    lived(clock, policy, 5)
    assert [previous is None for previous in planner.previous] == [True, False, True, False, False, True, False, False]


def test_without_a_first_plan_nothing_is_commanded():
    with pytest.raises(NumericalError, match="no finite cost"):
        live(declared(CountingPlanner(fails=[1]), 1))
    with pytest.raises(PlanningStopped, match=r"raised an error: ZeroDivisionError.*has a defect"):
        live(declared(CountingPlanner(raises=[1]), 1))
    clock, _, policy = timed(CountingPlanner(), lambda n: 1e4)
    with pytest.raises(PlanningStopped, match="did not answer within 60 s"):
        lived(clock, policy, 1)


def test_a_way_out_of_the_numbers_is_no_plan():
    class Diverging(type(slider())):
        def step(self, x, u, generator=None):
            return super().step(x, u, generator) / 0.0

    broken = slider()
    broken.__class__ = Diverging
    planner = CountingPlanner()
    policy = AsynchronousPolicy(InlineWorker(RequestPlanner(planner, broken, COMMAND)), SPACE, COMMAND, DT, "beside",
                                AsynchronousConfig(delay_periods=1))
    episode = live(policy, 4)
    assert planner.count == 1 and episode.commanded[:, 0].tolist() == [100, 101, 102, 103]
    assert policy.report.failures.total() == 3 and "left the numbers on the way" in policy.report.words()


def test_an_episode_begins_with_nothing_of_the_one_before():
    planner = CountingPlanner()
    policy = declared(planner, 2)
    one = live(policy)
    drawn, planner.count, planner.draws = planner.draws, 0, []
    again = live(policy)
    assert np.array_equal(one.commanded, again.commanded) and planner.draws == drawn
    assert policy.report.periods == again.steps
    clock, worker, policy = timed(CountingPlanner(), lambda n: 5.0)
    lived(clock, policy, 2)
    assert worker.answers
    policy.reset(0)
    assert not worker.answers and not policy.report.ages


def test_a_gate_before_it_lets_it_plan():
    class Open:
        config = GateConfig()

        def disagreement(self, x, u):
            return torch.zeros(())

        def share(self, disagreement):
            return 1.0

    inner = declared(LawPlanner(), 1)
    gated = GatedPolicy(inner, Open(), SPACE, lambda share: None, lambda observation: None)
    np.testing.assert_array_equal(live(gated).commanded, live(declared(LawPlanner(), 1)).commanded)
    assert inner.report.fresh == 10
