"""Risk measures: one number for the costs of a plan's particles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robots.errors import ConfigurationError, UnknownNameError


class Risk(Protocol):
    """Maps particle costs (P, N) to plan costs (N,); lower is better."""

    def __call__(self, costs: Tensor) -> Tensor: ...


class Mean:
    """The expected cost."""

    def __call__(self, costs: Tensor) -> Tensor:
        return costs.mean(0)


class Worst:
    """The cost of the worst particle."""

    def __call__(self, costs: Tensor) -> Tensor:
        return costs.amax(0)


@dataclass(frozen=True)
class ConditionalValueAtRisk:
    """CVaR: the mean of the worst share of the particles (Rockafellar & Uryasev 2000)."""

    share: float = 0.2
    """Share of the particles that counts, in (0, 1]; rounded up to whole particles."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ConfigurationError(f"ConditionalValueAtRisk.share: expected 0 < share <= 1, got {self.share}")

    def __call__(self, costs: Tensor) -> Tensor:
        worst = max(1, math.ceil(self.share * costs.shape[0] - 1e-9))
        return costs.topk(worst, dim=0).values.mean(0)


@dataclass(frozen=True)
class Exponential:
    """The exponential utility log(mean(exp(theta c))) / theta: theta > 0 shuns risk, theta < 0 seeks it."""

    theta: float = 1.0
    """[1 / unit of cost], not zero."""

    def __post_init__(self) -> None:
        if self.theta == 0.0 or not math.isfinite(self.theta):
            raise ConfigurationError(f"Exponential.theta: expected a finite number other than 0, got {self.theta}")

    def __call__(self, costs: Tensor) -> Tensor:
        return (torch.logsumexp(self.theta * costs, dim=0) - math.log(costs.shape[0])) / self.theta


RISKS = ("mean", "worst", "cvar", "exponential")


def make_risk(name: str) -> Risk:
    """Return the risk measure called `name`, optionally with its number: 'mean', 'worst', 'cvar:0.2', 'exponential:1.0'."""
    kind, _, number = name.partition(":")
    try:
        value = float(number) if number else None
    except ValueError:
        raise ConfigurationError(f"risk {name!r}: expected a number after the colon, as in 'cvar:0.2', got {number!r}") from None
    if kind in ("mean", "worst") and value is None:
        return Mean() if kind == "mean" else Worst()
    if kind == "cvar":
        return ConditionalValueAtRisk() if value is None else ConditionalValueAtRisk(value)
    if kind == "exponential":
        return Exponential() if value is None else Exponential(value)
    raise UnknownNameError("risk measure", name, RISKS, hint="cvar and exponential take a number, as in 'cvar:0.2'")
