"""A planner that is stopped, killed, or broken: the robot follows the plan in hand with its feedback to its end, and all is said aloud."""

from __future__ import annotations

import logging
import os
import signal
import time

import numpy as np
import pytest

from policies.asynchronous import process_worker
from policies.asynchronous.committed_plan import Way
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.exchange import PlanningStopped, PlanRequest
from policies.asynchronous.plan_memory import PlanSizes, read_offer, write_offer
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.process_worker import ProcessWorker
from robots.errors import ConfigurationError
from tests.policies.asynchronous_parts import (
    COMMAND,
    DT,
    HORIZON,
    LAW,
    MEASURED,
    PERIOD,
    SPACE,
    CountingPlanner,
    Slider,
    law_planner,
    live_a_period,
    timed,
)

SIZES = PlanSizes(HORIZON, 2, 2, 1)


@pytest.fixture(scope="module")
def worker():
    with ProcessWorker(law_planner, SIZES) as process:
        yield process


def act(policy, robot, observation, worker=None):
    """Live a period; once the planner is done, where there is a `worker`: no test waits for a clock. Return what is seen next."""
    if worker is not None:
        assert worker._pipe.poll(60.0)
    command = policy.act(observation)
    np.testing.assert_allclose(command.values, LAW @ SPACE.state(observation), atol=1e-9)
    policy.ahead(observation, robot.send(command))
    return robot.tick()


def fresh_episode(worker, **options):
    """A policy and a robot after a few periods, in which plans came as they should; it is kicked in all of them but the first."""
    policy = AsynchronousPolicy(worker, SPACE, COMMAND, DT, "beside", AsynchronousConfig(rehearsals=1, **options))
    policy.reset(0)
    robot = Slider(push=4.0, kicks=dict.fromkeys(range(1, 99), 0.05))
    observation = act(policy, robot, robot.reset(0))
    while policy.report.fresh < 3:
        assert policy.report.periods < 50
        observation = act(policy, robot, observation, worker)
    return policy, robot, observation


def follow(policy, robot, observation):
    """Live until nothing is commanded any more; return for how many periods, and why."""
    before = policy.report.periods
    with pytest.raises(PlanningStopped) as stop:
        while policy.report.periods < before + 100:
            observation = act(policy, robot, observation)
    return policy.report.periods - before - 1, str(stop.value)


def test_a_planner_that_is_stopped_leaves_the_robot_its_feedback_to_the_plans_end_and_plans_again_when_it_goes_on(worker):
    policy, robot, observation = fresh_episode(worker)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        periods, words = follow(policy, robot, observation)
        assert HORIZON - 6 <= periods <= HORIZON + 6 and "no newer one has come" in words and "so nothing is commanded" in words
        assert policy.report.stopped == words and not policy.report.lost, "it may go on"
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    policy, robot, observation = fresh_episode(worker, when_spent="hold")
    os.kill(worker.pid, signal.SIGSTOP)
    for _ in range(HORIZON - 2):
        observation = act(policy, robot, observation)
    held = [float(policy.act(observation).values[0]) for observation in (robot.tick() for _ in range(HORIZON + 6))]
    assert policy.report.held >= 8 and len(set(held[-8:])) == 1
    os.kill(worker.pid, signal.SIGCONT)
    fresh = policy.report.fresh
    while policy.report.fresh == fresh:
        assert policy.report.periods < 90 and worker._pipe.poll(60.0)
        observation = robot.tick()
        policy.ahead(observation, robot.send(policy.act(observation)))
    assert policy.report.useless == 1, "the plan that it was at came after its own end; after that it acts on plans again"


