"""Models and costs as formulas: compiled together they are what they are alone, and what torch makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynamics.feedback_rollout import roll_out_feedback_by_torch
from experiments.bench.control_problems import ParkingCost, UnicycleCost, car, unicycle
from planners.analytic_problem import AnalyticProblem, make_trajectory_problem
from planners.cost import Cost
from planners.linear_quadratic import LocalPolicy, Outcome
from planners.trajectory_problem import Trajectory, TrajectoryProblem

H, STEPS = 12, np.array([1.0, 0.3, 0.0])
CAR, UNICYCLE = (car(), ParkingCost()), (unicycle(), UnicycleCost())


class ByTorch(Cost):
    """The same charges, and nothing else."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost

    def terms(self, x, u):
        return self._cost.terms(x, u)

    def terminal(self, x):
        return self._cost.terminal(x)


def case(model, gaps: bool) -> tuple[Trajectory, LocalPolicy, np.ndarray]:
    rng, nx = np.random.default_rng(0), model.state_space.nx
    about = Trajectory(0.5 * rng.normal(size=(H + 1, nx)), 0.1 * rng.normal(size=(H, 2)), 1.0, rng.normal(size=(H, nx)) if gaps else None)
    policy = LocalPolicy(Outcome.FINE, 0.1 * rng.normal(size=(H, 2)), 0.1 * rng.normal(size=(H, 2, nx)), 0.0, 0.0)
    return about, policy, about.states[0] + 0.1


@pytest.mark.parametrize(("model", "cost"), [CAR, UNICYCLE])
@pytest.mark.parametrize("gaps", [False, True])
def test_what_is_compiled_together_is_the_same(model, cost, gaps):
    limits = np.array([0.15, 0.2])
    ours, plain = make_trajectory_problem(model, cost, -limits, limits), TrajectoryProblem(model, ByTorch(cost), -limits, limits)
    assert isinstance(ours, AnalyticProblem) and type(make_trajectory_problem(model, ByTorch(cost), -limits, limits)) is TrajectoryProblem
    about, policy, x0 = case(model, gaps)
    room = np.full((H, 2), 0.05)
    for weights in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3)):
        one = ours.model_along(about).backward(-room, room, *weights, for_size=model is UNICYCLE[0])
        other = plain.model_along(about).backward(-room, room, *weights)
        assert one.outcome is other.outcome is Outcome.FINE and (np.abs(one.feedforward) == 0.05).any()
        for name in ("feedforward", "gains", "slope", "curvature"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-8, atol=1e-9)
    one, other = (problem.roll_out(x0, about, policy, STEPS) for problem in (ours, plain))
    for name in ("states", "actions", "costs"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-10)
    np.testing.assert_array_equal(one.costs, ours.costs(one.states, one.actions))
    assert np.abs(one.actions).max(axis=(0, 1)) == pytest.approx(limits)


def test_compiled_gaps_stay_open_as_torchs_do():
    model, unlimited = car(), np.full(2, math.inf)
    about, policy, x0 = case(model, True)
    given = (x0, about.states, about.actions, STEPS, policy.feedforward, policy.gains, -unlimited, unlimited, about.gaps)
    for ours, theirs in zip(model.roll_out_with_gaps(*given), roll_out_feedback_by_torch(model, *given), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_rollouts_that_leave_the_numbers_cost_infinity_and_are_told_in_the_sweep():
    problem = make_trajectory_problem(*UNICYCLE, np.full(2, -math.inf), np.full(2, math.inf))
    about, policy, x0 = case(unicycle(), False)
    x0[1] = math.nan
    assert problem.roll_out(x0, about, policy, STEPS).costs.tolist() == [math.inf] * 3
    about.states[4, 2] = math.inf
    room = np.full((H, 2), math.inf)
    assert problem.model_along(about).backward(-room, room).outcome is Outcome.NON_FINITE


def test_steps_of_formulas_take_tensors_of_any_shape():
    x, u = torch.randn(2, 1, 4, dtype=torch.float64), 0.1 * torch.randn(3, 2, dtype=torch.float64)
    together = car().step(x, u)
    assert together.shape == (2, 3, 4)
    torch.testing.assert_close(together[1, 2], car().step(x[1, 0], u[2]))
