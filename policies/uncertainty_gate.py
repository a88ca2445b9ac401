"""Slower where the model is unsure, and standing still where it knows nothing: disagreement of an ensemble as a gate before the arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.model import DynamicsModel
from dynamics.state_space import StateSpace
from policies.planning_ahead import PlansAhead
from policies.policy import Policy
from robots.command import Command
from robots.errors import ConfigurationError
from robots.observation import Observation


@dataclass(frozen=True)
class GateConfig:
    """When a model counts as unsure. Disagreement is measured in multiples of what is usual where the model has been."""

    quantile: float = 0.99
    """Share of the lived transitions whose disagreement is usual."""
    slow_from: float = 1.5
    """From so many times the usual on, the arm slows down ..."""
    stop_at: float = 4.0
    """... to nothing at so many times."""
    slowest: float = 0.1
    """Least share of the velocity limits before it stops."""

    def __post_init__(self) -> None:
        if not (0 < self.quantile <= 1 and 0 < self.slowest <= 1):
            raise ConfigurationError(f"GateConfig: expected quantile and slowest within 0 and 1, got {self.quantile} and {self.slowest}")
        if not 0 < self.slow_from < self.stop_at:
            raise ConfigurationError(f"GateConfig: expected 0 < slow_from < stop_at, got {self.slow_from} and {self.stop_at}")


class UncertaintyGate:
    """Judges states and commands by how much an ensemble's members disagree about what follows."""

    def __init__(self, model: DynamicsModel, usual: Tensor, config: GateConfig = GateConfig()) -> None:
        """`usual` (no,): spread of the members' predictions that counts as 1, an output, as `usual_spread` finds it."""
        self.config, self.usual, self._model = config, usual, model

    @torch.no_grad()
    def disagreement(self, x: Tensor, u: Tensor) -> Tensor:
        """Return disagreement (...,) about commands u (..., nu) in states x (..., nx), in multiples of the usual."""
        return _relative(self._model.predict(x.float(), u.float()).epistemic_std, self.usual)

    def share(self, disagreement: float) -> float:
        """Return the share of the velocity limits that suits so much disagreement; 0: do not act on this model."""
        config = self.config
        if not disagreement < config.stop_at:  # NaN too
            return 0.0
        rest = (config.stop_at - disagreement) / (config.stop_at - config.slow_from)
        return min(max(rest, config.slowest), 1.0)


@torch.no_grad()
def usual_spread(model: DynamicsModel, x: Tensor, u: Tensor, config: GateConfig = GateConfig()) -> Tensor:
    """Return the spread (no,) of a model's predictions below which its quantile of lived states x (n, nx) and commands u (n, nu) stays;
    every output counts alike.
    """
    if not len(x):
        raise ConfigurationError("UncertaintyGate: expected at least one lived transition to learn what is usual from, got none")
    spread = model.predict(x.float(), u.float()).epistemic_std
    scale = spread.square().mean(0).sqrt().clamp_min(1e-9)
    return scale * _relative(spread, scale).quantile(config.quantile).clamp_min(1e-9)


def _relative(spread: Tensor, usual: Tensor) -> Tensor:
    return (spread / usual).square().mean(-1).sqrt()


class GatedPolicy:
    """A policy behind a gate: `throttle` is told a share of the velocity limits before every command; where the gate shuts, `fallback`
    says what is commanded instead.
    """

    def __init__(self, policy: Policy, gate: UncertaintyGate, state_space: StateSpace, throttle: Callable[[float], None],
                 fallback: Callable[[Observation], Command], every: int = 1) -> None:
        """Every `every`-th command is judged, and those until the next one with it: a policy may be faster than its judge."""
        self._every = every
        self.policy, self.gate, self.provenance = policy, gate, policy.provenance
        self._state_space, self._throttle, self._fallback = state_space, throttle, fallback
        self._share, self._count = 1.0, 0
        self.slowed = self.shut = 0
        """Commands since `reset` that were slowed down, and that were replaced."""

    @property
    def plan_seconds(self) -> float | None:
        """The policy's own."""
        return getattr(self.policy, "plan_seconds", None)

    def reset(self, seed: int) -> None:
        self.policy.reset(seed)
        self.slowed = self.shut = self._count = 0
        self._throttle(1.0)

    def act(self, observation: Observation) -> Command:
        command = self.policy.act(observation)
        if self._count % self._every == 0:
            x, u = torch.from_numpy(self._state_space.state(observation)), torch.tensor(command.values)
            self._share = self.gate.share(float(self.gate.disagreement(x, u)))
            self._throttle(max(self._share, self.gate.config.slowest))
        self._count += 1
        if self._share == 0.0:
            self.shut += 1
            return self._fallback(observation)
        self.slowed += self._share < 1.0
        return command

    def ahead(self, observation: Observation, applied: Command) -> None:
        """Let the policy think ahead, where it does."""
        if isinstance(self.policy, PlansAhead):
            self.policy.ahead(observation, applied)
