"""What every planner promises that follows the model itself: the promises of the samplers, as far as they apply."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch

from dynamics.workers import Workers
from planners.catalog import make_planner, planner_config_type
from planners.evaluation import EvaluationConfig
from planners.model_planner import ModelPlanner
from planners.plan import Plan, PlanStatus
from planners.planner import Planner
from planners.sampling import SamplingConfig
from robots.errors import ConfigurationError, NonFiniteError, ShapeError

X0 = torch.tensor([1.0, 0.2])
QUICK = {"gradient": {"iterations": 8, "restarts": 3, "draws": 10}, "puct": {"simulations": 12, "hold": 3},
         "gumbel": {"simulations": 12, "hold": 3, "levels": (5,), "considered": 3}}


@pytest.fixture(scope="module", params=sorted(QUICK))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_plan(a: Plan, b: Plan) -> bool:
    return (torch.equal(a.actions, b.actions) and a.cost == b.cost and torch.equal(a.states, b.states)
            and torch.equal(a.memory.mean, b.memory.mean) and a.report.visits == b.report.visits)


def test_a_plan_has_the_promised_parts(name, build):
    planner = build(name, **QUICK[name])
    assert isinstance(planner, Planner) and isinstance(planner, ModelPlanner)
    plan = planner.plan(X0, None, seeded())
    assert plan.actions.shape == (10, 1) and plan.states.shape == (11, 2) and plan.states_std.shape == (11, 2)
    assert torch.equal(plan.states[0], X0) and plan.actions.dtype == torch.float32 and not plan.actions.requires_grad
    assert plan.status in (PlanStatus.ITERATIONS, PlanStatus.CONVERGED) and math.isfinite(plan.cost)
    report = plan.report
    assert report.nonfinite == 0 and report.seconds > 0 and 1 <= report.iterations <= 12
    assert report.samples > 10 and report.effective_samples >= 1 and bool(report.visits) == (name != "gradient")
    assert set(report.cost_by_term) == {"state", "effort", "terminal"}


@pytest.mark.parametrize("box", [(-3.0, 3.0), (0.5, 2.0), (-7.0, -0.25)])
def test_plans_and_all_that_is_evaluated_stay_in_the_box(name, build, box, monkeypatch):
    planner = build(name, lower=box[0], upper=box[1], **QUICK[name])
    seen, costs = [], planner.evaluator.costs
    monkeypatch.setattr(planner.evaluator, "costs", lambda x0, u, generator: (seen.append(u.clone()), costs(x0, u, generator))[1])
    first = planner.plan(X0, None, seeded())
    second = planner.plan(X0, first, seeded(1))
    everything = torch.cat([first.actions.unsqueeze(0), second.actions.unsqueeze(0), *seen])
    assert everything.shape[1:] == (10, 1) and everything.min() >= box[0] and everything.max() <= box[1]


def test_one_seed_gives_one_plan_at_any_thread_count(name, build, double_integrator):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    plans = []
    for threads in (1, 2, 2):
        pool = Workers(threads)
        planner = build(name, pool=pool, model=double_integrator(0.05), evaluation=EvaluationConfig("TSinf", 4, rows_per_portion=128),
                        **QUICK[name])
        first = planner.plan(X0, None, seeded(7))
        plans.append((first, planner.plan(X0, first, seeded(8))))
        pool.close()
    assert all(same_plan(a, b) for other in plans[1:] for a, b in zip(plans[0], other, strict=True))


def test_planners_hide_no_memory_and_leave_the_previous_plan_alone(name, build):
    planner = build(name, **QUICK[name])
    first = planner.plan(X0, None, seeded(1))
    actions, mean = first.actions.clone(), first.memory.mean.clone()
    planner.plan(-X0, first, seeded(2))
    assert torch.equal(first.actions, actions) and torch.equal(first.memory.mean, mean)
    assert same_plan(planner.plan(X0, None, seeded(1)), first)


def test_numpys_global_randomness_is_neither_used_nor_moved(name, build):
    planner = build(name, **QUICK[name])
    np.random.seed(3)  # noqa: NPY002 (it is the global state that this is about)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = planner.plan(X0, None, seeded())
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(4)  # noqa: NPY002
    assert same_plan(planner.plan(X0, None, seeded()), first)


def test_without_one_finite_cost_there_are_no_actions(name, build, QuadraticCost):
    plan = build(name, cost=QuadraticCost(forbidden_above=-10.0), **QUICK[name]).plan(X0, None, seeded())
    assert plan.status is PlanStatus.NO_FINITE_COST and plan.actions is None and plan.memory is None and plan.cost == math.inf
    assert plan.report.nonfinite == plan.report.samples > 0
    assert build(name, **QUICK[name]).plan(X0, plan, seeded()).actions is not None  # the next plan starts afresh


@pytest.mark.parametrize("above", [0.0, -0.5])
def test_plans_without_a_finite_cost_rank_worst(name, build, QuadraticCost, above):
    for seed in range(3):
        planner = build(name, cost=QuadraticCost(forbidden_above=above), lower=-1.0, upper=1.0, **(QUICK[name] | {"horizon": 2, "draws": 40}
                        if name == "gradient" else QUICK[name] | {"horizon": 2, "hold": 1, "levels": (5,), "simulations": 30}))
        plan = planner.plan(-X0, None, seeded(seed))  # the cost pulls upwards, into what is forbidden
        if plan.actions is None:  # none of Gumbel's three first actions was allowed
            assert name == "gumbel" and plan.status is PlanStatus.NO_FINITE_COST
            continue
        assert (plan.actions <= above).all() and math.isfinite(plan.cost)
        assert 0 < plan.report.nonfinite < plan.report.samples


def test_a_particle_that_diverges_makes_the_next_best_the_plan(name, build):
    """The model's mean knows nothing of it: what the evaluator does not want is not the plan."""
    planner = build(name, **QUICK[name])
    best = planner.plan(X0, None, seeded())
    costs = planner.evaluator.costs

    class Picky:
        model, cost, dtype, explain = planner.evaluator.model, planner.evaluator.cost, torch.float32, planner.evaluator.explain

        @staticmethod
        def costs(x0, actions, generator):
            return torch.where((actions - best.actions).abs().amax((1, 2)) < 1e-6, torch.inf, costs(x0, actions, generator))

    picky = build(name, **QUICK[name])
    picky.evaluator = Picky()
    plan = picky.plan(X0, None, seeded())
    assert math.isfinite(plan.cost) and not torch.equal(plan.actions, best.actions)


