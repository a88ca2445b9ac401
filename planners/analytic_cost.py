"""A cost that is also written down as formulas, compiled: its values along trajectories and its derivatives."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from dynamics.analytic import compiled
from planners.cost import Cost
from planners.cost_expansion import CostExpansion


@dataclass(frozen=True)
class CostFormulas:
    """Functions that numba compiles, of one state x (nx,) and command u (nu,)."""

    running: Callable[[np.ndarray, np.ndarray], float]
    """running(x, u) returns the cost of one period."""
    terminal: Callable[[np.ndarray], float]
    """terminal(x) returns the cost of the end."""
    running_derivatives: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
    """running_derivatives(x, u, gradient (nx + nu,), hessian (nx + nu, nx + nu)) writes those by [x, u]; they come zeroed."""
    terminal_derivatives: Callable[[np.ndarray, np.ndarray, np.ndarray], None]
    """terminal_derivatives(x, gradient (nx,), hessian (nx, nx)); they come zeroed."""


class AnalyticCost(Cost):
    """A cost over states of plain numbers and angles whose `formulas` say the same as its `terms` and `terminal`.

    iLQR takes them, everyone else torch. Compiled at their first use in a process, once for all costs of the same functions.
    """

    @property
    @abstractmethod
    def formulas(self) -> CostFormulas:
        """The same functions at every call: new ones are compiled anew."""

    def expand(self, states: np.ndarray, actions: np.ndarray) -> CostExpansion:
        """See `planners.cost_expansion.ExpandableCost`."""
        return CostExpansion(*self.compiled_expansion(states, actions))

    def totals(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """See `planners.trajectory_problem.TotalCost`."""
        return self.compiled_totals(states, actions)

    @property
    def compiled_expansion(self) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
        """What `expand` calls, to be called from compiled code too."""
        return _expand(self.formulas)

    @property
    def compiled_totals(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """What `totals` calls."""
        return _totals(self.formulas)


@functools.cache
def _expand(formulas: CostFormulas) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
    running, terminal = (compiled(f) for f in (formulas.running_derivatives, formulas.terminal_derivatives))

    @numba.njit(error_model="numpy")
    def expand(states, actions):
        (horizon, nu), nx = actions.shape, states.shape[1]
        gradient, hessian = np.zeros((horizon, nx + nu)), np.zeros((horizon, nx + nu, nx + nu))
        end_gradient, end_hessian = np.zeros(nx), np.zeros((nx, nx))
        for t in range(horizon):
            running(states[t], actions[t], gradient[t], hessian[t])
        terminal(states[horizon], end_gradient, end_hessian)
        return gradient, hessian, end_gradient, end_hessian

    return expand


@functools.cache
def _totals(formulas: CostFormulas) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    running, terminal = (compiled(f) for f in (formulas.running, formulas.terminal))

    @numba.njit(error_model="numpy")
    def totals(states, actions):
        costs, horizon = np.empty(len(states)), actions.shape[1]
        for sample in range(len(states)):
            cost = terminal(states[sample, horizon])
            for t in range(horizon):
                cost += running(states[sample, t], actions[sample, t])
            costs[sample] = cost
        return costs

    return totals
