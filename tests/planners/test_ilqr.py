"""iLQR and FDDP: known optima, limits, gains, starts, and every way to fail."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, StateSpace, quaternion_exp, quaternion_multiply
from experiments.bench.control_problems import CAR_START, ParkingCost, car, car_box, car_starts
from planners.catalog import make_planner, planner_config_type
from planners.cost import Cost
from planners.ilqr import FDDP, ILQR, ILQRConfig
from planners.ilqr_solver import ILQRSolver, SolverConfig
from planners.linear_quadratic import LinearQuadraticModel, LocalPolicy
from planners.plan import Plan, PlanMemory, PlanStatus
from planners.planner import Planner
from planners.trajectory_problem import Trajectories, Trajectory, TrajectoryProblem
from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError, NonFiniteError, ShapeError

DT = 0.1
A, B = np.array([[1.0, DT], [0.0, 1.0]]), np.array([[0.5 * DT**2], [DT]])
Q, R, Q_END = np.diag([1.0, 0.1]), np.diag([0.01]), np.diag([10.0, 2.0])
X0 = torch.tensor([0.5, -0.2], dtype=torch.float64)


def box(nu: int, at: float) -> CommandSpec:
    return CommandSpec(CommandMode.ACTUATOR, tuple(f"u{i}" for i in range(nu)), np.full(nu, -at), np.full(nu, at), "1")


def planner_of(kind: type[ILQR], model, cost: Cost, at: float = 100.0, command: CommandSpec | None = None, **config) -> ILQR:
    evaluator = SimpleNamespace(model=model, cost=cost, dtype=torch.float64)
    return kind(evaluator, command or box(model.nu, at), DT, ILQRConfig(**({"horizon": 10} | config)))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plan(planner: ILQR, x0=X0, previous: Plan | None = None, **options) -> Plan:
    return planner.plan(torch.as_tensor(x0, dtype=None if isinstance(x0, torch.Tensor) else torch.float64), previous, seeded(), **options)


class Torch:
    """A model of one torch function."""

    def __init__(self, space: StateSpace, nu: int, step) -> None:
        self.state_space, self.nu, self._step = space, nu, step

    def step(self, x, u, generator=None):
        return self._step(x, u)


class Weights(Cost):
    """Terms of a running and a terminal cost by functions."""

    def __init__(self, running, terminal) -> None:
        self._running, self._terminal = running, terminal

    def terms(self, x, u):
        return {"running": self._running(x, u)}

    def terminal(self, x):
        return self._terminal(x)


def plain(n: int) -> StateSpace:
    return StateSpace([Channel("q", tuple(f"x{i}" for i in range(n)), tuple(range(n)))])


def riccati() -> list[np.ndarray]:
    value, gains = Q_END, []
    for _ in range(10):
        gains.append(-np.linalg.solve(R + B.T @ value @ B, B.T @ value @ A))
        value = Q + A.T @ value @ (A + B @ gains[-1])
    return gains[::-1]


# Known optima ---------------------------------------------------------------------------------------------------------------------

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
        self.space, self.nu = plain(n), m

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


# A body that turns: nx = 7, ndx = 6 ---------------------------------------------------------------------------------------------

BODY = StateSpace([Channel("q", ("w", "x", "y", "z"), (0, 1, 2, 3), "quaternion"), Channel("dq", ("p", "q", "r"), (0, 1, 2))])
INERTIA = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)
UPRIGHT = torch.tensor([1.0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
TURNED = torch.cat([quaternion_exp(torch.tensor([1.5, -1.0, 0.8], dtype=torch.float64)), torch.zeros(3, dtype=torch.float64)])


def _tumble(x, u):
    spin = x[..., 4:] + DT * (u - torch.linalg.cross(x[..., 4:], INERTIA * x[..., 4:], dim=-1)) / INERTIA
    return torch.cat([quaternion_multiply(x[..., :4], quaternion_exp(DT * spin)), spin], dim=-1)


def _turned_away(x):
    return BODY.difference(UPRIGHT, x).square().sum(-1)


def body(kind: type[ILQR] = ILQR, **config) -> ILQR:
    cost = Weights(lambda x, u: 0.01 * _turned_away(x) + 0.01 * u.square().sum(-1), lambda x: 20 * _turned_away(x))
    return planner_of(kind, Torch(BODY, 3, _tumble), cost, 1.5, **({"horizon": 25} | config))


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_rotations_are_turned_back(kind):
    found = plan(body(kind), TURNED)
    assert found.status is PlanStatus.CONVERGED and found.report.iterations < 40
    assert found.gains.shape == (25, 3, 6) and found.states.shape == (26, 7)
    assert float(_turned_away(found.states[-1])) < 0.02 < float(_turned_away(TURNED))
    torch.testing.assert_close(found.states[1:], _tumble(found.states[:-1], found.actions))  # no gap is left
    assert found.actions.abs().max() <= 1.5


def test_gains_correct_a_disturbance():
    found = plan(body(), TURNED)
    pushed = BODY.integrate(TURNED, torch.tensor([0.2, -0.1, 0.1, 0.1, 0.1, -0.2], dtype=torch.float64))

    def cost(gains: torch.Tensor) -> float:
        x, total = pushed, 0.0
        for t in range(25):
            u = (found.actions[t] + gains[t] @ BODY.difference(found.states[t], x)).clamp(-1.5, 1.5)
            total, x = total + 0.01 * float(_turned_away(x) + u.square().sum()), _tumble(x, u)
        return total + 20 * float(_turned_away(x))

    again = plan(body(), pushed)
    assert cost(found.gains) < 0.5 * cost(torch.zeros_like(found.gains))
    assert again.cost <= cost(found.gains) * (1 + 1e-6)


def test_costs_only_fall():
    costs = [plan(body(iterations=n), TURNED).cost for n in (1, 2, 3, 5, 8)]
    assert all(later < earlier for earlier, later in pairwise(costs))


@pytest.mark.parametrize("config", [{"regularise": "state"}, {"all_steps_at_once": False}, {"step_lengths": 1}, {"improvement_min": 0.1}])
def test_every_way_to_search_ends_at_the_same_cost(config):
    assert plan(body(**config), TURNED).cost == pytest.approx(plan(body(), TURNED).cost, rel=1e-5)


# Starts ------------------------------------------------------------------------------------------------------------------------

def test_a_warm_start_from_a_disturbed_state_beats_a_cold_one():
    before = plan(body(), TURNED)
    pushed = BODY.integrate(before.states[1], torch.full((6,), 0.1, dtype=torch.float64))
    warm, cold = (plan(body(iterations=1), pushed, previous) for previous in (before, None))
    assert warm.cost < 0.95 * cold.cost and warm.report.iterations == cold.report.iterations == 1
    assert warm.cost <= 1.05 * plan(body(), pushed).cost


def test_the_old_feedback_is_played_from_the_measured_state_before_anything_else():
    """With no time at all the plan is at least as good as the shifted actions with, and without, their feedback."""
    before = plan(body(iterations=3), TURNED)
    pushed = BODY.integrate(before.states[1], torch.full((6,), 0.1, dtype=torch.float64))
    planner = body(iterations=1, step_lengths=1, improvement_min=0.99)
    assert before.memory.feedforward.shape == before.actions.shape
    shifted = torch.cat([before.actions[1:], before.actions[-1:]])
    blind = planner.problem.play(pushed.numpy(), shifted.numpy()).cost
    x, u_all = pushed, []
    for t in range(25):
        gains = before.gains[t + 1] if t < 24 else torch.zeros(3, 6, dtype=torch.float64)
        about = before.states[t + 1]
        u_all.append((shifted[t] + gains @ BODY.difference(about, x)).clamp(-1.5, 1.5))
        x = _tumble(x, u_all[-1])
    seeing = planner.problem.play(pushed.numpy(), torch.stack(u_all).numpy()).cost
    started, policy, rollouts = planner._start(pushed.numpy(), before, None, None)
    assert seeing < blind and started.cost <= seeing * (1 + 1e-12) and rollouts > 1
    np.testing.assert_allclose(policy.gains[:-1], before.gains[1:].numpy())


def test_plans_of_other_planners_and_older_ones_are_a_start_too():
    before = plan(body(), TURNED)
    old = replace(before, states=None, memory=PlanMemory(before.memory.mean))  # as RecedingHorizonPolicy hands on an older plan
    foreign = replace(old, gains=None)
    for previous in (old, foreign):
        assert plan(body(iterations=1), before.states[1], previous).cost < plan(body(iterations=1), before.states[1]).cost


def test_infeasible_starts_reach_the_same_cost():
    expected = plan(body(feedforward_tolerance=1e-8, cost_tolerance=1e-12), TURNED).cost
    line = torch.stack([BODY.integrate(TURNED, s * BODY.difference(TURNED, UPRIGHT)) for s in torch.linspace(0, 1, 26)])
    noise = torch.randn(26, 6, generator=seeded(), dtype=torch.float64)
    for states in (line, BODY.integrate(line, 0.3 * noise), None):
        found = plan(body(FDDP, feedforward_tolerance=1e-8, cost_tolerance=1e-12), TURNED, initial_states=states)
        assert found.cost == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(found.states[1:], _tumble(found.states[:-1], found.actions))
        assert torch.equal(found.states[0], TURNED)


@pytest.mark.parametrize("iterations", [1, 2])
def test_plans_that_still_had_gaps_are_played_before_they_are_returned(iterations):
    states = BODY.integrate(TURNED.expand(26, 7), torch.randn(26, 6, generator=seeded(), dtype=torch.float64))
    found = plan(body(FDDP, iterations=iterations, step_lengths=2, step_min=0.1, improvement_min=0.9), TURNED, initial_states=states)
    torch.testing.assert_close(found.states[1:], _tumble(found.states[:-1], found.actions))
    assert found.cost == pytest.approx(body().problem.play(TURNED.numpy(), found.actions.numpy()).cost)


def test_fddp_plans_where_the_first_rollout_runs_away():
    model = Torch(plain(1), 1, lambda x, u: x + 0.5 * (x**3 + u))
    cost = Weights(lambda x, u: x[..., 0] ** 2 + 1e-3 * u[..., 0] ** 2, lambda x: 10 * x[..., 0] ** 2)
    away = plan(planner_of(ILQR, model, cost, horizon=12), np.array([2.0]))
    assert away.status is PlanStatus.NO_FINITE_COST and away.actions is None
    found = plan(planner_of(FDDP, model, cost, horizon=12), np.array([2.0]))
    assert found.status is PlanStatus.CONVERGED and abs(float(found.states[-1])) < 0.1


# Failures ----------------------------------------------------------------------------------------------------------------------

def scalar(running, step=lambda x, u: x + u, **config) -> ILQR:
    return planner_of(ILQR, Torch(plain(1), 1, step), Weights(running, lambda x: 0.0 * x[..., 0]), 1.0, **({"horizon": 3} | config))


def test_concave_costs_are_solved_at_the_limits():
    found = plan(scalar(lambda x, u: -u[..., 0] ** 2), np.zeros(1), initial_actions=torch.tensor([[0.1], [-0.1], [0.2]]))
    assert found.actions[:, 0].tolist() == [1.0, -1.0, 1.0] and found.cost == -3.0


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


def test_steps_that_run_away_are_not_taken():
    model = Torch(plain(1), 1, lambda x, u: torch.where(u.abs() > 0.5, math.nan, x + u))
    found = plan(planner_of(ILQR, model, Weights(lambda x, u: 0 * x[..., 0], lambda x: (x[..., 0] - 9) ** 2), horizon=4), np.zeros(1))
    assert found.report.nonfinite > 0 and found.actions.abs().max() <= 0.5 and found.cost < 81


def test_commands_that_do_nothing_are_left_alone():
    found = plan(scalar(lambda x, u: x[..., 0] ** 2, lambda x, u: 0.9 * x), np.ones(1))
    assert found.status is PlanStatus.CONVERGED and not found.actions.any() and not found.gains.any()


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
    ticks = itertools.count()
    monkeypatch.setattr("planners.ilqr_solver.time", SimpleNamespace(perf_counter=lambda: next(ticks)))  # 1 s between any two looks
    problem, nothing = body().problem, LocalPolicy.nothing(25, 6, 3)
    start = problem.play(TURNED.numpy(), np.zeros((25, 3)))
    for seconds, iterations in ((3, 3), (0, 0), (-1, 0)):  # a round a second; none of them is cut off
        ticks = itertools.count()
        solution = ILQRSolver(problem, SolverConfig(), TURNED.numpy(), start, nothing).solve(seconds)
        assert solution.status is PlanStatus.DEADLINE and solution.iterations == iterations
        assert solution.trajectory.cost < start.cost if iterations else solution.trajectory is start


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_impossible_deadlines_return_the_start(kind):
    for deadline in (0.0, -1.0, -math.inf):
        found = plan(body(kind), TURNED, deadline=deadline)
        assert found.status is PlanStatus.DEADLINE and found.report.iterations == 0 and not found.actions.any()
        assert found.cost == pytest.approx(body().problem.play(TURNED.numpy(), np.zeros((25, 3))).cost)
    with pytest.raises(ConfigurationError, match=r"deadline.*nan"):
        plan(body(kind), TURNED, deadline=math.nan)


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


def test_steps_are_tried_one_after_the_other_where_rollouts_are_not_parallel():
    together, alone = (plan(body(all_steps_at_once=on, iterations=1), TURNED) for on in (True, False))
    assert together.report.samples == 1 + 11 and alone.report.samples < 1 + 11


# What every planner promises ---------------------------------------------------------------------------------------------------

def same_plan(a: Plan, b: Plan) -> bool:
    return a.cost == b.cost and all(torch.equal(x, y) for x, y in (
        (a.actions, b.actions), (a.states, b.states), (a.gains, b.gains), (a.memory.mean, b.memory.mean),
        (a.memory.feedforward, b.memory.feedforward)))


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_one_start_gives_one_plan_at_any_thread_count(kind):
    before, plans = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            first = plan(body(kind, iterations=4), TURNED)
            plans.append((first, plan(body(kind, iterations=2), first.states[1], first)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(same_plan(a, b) for a, b in zip(*plans, strict=True))


def test_models_are_asked_on_one_thread():
    before, seen = torch.get_num_threads(), set()

    def step(x, u):
        seen.add(torch.get_num_threads())
        return x + u

    try:
        torch.set_num_threads(2)
        plan(scalar(lambda x, u: x[..., 0] ** 2 + u[..., 0] ** 2, step), np.ones(1))
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_learned_ensembles_are_followed_as_they_are_at_the_call():
    config = EnsembleConfig(members=2, hidden=(8,), weight_decay=(0.0,))
    ensemble, other = (NeuralEnsemble(plain(2), 1, DT, config, seed) for seed in (0, 1))
    cost = Weights(lambda x, u: (x - 1.0).square().sum(-1) + 1e-3 * u.square().sum(-1), lambda x: (x - 1.0).square().sum(-1))
    planner = planner_of(ILQR, ensemble, cost, 2.0)
    first = plan(planner)
    assert first.cost < planner.problem.play(X0.numpy(), np.zeros((10, 1))).cost
    torch.testing.assert_close(first.states[1:], ensemble.step(first.states[:-1], first.actions).detach(), atol=1e-5, rtol=0)
    ensemble.load_tensors(other.tensors())
    after = plan(planner)
    torch.testing.assert_close(after.states[1:], other.step(after.states[:-1], after.actions).detach(), atol=1e-5, rtol=0)
    assert not torch.allclose(after.states, first.states, atol=1e-3)


@pytest.mark.parametrize("name", ["ilqr", "fddp"])
def test_they_are_planners_by_name(name, double_integrator, QuadraticCost):
    evaluator = SimpleNamespace(model=double_integrator(), cost=QuadraticCost(), dtype=torch.float64)
    assert planner_config_type(name) is ILQRConfig
    planner = make_planner(name, evaluator, box(1, 3.0), DT, ILQRConfig(horizon=10))
    assert isinstance(planner, Planner) and planner.horizon == 10
    first = planner.plan(X0.float(), None, seeded())
    assert first.actions.shape == (10, 1) and first.states.shape == (11, 2) and first.gains.shape == (10, 1, 2)
    assert first.actions.dtype == torch.float64 and not first.actions.requires_grad and torch.equal(first.states[0], X0.float().double())
    assert set(first.report.cost_by_term) == {"state", "effort", "terminal"} and first.report.seconds > 0
    actions, feedforward = first.actions.clone(), first.memory.feedforward.clone()
    planner.plan(-X0, first, seeded())
    assert torch.equal(first.actions, actions) and torch.equal(first.memory.feedforward, feedforward), "a plan is left as it was"
    assert same_plan(planner.plan(X0.float(), None, seeded()), first), "nothing is hidden in the planner"


def test_bad_input_is_refused(double_integrator, QuadraticCost):
    planner = planner_of(ILQR, double_integrator(), QuadraticCost())
    for wrong in (torch.zeros(3), torch.zeros(1, 2)):
        with pytest.raises(ShapeError, match="x0"):
            plan(planner, wrong)
    with pytest.raises(NonFiniteError, match="x0"):
        plan(planner, torch.tensor([math.nan, 0.0]))
    with pytest.raises(ShapeError, match="previous"):
        plan(planner, previous=plan(planner_of(ILQR, double_integrator(), QuadraticCost(), horizon=7)))
    with pytest.raises(ShapeError, match="initial_actions"):
        plan(planner, initial_actions=torch.zeros(9, 1))
    with pytest.raises(ConfigurationError, match="fddp"):
        plan(planner, initial_states=torch.zeros(11, 2))
    with pytest.raises(ShapeError, match="initial_states"):
        plan(planner_of(FDDP, double_integrator(), QuadraticCost()), initial_states=torch.zeros(10, 2))
    with pytest.raises(ConfigurationError, match="survival"):
        planner_of(ILQR, double_integrator(), QuadraticCost(survives=0.9))


@pytest.mark.parametrize("change", [
    {"horizon": 0}, {"iterations": 0}, {"regularise": "both"}, {"regularisation_factor": 1.0}, {"regularisation_min": 0.0},
    {"regularisation_max": 1e-7}, {"step_lengths": 0}, {"step_min": 1.0}, {"improvement_min": 1.0}, {"ascent_max": 0.5},
    {"feedforward_tolerance": -1.0}, {"cost_tolerance": math.nan}])
def test_bad_configurations_are_refused(change):
    with pytest.raises(ConfigurationError, match=next(iter(change)).split("_m")[0]):
        ILQRConfig(**change)
