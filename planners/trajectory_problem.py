"""What a trajectory optimiser asks of a model, a cost and a box: rollouts, costs and a linear-quadratic model, in NumPy float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from dynamics.feedback_rollout import roll_out_feedback
from dynamics.linearize import linearize
from dynamics.model import DynamicsModel
from planners.compiler.compiled_cost import compiled_cost
from planners.cost import Cost
from planners.cost_expansion import CostExpansion, expand_cost
from planners.linear_quadratic import LinearQuadraticModel, LocalPolicy
from robots.errors import ConfigurationError


@dataclass(frozen=True)
class Trajectory:
    """States and commands, and what they cost."""

    states: np.ndarray
    """(H + 1, nx)"""
    actions: np.ndarray
    """(H, nu)"""
    cost: float
    gaps: np.ndarray | None = None
    """(H, ndx) from states[t + 1] to where the dynamics lead from states[t]; None where the states follow the dynamics."""


@dataclass(frozen=True)
class Trajectories:
    """What N step lengths lead to."""

    steps: np.ndarray
    """(N,)"""
    states: np.ndarray
    """(N, H + 1, nx)"""
    actions: np.ndarray
    """(N, H, nu)"""
    costs: np.ndarray
    """(N,) +inf where not finite."""

    def one(self, index: int, gaps: np.ndarray | None = None) -> Trajectory:
        """Return rollout `index`, with `gaps` where it has any."""
        states, actions = self.states[index], self.actions[index]
        if len(self.steps) > 1:  # so that the others need not be kept
            states, actions = states.copy(), actions.copy()
        return Trajectory(states, actions, float(self.costs[index]), gaps)


class TotalCost(Protocol):
    """A cost that adds itself up along trajectories, faster than torch does."""

    def totals(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the costs (N,) of states (N, H + 1, nx) and actions (N, H, nu), float64."""
        ...


class TrajectoryProblem:
    """Minimise the sum of cost.running(x_t, u_t) and cost.terminal(x_H), x_{t+1} = model.step(x_t, u_t), lower <= u_t <= upper.

    ConfigurationError for a cost with a probability of survival: what comes later would weigh by it.
    """

    def __init__(self, model: DynamicsModel, cost: Cost, lower: np.ndarray, upper: np.ndarray) -> None:
        """`lower`, `upper`: (nu,), infinite where a command is not limited."""
        self.model, self.cost, self.lower, self.upper = model, cost, lower, upper
        self.space, self.nu = model.state_space, len(lower)
        if cost.survival(torch.zeros(1, self.space.nx, dtype=torch.float64), torch.zeros(1, self.nu, dtype=torch.float64)) is not None:
            raise ConfigurationError("iLQR: this cost ends episodes with a probability, which a quadratic model does not weigh; "
                                     "use a sampling planner (cem, icem, mppi), or a cost whose `survival` is None")
        by_itself = hasattr(cost, "totals") and hasattr(cost, "expand")
        self._compiled = None if by_itself else compiled_cost(cost, self.space, self.nu)
        if self._compiled is not None:
            _ = self._compiled.expands  # compiled here, not in the first plan

    def middle(self, horizon: int) -> np.ndarray:
        """Return commands (horizon, nu) in the middle of the box; zero, or the limit next to it, where it is not limited."""
        limited = np.isfinite(self.lower) & np.isfinite(self.upper)
        with np.errstate(invalid="ignore"):
            middle = np.where(limited, (self.lower + self.upper) / 2, np.clip(0.0, self.lower, self.upper))
        return np.tile(middle, (horizon, 1))

    def roll_out(self, x0: np.ndarray, about: Trajectory, policy: LocalPolicy, steps: np.ndarray) -> Trajectories:
        """Return what `policy` about a trajectory leads to from x0 (nx,), for step lengths (N,)."""
        given = (x0, about.states, about.actions, steps, policy.feedforward, policy.gains, self.lower, self.upper)
        with_gaps = None if about.gaps is None else getattr(self.model, "roll_out_with_gaps", None)
        states, actions = roll_out_feedback(self.model, *given, about.gaps) if with_gaps is None else with_gaps(*given, about.gaps)
        return Trajectories(steps, states, actions, self.costs(states, actions))

    def play(self, x0: np.ndarray, actions: np.ndarray) -> Trajectory:
        """Return what commands (H, nu) lead to from x0 (nx,) without feedback."""
        horizon = len(actions)
        nothing = LocalPolicy.nothing(horizon, self.space.ndx, self.nu)
        about = Trajectory(np.tile(x0, (horizon + 1, 1)), actions, np.inf)
        return self.roll_out(x0, about, nothing, np.zeros(1)).one(0)

    def with_gaps(self, states: np.ndarray, actions: np.ndarray) -> Trajectory:
        """Return the trajectory of guessed states (H + 1, nx) and commands (H, nu), which need not belong together."""
        with torch.no_grad():
            x = torch.as_tensor(states)
            reached = self.model.step(x[:-1], torch.as_tensor(actions)).double()
            gaps = self.space.difference(x[1:], reached).numpy()
        cost = float(self.costs(states[None], actions[None])[0]) if np.isfinite(gaps).all() else np.inf
        return Trajectory(states, actions, cost, gaps if gaps.any() else None)

    def costs(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the costs (N,) of states (N, H + 1, nx) and actions (N, H, nu), +inf where not finite."""
        own = getattr(self.cost, "totals", None)
        if own is not None:
            costs = own(states, actions)
        elif self._compiled is not None:
            costs = self._compiled.totals(states[:, 0], states[:, 1:], actions)
        else:
            with torch.no_grad():
                x, u = torch.from_numpy(states), torch.from_numpy(actions)
                costs = (self.cost.running(x[:, :-1], u).sum(-1) + self.cost.terminal(x[:, -1])).numpy()
        return np.where(np.isfinite(costs), costs, np.inf)

    def cost_by_term(self, trajectory: Trajectory) -> dict[str, float]:
        """Return the cost's terms along a trajectory, and 'terminal'."""
        with torch.no_grad():
            x, u = torch.from_numpy(trajectory.states), torch.from_numpy(trajectory.actions)
            by_term = {name: float(value.sum()) for name, value in self.cost.terms(x[:-1], u).items()}
            return by_term | {"terminal": float(self.cost.terminal(x[-1]))}

    def model_along(self, trajectory: Trajectory) -> LinearQuadraticModel:
        """Return dynamics to first and cost to second order about a trajectory."""
        a, b = linearize(self.model, trajectory.states[:-1], trajectory.actions)
        cost = self.expanded_cost(trajectory)
        return LinearQuadraticModel(a, b, cost.gradient, cost.hessian, cost.end_gradient, cost.end_hessian, trajectory.gaps)

    def expanded_cost(self, trajectory: Trajectory) -> CostExpansion:
        """Return the cost's first and second derivatives along a trajectory."""
        return expand_cost(self.cost, self.space, trajectory.states, trajectory.actions, self._compiled)
