"""Model predictive path integral control (Williams et al. 2017), the temperature chosen by effective sample size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch
from torch import Tensor

from planners.plan import Plan
from planners.sampling import SamplingConfig, SamplingPlanner, Search
from robots.errors import ConfigurationError

BISECTIONS = 26
"""Of the temperature's logarithm, over 15 decades: to a millionth of it."""


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
        return Search(nominal, self._first_std)

    @cached_property
    def _first_std(self) -> Tensor:
        """(K, nu)"""
        return (self.config.std * self.half_range).expand(self.parameterisation.parameters, -1)

    def sample(self, search: Search, iteration: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(self.config.population, *search.mean.shape, generator=generator)
        return torch.addcmul(search.mean, search.std, normal)

    def update(self, search: Search, candidates: Tensor, costs: Tensor, iteration: int) -> Search:
        control = _NO_CONTROL
        if self.config.control_weight:
            control = (search.mean / search.std.square() * (candidates - search.mean)).sum((-1, -2)).double().numpy()
        target = max(1.0, self.config.effective_samples * costs.shape[0])
        mean, effective_samples = _moved(candidates.numpy(), costs.double().numpy(), control, target, search.mean.numpy())
        return Search(torch.from_numpy(mean), self.config.shrink * search.std if self.config.iterations > 1 else search.std, search.elites,
                      search.best, search.best_cost, effective_samples)


_NO_CONTROL = np.empty(0)


@numba.njit(cache=True)
def _moved(candidates: np.ndarray, costs: np.ndarray, control: np.ndarray, target: float, mean: np.ndarray) -> tuple[np.ndarray, float]:
    """Return mean (K, nu) moved by the weighted draws, candidates (N, K, nu) less the mean, and 1 / sum w^2; no `control`: zeros."""
    weights = weights_for_effective_samples(costs, np.zeros_like(costs) if len(control) == 0 else control, target)
    moved, squares = mean.copy(), np.float32(0.0)
    for candidate, weight in zip(candidates, weights):  # noqa: B905 (numba knows no `strict`)
        squares += weight * weight
        for k in range(mean.shape[0]):
            for i in range(mean.shape[1]):
                moved[k, i] += weight * (candidate[k, i] - mean[k, i])
    return moved, 1.0 / squares


@numba.njit(cache=True)
def weights_for_effective_samples(costs: np.ndarray, control: np.ndarray, target: float) -> np.ndarray:
    """Return weights (N,) float32, exp(-S / lambda) / sum, S = costs + lambda control, with 1 / sum w^2 = target, of costs (N,) float64.

    Lambda is found by bisection of its logarithm; costs of +inf get no weight, at least one is finite. Where fewer than `target` costs
    are finite, or costs are equal, the weights are as even as they can be.
    """
    weights = np.empty_like(costs)
    least, most = np.inf, -np.inf
    for cost in costs:
        if np.isfinite(cost):
            least, most = min(least, cost), max(most, cost)
    low, high = 1e-9 * (most - least + 1e-30), 1e6 * (most - least + 1e-30)
    for _ in range(BISECTIONS):
        middle = low**0.5 * high**0.5  # costs may be so far apart that the product would be infinite
        if _weigh(costs, control, middle, weights) < target:
            low = middle
        else:
            high = middle
    _weigh(costs, control, high, weights)
    return weights.astype(np.float32)


@numba.njit(cache=True)
def _weigh(costs: np.ndarray, control: np.ndarray, temperature: float, weights: np.ndarray) -> float:
    """Write the softmax of -costs / temperature - control (N,) into `weights` (N,) and return 1 / sum w^2."""
    largest = -np.inf
    for i in range(len(costs)):
        weights[i] = -costs[i] / temperature - control[i] if np.isfinite(costs[i]) else -np.inf
        largest = max(largest, weights[i])
    total, squares = 0.0, 0.0
    for i in range(len(costs)):
        weights[i] = np.exp(weights[i] - largest)
        total += weights[i]
        squares += weights[i] * weights[i]
    for i in range(len(costs)):
        weights[i] /= total
    return total * total / squares
