"""A slice of the fault matrix: a policy drives the SO-101's twin through the real bridge as a fault strikes; and its own laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from experiments.bench.faults.kinds import KINDS
from experiments.bench.faults.matrix import bench_faults, live_faults
from experiments.bench.faults.path import AMPLITUDE, PERIOD, SwingPath
from experiments.bench.faults.rows import FaultRun, append_runs, code_fingerprint, read_runs
from experiments.bench.faults.twins import TWINS
from experiments.bench.options import BenchOptions
from hw_bridge.drivers.servo_port import way_back
from hw_bridge.safety.config import SafetyConfig
from robots.errors import StoreError, UnknownNameError

CHOSEN = ("NaN action", "10x action", "stuck encoder", "bridge SIGKILL")
PATIENT = SafetyConfig(observation_age_max=0.3, gap_max=0.3, action_age_max=0.4)
"""A busy machine must not stop the arm before the fault does; the benchmark is strict about time."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    pytest.importorskip("scservo_sdk")
    missing = {kind: [0] for kind in KINDS if kind.name in CHOSEN}
    folder = tmp_path_factory.mktemp("faults")
    lived = live_faults(replace(TWINS["so101"], safety=PATIENT), missing, folder, Console(quiet=True))
    assert read_runs(folder / "runs.jsonl") == lived
    return {run.kind: run for run in lived}


@pytest.mark.parametrize("kind", CHOSEN)
def test_no_fault_breaks_a_limit_and_the_log_tells_why_the_arm_stopped(runs, kind):
    run = runs[kind]
    assert run.violations == ()
    assert run.stopped and np.isfinite(run.seconds)
    assert run.cause_read, run.words


def test_the_matrix_has_fifteen_kinds_for_every_twin():
    for setup in TWINS.values():
        assert set(setup.lacks) <= {kind.name for kind in KINDS}
        assert len(KINDS) - len(setup.lacks) >= 15


def lived(**values: object) -> list[FaultRun]:
    """Runs as if the SO-101's twin had lived every kind with seed 0."""
    run = FaultRun("so101", "", 0, True, 0.1, 0.5, (), "why", True, code_fingerprint())
    return [replace(run, kind=kind.name, **values) for kind in KINDS if kind.name not in TWINS["so101"].lacks]


@pytest.mark.parametrize(("values", "met"), [({}, True), ({"violations": ("too fast",)}, False), ({"seconds": 0.6}, False),
                                             ({"cause_read": False}, False), ({"stopped": False}, False),
                                             ({"stopped": False, "bound": float("nan"), "cause_read": None}, True)])
def test_what_was_lived_before_is_not_lived_again_and_decides(values, met, tmp_path):
    (tmp_path / "faults").mkdir()
    append_runs(tmp_path / "faults" / "runs.jsonl", lived(**values))
    result = bench_faults(Console(quiet=True), BenchOptions(seeds=1, twin="so101", runs=tmp_path), 1)
    assert result.met is met
    assert len(result.rows) == len(KINDS)
    assert list((tmp_path / "faults").iterdir()) == [tmp_path / "faults" / "runs.jsonl"]


def test_a_line_cut_off_by_a_kill_is_left_out_and_a_damaged_one_is_named(tmp_path):
    file, runs = tmp_path / "runs.jsonl", lived(bound=float("inf"))
    assert read_runs(file) == []
    append_runs(file, runs)
    whole = file.read_text()
    file.write_text(whole[:-20])
    assert read_runs(file) == runs[:-1]
    append_runs(file, runs[-1:])
    assert read_runs(file) == runs
    file.write_text(whole.replace('"seed"', '"sead"', 1))
    with pytest.raises(StoreError, match="line 1"):
        read_runs(file)


def test_a_twin_that_is_not_known_is_answered_with_the_known(tmp_path):
    with pytest.raises(UnknownNameError, match="panda"):
        bench_faults(Console(quiet=True), BenchOptions(seeds=1, twin="ur3", runs=tmp_path), 1)
    assert not (tmp_path / "faults").exists()


def test_the_path_leaves_every_place_by_more_than_a_stuck_encoder_may_hide():
    here, home = np.zeros(6), np.full(6, 0.3)
    for seed in range(20):
        path = SwingPath(here, home, seed)
        assert np.array_equal(path.at(0.0), here) and np.abs(path.at(0.01) - here).max() < 0.01
        swing = np.array([path.at(path.settled + t) for t in np.arange(0.0, PERIOD, 0.02)])
        assert np.abs(swing - home).max() <= AMPLITUDE + 1e-9
        for stuck in swing[::10]:
            assert np.abs(swing - stuck).max(axis=0).min() > SafetyConfig().tracking_error_max


def test_goals_go_back_to_where_the_arm_was_seen_in_small_steps():
    goal, seen, step = np.array([0.0, 0.1, -0.2]), np.array([0.2, 0.1, -0.21]), np.full(3, 0.03)
    way = np.array([goal, *way_back(goal, seen, step)])
    assert np.array_equal(way[-1], seen)
    assert np.abs(np.diff(way, axis=0)).max() <= 0.25 * 0.03 + 1e-12
    assert list(way_back(seen, seen, step)) == []