def test_a_planner_that_is_killed_is_told_of_at_once_and_the_plan_in_hand_followed_to_its_end(caplog, monkeypatch):
    with ProcessWorker(law_planner, SIZES) as worker:
        policy, robot, observation = fresh_episode(worker)
        os.kill(worker.pid, signal.SIGKILL)
        worker._process.join(20.0)
        waits, join = [], worker._process.join
        monkeypatch.setattr(worker._process, "join", lambda timeout: (waits.append(timeout), join(timeout)))
        observation = act(policy, robot, observation)
        monkeypatch.undo()
        assert len(waits) == 1 and waits[0] <= 0.05, "a robot that moves is not kept waiting for the cause of death"
        told = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(told) == 1
        for words in (f"process {worker.pid} was killed by SIGKILL", "nothing plans any more", "followed to its end", "with its feedback"):
            assert words in told[0].getMessage(), words
        periods, words = follow(policy, robot, observation)
        assert HORIZON - 6 <= periods <= HORIZON + 6 and "SIGKILL" in words and "so nothing is commanded" in words
        assert "plan less" not in words, "no advice for another trouble"
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
        with pytest.raises(PlanningStopped, match="SIGKILL"):
            policy.reset(1)
            policy.act(robot.reset(1))


def test_a_planner_that_raises_is_given_up_for_the_episode_and_tried_again_in_the_next(caplog):
    clock, worker, policy = timed(CountingPlanner(raises=[5]), lambda n: 0.5)
    robot, commands = Slider(), []
    policy.reset(0)
    observation = robot.reset(0)
    with pytest.raises(PlanningStopped, match=r"raised an error: ZeroDivisionError.*has a defect"):
        for _ in range(40):
            command = policy.act(observation)
            commands.append(command.values[0])
            policy.ahead(observation, robot.send(command))
            observation = robot.tick()
            clock.now += PERIOD
    assert commands == [300, *(400 + t for t in range(HORIZON))] and "has a defect" in policy.report.lost
    assert [record.levelname for record in caplog.records] == ["ERROR"] and "to its end, 1.1e+03 ms from now" in caplog.text
    asked = len(worker.requests)
    policy.reset(1)
    assert policy.act(robot.reset(1)).values[0] == 100 * (asked + 1) and not policy.report.lost


def test_an_error_that_nobody_fetched_before_the_episode_ended_is_no_trouble_of_the_next_one():
    clock, worker, policy = timed(CountingPlanner(raises=[6]), lambda n: 0.9 if n < 9 else 1e6)
    robot = Slider()
    policy.reset(0)
    observation = robot.reset(0)
    for _ in range(3):
        observation = live_a_period(policy, robot, observation, clock)
    assert worker.answers[-1].broken
    policy.reset(1)
    assert policy.act(robot.reset(1)).values[0] == 700 and not policy.report.lost
    for _ in range(3):
        observation = live_a_period(policy, robot, observation, clock)
    with pytest.raises(PlanningStopped, match="did not answer within 60 s"):
        policy.reset(2)


def test_a_planner_that_is_silent_and_then_dies_is_told_of_as_dead():
    clock, worker, policy = timed(CountingPlanner(), lambda n: 0.5 if n < 6 else 1e6)
    robot, result = Slider(), worker.result

    def dead(timeout=0.0):
        if policy.report.silence:
            raise PlanningStopped("the planning process 1 was killed by SIGKILL; nothing plans any more")
        return result(timeout)

    worker.result = dead
    policy.reset(0)
    observation = robot.reset(0)
    with pytest.raises(PlanningStopped, match=r"ended 0 ms ago and nobody plans any more.*SIGKILL") as stop:
        for _ in range(40):
            observation = live_a_period(policy, robot, observation, clock)
    assert "has not answered" not in str(stop.value) and "To go on" not in str(stop.value)
    with pytest.raises(PlanningStopped, match="SIGKILL"):
        policy.report.silence = 1.0
        policy.reset(1)


