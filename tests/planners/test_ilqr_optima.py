"""Known optima: what iLQR and FDDP find is what can be had otherwise, within limits, on rotations and in concave costs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from experiments.bench.control_problems import CAR_START, ParkingCost, car, car_box, car_starts
from planners.ilqr import FDDP, ILQR
from planners.ilqr_solver import ILQRSolver, SolverConfig
from planners.linear_quadratic import LinearQuadraticModel, LocalPolicy
from planners.plan import PlanStatus
from planners.trajectory_problem import Trajectories, Trajectory, TrajectoryProblem
from tests.planners.ilqr_parts import BODY, DT, TURNED, X0, Torch, Weights, body, plain, plan, planner_of, scalar, tumble, turned_away

A, B = np.array([[1.0, DT], [0.0, 1.0]]), np.array([[0.5 * DT**2], [DT]])
Q, R, Q_END = np.diag([1.0, 0.1]), np.diag([0.01]), np.diag([10.0, 2.0])


def riccati() -> list[np.ndarray]:
    value, gains = Q_END, []
    for _ in range(10):
        gains.append(-np.linalg.solve(R + B.T @ value @ B, B.T @ value @ A))
        value = Q + A.T @ value @ (A + B @ gains[-1])
    return gains[::-1]


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_linear_quadratic_problems_take_one_iteration(kind, double_integrator, QuadraticCost, best_plan, lived_cost):
    found = plan(planner_of(kind, double_integrator(), QuadraticCost()))
    best = best_plan(X0.numpy(), 10)
    assert found.report.iterations == 1 and found.status is PlanStatus.CONVERGED
    np.testing.assert_allclose(found.actions.numpy(), best, atol=1e-9)
    np.testing.assert_allclose(found.gains.numpy(), riccati(), atol=1e-9)
    assert found.cost == pytest.approx(lived_cost(X0.numpy(), best), rel=1e-12)
    assert found.cost == pytest.approx(sum(found.report.cost_by_term.values()), rel=1e-12)


class TimeVarying(TrajectoryProblem):
    """x_{t+1} = A_t x + B_t u with its own weights in every period."""

    def __init__(self, horizon: int, n: int, m: int) -> None:
        rng = np.random.default_rng(0)
        self.a, self.b = rng.normal(size=(horizon, n, n)) / n**0.5, rng.normal(size=(horizon, n, m))
        root = rng.normal(size=(horizon + 1, n + m, n + m))
        self.q = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(n + m)
        self.lower, self.upper = np.full(m, -math.inf), np.full(m, math.inf)
        self.space, self.nu, self.model = plain(n), m, None

    def model_along(self, trajectory):
        z = np.concatenate([trajectory.states[:-1], trajectory.actions], axis=1)
        n = self.space.nx
        return LinearQuadraticModel(self.a, self.b, np.einsum("tij,tj->ti", self.q[:-1], z), self.q[:-1],
                                    self.q[-1, :n, :n] @ trajectory.states[-1], self.q[-1, :n, :n].copy())

    def roll_out(self, x0, about, policy, steps):
        states, actions = np.empty((len(steps), *about.states.shape)), np.empty((len(steps), *about.actions.shape))
        for s, step in enumerate(steps):
            states[s, 0] = x0
            for t, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
                actions[s, t] = about.actions[t] + step * policy.feedforward[t] + policy.gains[t] @ (states[s, t] - about.states[t])
                states[s, t + 1] = a @ states[s, t] + b @ actions[s, t]
        return Trajectories(steps, states, actions, self.costs(states, actions))

    def costs(self, states, actions):
        z, n = np.concatenate([states[:, :-1], actions], axis=2), self.space.nx
        return 0.5 * (np.einsum("sti,tij,stj->s", z, self.q[:-1], z)
                      + np.einsum("si,ij,sj->s", states[:, -1], self.q[-1, :n, :n], states[:, -1]))


def test_time_varying_linear_quadratic_problems_take_one_iteration():
    horizon, n, m = 15, 4, 2
    problem, x0 = TimeVarying(horizon, n, m), np.ones(n)
    nothing = LocalPolicy.nothing(horizon, n, m)
    start = problem.roll_out(x0, Trajectory(np.zeros((horizon + 1, n)), np.zeros((horizon, m)), math.inf), nothing, np.zeros(1)).one(0)
    solution = ILQRSolver(problem, SolverConfig(), x0, start, nothing).solve()
    value, gains = problem.q[-1, :n, :n], []
    for a, b, q in zip(problem.a[::-1], problem.b[::-1], problem.q[-2::-1], strict=True):
        whole = q + np.hstack([a, b]).T @ value @ np.hstack([a, b])
        gains.insert(0, -np.linalg.solve(whole[n:, n:], whole[n:, :n]))
        value = whole[:n, :n] + whole[n:, :n].T @ gains[0]
    x = x0
    for t in range(horizon):
        np.testing.assert_allclose(solution.trajectory.actions[t], gains[t] @ x, atol=1e-9)
        np.testing.assert_allclose(solution.policy.gains[t], gains[t], atol=1e-9)
        x = problem.a[t] @ x + problem.b[t] @ gains[t] @ x
    assert solution.iterations == 1 and solution.trajectory.cost == pytest.approx(0.5 * x0 @ value @ x0, rel=1e-10)


@pytest.mark.parametrize("at", [0.2, 1.0])
def test_limited_commands_are_those_of_bounded_least_squares(double_integrator, QuadraticCost, lived_cost, at):
    horizon = 10
    moves, offset, rows, right = np.zeros((2, horizon)), X0.numpy(), [], []
    for t in range(horizon):
        rows += [np.sqrt(Q) @ moves, np.sqrt(R) @ np.eye(horizon)[t: t + 1]]
        right += [np.sqrt(Q) @ offset, np.zeros(1)]
        moves, offset = A @ moves + B @ np.eye(horizon)[t: t + 1], A @ offset
    rows.append(np.sqrt(Q_END) @ moves)
    right.append(np.sqrt(Q_END) @ offset)
    best = lsq_linear(np.vstack(rows), -np.concatenate(right), (-at, at), tol=1e-14, method="bvls").x
    found = plan(planner_of(ILQR, double_integrator(), QuadraticCost(), at, feedforward_tolerance=1e-10, cost_tolerance=0.0))
    np.testing.assert_allclose(found.actions.numpy()[:, 0], best, atol=1e-7)
    clamped = found.actions.abs()[:, 0] == at
    assert clamped.any() and not found.gains[clamped].any() and bool(found.gains[~clamped].any()) == (at > 0.2)
    assert found.report.active_limits == (bool(clamped[0]),)


@pytest.mark.parametrize("kind", [ILQR, FDDP])
@pytest.mark.parametrize("start", ["still", "random"])
def test_the_car_is_parked(kind, start):
    planner = planner_of(kind, car(), ParkingCost(), command=car_box(), horizon=500, iterations=300)
    found = plan(planner, CAR_START, initial_actions=car_starts()[start])
    assert found.cost <= 1.906 and found.status is PlanStatus.CONVERGED
    assert found.actions[:, 0].abs().max() == 0.5 and found.actions[:, 1].abs().max() <= 2.0  # exactly
    x, cost = torch.tensor(CAR_START, dtype=torch.float64), 0.0
    for u in found.actions:
        cost, x = cost + float(ParkingCost().running(x, u)), car().step(x, u)
    assert found.cost == pytest.approx(cost + float(ParkingCost().terminal(x)), rel=1e-10)


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_rotations_are_turned_back(kind):
    found = plan(body(kind), TURNED)
    assert found.status is PlanStatus.CONVERGED and found.report.iterations < 40
    assert found.gains.shape == (25, 3, 6) and found.states.shape == (26, 7)
    assert float(turned_away(found.states[-1])) < 0.02 < float(turned_away(TURNED))
    torch.testing.assert_close(found.states[1:], tumble(found.states[:-1], found.actions))  # no gap is left
    assert found.actions.abs().max() <= 1.5


def test_gains_correct_a_disturbance():
    found = plan(body(), TURNED)
    pushed = BODY.integrate(TURNED, torch.tensor([0.2, -0.1, 0.1, 0.1, 0.1, -0.2], dtype=torch.float64))

    def cost(gains: torch.Tensor) -> float:
        x, total = pushed, 0.0
        for t in range(25):
            u = (found.actions[t] + gains[t] @ BODY.difference(found.states[t], x)).clamp(-1.5, 1.5)
            total, x = total + 0.01 * float(turned_away(x) + u.square().sum()), tumble(x, u)
        return total + 20 * float(turned_away(x))

    again = plan(body(), pushed)
    assert cost(found.gains) < 0.5 * cost(torch.zeros_like(found.gains))
    assert again.cost <= cost(found.gains) * (1 + 1e-6)


def test_costs_only_fall():
    costs = [plan(body(iterations=n), TURNED).cost for n in (1, 2, 3, 5, 8)]
    assert all(later < earlier for earlier, later in pairwise(costs))


def test_concave_costs_are_solved_at_the_limits():
    found = plan(scalar(lambda x, u: -u[..., 0] ** 2), np.zeros(1), initial_actions=torch.tensor([[0.1], [-0.1], [0.2]]))
    assert found.actions[:, 0].tolist() == [1.0, -1.0, 1.0] and found.cost == -3.0


def test_commands_that_do_nothing_are_left_alone():
    found = plan(scalar(lambda x, u: x[..., 0] ** 2, lambda x, u: 0.9 * x), np.ones(1))
    assert found.status is PlanStatus.CONVERGED and not found.actions.any() and not found.gains.any()


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_what_cannot_be_controlled_is_charged_and_the_rest_controlled(kind):
    """x0 runs away whatever is done; x1 is brought to rest as if it were alone."""
    def step(x, u):
        return torch.stack([1.3 * x[..., 0], x[..., 1] + u[..., 0]], dim=-1)

    cost = Weights(lambda x, u: x.square().sum(-1) + u.square().sum(-1), lambda x: x.square().sum(-1))
    alone = plan(planner_of(kind, Torch(plain(1), 1, lambda x, u: x + u), cost), np.array([0.7]))
    found = plan(planner_of(kind, Torch(plain(2), 1, step), cost), np.array([0.5, 0.7]))
    assert found.status is PlanStatus.CONVERGED and found.report.iterations <= 2
    torch.testing.assert_close(found.actions, alone.actions, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.gains[:, :, 1:], alone.gains, atol=1e-9, rtol=0)
    assert found.cost == pytest.approx(alone.cost + sum(0.25 * 1.69**t for t in range(11)))
    lost = plan(planner_of(kind, Torch(plain(1), 1, lambda x, u: x.square() ** 8), cost, horizon=60), np.array([30.0]))
    assert lost.status is PlanStatus.NO_FINITE_COST and lost.actions is None and lost.gains is None


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_costs_that_fall_for_ever_with_the_state_end_at_the_limits(kind):
    """V_xx is negative: Q_uu is indefinite until it is regularised, and the best is to run away as fast as may be."""
    cost = Weights(lambda x, u: 0.1 * u.square().sum(-1), lambda x: -x.square().sum(-1))
    found = plan(planner_of(kind, Torch(plain(1), 1, lambda x, u: x + u), cost, 1.0, horizon=4), np.array([0.1]))
    assert found.actions[:, 0].tolist() == [1.0] * 4 and found.cost == pytest.approx(0.4 - 4.1**2)
