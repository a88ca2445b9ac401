"""The one linearisation of a model along a trajectory, on the tangent of its state space."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch

from dynamics.model import DynamicsModel
from robots.errors import ShapeError


@runtime_checkable
class LinearizableModel(DynamicsModel, Protocol):
    """A model that knows its own derivatives: in closed form, or by differences that are cheaper than the chain rule."""

    def linearize(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return A (T, ndx, ndx) and B (T, ndx, nu) float64 at states x (T, nx) and commands u (T, nu), see `linearize`."""
        ...


def linearize(model: DynamicsModel, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return A (T, ndx, ndx) and B (T, ndx, nu) float64 of the model's mean step at states x (T, nx) and commands u (T, nu).

    step(integrate(x, dx), u + du) is, to first order, integrate(step(x, u), A dx + B du). By the model's own `linearize` where it
    has one, else by reverse differentiation of its `step`.
    """
    own = getattr(model, "linearize", None)
    if own is not None:
        a, b = own(x, u)
        return np.ascontiguousarray(a, dtype=np.float64), np.ascontiguousarray(b, dtype=np.float64)
    return linearize_by_torch(model, x, u)


def check_rows(model: DynamicsModel, x: np.ndarray, u: np.ndarray) -> None:
    """Raise ShapeError unless states x (T, nx) and commands u (T, nu) are those of `model`: compiled code does not see it."""
    expected = (len(x), model.state_space.nx), (len(x), model.nu)
    if (np.shape(x), np.shape(u)) != expected:
        raise ShapeError(f"linearize: expected states and commands of shapes {expected[0]} and {expected[1]}, got {np.shape(x)} and "
                         f"{np.shape(u)}")


def linearize_by_torch(model: DynamicsModel, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `linearize` does, by reverse differentiation of the model's `step`."""
    check_rows(model, x, u)
    space = model.state_space
    n = space.ndx
    # Every row is there once for each entry of the next state, so that one backward pass returns all Jacobians.
    change = torch.zeros(n, len(x), n + model.nu, dtype=torch.float64, requires_grad=True)
    states, commands = (torch.as_tensor(v, dtype=torch.float64).expand(n, *v.shape) for v in (x, u))
    with torch.enable_grad():
        reached = model.step(space.integrate(states, change[..., :n]), commands + change[..., n:])
        moved = space.difference(reached.detach(), reached).double()  # (ndx, T, ndx)
        anyhow = (0.0 * change).sum()  # a gradient, zero, also where the next state depends on neither
        (derivatives,) = torch.autograd.grad((moved * torch.eye(n, dtype=torch.float64).unsqueeze(1)).sum() + anyhow, change)
    jacobian = derivatives.transpose(0, 1)  # (T, ndx, ndx + nu)
    return jacobian[..., :n].contiguous().numpy(), jacobian[..., n:].contiguous().numpy()
