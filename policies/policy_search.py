"""Policy search by backpropagation through a learned model (model-based RL 2.0)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.linear import LinearModel
from dynamics.neural_ensemble import NeuralEnsemble
from planners.cost import Cost
from policies.student import Student
from robots.errors import ConfigurationError, NumericalError


@dataclass(frozen=True)
class PolicySearchConfig:
    """Backpropagation through rollouts of the ensemble."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers."""
    horizon: int = 25
    """Control periods a rollout lasts."""
    rollouts: int = 100
    """Rollouts a gradient step; shared out equally to the members, each of which keeps its own (TSinf)."""
    updates: int = 150
    """Gradient steps after every fit."""
    learning_rate: float = 3e-3
    """Adam's step."""
    largest_gradient: float = 10.0
    """Norm to which a gradient is cut: long rollouts make some explode."""

    def __post_init__(self) -> None:
        for name in ("horizon", "rollouts", "updates", "learning_rate", "largest_gradient"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"PolicySearchConfig.{name}: expected a positive number, got {getattr(self, name)}")


def improve_policy(policy: Student, model: NeuralEnsemble | LinearModel, cost: Cost, starts: Tensor, config: PolicySearchConfig,
                   seed: int) -> list[float]:
    """Improve `policy` in place on imagined rollouts from lived states `starts` (n, nx) and return the mean cost of every update.

    Noise is reparameterised, so that gradients run through the whole rollout. An update whose gradient is not finite is
    skipped; NumericalError if none was finite.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(policy.parameters.values())
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
    members = model.members
    each = max(1, config.rollouts // members)
    history, finite = [], 0
    for _ in range(config.updates):
        pick = torch.randint(len(starts), (members, each), generator=generator)
        loss = _imagined_cost(policy, model, cost, starts[pick].float(), config.horizon, generator)
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.largest_gradient)
        if norm.isfinite():
            optimiser.step()
            finite += 1
        history.append(loss.item())
    if not finite:
        raise NumericalError("policy search: not one gradient was finite; shorten the horizon or look at the model's errors")
    return history


def _imagined_cost(policy: Student, model: NeuralEnsemble | LinearModel, cost: Cost, x: Tensor, horizon: int,
                   generator: torch.Generator) -> Tensor:
    """Return the mean cost of rollouts from x (E, n, nx), every member following its own."""
    space, total, alive = model.state_space, torch.zeros(x.shape[:-1]), None
    for _ in range(horizon):
        u = policy.action(x)
        charged, goes_on = cost.charge(x, u)
        total = total + (charged if alive is None else alive * charged)
        if goes_on is not None:
            alive = goes_on if alive is None else alive * goes_on
        mean, variance = model.paired_outputs(x, u)
        noise = torch.randn(mean.shape, generator=generator)
        x = space.advance(x, mean + (variance + 1e-12).sqrt() * noise)
    last = cost.terminal(x)
    return (total + (last if alive is None else alive * last)).mean() / horizon
