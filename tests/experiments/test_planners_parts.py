"""`reflexarc bench planners` in parts: what is kept, what is lived again, and what the page says of it. Nobody plans here."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments.bench import planners_live, planners_run
from experiments.bench.options import BenchOptions
from experiments.bench.planners_cells import Asked, Cell, decisive_files, read_cells, write_cell
from experiments.bench.planners_field import ENTRANTS
from experiments.bench.planners_live import live
from experiments.bench.planners_run import bench_planners

REACHER, CHEETAH = "dmc:reacher-easy", "dmc:cheetah-run"


class Lives:
    """In place of `live`: episodes take no time, and the one of number `killed` never ends."""

    def __init__(self, killed: int | None = None) -> None:
        self.asked, self._killed = [], killed

    def __call__(self, asked, entrant, task, robot, threads, advance, machine, code, longest=None) -> Cell:
        if len(self.asked) == self._killed:
            raise KeyboardInterrupt
        self.asked.append(asked)
        timed = asked.equal == "time"
        cell = Cell(asked, 0.1 * (1 + asked.seed), asked.steps, 15.0, 18.0, 19.0, 1.0 if timed else None, 3.0, 60.0, "", 1.0, machine, code)
        if longest is None or timed:
            return cell
        return replace(cell, score=None, lived=0, rounds=None, rollouts=None, why="skipped", note="skipped because ...")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the benchmark, and returns what was lived and the page."""
    def call(killed: int | None = None, **options) -> tuple[list, str]:
        lives = Lives(killed)
        monkeypatch.setattr(planners_run, "live", lives)
        monkeypatch.setattr(planners_run, "make_task", lambda name: SimpleNamespace(robot=contextlib.nullcontext))
        monkeypatch.setattr("experiments.bench.planners_figure.draw_planners", lambda cells, today: b"")
        told = {"tasks": (REACHER, CHEETAH), "planners": ("icem", "ilqr"), "seeds": 1} | options
        if "seed_list" in options:
            del told["seeds"]
        console = Console(file=io.StringIO(), width=200)
        try:
            bench_planners(console, BenchOptions(runs=tmp_path / "runs", out=tmp_path, **told), 1)
        except KeyboardInterrupt:
            assert killed is not None and "the same command goes on" in console.file.getvalue()
        page = tmp_path / "planners.md"
        return lives.asked, page.read_text() if page.exists() else ""

    return call


def test_a_run_that_is_killed_loses_the_episode_it_was_in_and_no_other(run):
    before, page = run(killed=6)
    assert len(before) == 6 and "reacher-easy" in page and "cheetah-run" not in page  # the page is of whole tasks until the end
    after, page = run()
    assert len(after) == 2 and not set(before) & set(after) and "cheetah-run" in page
    assert run()[0] == []


def test_parts_are_joined_to_one_page(run):
    run(planners=("icem",))
    lived, page = run(seed_list=(2, 1, 2), planners=("icem",), tasks=(REACHER,))
    assert [asked.seed for asked in lived] == [2, 1] * 2
    assert "median over 3 seeds" in page and "| icem | 0.2 [0.1, 0.3] | 0.1 (1 of 3 seeds) |" in page
    assert len(run(seeds=3, planners=("icem",))[0]) == 4  # cheetah's other two, in both comparisons


def test_figures_of_other_code_are_marked_until_they_are_lived_anew(run, tmp_path):
    run()
    folder = tmp_path / "runs/planners"
    old, *_ = read_cells(folder)
    write_cell(folder, replace(old, code="old00000"))
    lived, page = run()
    assert lived == [] and "†" in page and "old00000" in page
    lived, page = run(renew=True)
    assert lived == [old.asked] and "†" not in page


def test_what_was_skipped_is_lived_where_nobody_bids_skip_it(run):
    lived, page = run(skip_longer=0.01)
    assert len(lived) == 8 and page.count("skipped |") == 4
    assert run(skip_longer=0.01)[0] == []  # 250 periods of 15 ms
    lived, page = run(skip_longer=1.0)
    assert [asked.equal for asked in lived] == ["rollouts"] * 4 and page.count("skipped |") == 4
    lived, page = run()
    assert [asked.equal for asked in lived] == ["rollouts"] * 4 and "skipped" not in page


class Converges:
    """In place of `play`: a plan takes `first` rollouts and `each` for every iteration, and converges after `enough` of them."""

    def __init__(self, first: float, each: float, enough: float) -> None:
        self.tried, self._first, self._each, self._enough = [], first, each, enough

    def __call__(self, task, robot, options, steps, seed, advance=None) -> SimpleNamespace:
        effort = int(options.search[-1].partition("=")[2])
        self.tried.append(effort)
        iterations = min(effort, self._enough)
        return SimpleNamespace(rollouts=self._first + self._each * iterations, log=SimpleNamespace(rounds=[iterations] * steps))


@pytest.mark.parametrize(("first", "each", "enough", "effort"), [
    (2, 15, 99, 4), (2, 15, 2, 4), (2, 15, 1, 3), (2, 15, 1.5, 4), (2, 25, 99, 2), (2, 40, 2, 1), (100, 50, 99, 1), (2, 61, 99, 1),
    (0, 1, 9999, 64), (0, 1, 20, 64), (0, 0.1, 9999, 640)])
def test_no_plan_may_take_more_than_the_rollouts_allowed_however_soon_the_first_ones_converged(monkeypatch, first, each, enough, effort):
    converges = Converges(first, each, enough)
    monkeypatch.setattr(planners_live, "play", converges)
    monkeypatch.setattr(planners_live, "_cell", lambda asked, played, *further: None)
    asked = Asked(REACHER, "ilqr", "rollouts", 64.0, 3, (), 0)
    live(asked, ENTRANTS["ilqr"], None, SimpleNamespace(spec=SimpleNamespace(command=lambda: SimpleNamespace(nu=2))), 1, None, "", "")
    *tried, found = converges.tried
    assert found in tried and len(tried) <= 9  # the last is the episode's
    assert found == 1 or first + each * found <= 64.0
    assert 0.95 * effort <= found <= effort


def test_code_that_decides_an_episode_makes_its_fingerprint():
    root = Path(planners_run.__file__).resolve().parents[2]
    lived = """
import sys
import experiments.bench.planners_live
from sim.catalog import make_task
with make_task("reacher7").robot() as robot:
    robot.reset(0)
print(*(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)), sep="\\n")
"""
    printed = subprocess.run([sys.executable, "-c", lived], cwd=root, check=True, capture_output=True, text=True).stdout
    own = {Path(line) for line in printed.splitlines()}
    packages = {path.name for path in root.iterdir() if (path / "__init__.py").exists()}
    own = {path for path in own if path.is_relative_to(root) and path.relative_to(root).parts[0] in packages}
    shows_or_keeps = {f"experiments/{name}.py" for name in ("progress", "run_directory", "video", "bench/planners_cells")}
    left = {str(path.relative_to(root)) for path in own - set(decisive_files()) if path.name != "__init__.py"} - shows_or_keeps
    assert len(own) > 50 and {name for name in left if not name.startswith("experiments/report/")} == set()
