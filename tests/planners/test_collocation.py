"""Collocation in continuous time finds closed forms, at its order, and says so when there is nothing to find."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest

from planners.collocation import METHODS, CollocationConfig, ContinuousDynamics, ContinuousProblem, drive, solve_collocation
from planners.ipopt import SolverStatus
from robots.errors import ConfigurationError, MissingExtraError, ShapeError, UnknownNameError

pytest.importorskip("casadi")
FREE = (np.full(2, -np.inf), np.full(2, np.inf))


class DoubleIntegrator:
    """Pays its effort, u^2 a second."""

    nx, nu = 2, 1
    effort = 1.0

    def derivative(self, x, u):
        return [x[1], u[0]]

    def running(self, x, u):
        return self.effort * u[0] ** 2

    def terminal(self, x):
        return 0.0


class Hasty(DoubleIntegrator):
    effort = 0.0


class Pendulum(DoubleIntegrator):
    def derivative(self, x, u):
        return [x[1], -9.81 * np.sin(x[0]) - 0.1 * x[1] + u[0]]


class Regulator(DoubleIntegrator):
    """x'x + u^2 a second, for a system that runs away by itself."""

    def derivative(self, x, u):
        return [x[1], 0.5 * x[0] + u[0]]

    def running(self, x, u):
        return x[0] ** 2 + x[1] ** 2 + u[0] ** 2


def problem(dynamics, duration, goal=(1.0, 0.0), start=(0.0, 0.0), limit=np.inf, x_min=FREE[0], x_max=FREE[1], **more):
    return ContinuousProblem(dynamics, start, duration, x_min, x_max, [-limit], [limit], goal, **more)


def test_least_effort_is_the_cubic_of_the_closed_form():
    """From rest to rest over a distance of 1 in T: u = 6/T^2 - 12 t/T^3, which costs 12/T^3; Hermite-Simpson is exact for it."""
    result = solve_collocation(problem(DoubleIntegrator(), (2.0, 2.0)), CollocationConfig("hermite-simpson", 10))
    assert result.status is SolverStatus.SOLVED and result.cost == pytest.approx(1.5, rel=1e-7) and result.defect < 1e-9
    t = result.times
    np.testing.assert_allclose(result.actions[:, 0], 1.5 - 1.5 * t, atol=1e-6)
    np.testing.assert_allclose(result.midway[:, 0], 1.5 - 1.5 * (t[:-1] + 0.1), atol=1e-6)
    np.testing.assert_allclose(result.states[:, 0], 3 * (t / 2) ** 2 - 2 * (t / 2) ** 3, atol=1e-6)
    errors = [solve_collocation(problem(DoubleIntegrator(), (2.0, 2.0)), CollocationConfig("trapezoidal", n)).cost / 1.5 - 1
              for n in (10, 20)]
    assert 0 < errors[1] < errors[0] < 0.05 and errors[0] / errors[1] == pytest.approx(4, rel=0.1)  # second order


@pytest.mark.parametrize("method", METHODS)
def test_least_time_is_that_of_full_thrust_and_full_brake(method):
    """From rest to rest over a distance of 1 with |u| <= 1: T = 2; the change falls on a knot, so that both transcriptions can do it."""
    result = solve_collocation(problem(Hasty(), (0.1, 10.0), limit=1.0, time_weight=1.0), CollocationConfig(method, 40))
    assert result.status is SolverStatus.SOLVED and result.times[-1] == pytest.approx(2.0, rel=1e-3)
    assert np.abs(result.actions).max() <= 1.0 and np.abs(result.midway).max() <= 1.0
    assert (result.actions[:18] > 0.999).all() and (result.actions[-18:] < -0.999).all()
    np.testing.assert_allclose(result.states[-1], [1.0, 0.0], atol=2e-3)


def test_a_long_linear_quadratic_problem_pays_what_the_riccati_equation_says():
    """x0' P x0 with P of the continuous algebraic Riccati equation, where the end is too far off to matter."""
    from scipy.linalg import solve_continuous_are
    value = solve_continuous_are(np.array([[0, 1], [0.5, 0]]), np.array([[0.0], [1.0]]), np.eye(2), np.eye(1))
    start = np.array([0.7, -0.3])
    result = solve_collocation(problem(Regulator(), (12.0, 12.0), goal=None, start=start), CollocationConfig("hermite-simpson", 80))
    assert result.cost == pytest.approx(start @ value @ start, rel=1e-4)
    gain = np.linalg.solve(np.eye(1), np.array([[0.0, 1.0]]) @ value)
    np.testing.assert_allclose(result.actions[:20], -result.states[:20] @ gain.T, atol=2e-3)


