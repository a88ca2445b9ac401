"""Multiple shooting finds the optimum of what can be solved otherwise, and returns only what the model really does."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from dynamics.model import Prediction
from dynamics.state_space import Channel, Kind, StateSpace
from planners.cost import Cost
from planners.ilqr import ILQR, ILQRConfig
from planners.multiple_shooting import MultipleShooting, MultipleShootingConfig
from planners.plan import PlanStatus
from planners.planner import Planner
from planners.shooting_program import ShootingProgram
from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError, MissingExtraError, NonFiniteError, ShapeError, UnknownNameError

pytest.importorskip("casadi")
X0 = torch.tensor([0.5, -0.2], dtype=torch.float64)
DT = 0.05


class TorchModel:
    """A model written in torch."""

    nu = 1

    def __init__(self, space: StateSpace, change) -> None:
        self.state_space, self._change = space, change

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.state_space.integrate(x, self._change(x, u))

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        mean = self.step(x, u)
        return Prediction(mean, torch.zeros_like(mean), torch.zeros_like(mean))


@dataclass
class Judge:
    """What planners see of an evaluator that do not sample."""

    model: object
    cost: Cost


class UprightCost(Cost):
    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"height": 1 + torch.cos(x[..., 0]), "speed": 0.05 * x[..., 1] ** 2, "effort": 0.01 * u[..., 0] ** 2}

    def terminal(self, x: Tensor) -> Tensor:
        return 20 * (1 + torch.cos(x[..., 0])) + x[..., 1] ** 2


def pendulum() -> TorchModel:
    space = StateSpace([Channel("q", ("angle",), (0,), Kind.ANGLE), Channel("dq", ("speed",), (0,))])

    def change(x: Tensor, u: Tensor) -> Tensor:
        acceleration = -9.81 * torch.sin(x[..., 0]) - 0.1 * x[..., 1] + u[..., 0]
        speed = x[..., 1] + DT * acceleration
        return torch.stack(torch.broadcast_tensors(DT * speed, DT * acceleration), dim=-1)

    return TorchModel(space, change)


def lived(judge: Judge, x: Tensor, actions: Tensor) -> float:
    total = 0.0
    for u in actions:
        total, x = total + float(judge.cost.running(x, u)), judge.model.step(x, u)
    return total + float(judge.cost.terminal(x))


def command(limit: float) -> CommandSpec:
    return CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-limit]), np.array([limit]), "N·m")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def linear_quadratic(double_integrator, QuadraticCost):
    """linear_quadratic(limit, **config): a planner for the double integrator of the other planners' tests"""
    def build(limit: float = 100.0, model=None, cost=None, **config) -> MultipleShooting:
        judge = Judge(model or double_integrator(), cost or QuadraticCost())
        return MultipleShooting(judge, command(limit), 0.1, MultipleShootingConfig(**({"horizon": 10} | config)))
    return build


def test_linear_quadratic_plans_are_those_of_the_riccati_recursion(linear_quadratic, best_plan, lived_cost):
    planner = linear_quadratic()
    assert isinstance(planner, Planner)
    plan, best = planner.plan(X0, None, generator()), best_plan(X0.numpy(), 10)
    assert plan.status is PlanStatus.CONVERGED
    np.testing.assert_allclose(plan.actions.numpy(), best, atol=1e-6)
    assert plan.cost == pytest.approx(lived_cost(X0.numpy(), best), abs=1e-9) == pytest.approx(sum(plan.report.cost_by_term.values()))
    assert plan.report.defect < 1e-9 and plan.report.active_limits == (False,)


@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_in_a_box_they_are_those_of_bounded_least_squares(limit, linear_quadratic, lived_cost):
    """The same problem with the states eliminated: a bounded linear least squares problem in the actions."""
    horizon = 10
    plan = linear_quadratic(limit).plan(X0, None, generator())

    def residuals(actions: np.ndarray) -> np.ndarray:
        x, rows = X0.numpy(), []
        for u in actions:
            rows += [x[0], np.sqrt(0.1) * x[1], 0.1 * u]
            x = np.array([x[0] + 0.1 * x[1] + 0.005 * u, x[1] + 0.1 * u])
        return np.array([*rows, np.sqrt(10) * x[0], np.sqrt(2) * x[1]])

    offset = residuals(np.zeros(horizon))
    matrix = np.stack([residuals(unit) - offset for unit in np.eye(horizon)], axis=1)
    best = lsq_linear(matrix, -offset, (-limit, limit), tol=1e-14, max_iter=1000).x
    assert np.abs(best).max() > 0.999 * limit
    np.testing.assert_allclose(plan.actions.numpy()[:, 0], best, atol=1e-4)
    assert plan.cost == pytest.approx(lived_cost(X0.numpy(), best[:, None]), rel=1e-7) and plan.actions.abs().max() <= limit
    assert plan.report.active_limits == (True,)


