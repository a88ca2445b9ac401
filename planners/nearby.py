"""The neighbourhood of a state, for derivatives on the tangent by torch."""

from __future__ import annotations

import torch
from torch import Tensor

from dynamics.state_space import StateSpace, quaternion_multiply


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
