"""Model predictive path integral control (Williams et al. 2017), the temperature chosen by effective sample size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
import torch
from torch import Tensor

from planners.plan import Plan
from planners.sampling import SamplingConfig, SamplingPlanner, Search
from robots.errors import ConfigurationError


@dataclass(frozen=True)
class MPPIConfig(SamplingConfig):
    """Model predictive path integral control."""

    std: float = 0.5
    """Standard deviation of the draws, as a share of half the command range."""
    shrink: float = 0.7
    """Factor on the deviation from one iteration to the next."""
    effective_samples: float = 0.05
    """Share of the population whose weight counts, 1 / sum w^2: the temperature is set so that this holds."""
    control_weight: bool = False
    """Charge lambda u' Sigma^-1 eps, which the path integral derivation has where the noise is the system's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.std <= 0 or not 0 < self.shrink <= 1 or not 0 < self.effective_samples <= 1:
            raise ConfigurationError(f"MPPI: expected std > 0, 0 < shrink <= 1 and 0 < effective_samples <= 1, got std={self.std}, "
                                     f"shrink={self.shrink}, effective_samples={self.effective_samples}")


class MPPI(SamplingPlanner):
    """Moves the nominal plan by the draws, weighted with exp(-cost / lambda), after they were clipped to the box."""

    config: MPPIConfig

    def begin(self, nominal: Tensor, previous: Plan | None) -> Search:
        return Search(nominal, (self.config.std * self.half_range).expand_as(nominal))

    def sample(self, search: Search, iteration: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(self.config.population, *search.mean.shape, generator=generator)
        return search.mean + search.std * normal

    def update(self, search: Search, candidates: Tensor, costs: Tensor, iteration: int) -> Search:
        moves = candidates - search.mean
        control = (search.mean / search.std.square() * moves).sum((-1, -2)) if self.config.control_weight else torch.zeros_like(costs)
        target = max(1.0, self.config.effective_samples * len(costs))
        weights = weights_for_effective_samples(costs, control, target)
        mean = search.mean + (weights[:, None, None] * moves).sum(0)
        return replace(search, mean=mean, std=self.config.shrink * search.std, effective_samples=float(1 / weights.square().sum()))


def weights_for_effective_samples(costs: Tensor, control: Tensor, target: float) -> Tensor:
    """Return weights (N,) exp(-S / lambda) / sum, S = costs + lambda control, with 1 / sum w^2 = target.

    Lambda is found by bisection of its logarithm; costs of +inf get no weight. Where fewer than `target` costs are finite,
    or costs are equal, the weights are as even as they can be.
    """
    finite = costs.isfinite()
    weights = torch.zeros(len(costs))
    weights[finite] = torch.from_numpy(_weights(costs[finite].double().numpy(), control[finite].double().numpy(), target)).float()
    return weights


@numba.njit(cache=True)
def _weights(costs: np.ndarray, control: np.ndarray, target: float) -> np.ndarray:
    """Return the weights (N,) of costs (N,), all finite."""
    weights = np.empty_like(costs)
    spread = costs.max() - costs.min()
    low, high = 1e-9 * (spread + 1e-30), 1e6 * (spread + 1e-30)
    for _ in range(50):
        middle = (low * high) ** 0.5
        if _weigh(costs, control, middle, weights) < target:
            low = middle
        else:
            high = middle
    _weigh(costs, control, high, weights)
    return weights


@numba.njit(cache=True)
def _weigh(costs: np.ndarray, control: np.ndarray, temperature: float, weights: np.ndarray) -> float:
    """Write the softmax of -costs / temperature - control (N,) into `weights` (N,) and return 1 / sum w^2."""
    largest = -np.inf
    for i in range(len(costs)):
        weights[i] = -costs[i] / temperature - control[i]
        largest = max(largest, weights[i])
    total, squares = 0.0, 0.0
    for i in range(len(costs)):
        weights[i] = np.exp(weights[i] - largest)
        total += weights[i]
        squares += weights[i] * weights[i]
    for i in range(len(costs)):
        weights[i] /= total
    return total * total / squares
