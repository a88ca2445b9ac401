"""Distilling a planner into a network by dataset aggregation (DAgger; Ross, Gordon & Bagnell, 2011), in the learned model's imagination.

The network acts, the planner says at every state so visited what it would have done, and the network learns all that was said so far:
so it is taught where its own mistakes lead it. No robot moves meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.model import DynamicsModel
from policies.receding_horizon import RecedingHorizonPolicy
from policies.student import Student
from robots.errors import ConfigurationError, NumericalError

Progress = Callable[[int, int], None]
"""progress(done, planned): states that the planner was asked about."""


@dataclass(frozen=True)
class DistillationConfig:
    """How a planner is distilled."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network's hidden layers."""
    rounds: int = 3
    """Times that rollouts are lived and the network is trained on all of them; in the first the planner acts, then the network."""
    rollouts: int = 24
    """Imagined rollouts a round."""
    steps: int = 25
    """Control periods of a rollout."""
    updates: int = 1500
    """Gradient steps a round."""
    batch_size: int = 128
    learning_rate: float = 3e-3
    """Adam's first step; it falls to nothing along a cosine."""

    def __post_init__(self) -> None:
        for name in ("rounds", "rollouts", "steps", "updates", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"DistillationConfig.{name}: expected a positive number, got {getattr(self, name)}")


@dataclass(frozen=True)
class DistillationReport:
    """How well the network does what the planner would have done."""

    states: int
    """States that the planner was asked about."""
    errors: tuple[float, ...]
    """A round: root mean square of command minus planner's on the states the network came to, before it learned from them, as a share of
    half the command range; the first is the untrained network's."""
    seconds: float


def distil(policy: Student, expert: Callable[[], RecedingHorizonPolicy], model: DynamicsModel, starts: Tensor,
           config: DistillationConfig, seed: int,
           progress: Progress = lambda done, planned: None) -> DistillationReport:
    """Train `policy` in place to act as `expert` from states `starts` (n, nx), and return how well it does.

    `expert` makes a planning policy with a memory of its own, one a rollout. NumericalError where the model leaves the numbers.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    half = torch.as_tensor((policy.command.maximum - policy.command.minimum) / 2, dtype=torch.float32)
    states: list[Tensor] = []
    labels: list[Tensor] = []
    errors = []
    for turn in range(config.rounds):
        x = starts[torch.randint(len(starts), (config.rollouts,), generator=generator)].float()
        experts = [expert() for _ in range(config.rollouts)]
        for each in experts:
            each.reset(int(torch.randint(2**31, (), generator=generator)))
        wrong = []
        for step in range(config.steps):
            told = torch.stack([torch.tensor(each.act_in(row).values).float() for each, row in zip(experts, x, strict=True)])
            with torch.no_grad():
                own = policy.action(x) if turn else told
                wrong.append(((own if turn else policy.action(x)) - told) / half)
                states.append(x)
                labels.append(told)
                x = model.step(x, own, generator)
            if not x.isfinite().all():
                raise NumericalError(f"distil: the model left the numbers in round {turn} after {step + 1} control periods")
            progress((turn * config.steps + step + 1) * config.rollouts, config.rounds * config.steps * config.rollouts)
        errors.append(float(torch.stack(wrong).square().mean().sqrt()))
        if turn == 0:
            policy.standardise(torch.cat(states))
        _train(policy, torch.cat(states), torch.cat(labels) / half, half, config, generator)
    return DistillationReport(config.rounds * config.steps * config.rollouts, tuple(errors), time.perf_counter() - began)


def _train(policy: Student, x: Tensor, told: Tensor, half: Tensor, config: DistillationConfig, generator: torch.Generator) -> None:
    """Fit the network to commands `told` (n, nu), as shares of half the range, in states x (n, nx)."""
    parameters = list(policy.parameters.values())
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.updates)
    for _ in range(config.updates):
        pick = torch.randint(len(x), (config.batch_size,), generator=generator)
        loss = (policy.action(x[pick]) / half - told[pick]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
