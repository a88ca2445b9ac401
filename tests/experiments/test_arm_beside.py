"""A run's planner beside the UR5e's twin: slower than the control period it still leads the arm, and without it the arm is held."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from dynamics.workers import Workers
from experiments import arm_reach_beside
from experiments.arm_live import hold_and_disarm
from experiments.arm_policies import ReachingRun, arm_policy
from experiments.arm_reach_beside import RunPlanner, cores_beside, planning_words
from experiments.arm_reaching import gate_of
from experiments.arm_settings import ArmSettings
from hw_bridge.client import BridgeProcess
from hw_bridge.recorder.read_log import read_log
from hw_bridge.safety.rules import State
from hw_bridge.twins.twin import TwinProcess
from policies.asynchronous import process_worker
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.exchange import PlanningStopped
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.report import JUDGED_FROM
from policies.planning_ahead import PlanningAhead
from robots.errors import ConfigurationError, HardwareError
from tests.experiments.arm_beside_parts import ARM, CONFIG, SLOW, SlowRunPlanner, learned_run

pytest.importorskip("rtde_control")
ADDRESS = "127.0.46.2"
STOPPED_AT = 12
"""Period in which the planner is stopped."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return learned_run(tmp_path_factory.mktemp("learned") / "run")


def test_only_what_plans_can_plan_beside_the_arm(run):
    assert isinstance(arm_policy(str(run.path), "ur5e", asynchronous=True), ReachingRun)
    assert arm_policy(str(run.path), "ur5e", asynchronous=True).hash == arm_policy(str(run.path), "ur5e").hash, "one certificate for both"
    for name in ("hold", "swing", "tip"):
        with pytest.raises(ConfigurationError, match=f"{name} does not plan"):
            arm_policy(name, "ur5e", asynchronous=True)


def test_who_plans_within_the_period_is_told_how_often_that_took_too_long():
    late = PlanningAhead.__new__(PlanningAhead)
    late.late, late.plans = 0, 40
    assert planning_words(late) == "every plan was ready in time"
    late.late = 7
    assert "7 of 40 plans were not ready in time" in planning_words(late) and "--asynchronous" in planning_words(late)


def test_the_planner_that_is_made_beside_the_arm_is_the_run_s(run):
    made = RunPlanner(run.path, 1)()
    model, expected = made.model.tensors(), run.learned().tensors
    assert all(np.array_equal(value, expected[f"model.{name}"]) for name, value in model.items())
    assert made.planner.horizon == CONFIG.search.horizon and made.command.nu == ARM.spec.nv


def test_a_core_is_left_to_the_servo_loop_unless_a_person_says_otherwise(run, monkeypatch):
    taken = []
    monkeypatch.setattr(arm_reach_beside, "Workers", lambda threads: (taken.append(threads), Workers(1))[1])
    for cores, threads, expected in ((4, None, 3), (1, None, 1), (4, 4, 4), (4, 1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert cores_beside(threads) == expected
        RunPlanner(run.path, threads)()
        assert taken.pop() == expected


def test_a_gate_without_anything_lived_is_refused(run):
    with pytest.raises(ConfigurationError, match="at least one lived episode"):
        gate_of(RunPlanner(run.path, 1)().model, [], CONFIG.gate)


def test_a_planner_slower_than_the_period_leads_the_arm_and_one_that_is_stopped_leaves_it_at_rest(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(arm_reach_beside, "RunPlanner", SlowRunPlanner)
    monkeypatch.setattr(arm_reach_beside, "AsynchronousConfig", lambda **options: AsynchronousConfig(rehearsals=3, **options))
    monkeypatch.setattr(process_worker, "ENDING_SECONDS", 0.1)
    policy = ReachingRun(run, 1, asynchronous=True)
    seen, acting, act = [], [], AsynchronousPolicy.act

    def watched(self, observation):
        acting.append(self)
        seen.append(observation)
        if len(seen) == STOPPED_AT:
            os.kill(self._requests._worker.pid, signal.SIGSTOP)
        return act(self, observation)

    monkeypatch.setattr(AsynchronousPolicy, "act", watched)
    settings = ArmSettings("ur5e", ADDRESS, patience=0.5)  # a busy test machine is late now and then
    safety = settings.careful(policy.safety())
    for attempt in range(4):  # on a very busy one the twin does not even answer for a tenth of a second, which no arm does
        seen.clear()
        log = tmp_path / f"{attempt}.mcap"
        config = settings.bridge(safety, "beside", policy.hash, log=str(log))
        with (TwinProcess("ur5e", "--address", ADDRESS) as twin, BridgeProcess(config) as bridge,
              policy.acting(bridge.client, safety) as live):
            try:
                with pytest.raises(PlanningStopped) as stop:
                    live(2, 60)
            except HardwareError as error:
                if attempt < 3 and "lost: nothing heard" in str(error):
                    continue
                raise
            if attempt < 3 and len(seen) < STOPPED_AT:  # its plans took so long that one was over before the planner was stopped
                continue
            hold_and_disarm(bridge.client)
            assert bridge.client.status().state is State.IDLE
            truth = twin.fault("state")
            break
    assert truth["limit_violations"] == [] and truth["command_violations"] == [] and np.abs(truth["dq"]).max() < 0.02
    beside, report = acting[-1], acting[-1].report
    assert "no newer one has come" in str(stop.value) and report.stopped == str(stop.value)
    assert STOPPED_AT <= report.periods == len(seen) <= STOPPED_AT + 2 * CONFIG.search.horizon
    stamps = [beside._robot_clock.read(observation.stamp_ns) + beside._period_ns // 2 for observation in seen]
    assert beside._in_use.spent_at(stamps[-1]) and not beside._in_use.spent_at(stamps[-2]), "the plan in hand was followed to its end"
    assert np.median(report.delays) > SLOW and report.too_slow == (len(report.delays) >= JUDGED_FROM)
    assert not report.too_slow or f"the planner is slower than the robot: {arm_reach_beside.ADVICE}" in report.words()
    assert report.fresh >= 2, "a plan was made beside the arm while it moved, and acted on"
    assert "--threads" in str(stop.value) and "horizon" not in str(stop.value), "advice that can be followed"
    miss = [float(np.linalg.norm(observation.extra["miss"])) for observation in seen]
    assert min(miss) < 0.8 * miss[0], f"it was led towards its goal: {miss}"
    if report.silence:  # unless the plan in hand was nearly over
        assert "the planner has not answered for" in str(stop.value) and "has not answered for" in caplog.text
    recorded = read_log(log)
    assert recorded.complete and len(np.unique(recorded.rows["action_sequence"])) >= report.periods
