"""`reflexarc bench planners` in parts: what is kept, what is lived again, and what the page says of it. Nobody plans here."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments.bench import planners_run
from experiments.bench.options import BenchOptions
from experiments.bench.planners_cells import Cell, read_cells, write_cell
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
