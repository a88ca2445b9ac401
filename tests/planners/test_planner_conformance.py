"""What every planner promises."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from dynamics.workers import Workers
from planners.catalog import make_planner, planner_config_type
from planners.evaluation import EvaluationConfig
from planners.plan import Plan, PlanStatus
from planners.planner import Planner
from planners.sampling import SamplingConfig
from robots.errors import ConfigurationError, NonFiniteError, ShapeError, UnknownNameError

X0 = torch.tensor([1.0, 0.2])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_plan(a: Plan, b: Plan) -> bool:
    return (torch.equal(a.actions, b.actions) and a.cost == b.cost and torch.equal(a.states, b.states)
            and torch.equal(a.memory.mean, b.memory.mean))


def test_a_plan_has_the_promised_parts(planner_name, build):
    planner = build(planner_name)
    assert isinstance(planner, Planner)
    plan = planner.plan(X0, None, seeded())
    assert plan.actions.shape == (10, 1) and plan.states.shape == (11, 2) and plan.states_std.shape == (11, 2)
    assert torch.equal(plan.states[0], X0) and plan.actions.dtype == torch.float32
    assert plan.status in (PlanStatus.ITERATIONS, PlanStatus.CONVERGED) and math.isfinite(plan.cost)
    report = plan.report
    assert report.nonfinite == 0 and report.seconds > 0 and 1 <= report.iterations <= 3
    assert report.samples >= 200 and report.effective_samples >= 1
    assert set(report.cost_by_term) == {"state", "effort", "terminal"}
    assert not plan.actions.requires_grad


@pytest.mark.parametrize("interpolation", ["raw", "zero", "linear", "cubic"])
@pytest.mark.parametrize("box", [(-3.0, 3.0), (0.5, 2.0), (-7.0, -0.25)])
def test_plans_stay_in_the_box(planner_name, build, interpolation, box):
    planner = build(planner_name, lower=box[0], upper=box[1], interpolation=interpolation, knots=4, population=60)
    first = planner.plan(X0, None, seeded())
    for plan in (first, planner.plan(X0, first, seeded(1))):
        assert plan.actions.shape == (10, 1)
        assert plan.actions.min() >= box[0] and plan.actions.max() <= box[1]


def test_evaluated_samples_lie_in_the_box_too(planner_name, build, monkeypatch):
    planner = build(planner_name, lower=0.5, upper=2.0, interpolation="cubic", knots=4, population=60)
    seen, costs = [], planner.evaluator.costs
    monkeypatch.setattr(planner.evaluator, "costs", lambda x0, u, generator: (seen.append(u.clone()), costs(x0, u, generator))[1])
    planner.plan(X0, None, seeded())
    everything = torch.cat(seen)
    assert everything.min() >= 0.5 and everything.max() <= 2.0


def test_one_seed_gives_one_plan_at_any_thread_count(planner_name, build, double_integrator):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    plans = []
    for threads in (1, 2, 2):
        pool = Workers(threads)
        evaluation = EvaluationConfig("TSinf", 4, rows_per_portion=128)
        planner = build(planner_name, pool=pool, model=double_integrator(0.05), evaluation=evaluation)
        first = planner.plan(X0, None, seeded(7))
        plans.append((first, planner.plan(X0, first, seeded(8))))
        pool.close()
    assert all(same_plan(a, b) for other in plans[1:] for a, b in zip(plans[0], other, strict=True))
    assert not torch.equal(build(planner_name, model=double_integrator(0.05)).plan(X0, None, seeded(9)).actions, plans[0][0].actions)


def test_planners_hide_no_memory(planner_name, build):
    planner = build(planner_name)
    first = planner.plan(X0, None, seeded(1))
    planner.plan(-X0, first, seeded(2))
    assert same_plan(planner.plan(X0, None, seeded(1)), first)


def test_previous_plans_are_left_as_they_were(planner_name, build):
    planner = build(planner_name)
    first = planner.plan(X0, None, seeded(1))
    actions, mean = first.actions.clone(), first.memory.mean.clone()
    planner.plan(X0, first, seeded(2))
    assert torch.equal(first.actions, actions) and torch.equal(first.memory.mean, mean)


@pytest.mark.parametrize("above", [0.0, -0.5])
@pytest.mark.parametrize("seed", range(5))
def test_samples_without_a_finite_cost_rank_worst(planner_name, build, QuadraticCost, above, seed):
    planner = build(planner_name, cost=QuadraticCost(forbidden_above=above), horizon=2, lower=-1.0, upper=1.0)
    plan = planner.plan(-X0, None, seeded(seed))  # the cost pulls upwards, into what is forbidden
    assert (plan.actions <= above).all() and math.isfinite(plan.cost)
    assert 0 < plan.report.nonfinite < plan.report.samples


@pytest.mark.parametrize("seed", range(3))
def test_a_mean_of_good_samples_that_is_not_good_itself_is_never_the_plan(planner_name, build, QuadraticCost, seed):
    class Gap(QuadraticCost):
        """Commands may go left or right, but not between."""

        def terms(self, x, u):
            return {"gap": torch.where(u[..., 0].abs() < 1.0, torch.nan, 0.0)}

    plan = build(planner_name, cost=Gap(), horizon=1, iterations=1).plan(torch.zeros(2), None, seeded(seed))
    assert plan.actions.abs().min() >= 1.0 and math.isfinite(plan.cost)


def test_without_one_finite_cost_there_are_no_actions(planner_name, build, QuadraticCost):
    planner = build(planner_name, cost=QuadraticCost(forbidden_above=-10.0))
    plan = planner.plan(X0, None, seeded())
    assert plan.status is PlanStatus.NO_FINITE_COST and plan.actions is None and plan.memory is None and plan.cost == math.inf
    assert plan.report.nonfinite == plan.report.samples > 0
    with pytest.raises(ConfigurationError, match="no actions"):
        plan.action_at(0.0)
    assert build(planner_name).plan(X0, plan, seeded()).actions is not None  # the next plan starts afresh


def test_bad_states_and_foreign_plans_are_refused(planner_name, build):
    planner = build(planner_name)
    for wrong in (torch.zeros(3), torch.zeros(1, 2)):
        with pytest.raises(ShapeError, match="x0"):
            planner.plan(wrong, None, seeded())
    for value in (math.nan, math.inf):
        with pytest.raises(NonFiniteError, match="x0"):
            planner.plan(torch.tensor([value, 0.0]), None, seeded())
    with pytest.raises(ShapeError, match="previous"):
        planner.plan(X0, build(planner_name, horizon=7).plan(X0, None, seeded()), seeded())


def test_a_deadline_returns_the_best_plan_so_far(planner_name, build):
    plan = build(planner_name, iterations=5).plan(X0, None, seeded(), deadline=1e-9)
    assert plan.status is PlanStatus.DEADLINE and plan.report.iterations == 1 and plan.actions is not None
    assert build(planner_name, iterations=2).plan(X0, None, seeded(), deadline=60.0).status is not PlanStatus.DEADLINE


def test_plans_beat_doing_nothing(planner_name, build, lived_cost):
    plan = build(planner_name).plan(X0, None, seeded())
    assert lived_cost(X0.double().numpy(), plan.actions.double().numpy()) < 0.8 * lived_cost(X0.double().numpy(), np.zeros((10, 1)))


@pytest.mark.parametrize(("name", "config", "tolerance"), [
    ("cem", {"population": 300, "iterations": 12, "elites": 30}, 0.01),
    ("icem", {"population": 300, "iterations": 12, "elites": 30, "decay": 1.0, "beta": 1.0}, 0.01),
    ("mppi", {"population": 300, "iterations": 12}, 0.01)])
@pytest.mark.parametrize("seed", range(3))
def test_plans_come_near_the_riccati_optimum(name, config, tolerance, seed, build, lived_cost, best_plan):
    x0 = np.array([0.5, -0.2])
    best = best_plan(x0, 10)
    assert np.abs(best).max() < 10
    optimum = lived_cost(x0, best)
    assert all(lived_cost(x0, best + 0.01 * d) > optimum for d in np.random.default_rng(0).normal(size=(20, 10, 1)))
    plan = build(name, lower=-12.0, upper=10.0, **config).plan(torch.from_numpy(x0), None, seeded(seed))
    assert optimum * (1 - 1e-4) <= lived_cost(x0, plan.actions.double().numpy()) <= optimum * (1 + tolerance)


def test_a_plan_states_what_it_costs(planner_name, build, lived_cost):
    plan = build(planner_name, evaluation=EvaluationConfig("E", 1)).plan(X0, None, seeded())
    lived = lived_cost(X0.double().numpy(), plan.actions.double().numpy())
    # float32 sums of about ten numbers
    assert plan.cost == pytest.approx(lived, rel=1e-4)
    assert sum(plan.report.cost_by_term.values()) == pytest.approx(lived, rel=1e-4)
    assert plan.cost == pytest.approx(sum(plan.report.cost_by_term.values()), rel=1e-5)


def test_a_warm_start_is_worth_a_search(planner_name, build, lived_cost):
    long, short = build(planner_name, iterations=10), build(planner_name, iterations=1, population=40, **_few_elites(planner_name))
    first = long.plan(X0, None, seeded())
    x1 = first.states[1]
    warm, cold = short.plan(x1, first, seeded(4)), short.plan(x1, None, seeded(4))
    costs = [lived_cost(x1.double().numpy(), p.actions.double().numpy()) for p in (warm, cold)]
    assert costs[0] < costs[1]
    if short.acts_on_best:  # the shifted plan itself is a candidate: nothing worse is ever chosen
        shifted = torch.cat([first.actions[1:], first.actions[-1:]])
        assert costs[0] <= lived_cost(x1.double().numpy(), shifted.double().numpy()) * (1 + 1e-5)


def _few_elites(name: str) -> dict[str, int]:
    return {"elites": 8} if name in ("cem", "icem") else {}


@pytest.mark.parametrize("interpolation", ["raw", "linear"])
def test_the_shifted_previous_plan_is_the_first_candidate(planner_name, build, interpolation, monkeypatch):
    planner = build(planner_name, interpolation=interpolation, knots=5)
    first = planner.plan(X0, None, seeded())
    seen, costs = [], planner.evaluator.costs
    monkeypatch.setattr(planner.evaluator, "costs", lambda x0, u, generator: (seen.append(u.clone()), costs(x0, u, generator))[1])
    planner.plan(X0, first, seeded(1))
    parameterisation = planner.parameterisation
    expected = parameterisation.actions(parameterisation.shifted(first.memory.mean).clamp(-3, 3)).clamp(-3, 3)
    assert torch.equal(seen[0][0], expected)


def test_active_limits_are_reported(planner_name, build):
    pushing = build(planner_name, lower=0.5, upper=0.500001).plan(X0, None, seeded())
    assert pushing.report.active_limits in ((True,), (False,)) and len(pushing.report.active_limits) == 1
    far = torch.tensor([100.0, 0.0])
    plan = build(planner_name, iterations=6).plan(far, None, seeded())
    assert plan.report.active_limits == (bool(abs(float(plan.actions[0])) >= 3.0 * (1 - 1e-6)),)


def test_clipped_plans_report_their_limit(build):
    plan = build("icem", iterations=6).plan(torch.tensor([100.0, 0.0]), None, seeded())
    assert plan.actions[0] == -3.0 and plan.report.active_limits == (True,)


def test_a_refit_is_planned_with_only_after_refresh(planner_name, build, double_integrator):
    model = double_integrator()
    planner = build(planner_name, model=model)
    before = planner.plan(X0, None, seeded())
    model.load_tensors(double_integrator(gain=-1.0).tensors())
    assert same_plan(planner.plan(X0, None, seeded()), before)
    planner.evaluator.refresh()
    after = planner.plan(X0, None, seeded())
    assert float(after.actions[0]) * float(before.actions[0]) < 0  # the motor was reversed


def test_single_periods_and_single_iterations_work(planner_name, build):
    plan = build(planner_name, horizon=1, iterations=1).plan(X0, None, seeded())
    assert plan.actions.shape == (1, 1)
    assert build(planner_name, horizon=1, iterations=1).plan(X0, plan, seeded()).actions.shape == (1, 1)


def test_configurations_are_validated(planner_name, build):
    kind = planner_config_type(planner_name)
    for change in ({"horizon": 0}, {"population": 1}, {"iterations": 0}, {"interpolation": "linear", "knots": 1},
                   {"interpolation": "linear", "knots": 99}):
        with pytest.raises(ConfigurationError):
            kind(**change)
    with pytest.raises(UnknownNameError, match="cubic"):
        kind(interpolation="cubical")
    if hasattr(kind(), "elites"):
        assert replace(kind(), elites=1)
        for change in ({"population": 10, "elites": 11}, {"elites": 0}, {"momentum": 1.0}):
            with pytest.raises(ConfigurationError):
                kind(**change)


def test_planners_take_their_own_configuration(build, command):
    with pytest.raises(UnknownNameError, match="icem"):
        planner_config_type("icme")
    with pytest.raises(ConfigurationError, match="CEMConfig"):
        make_planner("cem", build("cem").evaluator, command(), 0.1, SamplingConfig())


def test_actions_hold_for_a_period_and_the_last_one_holds_on(build):
    plan = build("cem").plan(X0, None, seeded())
    assert plan.action_at(0.0) == plan.action_at(0.099) == plan.actions[0].double().numpy()
    assert plan.action_at(0.3) == plan.actions[3].double().numpy()  # 0.3 / 0.1 is a little below 3
    assert plan.action_at(99.0) == plan.actions[-1].double().numpy() and plan.action_at(-1.0) == plan.actions[0].double().numpy()