def test_bad_states_and_foreign_plans_are_refused(name, build):
    planner = build(name, **QUICK[name])
    for wrong in (torch.zeros(3), torch.zeros(1, 2)):
        with pytest.raises(ShapeError, match="x0"):
            planner.plan(wrong, None, seeded())
    for value in (math.nan, math.inf):
        with pytest.raises(NonFiniteError, match="x0"):
            planner.plan(torch.tensor([value, 0.0]), None, seeded())
    with pytest.raises(ShapeError, match="previous"):
        planner.plan(X0, build(name, **(QUICK[name] | {"horizon": 7})).plan(X0, None, seeded()), seeded())


def test_a_deadline_returns_the_best_plan_so_far(name, build):
    plan = build(name, **QUICK[name]).plan(X0, None, seeded(), deadline=1e-9)
    assert plan.status is PlanStatus.DEADLINE and plan.report.iterations == 1 and plan.actions is not None
    assert build(name, **QUICK[name]).plan(X0, None, seeded(), deadline=60.0).status is not PlanStatus.DEADLINE


def test_a_plan_states_what_it_costs(name, build, lived_cost):
    plan = build(name, evaluation=EvaluationConfig("E", 1), **QUICK[name]).plan(X0, None, seeded())
    lived = lived_cost(X0.double().numpy(), plan.actions.double().numpy())
    # float32 sums of about ten numbers
    assert plan.cost == pytest.approx(lived, rel=1e-4)
    assert sum(plan.report.cost_by_term.values()) == pytest.approx(lived, rel=1e-4)
    assert lived < 0.9 * lived_cost(X0.double().numpy(), np.zeros((10, 1)))


def test_a_warm_start_is_worth_a_search(name, build, lived_cost):
    tree = {"levels": (5,), "horizon": 5, "hold": 1}
    many = {"iterations": 60} if name == "gradient" else tree | {"simulations": 600}
    few = {"iterations": 3, "draws": 2} if name == "gradient" else tree | {"simulations": 8}
    long, short = build(name, **many), build(name, **few)
    first = long.plan(X0, None, seeded())
    x1 = first.states[1]
    warm, cold = (sum(lived_cost(x1.double().numpy(), short.plan(x1, previous, seeded(seed)).actions.double().numpy()) for seed in range(5))
                  for previous in (first, None))
    assert warm < cold


def test_a_deadline_that_is_no_number_is_refused(name, build):
    with pytest.raises(ConfigurationError, match=r"deadline.*nan"):
        build(name, **QUICK[name]).plan(X0, None, seeded(), deadline=math.nan)


def test_single_periods_work_and_active_limits_are_reported(name, build):
    single = {key: value for key, value in QUICK[name].items() if key != "hold"} | {"horizon": 1}
    plan = build(name, **single).plan(X0, None, seeded())
    assert plan.actions.shape == (1, 1) and build(name, **single).plan(X0, plan, seeded()).actions.shape == (1, 1)
    eager = QUICK[name] | ({"step": 1.0} if name == "gradient" else {})
    pushed = build(name, lower=-0.1, upper=0.2, **eager).plan(torch.tensor([1.0, 1.0]), None, seeded())
    assert pushed.report.active_limits == (True,)


def test_planners_take_their_own_configuration(name, build, command):
    with pytest.raises(ConfigurationError, match=planner_config_type(name).__name__):
        make_planner(name, build(name).evaluator, command(), 0.1, SamplingConfig())
