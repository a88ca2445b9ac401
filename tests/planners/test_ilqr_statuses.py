"""Every way to fail, and a deadline: told in the status, with the best plan so far or none, never with a wrong one."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from planners.ilqr import FDDP, ILQR
from planners.ilqr_solver import ILQRSolver, SolverConfig, room_for_change
from planners.linear_quadratic import LocalPolicy, Outcome
from planners.plan import PlanStatus
from planners.trajectory_problem import TrajectoryProblem
from robots.errors import ConfigurationError, NonFiniteError
from tests.planners.ilqr_parts import TURNED, X0, body, box, plan, scalar


def test_a_curvature_that_nothing_outweighs_is_told():
    found = plan(scalar(lambda x, u: -1e12 * u[..., 0] ** 2), np.zeros(1))
    assert found.status is PlanStatus.INDEFINITE and not found.actions.any() and math.isfinite(found.cost)


def test_no_descent_is_told():
    """The slope that torch sees has the wrong sign."""
    def lying(x, u):
        return u[..., 0].detach() * 2 - u[..., 0] + 0.5 * (u[..., 0] - u[..., 0].detach()) ** 2

    found = plan(scalar(lying, iterations=100), np.zeros(1))
    assert found.status is PlanStatus.NO_DESCENT and not found.actions.any()


def test_models_that_leave_the_numbers_are_told():
    found = plan(scalar(lambda x, u: u[..., 0] ** 2, lambda x, u: x + math.nan), np.zeros(1))
    assert found.status is PlanStatus.NO_FINITE_COST and found.actions is None and found.cost == math.inf and found.memory is None
    assert found.report.nonfinite == found.report.samples == 1
    again = plan(scalar(lambda x, u: u[..., 0] ** 2), np.zeros(1), found)
    assert again.actions is not None, "the next plan starts afresh"


@pytest.mark.parametrize("where", ["model", "cost"])
def test_derivatives_that_leave_the_numbers_are_told(where):
    def kink(u):
        return u.abs().sqrt()  # infinite slope at zero

    planner = (scalar(lambda x, u: (x + u)[..., 0] ** 2, lambda x, u: x + kink(u)) if where == "model"
               else scalar(lambda x, u: kink(u)[..., 0]))
    found = plan(planner, np.zeros(1))
    assert found.status is PlanStatus.NON_FINITE_DERIVATIVES and not found.actions.any() and math.isfinite(found.cost)


def test_unlimited_actuators_are_refused_by_the_command_and_solved_by_the_solver(double_integrator, QuadraticCost, best_plan):
    with pytest.raises(NonFiniteError, match=r"CommandSpec.*inf"):
        box(1, math.inf)
    problem = TrajectoryProblem(double_integrator(), QuadraticCost(), np.array([-math.inf]), np.array([math.inf]))
    start = problem.play(X0.numpy(), problem.middle(10))
    solution = ILQRSolver(problem, SolverConfig(), X0.numpy(), start, LocalPolicy.nothing(10, 2, 1)).solve()
    np.testing.assert_allclose(solution.trajectory.actions, best_plan(X0.numpy(), 10), atol=1e-9)
    half = TrajectoryProblem(double_integrator(), QuadraticCost(), np.array([0.5]), np.array([math.inf]))
    assert half.middle(2).tolist() == [[0.5], [0.5]]


def test_a_deadline_returns_the_best_plan_so_far(monkeypatch):
    assert plan(body(), TURNED, deadline=60.0).status is PlanStatus.CONVERGED
    clock = [0.0]
    monkeypatch.setattr("planners.ilqr_solver.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    problem, nothing = body().problem, LocalPolicy.nothing(25, 6, 3)
    start, model_along = problem.play(TURNED.numpy(), np.zeros((25, 3))), problem.model_along

    def a_second_long(trajectory):
        clock[0] += 1.0
        return model_along(trajectory)

    monkeypatch.setattr(problem, "model_along", a_second_long)
    for seconds, iterations in ((3, 3), (0, 0), (-1, 0)):  # none of the rounds is cut off
        clock[0] = 0.0
        solution = ILQRSolver(problem, SolverConfig(), TURNED.numpy(), start, nothing).solve(seconds)
        assert solution.status is PlanStatus.DEADLINE and solution.iterations == iterations and clock[0] == iterations
        assert solution.trajectory.cost < start.cost if iterations else solution.trajectory is start


def test_a_cost_that_bends_down_in_the_state_is_descended_after_one_look_at_its_derivatives(monkeypatch):
    """Its concave part is left out."""
    clock = [0.0]
    monkeypatch.setattr("planners.ilqr_solver.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    planner = scalar(lambda x, u: (1 - torch.exp(-(x[..., 0] - 1.5) ** 2)) + 1e-3 * u[..., 0] ** 2, lambda x, u: x + 0.1 * u)
    problem = planner.problem
    start, model_along = problem.play(np.zeros(1), problem.middle(planner.horizon)), problem.model_along

    def a_second_long(trajectory):
        clock[0] += 1.0
        return model_along(trajectory)

    monkeypatch.setattr(problem, "model_along", a_second_long)
    nothing = LocalPolicy.nothing(planner.horizon, 1, 1)
    assert problem.model_along(start).backward(*room_for_change(start.actions, problem.lower, problem.upper)).outcome is Outcome.INDEFINITE
    solution = ILQRSolver(problem, SolverConfig(), np.zeros(1), start, nothing).solve(clock[0] + 2.0)
    assert solution.iterations == 1 and solution.trajectory.cost < start.cost


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_impossible_deadlines_return_the_start(kind):
    for deadline in (0.0, -1.0, -math.inf):
        found = plan(body(kind), TURNED, deadline=deadline)
        assert found.status is PlanStatus.DEADLINE and found.report.iterations == 0 and not found.actions.any()
        assert found.cost == pytest.approx(body().problem.play(TURNED.numpy(), np.zeros((25, 3))).cost)
    with pytest.raises(ConfigurationError, match=r"deadline.*nan"):
        plan(body(kind), TURNED, deadline=math.nan)
