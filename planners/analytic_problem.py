"""A trajectory problem whose model and cost are both formulas: they are called together, and once only where they are asked to be."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np

from dynamics.analytic import AnalyticModel
from dynamics.model import DynamicsModel
from planners.analytic_cost import AnalyticCost
from planners.cost import Cost
from planners.linear_quadratic import OUTCOMES, LinearQuadraticModel, LocalPolicy, model_change
from planners.riccati import FINE, backward_pass
from planners.trajectory_problem import Trajectories, Trajectory, TrajectoryProblem


def make_trajectory_problem(model: DynamicsModel, cost: Cost, lower: np.ndarray, upper: np.ndarray) -> TrajectoryProblem:
    """Return the problem, compiled where model and cost are formulas; see `TrajectoryProblem`."""
    compiled = isinstance(model, AnalyticModel) and isinstance(cost, AnalyticCost)
    return (AnalyticProblem if compiled else TrajectoryProblem)(model, cost, lower, upper)


class AnalyticProblem(TrajectoryProblem):
    """For few states and commands the calls themselves, and what they hand to each other, take longer than the work.

    Formulas are those of the model and the cost when this is made; a cost whose formulas change needs a new planner.
    """

    def __init__(self, model: AnalyticModel, cost: AnalyticCost, lower: np.ndarray, upper: np.ndarray) -> None:
        super().__init__(model, cost, lower, upper)
        self._sweep = _sweep(model.compiled_jacobian, cost.compiled_expansion)
        self._roll_out = _roll_out_and_charge(model.compiled_rollout, cost.compiled_totals)
        self._no_gaps = np.empty((0, self.space.nx))

    def roll_out(self, x0: np.ndarray, about: Trajectory, policy: LocalPolicy, steps: np.ndarray) -> Trajectories:
        """See `TrajectoryProblem.roll_out`."""
        gaps = self._no_gaps if about.gaps is None else about.gaps
        states, actions, costs = self._roll_out(self.model.turns, x0, about.states, about.actions, steps, policy.feedforward, policy.gains,
                                                self.lower, self.upper, gaps)
        return Trajectories(steps, states, actions, costs)

    def model_along(self, trajectory: Trajectory) -> AnalyticModelAlong:
        """See `TrajectoryProblem.model_along`: derived when it is swept."""
        return AnalyticModelAlong(self, trajectory)

    def expanded(self, trajectory: Trajectory) -> LinearQuadraticModel:
        """Return the model itself."""
        return super().model_along(trajectory)

    def swept(self, trajectory: Trajectory, lowest: np.ndarray, highest: np.ndarray, control_weight: float,
              state_weight: float) -> LocalPolicy:
        """Return `expanded(trajectory).backward(...)`, compiled in one for this model, cost, and number of states and commands."""
        gaps, sizes = self._no_gaps if trajectory.gaps is None else trajectory.gaps, ((0,) * self.space.nx, (0,) * self.nu)
        code, *found = self._sweep(trajectory.states, trajectory.actions, gaps, lowest, highest, control_weight, state_weight, *sizes)
        return LocalPolicy(OUTCOMES[code], *found)


class AnalyticModelAlong:
    """What stands for a `LinearQuadraticModel` that is perhaps never written down."""

    __slots__ = ("_expanded", "_problem", "_trajectory")

    def __init__(self, problem: AnalyticProblem, trajectory: Trajectory) -> None:
        self._problem, self._trajectory = problem, trajectory
        self._expanded: LinearQuadraticModel | None = None

    def convexified(self) -> LinearQuadraticModel:
        """See `LinearQuadraticModel.convexified`."""
        if self._expanded is None:
            self._expanded = self._problem.expanded(self._trajectory)
        return self._expanded.convexified()

    def backward(self, lowest: np.ndarray, highest: np.ndarray, control_weight: float = 0.0, state_weight: float = 0.0,
                 for_size: bool = False) -> LocalPolicy:
        """See `LinearQuadraticModel.backward`; `for_size` compiles the derivatives with the pass, in every process anew."""
        if for_size:
            return self._problem.swept(self._trajectory, lowest, highest, control_weight, state_weight)
        if self._expanded is None:
            self._expanded = self._problem.expanded(self._trajectory)
        return self._expanded.backward(lowest, highest, control_weight, state_weight)


@functools.cache
def _sweep(linearize: Callable, expand: Callable) -> Callable:
    @numba.njit(error_model="numpy")
    def sweep(states, actions, gaps, lowest, highest, control_weight, state_weight, for_states, for_commands):
        a, b = linearize(states[:-1], actions)
        gradient, hessian, end_gradient, end_hessian = expand(states, actions)
        code, feedforward, gains, slope, curvature = backward_pass(a, b, gradient, hessian, end_gradient, end_hessian, gaps, lowest,
                                                                   highest, control_weight, state_weight, for_states, for_commands)
        if len(gaps) and code == FINE:
            slope, curvature = model_change(a, b, gradient, hessian, end_gradient, end_hessian, gaps, feedforward, gains)
        return code, feedforward, gains, slope, curvature

    return sweep


@functools.cache
def _roll_out_and_charge(roll_out: Callable, totals: Callable) -> Callable:
    @numba.njit(error_model="numpy")
    def roll_out_and_charge(turns, x0, states, actions, steps, feedforward, gains, lower, upper, gaps):
        reached, commands = roll_out(turns, x0, states, actions, steps, feedforward, gains, lower, upper, gaps)
        costs = totals(reached, commands)
        for sample in range(len(costs)):
            if not np.isfinite(costs[sample]):
                costs[sample] = np.inf
        return reached, commands, costs

    return roll_out_and_charge
