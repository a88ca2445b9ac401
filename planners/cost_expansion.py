"""First and second derivatives of a cost along a trajectory, on the tangent of the state space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from dynamics.state_space import StateSpace
from planners.compiler.compiled_cost import CompiledCost
from planners.cost import Cost
from planners.torch_expansion import expanded_by_torch


@dataclass(frozen=True)
class CostExpansion:
    """Derivatives by [dx, du], float64; du is the change of the command, dx the tangent step at the state."""

    gradient: np.ndarray
    """(H, ndx + nu) of the running cost."""
    hessian: np.ndarray
    """(H, ndx + nu, ndx + nu)"""
    end_gradient: np.ndarray
    """(ndx,) of the terminal cost."""
    end_hessian: np.ndarray
    """(ndx, ndx)"""

    @property
    def lx(self) -> np.ndarray:
        """(H, ndx)"""
        return self.gradient[:, : len(self.end_gradient)]

    @property
    def lu(self) -> np.ndarray:
        """(H, nu)"""
        return self.gradient[:, len(self.end_gradient):]

    @property
    def lxx(self) -> np.ndarray:
        """(H, ndx, ndx)"""
        return self.hessian[:, : len(self.end_gradient), : len(self.end_gradient)]

    @property
    def lux(self) -> np.ndarray:
        """(H, nu, ndx)"""
        return self.hessian[:, len(self.end_gradient):, : len(self.end_gradient)]

    @property
    def luu(self) -> np.ndarray:
        """(H, nu, nu)"""
        return self.hessian[:, len(self.end_gradient):, len(self.end_gradient):]


@runtime_checkable
class ExpandableCost(Protocol):
    """A cost that knows its derivatives in closed form."""

    def expand(self, states: np.ndarray, actions: np.ndarray) -> CostExpansion:
        """Return the derivatives at states (H + 1, nx) and actions (H, nu), float64; a semidefinite approximation of Hessians is
        allowed (Gauss-Newton)."""
        ...


def expand_cost(cost: Cost, space: StateSpace, states: np.ndarray, actions: np.ndarray,
                compiled: CompiledCost | None = None) -> CostExpansion:
    """Return the derivatives of `cost` at states (H + 1, nx) and actions (H, nu): its own `expand` where it has one, else those of
    `compiled`, which is the cost, else by torch."""
    own = getattr(cost, "expand", None)
    if own is not None:
        return own(states, actions)
    if compiled is not None and compiled.expands:
        return CostExpansion(*compiled.expand(states, actions))
    return CostExpansion(*expanded_by_torch(cost, space, states, actions))
