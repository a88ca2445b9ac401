"""What is each planner's own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planners.mppi import MPPIConfig
from planners.mppi import weights_for_effective_samples as compiled_weights
from planners.plan import PlanStatus
from planners.sampling import best_candidates
from robots.errors import ConfigurationError

X0 = torch.tensor([1.0, 0.2])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights_for_effective_samples(costs: torch.Tensor, control: torch.Tensor, target: float) -> torch.Tensor:
    return torch.from_numpy(compiled_weights(costs.double().numpy(), control.double().numpy(), target))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), scale=st.sampled_from([1e-3, 1.0, 1e4, 1e30]), offset=st.sampled_from([0.0, 1.0, -100.0]),
       target=st.floats(1.5, 60.0))
def test_weights_reach_the_asked_effective_samples_at_any_scale_of_the_cost(seed, scale, offset, target):
    costs = scale * (torch.rand(100, generator=seeded(seed)) + offset)
    if len(costs.unique()) < 100:
        return
    weights = weights_for_effective_samples(costs, torch.zeros(100), target).double()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(1 / weights.square().sum()) == pytest.approx(target, rel=0.01)
    order = costs.argsort()
    assert (weights[order].diff() <= 1e-9).all()  # cheaper never weighs less


def test_weights_of_costs_that_are_equal_or_infinite():
    even = weights_for_effective_samples(torch.full((8,), 3.0), torch.zeros(8), 2.0)
    torch.testing.assert_close(even, torch.full((8,), 1 / 8))
    some = weights_for_effective_samples(torch.tensor([1.0, math.inf, 2.0, math.inf]), torch.zeros(4), 4.0)
    torch.testing.assert_close(some, torch.tensor([0.5, 0.0, 0.5, 0.0]), rtol=0, atol=1e-3)
    far_apart = weights_for_effective_samples(torch.tensor([0.0, 1e200, 1e308], dtype=torch.float64), torch.zeros(3), 1.5)
    assert far_apart.isfinite().all() and float(far_apart.sum()) == pytest.approx(1.0)
    assert weights_for_effective_samples(torch.tensor([math.inf, 5.0]), torch.zeros(2), 1.0).tolist() == [0.0, 1.0]


def test_mppi_reports_the_effective_samples_it_was_asked_for(build):
    plan = build("mppi", population=200, effective_samples=0.1).plan(X0, None, seeded())
    assert plan.report.effective_samples == pytest.approx(20.0, rel=0.02)


def test_the_control_weight_pulls_towards_small_commands(build):
    first = build("mppi").plan(X0, None, seeded())
    plain, weighed = (build("mppi", control_weight=on, iterations=1).plan(X0, first, seeded(1)) for on in (False, True))
    assert weighed.actions.square().sum() < plain.actions.square().sum()


def test_without_explanations_the_actions_are_the_same_and_nothing_is_rolled_out_for_them(planner_name, build):
    explained, bare = build(planner_name), build(planner_name)
    bare.explains = False
    bare.evaluator.explain = None  # calling it would raise
    first, second = (planner.plan(X0, None, seeded()) for planner in (explained, bare))
    torch.testing.assert_close(second.actions, first.actions, rtol=0, atol=0)
    assert second.states is None
    assert second.report.cost_by_term == {}
    assert second.report.active_limits == first.report.active_limits
    assert math.isfinite(second.cost)


@pytest.mark.parametrize("change", [{"std": 0.0}, {"shrink": 0.0}, {"shrink": 1.1}, {"effective_samples": 0.0}, {"effective_samples": 1.5}])
def test_bad_mppi_is_refused(change):
    with pytest.raises(ConfigurationError):
        MPPIConfig(**change)


@pytest.mark.parametrize("name", ["cem", "icem"])
def test_one_elite_works(name, build):
    plan = build(name, elites=1, iterations=4).plan(X0, None, seeded())
    assert plan.actions.isfinite().all() and plan.report.effective_samples == 1.0


def test_cem_stops_when_it_is_sure_whatever_the_unit_of_the_command(build):
    for scale in (1.0, 1e-3, 1e3):
        planner = build("cem", lower=-scale, upper=scale, iterations=60, elites=10)
        plan = planner.plan(X0, None, seeded())
        assert plan.status is PlanStatus.CONVERGED and 3 < plan.report.iterations < 60, (scale, plan.report.iterations)


def test_cem_samples_stay_in_the_box_before_clipping(build):
    planner = build("cem", lower=-1.0, upper=4.0)
    search = planner.begin(torch.full((10, 1), 3.5), None)
    samples = planner.sample(search, 0, seeded())
    assert samples.min() >= 3.5 - 2 * 0.25 - 1e-6 and samples.max() <= 4.0 + 1e-6


def test_cem_moves_to_the_elites_moments(build):
    planner = build("cem", elites=3, momentum=0.25, horizon=2)
    search = planner.begin(torch.zeros(2, 1), None)
    candidates, costs = torch.randn(20, 2, 1, generator=seeded()), torch.randperm(20, generator=seeded()).float()
    moved = planner.update(search, candidates, costs, 0)
    elites = candidates[costs.argsort()[:3]]
    torch.testing.assert_close(moved.mean, 0.75 * elites.mean(0))
    torch.testing.assert_close(moved.std.square(), 0.25 * 1.5**2 + 0.75 * elites.var(0, correction=0))
    assert torch.equal(moved.elites, elites)


def test_icem_shrinks_keeps_elites_and_ends_with_the_mean(build):
    planner = build("icem", population=100, elites=10, decay=1.25, kept=0.3, iterations=3, beta=0.0)
    search = planner.begin(torch.zeros(10, 1), None)
    assert len(planner.sample(search, 0, seeded())) == 100
    elites = torch.randn(10, 10, 1, generator=seeded(5))
    search = replace(search, elites=elites, mean=torch.full((10, 1), 0.125))
    second, last = planner.sample(search, 1, seeded()), planner.sample(search, 2, seeded())
    assert len(second) == 80 + 3 and torch.equal(second[-3:], elites[:3])
    assert len(last) == 64 + 3 + 1 and torch.equal(last[-1], search.mean)
    assert len(planner.sample(search, 1, seeded())[0]) == 10
    small = build("icem", population=100, elites=40, decay=3.0, iterations=5)
    assert len(small.sample(small.begin(torch.zeros(10, 1), None), 3, seeded())) == 80  # never below twice the elites


def test_icem_tries_the_shifted_elites_of_the_last_step(build):
    planner = build("icem", elites=10, kept=0.5)
    first = planner.plan(X0, None, seeded())
    search = planner.begin(torch.zeros(10, 1), first)
    old = first.memory.elites
    assert torch.equal(search.elites, torch.cat([old[:, 1:], old[:, -1:]], dim=1))
    assert torch.equal(planner.sample(search, 0, seeded())[-5:], search.elites[:5])


def test_icem_acts_on_the_elites_mean_where_it_is_told_to(build):
    mean, best = (build("icem", elites=10, momentum=0.0, act_on_mean=on).plan(X0, None, seeded()) for on in (True, False))
    assert torch.equal(mean.memory.elites, best.memory.elites), "what is searched is the same"
    torch.testing.assert_close(mean.actions, mean.memory.elites.mean(0))
    assert torch.equal(mean.memory.mean, mean.actions), "and the next plan begins from there"
    assert torch.equal(best.actions, best.memory.elites[0]) and not torch.allclose(mean.actions[0], best.actions[0])


def test_random_shooting_fills_the_box_evenly(build):
    planner = build("random-shooting", lower=-1.0, upper=5.0, population=4000)
    samples = planner.sample(planner.begin(torch.zeros(10, 1), None), 0, seeded())
    assert abs(float(samples.mean()) - 2.0) < 0.05 and abs(float(samples.var()) - 3.0) < 0.1


def test_best_candidates_are_sorted_and_finite():
    candidates = torch.arange(5.0).view(5, 1, 1)
    costs = torch.tensor([3.0, math.inf, 1.0, 2.0, math.inf])
    assert best_candidates(candidates, costs, 4).flatten().tolist() == [2.0, 3.0, 0.0]
    assert best_candidates(candidates, costs, 2).flatten().tolist() == [2.0, 3.0]


def test_a_plan_shares_no_memory_with_the_room_for_candidates(planner_name, build):
    for explains in (True, False):
        planner = build(planner_name)
        planner.explains = explains
        plan = planner.plan(X0, None, seeded())
        before = [plan.actions.clone(), plan.memory.mean.clone()]
        planner._room.fill_(float("nan"))
        planner.plan(X0 + 1.0, plan, seeded(1))
        assert torch.equal(plan.actions, before[0]) and torch.equal(plan.memory.mean, before[1])
