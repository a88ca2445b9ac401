"""CMA-ES: a Gaussian that learns its scale and its shape from ranks (Hansen & Ostermeier 2001; Hansen 2016), by the `cma` package."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from planners.evaluation import Evaluator
from planners.plan import Plan
from planners.sampling import SamplingConfig, SamplingPlanner, Search
from robots.command import CommandSpec
from robots.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from cma import CMAEvolutionStrategy

EXTRA = "cma"
"""What must be installed for it: `pip install 'reflexarc[cma]'`."""
FEWEST_CANDIDATES = 5
"""Below this the strategy's own constants are not defined."""


@dataclass(frozen=True)
class CMAESConfig(SamplingConfig):
    """The covariance matrix adaptation evolution strategy."""

    sigma: float = 0.5
    """First standard deviation, as a share of half the command range."""
    covariance: str = "full"
    """'full' learns how all parameters go together, K nu squared numbers; 'diagonal' a scale for each, which is learned sooner."""
    tolerance: float = 1e-3
    """Stop when the largest standard deviation is below this share of half the command range."""
    act_on_mean: bool = False
    """Act on the distribution's mean instead of the best candidate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population < FEWEST_CANDIDATES:
            raise ConfigurationError(f"population: CMA-ES needs at least {FEWEST_CANDIDATES} candidates, got {self.population}")
        if self.covariance not in ("full", "diagonal"):
            raise ConfigurationError(f"CMA-ES: expected covariance 'full' or 'diagonal', got {self.covariance!r}")
        if not 0.0 < self.sigma < math.inf or not 0.0 <= self.tolerance < math.inf:
            raise ConfigurationError(f"CMA-ES: expected sigma > 0 and tolerance >= 0, got sigma={self.sigma}, tolerance={self.tolerance}")


class _Draws:
    """The generator of the plan being made, as `cma` asks for normal draws, and the points that it made of them last."""

    generator: torch.Generator
    points: list[np.ndarray]

    def __call__(self, *shape: int) -> np.ndarray:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).numpy()


@dataclass
class _CMASearch(Search):
    """A search whose distribution is the strategy's; it lives in one plan."""

    strategy: CMAEvolutionStrategy | None = None
    draws: _Draws | None = None


class CMAES(SamplingPlanner):
    """Ranks the candidates of a Gaussian, moves its mean to the better half, and learns its step size and its covariance on the way.

    The strategy sees points in units of half the command range about the middle of the box, where they were before the loop
    clipped them: points on the limit would tell it nothing of its own width. What lies outside is charged for the way back,
    so that it stays near. The distribution starts anew at every plan, about the shifted previous one.
    """

    config: CMAESConfig

    def __init__(self, evaluator: Evaluator, command: CommandSpec, control_dt: float, config: CMAESConfig) -> None:
        """As every planner; MissingExtraError where the `cma` package is not installed."""
        super().__init__(evaluator, command, control_dt, config)
        try:
            import cma  # brings matplotlib, which the other planners need not wait for

            from planners.cma_sampler import OneThreadSampler
        except ImportError as error:
            raise MissingExtraError("the planner 'cma-es'", EXTRA) from error
        self._cma, self._sampler = cma, OneThreadSampler
        self._middle_of_box = (self.lower + self.upper) / 2

    @property
    def acts_on_best(self) -> bool:
        return not self.config.act_on_mean

    def begin(self, nominal: Tensor, previous: Plan | None) -> Search:
        draws = _Draws()
        options = {"popsize": self.config.population, "CMA_diagonal": self.config.covariance == "diagonal", "randn": draws,
                   "seed": math.nan, "AdaptSigma": self._cma.sigma_adaptation.CMAAdaptSigmaCSA, "verbose": -9, "verb_log": 0}
        strategy = self._cma.CMAEvolutionStrategy(_at_least_two(self._units(nominal).flatten().numpy()), self.config.sigma, options)
        if self.config.covariance == "full":
            strategy.sm = self._sampler(strategy.sm)
        return _CMASearch(nominal, (self.config.sigma * self.half_range).expand_as(nominal), strategy=strategy, draws=draws)

    def sample(self, search: _CMASearch, iteration: int, generator: torch.Generator) -> Tensor:
        search.draws.generator = generator
        search.draws.points = search.strategy.ask(self.config.population)
        return self._commands(np.stack(search.draws.points), search.mean)

    def update(self, search: _CMASearch, candidates: Tensor, costs: Tensor, iteration: int) -> Search:
        strategy, points = search.strategy, search.draws.points
        drawn = self._clip(self._commands(np.stack(points), search.mean))
        for row in (drawn != candidates).flatten(1).any(1).nonzero()[:, 0].tolist():  # the loop tries the previous plan in one's place
            points[row] = _at_least_two(self._units(candidates[row]).flatten().numpy())
        strategy.tell(points, (finite_costs(costs) + outside(points, strategy.stds, costs)).tolist())
        mean, std = (self._commands(np.array(values), search.mean) for values in (strategy.mean, strategy.stds))
        std = std - self._middle_of_box
        return replace(search, mean=mean, std=std, effective_samples=float(strategy.sp.weights.mueff),
                       converged=bool((std / self.half_range).max() < self.config.tolerance))

    def _units(self, commands: Tensor) -> Tensor:
        """Return commands (..., nu) as float64 in units of half their range about its middle."""
        return ((commands - self._middle_of_box) / self.half_range).double()

    def _commands(self, points: np.ndarray, like: Tensor) -> Tensor:
        """Return the parameters (..., K, nu) that points (..., n) of the strategy stand for, like `like` (K, nu)."""
        units = torch.from_numpy(points[..., : like.numel()]).float().unflatten(-1, like.shape)
        return self._middle_of_box + self.half_range * units


def finite_costs(costs: Tensor) -> Tensor:
    """Return costs (N,) float64 in which +inf, of which there may not be only, became the worst finite one and a margin: the strategy
    reads no more than ranks, but takes only numbers."""
    costs = costs.double()
    finite = costs[costs.isfinite()]
    worst = finite.max()
    return torch.where(costs.isfinite(), costs, worst + (worst - finite.min()) + worst.abs() + 1.0)


def outside(points: list[np.ndarray], stds: np.ndarray, costs: Tensor) -> Tensor:
    """Return a charge (N,) float64 on points (n,) outside [-1, 1], in squares of the deviations stds (n,) that they are drawn with: one
    of them in all entries costs as much as lies between the quartiles of the finite costs (N,) (after Hansen et al. 2009)."""
    away = torch.from_numpy(np.maximum(np.abs(np.stack(points)) - 1.0, 0.0) / stds)
    finite = costs[costs.isfinite()].double()
    spread = finite.quantile(0.75) - finite.quantile(0.25)
    return spread * away.square().mean(1)


def _at_least_two(point: np.ndarray) -> np.ndarray:
    """Return a point (n,) with an entry that no cost reads beside it where it has but one: the strategy is not made for one."""
    return point if len(point) > 1 else np.append(point, 0.0)
