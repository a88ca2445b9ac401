"""CMA-ES inside the samplers' loop: its optimum, its randomness, its infinities, and its package."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from planners.cma_es import CMAESConfig, finite_costs, outside
from planners.plan import PlanStatus
from robots.errors import ConfigurationError, MissingExtraError

X0 = torch.tensor([0.5, -0.2])


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("cma")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("act_on_mean", [True, False])
def test_it_comes_to_the_riccati_optimum(build, lived_cost, best_plan, covariance, act_on_mean):
    x0 = X0.double().numpy()
    optimum = lived_cost(x0, best_plan(x0, 10))
    planner = build("cma-es", lower=-12.0, upper=10.0, population=40, iterations=60, covariance=covariance, act_on_mean=act_on_mean)
    plan = planner.plan(X0, None, seeded(1))
    assert optimum * (1 - 1e-4) <= lived_cost(x0, plan.actions.double().numpy()) <= optimum * (1 + 1e-3)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_it_comes_to_the_optimum_where_the_box_binds(build, lived_cost, covariance):
    """Told of clipped points it would not: half of them lie on the limit, and the step size runs away."""
    x0 = X0.double().numpy()
    solved = minimize(lambda u: lived_cost(x0, u[:, None]), np.zeros(10), bounds=[(-1.0, 1.0)] * 10)
    assert (np.abs(np.abs(solved.x) - 1.0) < 1e-6).sum() >= 2, "the box must bind for this to say anything"
    plan = build("cma-es", lower=-1.0, upper=1.0, population=20, iterations=100, covariance=covariance).plan(X0, None, seeded())
    assert lived_cost(x0, plan.actions.double().numpy()) <= solved.fun * (1 + 1e-3)


def test_what_lies_outside_is_charged_for_the_way_back():
    points = [np.array([0.5, -1.0]), np.array([1.5, 0.0]), np.array([0.0, -3.0])]
    charge = outside(points, np.array([0.5, 1.0]), torch.tensor([1.0, 3.0, 5.0, math.inf]))
    assert charge.tolist() == [0.0, 2.0 * 1.0 / 2, 2.0 * 4.0 / 2]  # quartiles 2 and 4; one deviation, and two, in one of two entries
    assert outside(points, np.ones(2), torch.full((3,), 7.0)).tolist() == [0.0, 0.0, 0.0]


def test_a_full_covariance_learns_what_goes_together_and_a_diagonal_one_does_not(build, QuadraticCost):
    class Valley(QuadraticCost):
        """Narrow across, long along: the two commands must stay equal."""

        def terms(self, x, u):
            return {"valley": torch.zeros_like(u[..., 0]), "last": u[..., 0] * 0}

        def terminal(self, x):  # from rest, dt = 0.1: x = (0.015 u0 + 0.005 u1, 0.1 (u0 + u1))
            u0 = 100 * (x[..., 0] - 0.05 * x[..., 1])
            u1 = 10 * x[..., 1] - u0
            return 1e4 * (u0 - u1).square() + (u0 + u1 - 2.0).square()

    correlations = {}
    for covariance in ("full", "diagonal"):
        planner = build("cma-es", cost=Valley(), horizon=2, population=20, iterations=40, covariance=covariance, tolerance=0.0)
        seen = []
        sample = planner.sample

        def spy(search, iteration, generator, sample=sample, seen=seen):
            seen.append(sample(search, iteration, generator))
            return seen[-1]

        planner.sample = spy
        plan = planner.plan(torch.zeros(2), None, seeded())
        correlations[covariance] = np.corrcoef(torch.cat(seen[15:20])[..., 0].T - torch.cat(
            [s.mean(0, keepdim=True).expand_as(s) for s in seen[15:20]])[..., 0].T)[0, 1]
        if covariance == "full":
            torch.testing.assert_close(plan.actions, torch.ones(2, 1), rtol=0, atol=0.02)
    assert correlations["full"] > 0.9 and abs(correlations["diagonal"]) < 0.5, correlations


def test_the_first_draws_are_as_wide_as_asked_in_the_commands_own_units(build):
    planner = build("cma-es", lower=-1.0, upper=5.0, population=4000, sigma=0.25, horizon=2)
    search = planner.begin(torch.full((2, 1), 2.5), None)
    samples = planner.sample(search, 0, seeded())
    assert samples.shape == (4000, 2, 1)
    torch.testing.assert_close(samples.mean(0), torch.full((2, 1), 2.5), rtol=0, atol=0.05)
    torch.testing.assert_close(samples.std(0), torch.full((2, 1), 0.75), rtol=0.05, atol=0)
    torch.testing.assert_close(search.std, torch.full((2, 1), 0.75))


def test_all_randomness_is_the_generators(build):
    planner = build("cma-es", iterations=5)
    np.random.seed(3)  # noqa: NPY002 (it is the global state that this is about)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = planner.plan(X0, None, seeded(1))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(4)  # noqa: NPY002
    assert torch.equal(planner.plan(X0, None, seeded(1)).actions, first.actions)
    assert not torch.equal(planner.plan(X0, None, seeded(2)).actions, first.actions)


def test_a_generation_without_a_finite_cost_leaves_the_distribution_as_it_was(build):
    planner = build("cma-es", iterations=4, population=20)
    costs, sample, calls, seen = planner.evaluator.costs, planner.sample, [], []

    def failing(x0, actions, generator):
        calls.append(len(actions))
        return torch.full((len(actions),), torch.inf) if len(calls) == 2 else costs(x0, actions, generator)

    def spy(search, iteration, generator):
        seen.append((search.mean.clone(), search.std.clone(), search.strategy.sigma, search.strategy.sm.C.copy()))
        return sample(search, iteration, generator)

    planner.evaluator.costs, planner.sample = failing, spy
    try:
        plan = planner.plan(X0, None, seeded())
    finally:
        del planner.evaluator.costs
    assert plan.report.nonfinite == 20 and plan.report.samples == 80
    *before, covariance = seen[1]
    *after, covariance_after = seen[2]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)), "the second generation was in vain"
    np.testing.assert_allclose(covariance, covariance_after, atol=1e-12)  # made symmetric when it was drawn from
    assert not np.array_equal(seen[2][0], seen[3][0]) and seen[2][2] != seen[3][2]


def test_the_covariance_is_learned_and_drawn_from_as_the_package_does():
    from cma.sampler import GaussFullSampler

    from planners.cma_sampler import OneThreadSampler

    numbers = np.random.default_rng(0)
    drawn = numbers.normal(size=(5, 6))
    theirs = GaussFullSampler(np.linspace(0.5, 1.5, 6), lazy_update_gap=0, randn=lambda *shape: drawn)
    ours = OneThreadSampler(theirs)
    np.testing.assert_allclose(ours.sample(5), theirs.sample(5), atol=1e-12)
    for _ in range(3):
        vectors, weights = numbers.normal(size=(5, 6)), np.array([0.2, 0.1, 0.05, -0.03, -0.05])
        for sampler in (ours, theirs):
            sampler.update(vectors.copy(), weights, 0.01)
        np.testing.assert_allclose(ours.C, theirs.C, rtol=1e-9)
        ours.sample(5), theirs.sample(5)  # decomposes it
        np.testing.assert_allclose(ours.norm(vectors[0]), theirs.norm(vectors[0]), rtol=1e-9)
        np.testing.assert_allclose(ours.B * ours.D**2 @ ours.B.T, ours.C, atol=1e-12)
    np.testing.assert_allclose(ours.sample(5), drawn * ours.D @ ours.B.T, atol=1e-12)


def test_a_full_covariance_is_learned_on_one_thread(build):
    assert type(build("cma-es").begin(torch.zeros(10, 1), None).strategy.sm).__name__ == "OneThreadSampler"


def test_infinite_costs_become_the_worst_number_with_a_margin():
    costs = finite_costs(torch.tensor([1.0, math.inf, -3.0, math.inf]))
    assert costs.tolist()[::2] == [1.0, -3.0] and bool((costs[1::2] > 1.0).all()) and bool(costs.isfinite().all())
    huge = finite_costs(torch.tensor([3e38, math.inf, -3e38]))
    assert bool(huge.isfinite().all()) and huge[1] > huge[0]
    assert finite_costs(torch.tensor([2.0, 2.0, math.inf])).argmax() == 2


def test_it_stops_when_it_is_sure_whatever_the_unit_of_the_command(build):
    for scale in (1.0, 1e-3, 1e3):
        plan = build("cma-es", lower=-scale, upper=scale, iterations=150, population=20, tolerance=0.02).plan(X0, None, seeded())
        assert plan.status is PlanStatus.CONVERGED and 3 < plan.report.iterations < 150, (scale, plan.report.iterations)


def test_without_its_package_the_extra_is_named(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(MissingExtraError, match=r"reflexarc\[cma\]"):
        build("cma-es")


@pytest.mark.parametrize("change", [{"sigma": 0.0}, {"sigma": math.inf}, {"covariance": "round"}, {"tolerance": -1.0}, {"population": 4}])
def test_bad_configurations_are_refused(change):
    with pytest.raises(ConfigurationError):
        CMAESConfig(**change)
