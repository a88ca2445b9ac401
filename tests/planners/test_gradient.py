"""Descent through the model: the slope is the cost's, the optimum is found, and what has no slope is said so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from dynamics.linear import LinearModel
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from planners.cost import ZeroCost
from planners.evaluation import EvaluationConfig
from planners.gradient import Descent, GradientConfig
from planners.plan import PlanStatus
from robots.errors import ConfigurationError

X0 = torch.tensor([0.5, -0.2])
CERTAIN = EvaluationConfig("E", 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("interpolation", ["raw", "cubic"])
@pytest.mark.parametrize("survives", [None, 0.7])
def test_the_slope_is_the_difference_of_what_the_evaluator_charges(build, QuadraticCost, interpolation, survives):
    planner = build("gradient", cost=QuadraticCost(survives=survives), evaluation=CERTAIN, interpolation=interpolation, knots=4)
    at = 0.5 * (2 * torch.rand(2, planner.parameterisation.parameters, 1, generator=seeded()) - 1)
    costs, slope = planner._costs_and_slope(X0, at)
    charged = planner.evaluator.costs(X0, planner.actions(planner._parameters(at)), None)
    torch.testing.assert_close(costs, charged, rtol=1e-5, atol=1e-5)
    # the cost is quadratic: central differences are exact, and float32 rounds costs of about 10 to 1e-6 of a step of 0.1
    for index in range(at.shape[1]):
        step = torch.zeros_like(at)
        step[:, index] = 0.1
        ahead, behind = (planner.evaluator.costs(X0, planner.actions(planner._parameters(at + sign * step)), None) for sign in (1, -1))
        torch.testing.assert_close(slope[:, index, 0], (ahead - behind) / 0.2, rtol=1e-3, atol=1e-3)


def test_descent_comes_to_the_riccati_optimum(build, lived_cost, best_plan):
    x0 = X0.double().numpy()
    optimum = lived_cost(x0, best_plan(x0, 10))
    plan = build("gradient", lower=-12.0, upper=10.0, iterations=200, restarts=2, tolerance=1e-4).plan(X0, None, seeded())
    assert plan.status is PlanStatus.CONVERGED
    assert optimum * (1 - 1e-4) <= lived_cost(x0, plan.actions.double().numpy()) <= optimum * (1 + 1e-3)


def test_descent_comes_to_the_optimum_within_the_box(build, lived_cost):
    x0 = np.array([1.0, 0.2])
    solved = minimize(lambda u: lived_cost(x0, u[:, None]), np.zeros(10), bounds=[(-1.5, 1.0)] * 10)
    assert (np.abs(solved.x + 1.5) < 1e-6).sum() >= 2, "the box must bind for this to say anything"
    plan = build("gradient", lower=-1.5, upper=1.0, iterations=200, restarts=2).plan(torch.from_numpy(x0), None, seeded())
    assert lived_cost(x0, plan.actions.double().numpy()) <= solved.fun * (1 + 1e-3)


def test_the_best_on_the_way_is_kept_whatever_the_step(build):
    planner = build("gradient", step=2.0, iterations=10, evaluation=CERTAIN)  # from one side of the box to the other
    starts, *_ = planner._starts(X0, None, seeded())
    costs, _ = planner._costs_and_slope(X0, starts)
    assert planner.plan(X0, None, seeded()).cost <= float(costs.min()) * (1 + 1e-5)


def test_a_good_previous_plan_is_never_made_worse(build):
    first = build("gradient", iterations=200, restarts=1, draws=0, evaluation=CERTAIN).plan(X0, None, seeded())
    planner = build("gradient", iterations=1, restarts=1, draws=0, step=1.0, evaluation=CERTAIN)
    x1 = first.states[1]
    shifted = planner.parameterisation.shifted(first.memory.mean)
    assert planner.plan(x1, first, seeded()).cost <= float(planner.evaluator.costs(x1, shifted.unsqueeze(0), None))


def test_the_cheapest_draws_descend_beside_the_previous_plan_and_the_middle(build):
    planner = build("gradient", restarts=4, draws=30)
    first = planner.plan(X0, None, seeded())
    nominal = planner.parameterisation.shifted(first.memory.mean)
    starts, samples, nonfinite = planner._starts(X0, nominal, seeded(3))
    assert starts.shape == (4, 10, 1) and (samples, nonfinite) == (30, 0)
    torch.testing.assert_close(planner._parameters(starts[0]), nominal)
    assert not starts[1].any()
    drawn = 2 * torch.rand(30, 10, 1, generator=seeded(3)) - 1
    costs = planner.evaluator.costs(X0, 3 * drawn, None)
    assert torch.equal(starts[2:], drawn[costs.argsort()[:2]])


def test_a_point_without_a_slope_goes_back_and_one_without_a_cost_drops_out():
    starts = torch.zeros(3, 2, 1)
    descent = Descent(starts, GradientConfig(patience=3))
    fine = torch.ones(3, 2, 1)
    descent.move(torch.tensor([5.0, 5.0, math.nan]), fine, 0.1)
    torch.testing.assert_close(descent.at[:2], torch.full((2, 2, 1), -0.1))
    assert not descent.at[2].any(), "it never had a cost: it stays"
    bad = fine.clone()
    bad[1, 0] = math.nan
    descent.move(torch.tensor([4.0, 4.5, math.inf]), bad, 0.1)
    assert (descent.at[0] < -0.15).all()
    torch.testing.assert_close(descent.at[1], torch.full((2, 1), -0.1))  # its best, which is where it is
    assert descent.best_costs.tolist() == [4.0, 4.5, math.inf] and not descent.stalled()
    descent.move(torch.tensor([math.inf, 4.0, math.inf]), fine, 0.1)
    torch.testing.assert_close(descent.at[0], torch.full((2, 1), -0.1))  # back to its best
    torch.testing.assert_close(descent.at[1], torch.full((2, 1), -0.15))  # with half the step
    for _ in range(3):
        descent.move(torch.tensor([6.0, 6.0, math.inf]), fine, 0.1)
    assert descent.stalled()


def test_steps_stay_in_the_box_and_do_not_depend_on_the_unit_of_the_cost():
    moved = []
    for unit in (1e-6, 1.0, 1e6):
        descent = Descent(torch.full((1, 2, 1), 0.95), GradientConfig())
        for _ in range(5):
            descent.move(torch.tensor([1.0]), unit * torch.tensor([[[-1.0], [2.0]]]), 0.1)
        moved.append(descent.at)
    assert moved[0][0, 0] == 1.0
    torch.testing.assert_close(moved[0], moved[1])
    torch.testing.assert_close(moved[2], moved[1])


def test_an_ensemble_is_descended(build, double_integrator):
    space = double_integrator().state_space
    model = NeuralEnsemble(space, 1, 0.1, EnsembleConfig(members=2, hidden=(16,), weight_decay=(0.0,)), seed=1)
    planner = build("gradient", model=model, evaluation=EvaluationConfig("E", 1, kernel="torch"), horizon=5, iterations=12, restarts=2)
    still = float(planner.evaluator.costs(X0, torch.zeros(1, 5, 1), None))
    plan = planner.plan(X0, None, seeded())
    assert plan.cost < 0.9 * still
    assert all(parameter.grad is None for member in model._members for parameter in member.values()), "the model is not to learn from it"


def test_a_model_without_a_slope_is_refused_in_words(build, double_integrator):
    class Opaque(LinearModel):
        def step(self, x, u, generator=None):
            return super().step(x, u, generator).detach()

    model = Opaque(double_integrator().state_space, 1, 0.1, double_integrator().config)
    model.load_tensors(double_integrator().tensors())
    with pytest.raises(ConfigurationError, match=r"Opaque\.step passes no gradient.*icem"):
        build("gradient", model=model).plan(X0, None, seeded())


def test_a_cost_that_looks_at_nothing_is_no_error(build):
    plan = build("gradient", cost=ZeroCost()).plan(X0, None, seeded())
    assert plan.status is PlanStatus.CONVERGED and plan.cost == 0.0


@pytest.mark.parametrize("change", [{"horizon": 0}, {"iterations": 0}, {"restarts": 0}, {"draws": -1}, {"patience": 0}, {"step": 0.0},
                                    {"step": math.inf}, {"tolerance": -1.0}, {"interpolation": "linear", "knots": 99}])
def test_bad_descents_are_refused(change):
    with pytest.raises(ConfigurationError):
        GradientConfig(**change)
