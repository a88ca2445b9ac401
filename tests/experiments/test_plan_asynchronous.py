"""`reflexarc plan --asynchronous`: a machine that does not wait, and what a delay costs that nobody compensates."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from experiments.cli import main
from experiments.paced_robot import PacedRobot
from experiments.plan import play
from experiments.plan_asynchronous import play_beside
from experiments.plan_cli import Plan
from experiments.video import ReplayError
from policies.asynchronous.worker import InlineWorker
from robots.command import Command
from robots.errors import ConfigurationError
from sim.catalog import make_task

SMALL = ("population=12", "iterations=2", "elites=3")
TASK = "cartpole"


def beside(delay, seed=0, **options):
    task = make_task(TASK)
    with task.robot() as robot:
        return play_beside(task, robot, Plan(TASK, asynchronous=True, delay_periods=delay, search=SMALL, threads=1, horizon=0.6, **options),
                           30, seed)


def test_a_declared_delay_gives_one_result_for_one_seed_and_is_how_old_the_states_are():
    one, again, other = beside(2), beside(2), beside(2, seed=1)
    assert np.array_equal(one.episode.applied, again.episode.applied) and not np.array_equal(one.episode.applied, other.episode.applied)
    assert not one.overruns and not one.report.late and one.report.fresh == 15
    dt = one.report.control_dt
    assert np.unique(np.round(np.array(one.report.ages[2:]) / dt)).tolist() == [2, 3]


def test_planned_for_where_the_machine_will_be_a_period_of_delay_costs_nothing_and_planned_blindly_much():
    task = make_task(TASK)
    with task.robot() as robot:
        in_no_time = play(task, robot, Plan(TASK, search=SMALL, threads=1, horizon=0.6), 30, 0).episode
    compensated, blind = beside(1).episode, beside(1, uncompensated=True).episode
    np.testing.assert_array_equal(compensated.x, in_no_time.x)
    assert blind.total_return < 0.5 * in_no_time.total_return


class Engine:
    """A robot whose periods take this computer as long as `takes` [s] on the test's clock."""

    def __init__(self, takes):
        self.now, self.takes, self.slept = 50.0, takes, []
        with make_task(TASK).robot() as robot:
            self.spec, self.seen = robot.spec, robot.reset(0)

    def reset(self, seed):
        return self.seen

    def send(self, command):
        return command

    def tick(self):
        self.now += self.takes.pop(0)
        return self.seen

    def close(self):
        self.now = None

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_a_paced_machine_lives_as_long_as_its_periods_and_does_not_catch_up():
    engine = Engine([0.01, 0.08, 0.01])
    dt = engine.spec.control_dt
    assert dt < 0.08
    with PacedRobot(engine, lambda: engine.now, engine.sleep) as robot:
        robot.reset(0)
        engine.now += 3.0  # it may be planned before the first command
        ends, begun = [], engine.now
        for _ in range(3):
            assert np.array_equal(robot.send(Command("actuator", np.zeros(1))).values, [0.0])
            robot.tick()
            ends.append(engine.now - begun)
        np.testing.assert_allclose(ends, [dt, dt + 0.08, 2 * dt + 0.08])
        assert robot.overruns == pytest.approx([0.08 - dt])
        robot.reset(0)
        assert robot.overruns == []
    assert engine.now is None


def test_the_command_line_plans_beside_a_machine_in_real_time(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "dmc:cartpole-balance", "--asynchronous", "--steps", "6", "--horizon", "0.3", "--search", *SMALL, "--threads", "1",
              "--budget-ms", "5", "--json", str(tmp_path / "out.json")])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "in real time" in shown and "handing over" in shown and "score: median" in shown
    written = json.loads((tmp_path / "out.json").read_bytes())
    assert written["asynchronous"] and written["delay_periods"] is None and 0.0 < written["scores"][0] <= 6.0
    assert written["periods"] == [6] and written["ended_early"] == [None]


def test_an_episode_that_ended_early_is_told_of_with_its_reason_before_the_film(tmp_path, monkeypatch, capsys):
    class Failing(InlineWorker):
        def submit(self, request):
            super().submit(request)
            if request.seed is None:
                self._answer = dataclasses.replace(self._answer, actions=None, words="no finite cost")

    def failing(*_):
        raise ReplayError

    monkeypatch.setattr("experiments.plan_asynchronous.InlineWorker", Failing)
    monkeypatch.setattr("experiments.plan_asynchronous.replay_video", failing)
    with pytest.raises(ReplayError):
        Plan(TASK, asynchronous=True, delay_periods=1, steps=30, horizon=0.4, search=SMALL, threads=1, video=tmp_path / "film.mp4",
             json=tmp_path / "out.json").run()
    written = json.loads((tmp_path / "out.json").read_bytes())
    lived = written["periods"][0]
    assert 0 < lived < 30 and "no finite cost, so nothing is commanded" in written["ended_early"][0]
    assert f"seed 0 ended after {lived} of 30 periods" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("options", "words"), [
    ({"delay_periods": 2}, "--asynchronous has a delay"), ({"uncompensated": True}, "--asynchronous has a delay"),
    ({"asynchronous": True, "delay_periods": 0}, "delay_periods: expected at least 1"), ({"asynchronous": True, "gap": True}, "--gap"),
    ({"asynchronous": True, "delay_periods": 2, "budget_ms": 5.0}, "--delay-periods and --budget-ms")])
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        Plan("cartpole", **options).run()
