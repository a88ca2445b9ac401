"""`reflexarc bench planners`: what is equal is equal, nothing is lived twice, and the page says what is in the cells."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from experiments.bench.catalog import bench_command, summaries
from experiments.bench.options import BenchOptions
from experiments.bench.planners_cells import Asked, Cell, read_cells, write_cell
from experiments.bench.planners_field import ENTRANTS, ROLLOUTS, TASKS, why_not
from experiments.bench.planners_figure import draw_planners
from experiments.bench.planners_live import ask, live
from experiments.bench.planners_page import END, START, make_tables, write_page
from experiments.bench.planners_run import bench_planners, everything
from experiments.plan import play
from experiments.plan_cli import Plan
from planners.catalog import PLANNERS
from robots.errors import ConfigurationError, StoreError, UnknownNameError
from sim.catalog import make_task
from sim.simulator.planning_task import PLANNING_TASKS

REACHER = "dmc:reacher-easy"


def cell(task=REACHER, planner="icem", equal="time", seed=0, **found) -> Cell:
    asked = Asked(task, planner, equal, 20.0 if equal == "time" else 64.0, 5, ("beta=1.0",), seed)
    figures = {"score": 0.5, "lived": 5, "plan_ms": 15.0, "plan_ms_95": 18.0, "plan_ms_longest": 19.0,
               "within": 1.0 if equal == "time" else None, "rounds": 4.0, "rollouts": 60.0, "note": ""}
    return Cell(asked, **figures | found, seconds=2.0, machine="a computer", code="12345678")


def test_every_planner_meets_every_task_or_is_told_why_not():
    assert set(ENTRANTS) == set(PLANNERS) and set(TASKS) <= set(PLANNING_TASKS) and "planners" in summaries()
    assert "729" in why_not(ENTRANTS["puct"], 6)
    assert why_not(ENTRANTS["puct"], 2) is None and why_not(ENTRANTS["ilqr"], 21) is None


@pytest.mark.parametrize("planner", [name for name, entrant in ENTRANTS.items() if entrant.samples])
def test_planners_that_sample_simulate_as_many_rollouts(planner):
    pytest.importorskip("cma")
    options = Plan(REACHER, planner, search=ENTRANTS[planner].for_rollouts(ROLLOUTS), horizon=0.16, threads=1)
    with make_task(REACHER).robot() as robot:
        taken = play(make_task(REACHER), robot, options, 3, 0).rollouts
    assert ROLLOUTS <= taken <= 1.1 * ROLLOUTS  # explaining the plan included


def test_a_planner_that_does_not_sample_is_given_as_much_effort_as_that(monkeypatch):
    monkeypatch.setattr("experiments.bench.planners_live.TOO_SLOW", float("inf"))
    asked = ask(replace(TASKS[REACHER], steps=3), ENTRANTS["gumbel"], "rollouts", 100.0, None, 0)
    with make_task(REACHER).robot() as robot:
        lived = live(asked, ENTRANTS["gumbel"], make_task(REACHER), robot, 1, lambda: None, "", "")
    assert 60.0 < lived.rollouts < 140.0 and lived.within is None and lived.score is not None


def test_a_planner_far_too_slow_is_not_lived_and_its_time_is_told(monkeypatch):
    monkeypatch.setattr("experiments.bench.planners_live.TOO_SLOW", 0.0)
    with make_task(REACHER).robot() as robot:
        told = live(ask(TASKS[REACHER], ENTRANTS["mppi"], "rollouts", 4.0, None, 0), ENTRANTS["mppi"], make_task(REACHER), robot, 1,
                    lambda: None, "", "")
    assert told.score is None and told.lived == 0 and told.plan_ms > 0.0 and "a plan takes" in told.note


def test_what_a_planner_cannot_do_is_kept_in_its_own_words():
    planned, entrant = TASKS["dmc:humanoid-stand"], ENTRANTS["random-shooting"]
    asked = replace(ask(planned, entrant, "time", 20.0, 2, 0), settings=("knots=90", "interpolation=linear"))
    with make_task(planned.task).robot() as robot:
        told = live(asked, entrant, make_task(planned.task), robot, 1, lambda: None, "", "")
    assert told.score is None and "knots: expected 2 to the horizon" in told.note


def test_cells_are_kept_by_all_that_was_asked(tmp_path):
    one = cell()
    others = [replace(one, asked=replace(one.asked, **{name: value})) for name, value in
              {"task": "pusher7", "planner": "cem", "equal": "rollouts", "allowance": 10.0, "steps": 6, "settings": (), "seed": 1}.items()]
    for each in [one, *others, one]:
        write_cell(tmp_path, each)
    assert sorted(map(repr, read_cells(tmp_path))) == sorted(map(repr, [one, *others]))
    (tmp_path / "half.json").write_text('{"asked": ')
    with pytest.raises(StoreError, match=r"half\.json"):
        read_cells(tmp_path)


def test_nothing_is_lived_twice_and_the_page_is_of_all_that_was(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.bench.planners_live.TOO_SLOW", 1e6)  # however busy this computer is
    console = Console(file=io.StringIO(), width=200)
    options = BenchOptions(runs=tmp_path / "runs", out=tmp_path / "docs", tasks=(REACHER,), planners=("random-shooting", "puct"), steps=2,
                           budget_ms=1.0, seeds=1)
    first = bench_planners(console, options, 1)
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "runs/planners").iterdir()}
    assert len(kept) == 4 and len(first.rows) == 4 and len(first.bars) == 1
    (tmp_path / "runs/planners" / sorted(kept)[0]).unlink()  # a kill came before it
    more = bench_planners(console, replace(options, planners=("puct", "mppi")), 1)
    assert "2 of 4 episodes were lived before" in console.file.getvalue() or "1 of 4" in console.file.getvalue()
    now = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "runs/planners").iterdir()}
    assert sum(now.get(name) == when for name, when in kept.items()) == 3 and {row[1] for row in more.rows} == {"puct", "mppi"}
    page = (tmp_path / "docs/planners.md").read_text()
    assert "mppi" in page and "random-shooting" in page  # of earlier calls too
    assert (tmp_path / "docs/images/planners.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "docs/planners.csv").read_text().splitlines()) == 1 + len(now)


def test_the_page_marks_who_is_late_gives_no_mean_of_what_was_not_all_lived_and_says_why():
    cells = [cell(seed=0, score=0.4), cell(seed=1, score=0.6), cell(planner="cem", within=0.98),
             cell(task="dmc:cheetah-run", score=0.9), cell(task="dmc:cheetah-run", planner="cem", score=None, within=None, note="too slow"),
             cell(equal="rollouts", score=0.25)]
    lines = make_tables(cells, "a.png", "a.csv").splitlines()
    icem, cem = (next(line for line in lines if line.startswith(f"| {name} |")) for name in ("icem", "cem"))
    assert "0.5 [0.4, 0.6]" in icem and "**0.700**" in icem
    assert "0.5*" in cem and "**" not in cem
    assert "- cem on dmc:cheetah-run, equal time: too slow" in lines
    assert any("0.25" in line for line in lines[lines.index(cem) + 1:])
    assert any("`reflexarc bench planners --seeds 2 --steps 5`" in line for line in lines)


def test_what_people_write_around_the_tables_stays(tmp_path):
    page = tmp_path / "planners.md"
    write_page(page, [cell()], "a.png", "a.csv")
    page.write_text(page.read_text().replace(END, f"{END}\nwritten by hand"))
    write_page(page, [cell(score=0.125)], "a.png", "a.csv")
    assert "0.125" in page.read_text() and page.read_text().endswith("written by hand\n")
    page.write_text("no markers")
    with pytest.raises(StoreError, match=START):
        write_page(page, [cell()], "a.png", "a.csv")


def test_the_picture_changes_with_the_scores():
    cells = [cell(), cell(planner="cem", equal="rollouts", score=None), cell(task="pusher7", score=-3.0)]
    assert draw_planners(cells) == draw_planners(cells) != draw_planners([replace(cells[0], score=0.9), *cells[1:]])


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"tasks": ("dmc:cheetah",)}, UnknownNameError, "dmc:cheetah-run"), ({"planners": ("ice",)}, UnknownNameError, "icem"),
    ({"planners": ("icem", "icem")}, ConfigurationError, "once"), ({"budget_ms": 0.0}, ConfigurationError, "--budget-ms"),
    ({"steps": 0}, ConfigurationError, "--steps"), ({"task": "cartpole"}, ConfigurationError, "--task")])
def test_what_cannot_be_is_refused_before_anything_is_lived(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        bench_command("planners", 1, None, 1, BenchOptions(runs=tmp_path, **options))


def test_seeds_and_allowances_make_episodes_of_their_own():
    asked = everything([REACHER], ["icem", "ilqr"], [0, 1], 20.0, None)
    assert len(set(asked)) == 8 and {a.steps for a in asked} == {TASKS[REACHER].steps}
