"""A cost's derivatives along a trajectory by torch: what works for every cost, and what compiled ones are compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dynamics.state_space import StateSpace, quaternion_multiply
from planners.cost import Cost


def expanded_by_torch(cost: Cost, space: StateSpace, states: np.ndarray,
                      actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return gradient (H, n) and Hessian (H, n, n) by [dx, du], n = ndx + nu, and gradient (ndx,) and Hessian (ndx, ndx) of the end, at
    states (H + 1, nx) and actions (H, nu)."""
    x, u = torch.as_tensor(states), torch.as_tensor(actions)
    n = space.ndx

    def running(change: Tensor) -> Tensor:
        return cost.running(nearby(space, x[:-1], change[..., :n]), u + change[..., n:]).sum()

    def terminal(change: Tensor) -> Tensor:
        return cost.terminal(nearby(space, x[-1:], change)).sum()

    gradient, hessian = _derivatives(running, len(u), n + u.shape[1])
    end_gradient, end_hessian = _derivatives(terminal, 1, n)
    return gradient, hessian, end_gradient[0], end_hessian[0]


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


def nearby(space: StateSpace, x: Tensor, dx: Tensor) -> Tensor:
    """Return `space.integrate(x, dx)` to second order in dx, as a polynomial: its derivatives at zero are exact.

    The length of a rotation vector, which the exponential map needs, has no derivative at zero.
    """
    if not space.has_quaternions:
        return x + dx
    x, flat = x.expand(*dx.shape[:-1], -1), dx.clone()
    for _, tangent, *_ in space.quaternions:
        flat[..., tangent: tangent + 3] = 0.0
    y = space.integrate(x, flat)
    for start, tangent, *_ in space.quaternions:
        rotation = dx[..., tangent: tangent + 3]
        turn = torch.cat([1 - rotation.square().sum(-1, keepdim=True) / 8, rotation / 2], dim=-1)
        y[..., start: start + 4] = quaternion_multiply(x[..., start: start + 4], turn)
    return y