@pytest.mark.parametrize("angle", [0.3, 1.0, -0.5])
def test_a_pendulum_swings_up_at_the_cost_of_ilqr(angle):
    judge, start = Judge(pendulum(), UprightCost()), torch.tensor([angle, 0.0], dtype=torch.float64)
    shooting = MultipleShooting(judge, command(15.0), DT, MultipleShootingConfig(horizon=40))
    plan = shooting.plan(start, None, generator())
    other = ILQR(judge, command(15.0), DT, ILQRConfig(horizon=40)).plan(start, None, generator())
    assert plan.status is PlanStatus.CONVERGED and abs(abs(float(plan.states[-1, 0])) - math.pi) < 0.1
    assert plan.cost == pytest.approx(other.cost, rel=0.01)


def test_a_plan_of_another_planner_is_never_made_worse():
    judge, start = Judge(pendulum(), UprightCost()), torch.tensor([0.3, 0.0], dtype=torch.float64)
    weak = command(5.0)  # has to swing several times: there are many local optima
    other = ILQR(judge, weak, DT, ILQRConfig(horizon=40)).plan(start, None, generator())
    shifted = torch.cat([other.actions[1:], other.actions[-1:]])
    for iterations in (1, 3, 200):
        planner = MultipleShooting(judge, weak, DT, MultipleShootingConfig(horizon=40, iterations=iterations))
        assert planner.plan(start, other, generator()).cost <= lived(judge, start, shifted) * (1 + 1e-12)


def test_derivatives_are_those_of_differences(double_integrator):
    from planners.trajectory_problem import TrajectoryProblem
    problem = TrajectoryProblem(pendulum(), UprightCost(), np.array([-9.0]), np.array([9.0]))
    program = ShootingProgram(problem, 4)
    program.x0 = np.array([0.3, -0.5])
    z = np.random.default_rng(0).normal(size=program.size)
    step = 1e-6
    moved = [[program.cost_and_gaps(z + sign * step * unit) for sign in (-1, 1)] for unit in np.eye(program.size)]
    np.testing.assert_allclose(program.gradient(z), [(b[0] - a[0]) / (2 * step) for a, b in moved], atol=1e-7)
    dense = np.zeros(program.jacobian_pattern.shape)
    dense[program.jacobian_pattern.places] = program.jacobian(z)
    np.testing.assert_allclose(dense, np.stack([(b[1] - a[1]) / (2 * step) for a, b in moved], axis=1), atol=1e-8)
    upper = np.zeros((program.size, program.size))
    upper[program.hessian_pattern.places] = program.hessian(z, 2.0)
    slopes = [[program.gradient(z + sign * step * unit) for sign in (-1, 1)] for unit in np.eye(program.size)]
    full = np.stack([(b - a) / step for a, b in slopes])  # twice the Hessian
    np.testing.assert_allclose(upper, np.triu(full), atol=1e-6)


def test_bounds_on_states_and_a_goal_are_kept_by_what_is_played(linear_quadratic, lived_cost):
    free = linear_quadratic(2.0, horizon=30).plan(X0, None, generator())
    bound = linear_quadratic(2.0, horizon=30, state_bounds=(("v", -0.25, 0.25),), goal=(("p", 0.1), ("v", 0.0))).plan(X0, None, generator())
    assert free.states[:, 1].min() < -0.3 and bound.status is PlanStatus.CONVERGED
    assert bound.states[1:, 1].abs().max() <= 0.25 + 1e-6 and bound.cost > free.cost
    np.testing.assert_allclose(bound.states[-1].numpy(), [0.1, 0.0], atol=1e-6)
    assert bound.cost == pytest.approx(lived_cost(X0.numpy(), bound.actions.numpy()))


def test_what_keeps_no_bound_is_no_plan(linear_quadratic):
    rest = (("p", 0.0), ("v", 0.0))
    swing = MultipleShooting(Judge(pendulum(), UprightCost()), command(9.0), DT,
                             MultipleShootingConfig(horizon=20, iterations=1, goal=(("angle", math.pi),)))
    for planner, deadline, status in ((linear_quadratic(0.2, horizon=3, goal=rest), None, PlanStatus.INFEASIBLE),
                                      (swing, None, PlanStatus.ITERATIONS),
                                      (linear_quadratic(goal=rest), 1e-9, PlanStatus.DEADLINE)):
        plan = planner.plan(X0, None, generator(), deadline)
        assert plan.status is status and plan.actions is None and plan.states is None and plan.memory is None and plan.cost == math.inf


def test_without_bounds_the_best_so_far_is_a_plan(linear_quadratic, lived_cost):
    nothing = lived_cost(X0.numpy(), np.zeros((10, 1)))
    plan = linear_quadratic().plan(X0, None, generator(), deadline=1e-9)
    assert plan.status is PlanStatus.DEADLINE and plan.cost == pytest.approx(nothing) and plan.report.iterations == 0
    few = linear_quadratic(0.5, iterations=3).plan(X0, None, generator())
    assert few.status is PlanStatus.ITERATIONS and few.cost < nothing
    assert few.cost == pytest.approx(lived_cost(X0.numpy(), few.actions.numpy()))