@pytest.mark.parametrize(("method", "order"), [("trapezoidal", 2), ("hermite-simpson", 4)])
def test_the_reported_defect_falls_with_the_order_of_the_method(method, order):
    """A pendulum swung up: one solution, transcribed ever more finely, and driven through the true dynamics."""
    swing = problem(Pendulum(), (1.5, 1.5), goal=(np.pi, 0.0), limit=30.0)
    defects = [solve_collocation(swing, CollocationConfig(method, n)).defect for n in (20, 40, 80)]
    assert defects[2] < {2: 0.02, 4: 1e-4}[order]
    assert all(coarse / fine > 0.7 * 2**order for coarse, fine in pairwise(defects))


def test_states_are_where_the_commands_lead_not_where_ipopt_would_have_them():
    swing = problem(Pendulum(), (1.5, 1.5), goal=(np.pi, 0.0), limit=30.0)
    result = solve_collocation(swing, CollocationConfig("trapezoidal", 10))
    assert result.defect > 1e-3 and np.abs(result.states[-1] - [np.pi, 0.0]).max() == pytest.approx(result.defect, rel=0.9)
    again = drive(Pendulum(), np.zeros(2), result.actions, result.midway, 1.5)
    assert (again == result.states).all()


def test_bounds_on_states_hold_and_cost_something():
    free = solve_collocation(problem(DoubleIntegrator(), (2.0, 2.0)), CollocationConfig(intervals=20))
    slow = solve_collocation(problem(DoubleIntegrator(), (2.0, 2.0), x_max=[np.inf, 0.6]), CollocationConfig(intervals=20))
    assert free.states[:, 1].max() > 0.74 and slow.states[:, 1].max() <= 0.6 + 1e-6 and slow.cost > 1.01 * free.cost


def test_what_is_not_solved_is_no_plan():
    short = problem(Hasty(), (0.1, 1.9), limit=1.0, time_weight=1.0)
    swing = problem(Pendulum(), (1.5, 1.5), goal=(np.pi, 0.0), limit=30.0)

    class Broken(DoubleIntegrator):
        def derivative(self, x, u):
            return [x[1], np.sqrt(-1 - x[0] ** 2) + u[0]]

    for question, config, status in ((short, CollocationConfig(), SolverStatus.INFEASIBLE),
                                     (swing, CollocationConfig(iterations=2), SolverStatus.ITERATION_LIMIT),
                                     (swing, CollocationConfig(seconds=1e-9), SolverStatus.TIME_LIMIT),
                                     (problem(Broken(), (1.0, 1.0)), CollocationConfig(), SolverStatus.NOT_FINITE)):
        result = solve_collocation(question, config)
        assert result.status is status and result.message
        assert result.actions is None and result.states is None and result.cost == np.inf and result.defect == np.inf


def test_one_problem_has_one_answer():
    swing = problem(Pendulum(), (1.5, 1.5), goal=(np.pi, 0.0), limit=30.0)
    first, second = (solve_collocation(swing, CollocationConfig(intervals=20)) for _ in range(2))
    assert first.actions.tobytes() == second.actions.tobytes() and first.cost == second.cost


def test_bad_problems_are_refused(monkeypatch):
    assert isinstance(DoubleIntegrator(), ContinuousDynamics)
    for change in ({"duration": (0.0, 1.0)}, {"duration": (2.0, 1.0)}, {"duration": (1.0, np.inf)},
                   {"start": (2.0, 0.0), "x_max": [1.0, 1.0]}, {"goal": (2.0, 0.0), "x_max": [1.0, 1.0]},
                   {"x_min": [1.0, 0.0], "x_max": [0.0, 1.0]}, {"limit": -1.0},
                   {"goal": (np.inf, 0.0)}):
        with pytest.raises(ConfigurationError):
            problem(DoubleIntegrator(), **({"duration": (1.0, 1.0)} | change))
    with pytest.raises(ShapeError, match="start"):
        problem(DoubleIntegrator(), (1.0, 1.0), start=(0.0, 0.0, 0.0))
    with pytest.raises(UnknownNameError, match="hermite-simpson"):
        CollocationConfig("hermite")
    for change in ({"intervals": 0}, {"iterations": 0}, {"seconds": 0.0}, {"tolerance": -1.0}):
        with pytest.raises(ConfigurationError):
            CollocationConfig(**change)

    class Short(DoubleIntegrator):
        def derivative(self, x, u):
            return [x[1]]

    with pytest.raises(ConfigurationError, match="derivative of 2"):
        solve_collocation(problem(Short(), (1.0, 1.0)))
    monkeypatch.setitem(sys.modules, "casadi", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'reflexarc\[collocation\]'"):
        solve_collocation(problem(DoubleIntegrator(), (1.0, 1.0)))
