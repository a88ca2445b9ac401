"""The cross-entropy method as PETS uses it (Chua et al. 2018; Botev et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planners.noise import truncated_normal
from planners.plan import Plan
from planners.sampling import SamplingConfig, SamplingPlanner, Search, best_candidates, check_elites


@dataclass(frozen=True)
class CEMConfig(SamplingConfig):
    """The cross-entropy method."""

    elites: int = 20
    """Best candidates that shape the next distribution."""
    momentum: float = 0.1
    """Share of the old mean and variance that stays."""
    smallest_variance: float = 1e-3
    """Stop when the largest variance is below this, in squares of half the command range."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_elites(self.elites, self.population, self.momentum)


class CEM(SamplingPlanner):
    """Fits a Gaussian to the elites of truncated normal draws; the mean starts at the shifted previous plan, the variance
    anew at (upper - lower)^2 / 16, and the plan is the mean."""

    config: CEMConfig

    def begin(self, nominal: Tensor, previous: Plan | None) -> Search:
        return Search(nominal, (self.half_range / 2).expand_as(nominal))

    def sample(self, search: Search, iteration: int, generator: torch.Generator) -> Tensor:
        to_edge = torch.minimum(search.mean - self.lower, self.upper - search.mean) / 2
        std = torch.minimum(to_edge, search.std)
        return search.mean + std * truncated_normal((self.config.population, *search.mean.shape), generator)

    def update(self, search: Search, candidates: Tensor, costs: Tensor, iteration: int) -> Search:
        elites = best_candidates(candidates, costs, self.config.elites)
        keep = self.config.momentum
        mean = keep * search.mean + (1 - keep) * elites.mean(0)
        variance = keep * search.std.square() + (1 - keep) * elites.var(0, correction=0)
        return replace(search, mean=mean, std=variance.sqrt(), elites=elites, effective_samples=float(len(elites)),
                       converged=bool((variance / self.half_range.square()).max() < self.config.smallest_variance))
