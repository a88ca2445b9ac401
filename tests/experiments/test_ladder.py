"""The ladder counts steps honestly, never calls a running maximum a return, and goes on where it was stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata
from episodes.store import EpisodeStore
from experiments.bench.catalog import bench_command
from experiments.bench.ladder import LADDER, LadderTask, Published, ladder_task
from experiments.bench.ladder_page import END, START, make_tables, write_page
from experiments.bench.ladder_result import make_result
from experiments.bench.ladder_rows import (
    LadderRow,
    at,
    curves,
    fingerprint,
    last_three,
    make_rows,
    merge,
    pitch_figures,
    read_rows,
    spread,
    write_rows,
)
from experiments.bench.options import BenchOptions
from experiments.cli import main
from experiments.config import SETTINGS, settings_for, to_json
from experiments.run_directory import RunDirectory
from planners.icem import ICEMConfig
from policies.model_based import LearningConfig
from policies.trial import TrialRecord
from robots.command import Command
from robots.errors import ConfigurationError, StoreError, UnknownNameError, VersionError
from sim.catalog import make_task

TINY = replace(SETTINGS["pendulum"], learning=LearningConfig(trials=4, episode_steps=20),
               ensemble=EnsembleConfig(members=2, hidden=(8,), weight_decay=(1e-4,), fit=FitConfig(epochs=2)),
               evaluation=replace(SETTINGS["pendulum"].evaluation, particles=2),
               search=ICEMConfig(horizon=4, population=8, iterations=1, elites=2))
PENDULUM = LadderTask("pendulum", 80, 80, seeds=2, published=(Published(60, -1.0, "somebody", running_maximum=True),),
                      bars={60: -1e6, 80: 0.0}, settings=TINY)


@pytest.fixture
def pendulum(monkeypatch):
    monkeypatch.setitem(LADDER, "pendulum", PENDULUM)
    return PENDULUM


def records(*returns: float, steps: int = 200) -> list[TrialRecord]:
    return [TrialRecord(i, "icem" if i else "random", None, value, steps, False, i, fit_seconds=0.5 * i, seconds=10.0,
                        plan_milliseconds_median=33.0 if i else None) for i, value in enumerate(returns)]


def rows_of(*returns: float, seed: int = 0, task: str = "cartpole", machine: str | None = "a machine, 2 threads") -> list[LadderRow]:
    return make_rows(replace(settings_for(task, 200), seed=seed), records(*returns), [machine] * len(returns))


def test_rows_add_up():
    rows = rows_of(-5.0, 90.0, 40.0, 120.0)
    assert [row.steps_total for row in rows] == [200, 400, 600, 800]
    assert [row.raw_return for row in rows] == [-5.0, 90.0, 40.0, 120.0]
    assert [row.running_max for row in rows] == [-5.0, 90.0, 90.0, 120.0]
    assert [row.wall_s_total for row in rows] == [10.0, 20.0, 30.0, 40.0]
    assert [row.acted_by for row in rows] == ["random", "icem", "icem", "icem"] and rows[0].plan_ms_median is None
    assert last_three(rows) == 90.0 and last_three(rows[:1]) == -5.0


@pytest.mark.parametrize(("steps", "trial"), [(199, None), (200, 0), (399, 0), (600, 2), (800, 3), (999, 3), (1000, None)])
def test_a_return_at_n_is_that_of_the_last_trial_finished_by_then(steps, trial):
    row = at(rows_of(-5.0, 90.0, 40.0, 120.0), steps)
    assert (row.trial if row is not None else None) == trial


def test_medians_are_over_seeds_of_raw_returns_and_running_maxima_stand_apart():
    entry = LadderTask("cartpole", 600, 600, published=(Published(600, 99.0, "PETS", running_maximum=True),), bars={600: 60.0, 800: 1.0})
    seeds = {0: rows_of(1.0, 90.0, 40.0), 1: rows_of(2.0, 50.0, 70.0, seed=1), 2: rows_of(3.0, 80.0, 30.0, seed=2)}
    result = make_result(entry, seeds, 600, "a machine")
    assert result.columns == ("seed", "trials", "last 3", "@600", "running max", "s")
    assert result.rows == [(0, 3, 40.0, 40.0, 90.0, 30.0), (1, 3, 50.0, 70.0, 70.0, 30.0), (2, 3, 30.0, 30.0, 80.0, 30.0),
                           ("median", 3, 40.0, 40.0, 80.0, 30.0), ("running max, median", None, None, 80.0, None, None),
                           ("PETS, running maximum", None, None, 99.0, None, None)]
    assert [(bar.measured, bar.bar) for bar in result.bars] == [(40.0, 60.0)] and not result.met  # 80 is a running maximum
    assert make_result(entry, {0: seeds[1]}, 600, "a machine").met
    assert make_result(replace(entry, bars={}), seeds, 600, "a machine").last_line() == "learn cartpole: no bar to judge by"
    assert math.isnan(make_result(entry, {0: rows_of(1.0)}, 600, "a machine").bars[0].measured)  # ended early: not met
    assert spread([3.0, 1.0, 2.0, 10.0]) == spread([10.0, 2.0, 1.0, 3.0]) and spread([]) is None


def test_the_file_comes_back_as_it_was_written(tmp_path):
    rows = [*rows_of(-5.25, 1 / 3, machine=None), *rows_of(7.0, seed=11)]
    path = tmp_path / "deep" / "cartpole.csv"
    assert read_rows(path) == []
    write_rows(path, rows)
    assert read_rows(path) == rows and "pitch" not in path.read_text()
    pitched = [replace(rows[0], pitch_abs_median=0.25, pitch_abs_max=7.0, pitch_final=-0.1, upside_down=0.5), *rows[1:]]
    write_rows(path, pitched)
    assert read_rows(path) == pitched and "upside_down" in path.read_text().splitlines()[0]
    assert [p.name for p in path.parent.iterdir()] == ["cartpole.csv"]


@pytest.mark.parametrize(("damage", "words"), [
    (lambda text: text.replace("steps_total", "steps"), "columns"),
    (lambda text: text.replace("cartpole,0,1,", "cartpole,0,one,"), "line 3"),
    (lambda text: text[:-30], "line 3"),
    (lambda text: "", "columns"),
])
def test_a_damaged_file_is_refused(tmp_path, damage, words):
    path = tmp_path / "cartpole.csv"
    write_rows(path, rows_of(1.0, 2.0))
    path.write_text(damage(path.read_text()))
    with pytest.raises(StoreError, match=words):
        read_rows(path)


def test_a_rerun_replaces_its_seed_and_keeps_the_others():
    known = [*rows_of(1.0, 2.0, 3.0, seed=0), *rows_of(4.0, 5.0, seed=2)]
    merged, left_out = merge(known, rows_of(7.0, 8.0, seed=0))
    assert [(row.seed, row.raw_return) for row in merged] == [(0, 7.0), (0, 8.0), (2, 4.0), (2, 5.0)] and not left_out
    merged, _ = merge(known, rows_of(9.0, seed=1))
    assert list(curves(merged)) == [0, 1, 2]
    assert merge(known, []) == (known, [])


def test_seeds_of_other_settings_are_left_out():
    other = [replace(row, settings="another") for row in rows_of(1.0, seed=1)]
    merged, left_out = merge([*other, *rows_of(2.0, seed=2)], rows_of(3.0, seed=0))
    assert [row.seed for row in merged] == [0, 2] and left_out == [1]
    config = settings_for("cartpole", 200)
    assert fingerprint(config) == fingerprint(replace(config, seed=5))
    assert fingerprint(config) != fingerprint(replace(config, search=replace(config.search, population=121)))


def test_pitch_is_told_wrapped_and_as_turned():
    turned = np.array([0.0, 0.1, -0.2, 3.0, 2 * np.pi + 0.3])
    steps = len(turned) - 1
    metadata = EpisodeMetadata("half-cheetah", "f" * 64, {}, 0, 0, "icem", None)
    episode = Episode(np.arange(steps + 1) * 0.05, np.stack([turned, turned * 0], 1), np.zeros((steps, 1)), np.zeros((steps, 1)),
                      np.zeros(steps), False, True, ("pitch", "other"), ("u",), metadata)
    assert pitch_figures(episode, "pitch") == {"pitch_abs_median": 0.25, "pitch_abs_max": pytest.approx(6.5832),
                                               "pitch_final": 0.3, "upside_down": 0.25}


def test_the_page_is_made_from_the_files_and_leaves_the_rest_alone(tmp_path):
    entry, out, page = LADDER["cartpole"], tmp_path / "ladder", tmp_path / "ladder.md"
    write_rows(out / "cartpole.csv", [*rows_of(0.0, 0.0, 0.0, 0.0, 0.0, 171.0), *rows_of(*[5.0] * 5, 161.0, seed=1),
                                      *rows_of(*[5.0] * 5, 172.5, seed=2), *rows_of(9.0, seed=3)])
    page.write_text(f"# Mine\n{START}\nold\n{END}\nafter\n")
    write_page(page, out)
    text = page.read_text()
    assert text.startswith(f"# Mine\n{START}\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    at_1200 = next(cells for cells in lines if cells[1] == "1 200")
    assert at_1200[2:] == ["3 of 4", "**171.0** [161.0, 172.5]", "168.0 met", "171.0", "168.0 (PETS, running maximum)", "1 min"]
    assert next(cells for cells in lines if cells[1] == "1 600")[2:6] == ["0 of 4", "not reached", "", ""]
    assert f"![cartpole: returns over control periods](ladder/{entry.slug}.png)" in text
    assert "`reflexarc bench learn --task cartpole --seeds 4 --steps 1200`" in text and "a machine, 2 threads" in text
    write_page(page, out)
    assert page.read_text() == text
    page.write_text("no markers")
    with pytest.raises(StoreError, match="expected the lines"):
        write_page(page, out)
    assert page.read_text() == "no markers" and "Nothing" in make_tables({}, "ladder")


def same_runs(one: Path, other: Path) -> None:
    """Fail unless two runs lived and learned the same, bit for bit."""
    lived, others = EpisodeStore(one / "episodes", create=False), EpisodeStore(other / "episodes", create=False)
    assert len(lived) == len(others) > 0
    for a, b in zip(lived, others, strict=True):
        assert np.array_equal(a.x, b.x) and np.array_equal(a.applied, b.applied)
    weights, other_weights = (safetensors.torch.load(next((run / "checkpoints").glob("*.safetensors")).read_bytes())
                              for run in (one, other))
    assert weights.keys() == other_weights.keys() and all(torch.equal(weights[name], other_weights[name]) for name in weights)


def ladder(folder: Path, **options: object) -> BenchOptions:
    return BenchOptions(task="pendulum", runs=folder / "runs", out=folder / "curves", **options)


def lived(folder: Path) -> dict[int, int]:
    return {seed: curve[-1].steps_total for seed, curve in curves(read_rows(folder / "curves" / "pendulum.csv")).items()}


def test_stopped_and_gone_on_equals_uninterrupted(tmp_path, pendulum, capsys):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert bench_command("learn", None, None, 1, ladder(parts, seed_list=(0,), steps=59)) == 0  # two trials; no bar so early
    assert lived(parts) == {0: 40}
    assert "no bar to judge by" in capsys.readouterr().out.splitlines()[-1]
    assert bench_command("learn", 1, None, 1, ladder(parts, steps=60)) == 0  # the bar at 60 is met
    assert lived(parts) == {0: 60}
    assert bench_command("learn", 2, None, 1, ladder(parts)) == 1  # the bar at 80 cannot be
    assert lived(parts) == {0: 80, 1: 80}
    assert bench_command("learn", None, None, 1, ladder(whole)) == 1
    for seed in (0, 1):
        same_runs(*(folder / "runs" / "ladder" / f"pendulum-seed{seed}" for folder in (parts, whole)))
    assert [row.raw_return for row in read_rows(parts / "curves" / "pendulum.csv")] \
        == [row.raw_return for row in read_rows(whole / "curves" / "pendulum.csv")]
    assert capsys.readouterr().out.splitlines()[-1].endswith("MISSED")
    assert (whole / "curves" / "pendulum.png").read_bytes()[:4] == b"\x89PNG" and "pendulum" in (whole / "curves.md").read_text()


def test_a_finished_seed_is_only_read(tmp_path, pendulum, monkeypatch, capsys):
    assert bench_command("learn", 1, None, 1, ladder(tmp_path, steps=40)) == 0
    before = read_rows(tmp_path / "curves" / "pendulum.csv")
    assert all(row.machine is not None and row.machine.endswith("1 threads") for row in before)
    monkeypatch.setattr("experiments.bench.ladder_run.learn", lambda *_, **__: pytest.fail("was lived again"))
    assert bench_command("learn", 1, None, 2, ladder(tmp_path, steps=40)) == 0
    assert read_rows(tmp_path / "curves" / "pendulum.csv") == before  # on the machine that lived it, not on the one that read it
    (tmp_path / "curves" / "pendulum.csv").unlink()
    assert bench_command("learn", 1, None, 2, ladder(tmp_path, steps=40)) == 0
    assert read_rows(tmp_path / "curves" / "pendulum.csv") == [replace(row, machine=None) for row in before]


def test_a_run_of_other_settings_is_refused_before_anything_is_lived(tmp_path, pendulum, monkeypatch):
    run = RunDirectory.create(tmp_path / "runs" / "ladder" / "pendulum-seed1",
                              replace(TINY, seed=1, search=replace(TINY.search, population=9)))
    with pytest.raises(ConfigurationError, match=r"search\.population is 9 there, 8 here.*--runs DIR, or remove it"):
        bench_command("learn", 2, None, 1, ladder(tmp_path))
    assert not (run.path.parent / "pendulum-seed0").exists() and not (tmp_path / "curves").exists()
    text = (run.path / "config.json").read_text()
    (run.path / "config.json").write_text(text.replace('"population"', '"people"'))
    with pytest.raises(VersionError, match=r"another version.*--runs DIR"):
        bench_command("learn", 2, None, 1, ladder(tmp_path))


@pytest.mark.parametrize(("options", "words"), [
    ({"seeds": 0}, "--seeds"), ({"seeds": 1, "seed_list": (1,)}, "one of the two"), ({"seed_list": ()}, "--seed-list"),
    ({"seed_list": (1, 1)}, "--seed-list"), ({"steps": 19}, "20 .one trial. to 80"), ({"steps": 81}, "20 .one trial. to 80"),
])
def test_what_cannot_be_is_refused(tmp_path, pendulum, options, words):
    seeds = options.pop("seeds", None)
    with pytest.raises(ConfigurationError, match=words):
        bench_command("learn", seeds, None, 1, ladder(tmp_path, **options))
    assert not (tmp_path / "runs").exists()


def test_the_command_line_hands_everything_over(tmp_path, pendulum):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "learn", "--task", "pendulum", "--seed-list", "3", "5", "--steps", "20", "--threads", "1",
              "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "curves")])
    assert ended.value.code == 0 and lived(tmp_path) == {3: 20, 5: 20}


def test_tasks_are_listed_and_unknown_ones_answered_with_the_known(capsys):
    assert bench_command("learn", None, None, None) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in LADDER)
    with pytest.raises(UnknownNameError, match="reacher7"):
        ladder_task("reacher")
    with pytest.raises(UnknownNameError, match="reacher7"):
        bench_command("learn", None, None, None, BenchOptions(task="reacher"))
    with pytest.raises(ConfigurationError, match=r"memory.*--task"):
        bench_command("memory", None, None, None, BenchOptions(task="reacher7"))


@pytest.mark.parametrize("name", list(LADDER))
def test_every_rung_fits_its_task(name):
    entry = LADDER[name]
    config = entry.run_config()
    steps = config.learning.episode_steps
    assert config.task == name and config.learning.trials * steps == entry.longest and entry.steps % steps == 0
    assert all(mark <= entry.longest for mark in entry.marks) and set(entry.bars) <= {point.steps for point in entry.published}
    assert to_json(config) == to_json(entry.run_config())
    if entry.pitch is not None:
        task = make_task(name)
        assert entry.pitch in task.state_space.names
        with task.robot() as robot:
            turned = next(i for i, joint in enumerate(robot.spec.joint_names) if joint in ("root_pitch", "rooty"))
            observation, command = robot.reset(3), robot.spec.command()
            for _ in range(5):
                robot.send(Command(command.mode, command.maximum))
                observation = robot.tick()
            assert task.state_space.state(observation)[task.state_space.names.index(entry.pitch)] == observation.q[turned] != 0
