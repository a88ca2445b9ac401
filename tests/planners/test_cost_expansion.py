"""Derivatives of costs on the tangent are finite differences, and closed forms are what torch finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynamics.state_space import Channel, StateSpace
from experiments.bench.control_problems import CAR_START, ParkingCost, UnicycleCost, car, unicycle
from planners.cost import Cost, ZeroCost
from planners.cost_expansion import CostExpansion, ExpandableCost, expand_cost

ROTATIONS = StateSpace([Channel("q", ("z",), (0,)), Channel("q", ("w", "x", "y", "k"), (1, 2, 3, 4), "quaternion"),
                        Channel("q", ("a",), (5,), "angle")])


class PoseCost(Cost):
    """Smooth in everything, bent by everything, with x and u in one term."""

    def __init__(self, goal: torch.Tensor) -> None:
        self.goal = goal

    def terms(self, x, u):
        away = ROTATIONS.difference(self.goal, x)
        return {"pose": (1 + away.square() @ torch.arange(1.0, 6.0, dtype=x.dtype)).sqrt(), "both": torch.sin(u).sum(-1) * x[..., 0],
                "entries": x[..., 1] * x[..., 2] + 3 * x[..., 4]}

    def terminal(self, x):
        return ROTATIONS.difference(self.goal, x).square().sum(-1)


def poses(n: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 1:5] = torch.nn.functional.normalize(x[:, 1:5], dim=-1)
    return x


def assert_derivatives(cost: Cost, space: StateSpace, x: torch.Tensor, u: torch.Tensor) -> None:
    expansion, n, width = expand_cost(cost, space, x.numpy(), u.numpy()), space.ndx, 1e-4

    def running(change: torch.Tensor) -> np.ndarray:
        return cost.running(space.integrate(x[:-1], change[:n].expand(len(u), -1)), u + change[n:]).numpy()

    directions = width * torch.eye(n + u.shape[1], dtype=torch.float64)
    for i, d in enumerate(directions):
        np.testing.assert_allclose(expansion.gradient[:, i], (running(d) - running(-d)) / (2 * width), atol=1e-6)
        for j, e in enumerate(directions):
            second = (running(d + e) - running(d - e) - running(e - d) + running(-d - e)) / (4 * width**2)
            np.testing.assert_allclose(expansion.hessian[:, i, j], second, atol=1e-5)


def test_derivatives_are_finite_differences_on_a_space_with_rotations():
    assert_derivatives(PoseCost(poses(1, seed=3)[0]), ROTATIONS, poses(4), torch.randn(3, 2, dtype=torch.float64))


def test_derivatives_are_right_at_the_goal_itself():
    x = poses(2)
    x[1] = x[0]
    expansion = expand_cost(PoseCost(x[0]), ROTATIONS, x.numpy(), np.zeros((1, 2)))
    np.testing.assert_allclose(expansion.end_hessian, 2 * np.eye(5), atol=1e-12)
    np.testing.assert_allclose(expansion.end_gradient, 0.0, atol=1e-12)


def test_blocks_are_named():
    expansion = expand_cost(PoseCost(poses(1, seed=3)[0]), ROTATIONS, poses(4).numpy(), np.ones((3, 2)))
    assert expansion.lx.shape == (3, 5) and expansion.lu.shape == (3, 2)
    assert expansion.lxx.shape == (3, 5, 5) and expansion.lux.shape == (3, 2, 5) and expansion.luu.shape == (3, 2, 2)
    np.testing.assert_allclose(expansion.luu[:, 0, 0], -math.sin(1.0) * poses(4)[:3, 0].numpy())
    np.testing.assert_allclose(expansion.lux[:, :, 0], math.cos(1.0))  # across d sin(u) z / (du dz); `pose` does not see u


def same(a: CostExpansion, b: CostExpansion) -> None:
    for name in ("gradient", "hessian", "end_gradient", "end_hessian"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-10)


@pytest.mark.parametrize(("cost", "space"), [(ParkingCost(), car().state_space), (UnicycleCost(), unicycle().state_space)])
def test_closed_forms_are_what_torch_finds(cost, space):
    class ByTorch(Cost):
        terms, terminal = staticmethod(cost.terms), staticmethod(cost.terminal)

    assert isinstance(cost, ExpandableCost) and not isinstance(ByTorch(), ExpandableCost)
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(9, space.nx)), rng.normal(size=(8, 2))
    states[3] = 0.0
    same(expand_cost(cost, space, states, actions), expand_cost(ByTorch(), space, states, actions))
    if hasattr(cost, "totals"):
        x, u = torch.as_tensor(states), torch.as_tensor(actions)
        assert cost.totals(states[None], actions[None])[0] == pytest.approx(float(cost.running(x[:-1], u).sum() + cost.terminal(x[-1])))


def test_costs_that_do_not_depend_on_anything_have_no_slope():
    expansion = expand_cost(ZeroCost(), car().state_space, np.tile(CAR_START, (4, 1)), np.ones((3, 2)))
    assert not expansion.gradient.any() and not expansion.hessian.any() and not expansion.end_hessian.any()
