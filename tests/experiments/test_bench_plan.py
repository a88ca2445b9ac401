"""The planning benchmarks count what they claim to count, and claim nothing about a peer that is not there."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from rich.console import Console

from dynamics.workers import Workers
from experiments.bench import plan_ensemble
from experiments.bench.catalog import BENCHMARKS
from experiments.bench.peers import running
from experiments.bench.plan_ensemble import SIZES, Timed, TimedPeer, judge
from experiments.bench.ranking import best_in_common, rank_correlations, sample_plans
from planners.cem import CEM, CEMConfig
from planners.evaluation import EvaluationConfig, PlanEvaluator
from robots.errors import NumericalError

CARTPOLE, CHEETAH = SIZES


def test_the_new_benchmarks_are_known_by_name():
    assert {"plan-ensemble", "ranking"} <= set(BENCHMARKS)


@pytest.mark.parametrize(("size", "inputs", "outputs", "gflop"), [(CARTPOLE, 5, 4, 128.7), (CHEETAH, 24, 18, 316.8)])
def test_the_work_of_a_plan_is_that_of_the_published_sizes(size, inputs, outputs, gflop):
    assert (size.space.nf + size.nu, size.space.no) == (inputs, outputs)
    assert size.gflop() == pytest.approx(gflop, abs=0.05)
    assert size.gflop(5) == pytest.approx(gflop / 4, abs=0.05)


def test_a_peer_that_is_not_there_leads_to_a_line(monkeypatch, tmp_path):
    monkeypatch.setattr(running, "ENVIRONMENTS", tmp_path)
    console = Console(file=io.StringIO(), width=200)
    assert not running.peer_is_installed("mbrl", console)
    assert "make bench-peers" in console.file.getvalue()


def timed(kind: type, size: plan_ensemble.PlanSize, kernel: str, particles: int, *seconds: float) -> Timed | TimedPeer:
    result = kind.__new__(kind)
    result.size, result.kernel, result.particles = size, kernel, particles
    result.candidates, result.same_work = 5 * size.population, particles == 20
    result.seconds, result.gflop = list(seconds), size.gflop(particles)
    return result


def test_the_candidates_of_the_small_search_are_counted(workers):
    model = plan_ensemble.small_model(CARTPOLE, workers)
    planner = plan_ensemble.Timed(CARTPOLE, "torch", True, model, workers, small=True)
    for _ in range(2):
        planner.plan()
    assert planner._previous.report.samples == plan_ensemble.SMALL_CANDIDATES
    assert CARTPOLE.gflop(5, 175) == pytest.approx(CARTPOLE.gflop(5) / 10)


OURS = [timed(Timed, CARTPOLE, "torch", 20, 0.5, 9.0, 0.4), timed(Timed, CARTPOLE, "float32", 20, 0.3),
        timed(Timed, CARTPOLE, "float32", 5, 0.1), timed(Timed, CHEETAH, "bfloat16", 20, 0.5)]
LIMITS = {"torch": 500.0, "float32": 500.0, "bfloat16": 1000.0}


def test_without_a_peer_there_is_a_share_of_the_peak_and_no_ratio():
    rows, bars = judge(OURS, [], LIMITS)
    assert all(row[-1] is None for row in rows)
    assert [(bar.quantity, bar.measured) for bar in bars] == [("cartpole float32 share of the peak", pytest.approx(128.73 / 0.3 / 500))]


def test_ratios_are_of_medians_to_the_peer_as_installed_at_the_same_size():
    theirs = [timed(TimedPeer, CARTPOLE, "mbrl-lib", 20, 1.0, 3.0, 1.5), timed(TimedPeer, CARTPOLE, "mbrl-lib, tuned", 20, 0.6),
              timed(TimedPeer, CHEETAH, "mbrl-lib", 20, 4.0)]
    rows, bars = judge(OURS, theirs, LIMITS)
    assert [row[-1] for row in rows] == pytest.approx([1.0, 2.5, 1.0, 3.0, 5.0, 15.0, 8.0])
    ratios = {bar.quantity: (pytest.approx(bar.measured), bar.bar) for bar in bars if "x mbrl-lib" in bar.quantity}
    assert ratios == {"cartpole torch x mbrl-lib": (3.0, 3.0), "cartpole float32 x mbrl-lib": (5.0, 4.5),
                      "cheetah bfloat16 x mbrl-lib": (8.0, 7.0), "cartpole, a plan of equal return, x mbrl-lib": (15.0, 25.0)}


def test_a_peer_that_did_other_work_is_no_peer():
    other = timed(TimedPeer, CARTPOLE, "mbrl-lib", 20, 1.0)
    other.gflop = 180.0
    with pytest.raises(RuntimeError, match=r"180\.0 GFLOP"):
        judge(OURS, [other], LIMITS)


def test_a_peak_that_falls_between_the_rounds_is_noticed():
    assert not plan_ensemble.disturbed([LIMITS, {name: 0.85 * limit for name, limit in LIMITS.items()}])
    assert plan_ensemble.disturbed([LIMITS, LIMITS | {"bfloat16": 600.0}, LIMITS])
    assert not plan_ensemble.disturbed([{}, {}])


def test_rank_correlation_sees_the_order_alone():
    costs = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    others = torch.tensor([[1.0, 20.0, 30.0, 1e4], [4.0, 3.0, 2.0, 1.0], [1.0, 3.0, 2.0, 4.0]])
    np.testing.assert_allclose(rank_correlations(costs, others), [1.0, -1.0, 0.8])
    with pytest.raises(NumericalError):
        rank_correlations(costs, others.where(others < 1e4, torch.inf))


def test_the_best_in_common_are_counted_per_row():
    costs = torch.arange(20.0).repeat(2, 1)
    others = costs.clone()
    others[1, 0] = 100.0  # of the two best of the second row, one is lost
    assert best_in_common(costs, costs) == 1.0
    assert best_in_common(costs, others) == 0.75


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(1)
    yield workers
    workers.close()


def test_candidates_come_from_the_planner_in_the_number_asked_for(workers):
    model = plan_ensemble.small_model(CARTPOLE, workers)
    evaluator = PlanEvaluator(model, plan_ensemble.DistanceCost(), EvaluationConfig(kernel="torch"), workers)
    box = plan_ensemble.command_box(1)
    planner = CEM(evaluator, box, 0.02, CEMConfig(horizon=4, population=10, elites=2))
    plans = sample_plans(planner, 25, torch.Generator().manual_seed(0))
    assert plans.shape == (25, 4, 1) and bool((plans.abs() <= 1).all())
    assert len(plans.flatten().unique()) > 90