def test_a_planner_that_is_silent_far_longer_than_its_plans_take_is_told_of_before_the_plan_in_hand_is_over(caplog):
    clock, _, policy = timed(CountingPlanner(), lambda n: 6.5 if n == 6 else 1.5, MEASURED)
    robot = Slider()
    policy.reset(0)
    observation, told = robot.reset(0), []
    for _ in range(14):
        observation = live_a_period(policy, robot, observation, clock)
        told.append(len([record for record in caplog.records if "has not answered" in record.getMessage()]))
    assert told[7] == 0 and told[-1] == 1, "begun at 3, and 3 x 1.5 periods are borne"
    assert "its plans take 150 ms" in caplog.text and policy.report.silence == pytest.approx(0.6)
    assert "the planner was silent for 600 ms" in policy.report.words()


@pytest.mark.parametrize(("taken", "borne"), [(0.5, 3.0), (1.5, 4.5), (3.5, 6.0), (5.0, 6.0), (7.0, 7.0)])
def test_a_planner_that_is_silent_for_half_a_plan_is_told_of_and_one_whose_plans_always_take_longer_is_not(taken, borne):
    """`borne`, in periods of a plan's 12: three times what plans take, or half a plan, or what they take."""
    clock, worker, policy = timed(CountingPlanner(), lambda n: 1e6 if n >= 8 else taken)
    robot, silences = Slider(), []
    policy.reset(0)
    observation = robot.reset(0)
    with pytest.raises(PlanningStopped, match="the planner has not answered for"):
        for _ in range(80):
            policy.ahead(observation, robot.send(policy.act(observation)))
            if policy.report.silence:
                silences.append(policy.report.silence)
                assert len(worker.requests) == 8, "no alarm while it answers as it always does"
            observation = robot.tick()
            clock.now += PERIOD
    assert borne < silences[0] / DT <= borne + 1.0 + 1e-9


def test_an_offer_that_is_being_written_is_none():
    memory = np.zeros((), SIZES.request)
    assert read_offer(memory) is None, "nothing was ever offered"
    way = Way(np.ones((3, 1)), np.ones((4, 2)), np.ones((3, 1, 2)))
    write_offer(memory, PlanRequest(np.array([1.0, 2.0]), way, 3, None, 7, 6, 99))
    assert read_offer(memory).number == 7 and read_offer(memory).x.tolist() == [1.0, 2.0]
    for name in ("number", "x", "gains", "begin_by_ns"):
        torn = memory.copy()
        torn[name] = torn[name] + 1
        assert read_offer(torn) is None, name
    with pytest.raises(ConfigurationError, match=f"{HORIZON + 1} periods ahead"):
        write_offer(memory, PlanRequest(np.zeros(2), Way(*(np.zeros((HORIZON + n, *s)) for n, s in ((1, (1,)), (2, (2,)), (1, (1, 2)))))))
    assert read_offer(memory).number == 7


def test_a_process_goes_on_with_an_offer_by_itself_and_is_ended_where_it_is_stopped(monkeypatch):
    monkeypatch.setattr(process_worker, "ENDING_SECONDS", 0.1)
    nowhere = Way.nowhere(np.array([1.0, 0.0]), SPACE, 1)
    with ProcessWorker(law_planner, SIZES) as worker:
        worker.offer(PlanRequest(np.array([2.0, 0.0]), nowhere, number=2, after=1, begin_by_ns=2**62))
        worker.submit(PlanRequest(np.array([1.0, 0.0]), nowhere, number=1, seed=0))
        assert worker._pipe.poll(60.0)
        time.sleep(0.2)  # both are answered by now, or the second one later: neither is written over
        first, second = worker.result(60.0), worker.result(60.0)
        assert (first.goes_on, second.goes_on) == (2, 0) and second.started_ns >= first.finished_ns
        assert (first.actions[0, 0], second.actions[0, 0]) == (LAW[0], 2 * LAW[0])
        worker.offer(PlanRequest(np.array([3.0, 0.0]), nowhere, number=4, after=3, begin_by_ns=1))
        worker.submit(PlanRequest(np.array([1.0, 0.0]), nowhere, number=3))
        assert worker.result(60.0).goes_on == 0 and worker.result(0.2) is None, "too late to begin with"
        os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
