"""Threads and processes that plan give the plans that planning at once gives, their end is told of, and no process is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from policies.asynchronous.committed_plan import Way
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.exchange import PlanAnswer, PlanningStopped, PlanRequest
from policies.asynchronous.plan_memory import PlanSizes, read_answer, read_request, write_answer, write_request
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.process_worker import ProcessWorker
from policies.asynchronous.request_planner import RequestPlanner
from policies.asynchronous.worker import InlineWorker, ThreadWorker
from policies.episode_loop import EpisodeSource, run_episode
from robots.errors import ConfigurationError
from tests.policies.asynchronous_parts import (
    COMMAND,
    DT,
    HORIZON,
    SPACE,
    CountingPlanner,
    PositionCost,
    Slider,
    dying_planner,
    icem_planner,
    refused_planner,
    sleeping_planner,
    slider,
)

SIZES = PlanSizes(HORIZON, 2, 2, 1)


def same(ours, theirs):
    for name, value in vars(ours).items():
        other = getattr(theirs, name)
        if isinstance(value, Way):
            same(value, other)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other)
        else:
            assert value == other, name


def gone(pid, seconds=20.0):
    """Whether a process ends within some time; a zombie has."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def live(policy):
    return run_episode(EpisodeSource(Slider(kicks={3: 0.4}), SPACE, COMMAND, PositionCost(), "slide"), policy, 9, seed=3, trial=0,
                       provenance="beside")


def policy_of(worker, **options):
    return AsynchronousPolicy(worker, SPACE, COMMAND, DT, "beside", AsynchronousConfig(**options))


def test_what_is_written_is_read():
    rng = np.random.default_rng(0)
    record = np.zeros((), SIZES.request)
    for periods, seed in ((0, 7), (3, None), (HORIZON, 0)):
        way = Way(rng.normal(size=(periods, 1)), rng.normal(size=(periods + 1, 2)), rng.normal(size=(periods, 1, 2)))
        request = PlanRequest(rng.normal(size=2), way, 4, seed, 9, 8, 7)
        write_request(record, request)
        same(read_request(record), request)
    with pytest.raises(ConfigurationError, match=f"{HORIZON + 1} periods ahead"):
        write_request(record, PlanRequest(np.zeros(2), Way(*(np.zeros((HORIZON + n, *s)) for n, s in ((1, (1,)), (2, (2,)), (1, (1, 2)))))))
    record = np.zeros((), SIZES.answer)
    arrays = [rng.normal(size=shape) for shape in ((HORIZON, 1), (HORIZON + 1, 2), (HORIZON, 1, 2))]
    for given in (arrays, [arrays[0], None, None], [None, None, None]):
        answer = PlanAnswer(*given, 1.5, 3, 10, 20, "küçük\n", broken=given[0] is None, goes_on=5)
        write_answer(record, answer)
        same(read_answer(record), answer)
    write_answer(record, PlanAnswer(None, None, None, np.inf, 0, 0, 0, "first " + 9000 * "x" + " last"))
    assert read_answer(record).words.startswith("first ") and read_answer(record).words.endswith(" last")


def test_a_thread_plans_as_planning_at_once_does_and_ends():
    at_once = live(policy_of(InlineWorker(icem_planner()), delay_periods=2))
    worker = ThreadWorker(icem_planner)
    beside = live(policy_of(worker, delay_periods=2))
    np.testing.assert_array_equal(beside.x, at_once.x)
    assert np.ptp(at_once.commanded) > 0.5
    worker.close()
    worker.close()
    with pytest.raises(PlanningStopped, match="thread has ended"):
        worker.submit(PlanRequest(np.zeros(2), Way.nowhere(np.zeros(2), SPACE, 1)))
    with pytest.raises(ConfigurationError, match="horizon: expected"):
        ThreadWorker(refused_planner)


