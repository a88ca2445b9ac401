"""`reflexarc bench planners`: what is equal is equal, and nothing is lived twice."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from experiments.bench.catalog import bench_command, summaries
from experiments.bench.options import BenchOptions
from experiments.bench.planners_field import ENTRANTS, ROLLOUTS, TASKS, UNBOUNDED, why_not
from experiments.bench.planners_live import ask, live
from experiments.bench.planners_run import bench_planners, everything
from experiments.plan import play
from experiments.plan_cli import Plan
from planners.catalog import PLANNERS
from robots.errors import ConfigurationError, UnknownNameError
from sim.catalog import make_task
from sim.simulator.planning_task import PLANNING_TASKS

REACHER = "dmc:reacher-easy"


def test_every_planner_meets_every_task_or_is_told_why_not():
    assert set(ENTRANTS) == set(PLANNERS) and set(TASKS) <= set(PLANNING_TASKS) and "planners" in summaries()
    few, words = why_not(ENTRANTS["puct"], 6)
    assert "2 commands" in few and "729" in words
    assert why_not(ENTRANTS["puct"], 2) is None and why_not(ENTRANTS["ilqr"], 21) is None


@pytest.mark.parametrize("planner", [name for name, entrant in ENTRANTS.items() if entrant.samples])
def test_planners_that_sample_simulate_as_many_rollouts(planner):
    pytest.importorskip("cma")
    options = Plan(REACHER, planner, search=ENTRANTS[planner].for_rollouts(ROLLOUTS), horizon=0.16, threads=1)
    with make_task(REACHER).robot() as robot:
        taken = play(make_task(REACHER), robot, options, 3, 0).rollouts
    assert ROLLOUTS <= taken <= 1.1 * ROLLOUTS  # explaining the plan included


def test_a_planner_that_does_not_sample_is_given_as_much_effort_as_that_however_slow(monkeypatch):
    monkeypatch.setattr("experiments.bench.planners_live.TOO_SLOW", 0.0)  # of no account: time is not what is equal
    asked = ask(replace(TASKS[REACHER], steps=3), ENTRANTS["gumbel"], "rollouts", 100.0, None, 0)
    with make_task(REACHER).robot() as robot:
        lived = live(asked, ENTRANTS["gumbel"], make_task(REACHER), robot, 1, lambda: None, "", "")
    assert 60.0 < lived.rollouts < 140.0 and lived.within is None and lived.score is not None
    assert lived.rounds == int(lived.setting("simulations")) and lived.setting("hold") == "5" and lived.setting("nothing") is None


@pytest.mark.parametrize(("equal", "longest", "few"), [("time", None, "too slow"), ("rollouts", 1e-9, "skipped")])
def test_a_planner_far_too_slow_is_not_lived_and_its_time_is_told(monkeypatch, equal, longest, few):
    monkeypatch.setattr("experiments.bench.planners_live.TOO_SLOW", 0.0)
    with make_task(REACHER).robot() as robot:
        told = live(ask(TASKS[REACHER], ENTRANTS["mppi"], equal, 4.0, None, 0), ENTRANTS["mppi"], make_task(REACHER), robot, 1,
                    lambda: None, "", "", longest)
    assert told.score is None and told.lived == 0 and told.plan_ms > 0.0 and "a plan takes" in told.note and told.why == few
    assert told.skipped == (equal == "rollouts")


@pytest.mark.parametrize("planner", ["gumbel", "ilqr"])
def test_who_lays_the_search_out_from_the_start_is_told_at_equal_time_of_what_fits(monkeypatch, planner):
    monkeypatch.setattr("experiments.bench.planners_live.TOO_SLOW", 1e9)
    asked = ask(TASKS[REACHER], ENTRANTS[planner], "time", 8.0, 2, 0)
    with make_task(REACHER).robot() as robot:
        lived = live(asked, ENTRANTS[planner], make_task(REACHER), robot, 1, lambda: None, "", "")
    told = int(lived.setting(ENTRANTS[planner].effort))
    assert 1 <= told < 1000 if planner == "gumbel" else told == UNBOUNDED


def test_what_a_planner_cannot_do_is_kept_in_its_own_words():
    planned, entrant = TASKS["dmc:humanoid-stand"], ENTRANTS["random-shooting"]
    asked = replace(ask(planned, entrant, "time", 20.0, 2, 0), settings=("knots=90", "interpolation=linear"))
    with make_task(planned.task).robot() as robot:
        told = live(asked, entrant, make_task(planned.task), robot, 1, lambda: None, "", "")
    assert told.score is None and "knots: expected 2 to the horizon" in told.note and told.why == "refused"


def test_nothing_is_lived_twice_and_the_page_is_of_all_that_was(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.bench.planners_live.TOO_SLOW", 1e9)  # however busy this computer is
    console = Console(file=io.StringIO(), width=200)
    options = BenchOptions(runs=tmp_path / "runs", out=tmp_path / "docs", tasks=(REACHER,), planners=("random-shooting", "cem"), steps=2,
                           budget_ms=1.0, seeds=1)
    first = bench_planners(console, options, 1)
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "runs/planners").iterdir()}
    assert len(kept) == 4 and len(first.rows) == 4 and len(first.bars) == 1
    (tmp_path / "runs/planners" / sorted(kept)[0]).unlink()  # a kill came before it
    more = bench_planners(console, replace(options, planners=("cem", "mppi")), 1)
    assert "2 of 4 episodes were lived before" in console.file.getvalue() or "1 of 4" in console.file.getvalue()
    now = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "runs/planners").iterdir()}
    assert sum(now.get(name) == when for name, when in kept.items()) == 3 and {row[1] for row in more.rows} == {"cem", "mppi"}
    page = (tmp_path / "docs/planners.md").read_text()
    assert "mppi" in page and "random-shooting" in page  # of earlier calls too
    assert (tmp_path / "docs/images/planners.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "docs/planners.csv").read_text().splitlines()) == 1 + len(now)


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"tasks": ("dmc:cheetah",)}, UnknownNameError, "dmc:cheetah-run"), ({"planners": ("ice",)}, UnknownNameError, "icem"),
    ({"planners": ("icem", "icem")}, ConfigurationError, "once"), ({"budget_ms": 0.0}, ConfigurationError, "--budget-ms"),
    ({"steps": 0}, ConfigurationError, "--steps"), ({"skip_longer": 0.0}, ConfigurationError, "--skip-longer"),
    ({"task": "cartpole"}, ConfigurationError, "--task")])
def test_what_cannot_be_is_refused_before_anything_is_lived(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        bench_command("planners", 1, None, 1, BenchOptions(runs=tmp_path, **options))


def test_seeds_and_allowances_make_episodes_of_their_own():
    asked = everything([REACHER], ["icem", "ilqr"], [0, 1], 20.0, None)
    assert len(set(asked)) == 8 and {a.steps for a in asked} == {TASKS[REACHER].steps}
