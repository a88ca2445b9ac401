"""iCEM: the cross-entropy method with coloured noise, shrinking populations and elites that are kept (Pinneri et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planners.noise import coloured_noise
from planners.plan import Plan
from planners.sampling import SamplingConfig, SamplingPlanner, Search, best_candidates, check_elites
from robots.errors import ConfigurationError


@dataclass(frozen=True)
class ICEMConfig(SamplingConfig):
    """The improved cross-entropy method."""

    elites: int = 20
    """K, best candidates that shape the next distribution."""
    momentum: float = 0.1
    """Share of the old mean and deviation that stays."""
    beta: float = 2.0
    """Colour of the noise along time, f^-beta: 0.25 for running, 2 to 3.5 for manipulation."""
    decay: float = 1.25
    """The population shrinks by this factor an iteration, to 2 K at the least."""
    kept: float = 0.3
    """Share of the elites tried again, within a plan and, shifted, in the next."""
    initial_std: float = 0.5
    """First standard deviation, as a share of half the command range."""
    act_on_mean: bool = False
    """Act on the elites' mean instead of the best candidate: steadier where many plans are as good, and what is learned from it is less
    noisy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_elites(self.elites, self.population, self.momentum)
        if self.decay < 1.0 or self.initial_std <= 0.0 or self.beta < 0.0 or not 0.0 <= self.kept <= 1.0:
            raise ConfigurationError(f"iCEM: expected decay >= 1, initial_std > 0, beta >= 0 and kept in [0, 1], got decay={self.decay}, "
                                     f"initial_std={self.initial_std}, beta={self.beta}, kept={self.kept}")


class ICEM(SamplingPlanner):
    """Samples smooth plans, keeps the best ones alive across iterations and steps, and acts on the best of all, or on their mean."""

    config: ICEMConfig

    @property
    def acts_on_best(self) -> bool:
        return not self.config.act_on_mean

    def begin(self, nominal: Tensor, previous: Plan | None) -> Search:
        elites = None
        if previous is not None and previous.memory is not None and previous.memory.elites is not None:
            elites = self._clip(self.parameterisation.shifted(previous.memory.elites))
        return Search(nominal, (self.config.initial_std * self.half_range).expand_as(nominal), elites)

    def sample(self, search: Search, iteration: int, generator: torch.Generator) -> Tensor:
        config = self.config
        size = max(2 * config.elites, int(config.population / config.decay**iteration))
        steps, nu = search.mean.shape
        candidates = search.mean + search.std * coloured_noise(size, steps, nu, config.beta, generator)
        parts = [candidates]
        if search.elites is not None:
            parts.append(search.elites[: int(config.kept * len(search.elites))])
        if iteration == config.iterations - 1:
            parts.append(search.mean.unsqueeze(0))
        return torch.cat(parts)

    def update(self, search: Search, candidates: Tensor, costs: Tensor, iteration: int) -> Search:
        elites = best_candidates(candidates, costs, self.config.elites)
        keep = self.config.momentum
        mean = keep * search.mean + (1 - keep) * elites.mean(0)
        std = keep * search.std + (1 - keep) * elites.std(0, correction=0)
        return replace(search, mean=mean, std=std, elites=elites, effective_samples=float(len(elites)))
