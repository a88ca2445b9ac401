"""First and second derivatives of a cost along a trajectory, on the tangent of the state space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dynamics.state_space import StateSpace
from planners.compiler.compiled_cost import CompiledCost
from planners.cost import Cost
from planners.nearby import nearby


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
    found = None if compiled is None else compiled.expand(states, actions)
    if found is not None:
        return CostExpansion(*found)
    x, u = torch.as_tensor(states), torch.as_tensor(actions)
    n = space.ndx

    def running(change: Tensor) -> Tensor:
        return cost.running(nearby(space, x[:-1], change[..., :n]), u + change[..., n:]).sum()

    def terminal(change: Tensor) -> Tensor:
        return cost.terminal(nearby(space, x[-1:], change)).sum()

    gradient, hessian = _derivatives(running, len(u), n + u.shape[1])
    end_gradient, end_hessian = _derivatives(terminal, 1, n)
    return CostExpansion(gradient, hessian, end_gradient[0], end_hessian[0])


def _derivatives(total: Callable[[Tensor], Tensor], rows: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return gradients (rows, n) and Hessians (rows, n, n), at no change, of `total`, which adds up the costs of independent rows.

    Every row is there n times, once for each direction, so that one backward pass through the gradient returns all Hessians.
    """
    change = torch.zeros(n, rows, n, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        anyhow = (0.0 * change).sum()  # so that a cost that does not depend on it has a gradient, zero
        (gradient,) = torch.autograd.grad(total(change) + anyhow, change, create_graph=True)
        along = (gradient * torch.eye(n, dtype=torch.float64).unsqueeze(1)).sum()
        hessian = change.new_zeros(n, rows, n)
        if along.requires_grad:
            (found,) = torch.autograd.grad(along, change, allow_unused=True)  # unused: the cost is linear
            hessian = hessian if found is None else found
    hessian = hessian.permute(1, 0, 2)
    return gradient[0].detach().numpy(), (0.5 * (hessian + hessian.mT)).contiguous().numpy()