def test_models_and_costs_that_are_not_finite_give_no_plan(linear_quadratic, double_integrator, QuadraticCost):
    plan = linear_quadratic(cost=QuadraticCost(forbidden_above=-1000.0)).plan(X0, None, generator())
    assert plan.status is PlanStatus.NO_FINITE_COST and plan.actions is None and plan.report.nonfinite == 2
    space = double_integrator().state_space
    broken = TorchModel(space, lambda x, u: torch.where(x > 0, torch.nan, x) + u)
    plan = linear_quadratic(model=broken).plan(X0, None, generator())
    assert plan.status is PlanStatus.NO_FINITE_COST and plan.actions is None


def test_an_error_of_the_model_is_not_swallowed(linear_quadratic, double_integrator):
    def change(x: Tensor, u: Tensor) -> Tensor:
        if x.dim() > 2:
            raise ZeroDivisionError("in the model")
        return torch.zeros_like(x) + u

    with pytest.raises(ZeroDivisionError, match="in the model"):
        linear_quadratic(model=TorchModel(double_integrator().state_space, change)).plan(X0, None, generator())


def test_plans_repeat_and_nothing_is_hidden(linear_quadratic):
    planner = linear_quadratic(1.0)
    first = planner.plan(X0, None, generator())
    kept = first.actions.clone()
    warm = planner.plan(first.states[1], first, generator())
    planner.plan(-X0, warm, generator())
    assert torch.equal(first.actions, kept)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for made in (planner, linear_quadratic(1.0)):
                again = made.plan(X0, None, generator())
                assert torch.equal(again.actions, first.actions) and again.cost == first.cost
                assert torch.equal(made.plan(first.states[1], first, generator()).actions, warm.actions)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_what_is_on_a_limit_is_told_by_the_range_not_by_the_unit():
    """Commands of thousands: IPOPT comes as near to their limits as its tolerance, which is some 1e-5 of the unit here, and not nearer."""
    unit = 1e4
    space = StateSpace([Channel("q", ("p",), (0,))])
    model = TorchModel(space, lambda x, u: u / unit)

    class Reach(Cost):
        def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
            return {"effort": 1e-3 * (u[..., 0] / unit) ** 2}

        def terminal(self, x: Tensor) -> Tensor:
            return (x[..., 0] - 1.0) ** 2

    for kind, config in ((MultipleShooting, MultipleShootingConfig(horizon=4)), (ILQR, ILQRConfig(horizon=4))):
        far, near = (kind(Judge(model, Reach()), command(limit * unit), DT, config).plan(torch.zeros(1), None, generator())
                     for limit in (0.1, 1.0))
        assert far.report.active_limits == (True,) and near.report.active_limits == (False,)


def test_a_warm_start_takes_no_more_iterations_to_the_same_plan():
    judge, config = Judge(pendulum(), UprightCost()), MultipleShootingConfig(horizon=40)
    planner = MultipleShooting(judge, command(15.0), DT, config)
    first = planner.plan(torch.tensor([0.3, 0.0]), None, generator())
    warm = planner.plan(first.states[1], first, generator())
    assert warm.status is PlanStatus.CONVERGED and warm.cost < first.cost


def test_single_periods_work(linear_quadratic, best_plan):
    plan = linear_quadratic(horizon=1).plan(X0, None, generator())
    np.testing.assert_allclose(plan.actions.numpy(), best_plan(X0.numpy(), 1), atol=1e-6)
    assert linear_quadratic(horizon=1).plan(X0, plan, generator()).actions.shape == (1, 1)


def test_bad_questions_are_refused(linear_quadratic, monkeypatch, QuadraticCost):
    planner = linear_quadratic()
    for wrong in (torch.zeros(3), torch.zeros(1, 2)):
        with pytest.raises(ShapeError, match="x0"):
            planner.plan(wrong, None, generator())
    with pytest.raises(NonFiniteError, match="x0"):
        planner.plan(torch.tensor([math.nan, 0.0]), None, generator())
    with pytest.raises(ShapeError, match="previous"):
        planner.plan(X0, linear_quadratic(horizon=7).plan(X0, None, generator()), generator())
    for change in ({"horizon": 0}, {"iterations": 0}, {"tolerance": 0.0}, {"kept_to": -1.0}, {"state_bounds": (("v", 1.0, -1.0),)},
                   {"state_bounds": (("v", 0.0, 1.0),), "goal": (("v", 2.0),)}):
        with pytest.raises(ConfigurationError):
            linear_quadratic(**change)
    with pytest.raises(UnknownNameError, match="p, v"):
        linear_quadratic(goal=(("q", 1.0),))
    with pytest.raises(ConfigurationError, match=r"deadline.*nan"):
        planner.plan(X0, None, generator(), deadline=math.nan)
    with pytest.raises(ConfigurationError, match="survival"):
        linear_quadratic(cost=QuadraticCost(survives=0.9))
    monkeypatch.setitem(sys.modules, "casadi", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'reflexarc\[collocation\]'"):
        linear_quadratic()
