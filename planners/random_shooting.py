"""Random shooting: the best of uniformly drawn plans."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from planners.plan import Plan
from planners.sampling import SamplingPlanner, Search


class RandomShooting(SamplingPlanner):
    """Draws every iteration's candidates uniformly in the box and keeps the best of all."""

    acts_on_best = True

    def begin(self, nominal: Tensor, previous: Plan | None) -> Search:
        return Search(nominal, self.half_range.expand_as(nominal))

    def sample(self, search: Search, iteration: int, generator: torch.Generator) -> Tensor:
        unit = torch.rand(self.config.population, *search.mean.shape, generator=generator)
        return self.lower + unit * (self.upper - self.lower)

    def update(self, search: Search, candidates: Tensor, costs: Tensor, iteration: int) -> Search:
        return replace(search, effective_samples=1.0)
