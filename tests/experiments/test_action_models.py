"""Crocoddyl's action models, restated: their flows are integrated as their names say, and linear-quadratic problems take one iteration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from experiments.bench.action_models import LinearQuadratic, described_problems, problem_of
from experiments.bench.ilqr_crocoddyl import CONFIG
from planners.ilqr_solver import ILQRSolver
from planners.linear_quadratic import LocalPolicy

DESCRIBED = {described["kind"]: described for described in described_problems()}


def exact(described: dict, x: np.ndarray, u: np.ndarray, dt: float) -> np.ndarray:
    """Return where the flow leads in dt with the command held."""
    half, a, b, f = len(x) // 2, *(np.array(described[key]) for key in "abf")
    flow = np.zeros((len(x) + 1, len(x) + 1))
    flow[:half, half:-1], flow[half:-1, :-1], flow[half:-1, -1] = np.eye(half), a, b @ u + f
    return (expm(dt * flow) @ np.append(x, 1.0))[:-1]


@pytest.mark.parametrize(("kind", "order"), [("euler", 1), ("rk4", 4)])
def test_integrators_have_their_order(kind, order):
    x, u = np.random.default_rng(0).normal(size=8), np.random.default_rng(1).normal(size=3)
    errors = [np.abs(LinearQuadratic(DESCRIBED[kind] | {"dt": dt}).step(torch.tensor(x), torch.tensor(u)).numpy()
                     - exact(DESCRIBED[kind], x, u, dt)).max() for dt in (0.2, 0.1)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.3)  # of one period


def test_the_semi_implicit_step_moves_the_position_by_the_new_velocity():
    x, u = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    reached = LinearQuadratic(DESCRIBED["euler"]).step(x, u)
    torch.testing.assert_close(reached[:, :4], x[:, :4] + DESCRIBED["euler"]["dt"] * reached[:, 4:])


@pytest.mark.parametrize("kind", ["lqr", "euler"])
def test_linear_quadratic_models_take_one_iteration(kind):
    described = DESCRIBED[kind] | {"horizon": 10}
    problem, x0 = problem_of(described), np.array(described["x0"])
    nothing = LocalPolicy.nothing(10, problem.space.ndx, problem.nu)
    start = problem.play(x0, np.zeros((10, problem.nu)))
    one, more = (ILQRSolver(problem, replace(CONFIG, iterations=n, compile_for_size=False), x0, start, nothing).solve() for n in (1, 20))
    assert one.trajectory.cost < start.cost and one.trajectory.cost == pytest.approx(more.trajectory.cost, rel=1e-9)
