"""The one time loop over a learned model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dynamics.forward import FoldedNetwork, Forward
from dynamics.model import DynamicsModel, EnsembleModel
from dynamics.propagation import Propagation, RolloutNoise
from robots.errors import ShapeError


class Rollouts:
    """Rollouts of `candidates` open-loop plans through a snapshot of a model, with buffers allocated once."""

    def __init__(self, model: EnsembleModel, propagation: Propagation, particles: int, candidates: int,
                 network: FoldedNetwork | None = None) -> None:
        """`network`: a snapshot `model.folded()` that several rollouts share, on the device to compute on; None takes one."""
        propagation.check(particles, model.members)
        self._forward = Forward(model.folded() if network is None else network, particles, candidates)
        self._propagation = propagation

    @torch.no_grad()
    def states(self, x0: Tensor, actions: Tensor, noise: RolloutNoise) -> Iterator[Tensor]:
        """Yield x_1, ..., x_H, each (P, N, nx), from x0 (nx,) under actions (N, H, nu).

        The yielded tensor is a buffer, on the network's device, that the next step overwrites: copy what is to be kept.
        """
        forward = self._forward
        noise, actions = noise.to(forward.device), actions.to(forward.device)
        if actions.shape[0] != forward.candidates:
            raise ShapeError(f"Rollouts: made for {forward.candidates} candidates, got actions of shape {tuple(actions.shape)}")
        forward.x.copy_(x0)
        standing = torch.arange(forward.particles, device=forward.device)  # (P,) the slot of each particle
        for t in range(actions.shape[1]):
            if noise.slots is not None:
                forward.x.copy_(forward.x[standing[noise.slots[t].argsort()]])
                standing = noise.slots[t]
            normal = None if noise.normal is None else noise.normal[t]
            with torch.inference_mode():
                self._propagation.step(forward, actions[:, t], normal)
            yield forward.x if noise.slots is None else forward.x[standing]


def roll_out(model: DynamicsModel, x0: Tensor, act: Callable[[int, Tensor], Tensor], horizon: int,
             generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return states (H + 1, ..., nx) and commands (H, ..., nu) of a closed loop through any model, differentiable throughout.

    `act(t, x)` returns the commands (..., nu) in states x (..., nx). Without a generator the model's mean is followed.
    """
    states, commands = [x0], []
    for t in range(horizon):
        u = act(t, states[-1])
        commands.append(u)
        states.append(model.step(states[-1], u, generator))
    return torch.stack(states), torch.stack(commands)


@torch.no_grad()
def predict_trajectory(model: EnsembleModel, propagation: Propagation, particles: int, x0: Tensor, actions: Tensor,
                       generator: torch.Generator | None = None) -> Tensor:
    """Return the particles' states (H + 1, P, nx) of one plan actions (H, nu) from x0 (nx,): for reports and metrics."""
    rollouts = Rollouts(model, propagation, particles, 1)
    noise = propagation.noise(len(actions), particles, 1, model.state_space.no, generator, common=True)
    start = x0.to(torch.float32).expand(1, particles, -1)
    followed = [state[:, 0].clone().unsqueeze(0) for state in rollouts.states(x0, actions.unsqueeze(0), noise)]
    return torch.cat([start, *followed])