def test_a_thread_that_plans_in_real_time_measures_its_delays():
    worker = ThreadWorker(lambda: RequestPlanner(CountingPlanner(), slider(), COMMAND))
    policy = policy_of(worker, when_spent="hold")
    robot = Slider()
    policy.reset(0)
    observation = robot.reset(0)
    ends = time.monotonic() + 60.0
    while policy.report.fresh < 4 and time.monotonic() < ends:
        applied = robot.send(policy.act(observation))
        policy.ahead(observation, applied)
        observation = robot.tick()
        time.sleep(0.002)
    worker.close()
    assert policy.report.fresh == 4 and min(policy.report.delays) > 0 and min(policy.report.handovers) >= 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_in_a_plan_is_told_of():
    class Leaving(CountingPlanner):
        def plan(self, x0, previous, generator, deadline=None):
            raise SystemExit

    worker = ThreadWorker(lambda: RequestPlanner(Leaving(), slider(), COMMAND))
    worker.submit(PlanRequest(np.zeros(2), Way.nowhere(np.zeros(2), SPACE, 1)))
    with pytest.raises(PlanningStopped, match="thread has ended"):
        for _ in range(100):
            worker.result(0.1)


def test_a_process_plans_as_planning_at_once_does_and_its_death_is_told_of(capfd):
    at_once = live(policy_of(InlineWorker(icem_planner()), delay_periods=2))
    with ProcessWorker(icem_planner, SIZES, cores=sorted(os.sched_getaffinity(0))[:1]) as worker:
        assert os.sched_getaffinity(worker.pid) == set(sorted(os.sched_getaffinity(0))[:1])
        policy = policy_of(worker, delay_periods=2)
        beside = live(policy)
        np.testing.assert_array_equal(beside.x, at_once.x)
        os.kill(worker.pid, signal.SIGINT)  # Ctrl-C reaches all processes of a terminal: it is the control loop's to answer
        np.testing.assert_array_equal(live(policy).x, at_once.x)
        policy.reset(0)
        robot = Slider()
        observation = robot.reset(0)
        applied = robot.send(policy.act(observation))
        os.kill(worker.pid, signal.SIGKILL)
        assert gone(worker.pid)
        policy.ahead(observation, applied)
        for _ in range(2):
            policy.act(robot.tick())  # the plan in hand is followed
        assert f"process {worker.pid} was killed by SIGKILL" in policy.report.lost, "at the latest when its plan is due"
        with pytest.raises(PlanningStopped, match="nothing plans any more"):
            worker.result()
    worker.close()
    assert not capfd.readouterr().err, "its end is quiet but for what is raised here"


def test_a_planner_that_cannot_be_made_in_its_process_is_refused_with_its_words():
    with pytest.raises(ConfigurationError, match="was not made: ConfigurationError: horizon: expected at least 1, got 0"):
        ProcessWorker(refused_planner, SIZES)
    with pytest.raises(ConfigurationError, match=r"was not made: the planning process \d+ ended with exit code"):
        ProcessWorker(dying_planner, SIZES)


def make_a_worker_and_wait(tell, stopped):
    """What the one does that is about to end: its planner is in the middle of a plan that takes ten minutes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    worker = ProcessWorker(sleeping_planner, SIZES)
    request = PlanRequest(np.zeros(2), Way.nowhere(np.zeros(2), SPACE, 1), seed=0)
    worker.submit(request)
    assert worker.result(60.0) is not None
    worker.submit(request)
    if stopped:
        os.kill(worker.pid, signal.SIGSTOP)
    tell.send_bytes(str(worker.pid).encode())
    time.sleep(600)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("stopped", [False, True])
def test_the_process_never_outlives_the_one_that_made_it_however_that_ends(how, stopped):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    parent = context.Process(target=make_a_worker_and_wait, args=(theirs, stopped))
    parent.start()
    theirs.close()  # so that the pipe ends when the parent does
    try:
        assert ours.poll(120)
        pid = int(ours.recv_bytes())
        assert not gone(pid, 0.1)
        os.kill(parent.pid, how)
        assert gone(pid)
    finally:
        parent.kill()
        parent.join()
