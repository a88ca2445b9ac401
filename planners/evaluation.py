"""What candidate plans cost under a learned model: whole-horizon rollouts, shared between threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.forward import FoldedNetwork
from dynamics.model import EnsembleModel
from dynamics.propagation import Propagation, RolloutNoise, make_propagation
from dynamics.rollout import Rollouts
from dynamics.workers import Workers, portions
from planners.cost import Cost
from planners.risk import make_risk
from robots.errors import ConfigurationError

LARGEST_SIZES = 12
"""Portion sizes whose buffers are kept from one evaluation to the next."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How plans are rolled out and judged."""

    propagation: str = "TSinf"
    """E, DS, TS1, TSinf or MM."""
    particles: int = 5
    """Rollouts of each plan; with TS1 and TSinf a multiple of the members."""
    common_random_numbers: bool = True
    """All candidates meet the same noise: they are compared under equal luck, so that far fewer particles rank as well."""
    risk: str = "mean"
    """mean, worst, cvar:SHARE or exponential:THETA over the particles."""
    rows_per_portion: int = 320
    """Particles x candidates that one thread rolls out at a time; part of the result's arithmetic, the thread count is not."""

    def __post_init__(self) -> None:
        make_propagation(self.propagation)
        make_risk(self.risk)
        if self.particles < 1:
            raise ConfigurationError(f"particles: expected at least 1, got {self.particles}")
        if self.rows_per_portion < 1:
            raise ConfigurationError(f"rows_per_portion: expected at least 1, got {self.rows_per_portion}")


@dataclass(frozen=True)
class Explanation:
    """What one plan is expected to do."""

    states: Tensor
    """(H + 1, nx) mean over the particles."""
    states_std: Tensor
    """(H + 1, nx) their spread."""
    cost_by_term: dict[str, float]


class PlanEvaluator:
    """Costs of plans from x0 under a snapshot of a model; make a new one (or `refresh`) after a refit."""

    def __init__(self, model: EnsembleModel, cost: Cost, config: EvaluationConfig, workers: Workers) -> None:
        self.model, self.cost, self.config = model, cost, config
        self.workers = workers
        self._propagation: Propagation = make_propagation(config.propagation)
        self._propagation.check(config.particles, model.members)
        self._risk = make_risk(config.risk)
        self._portion = max(1, config.rows_per_portion // config.particles)
        self._network: FoldedNetwork | None = None
        self._free: dict[int, list[Rollouts]] = {}
        """Buffers that no thread is using, by the number of candidates; the size used last is the last."""

    def refresh(self) -> None:
        """Take a new snapshot of the model's weights before the next evaluation."""
        self._network, self._free = None, {}

    @torch.no_grad()
    def costs(self, x0: Tensor, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the risk-adjusted costs (N,) of plans actions (N, H, nu) from x0 (nx,); not finite becomes +inf."""
        count, horizon, _ = actions.shape
        noise = self._propagation.noise(horizon, self.config.particles, count, self.model.state_space.no, generator,
                                        self.config.common_random_numbers)
        pieces = portions(count, self._portion)
        self._prepare({piece.stop - piece.start for piece in pieces})

        def evaluate(piece: slice) -> Tensor:
            particle_costs = self._particle_costs(x0, actions[piece], noise.candidates(piece))
            # a risk measure may overlook a particle that diverged (the mean of the worst does not see -inf)
            return torch.where(particle_costs.isfinite().all(0), self._risk(particle_costs), torch.inf)

        costs = torch.cat(self.workers.map(evaluate, pieces))
        return torch.where(costs.isfinite(), costs, torch.inf)

    @torch.no_grad()
    def explain(self, x0: Tensor, actions: Tensor) -> Explanation:
        """Return what the plan actions (H, nu) is expected to do and pay, by term: the mean over the particles, without model noise."""
        noise = self._propagation.noise(len(actions), self.config.particles, 1, self.model.state_space.no, None, True)
        self._prepare({1})

        def follow(_: None) -> Tensor:
            states = [x0.expand(self.config.particles, -1)]
            self._run(x0, actions.unsqueeze(0), noise, lambda t, x: states.append(x[:, 0].clone()))
            return torch.stack(states)  # (H + 1, P, nx)

        states = self.workers.map(follow, [None])[0]
        charged = self.cost.terms(states[:-1], actions.unsqueeze(1))
        weight = torch.ones(len(states), states.shape[1])  # (H + 1, P) probability that the episode still goes on
        survival = self.cost.survival(states[:-1], actions.unsqueeze(1))
        if survival is not None:
            weight[1:] = survival.cumprod(0)
        by_term = {name: float((weight[:-1] * value).mean(1).sum()) for name, value in charged.items()}
        by_term["terminal"] = float((weight[-1] * self.cost.terminal(states[-1])).mean())
        return Explanation(states.mean(1), states.std(1, correction=0), by_term)

    @torch.no_grad()  # here again: the caller's setting does not hold in the workers' threads
    def _particle_costs(self, x0: Tensor, actions: Tensor, noise: RolloutNoise) -> Tensor:
        """Return costs (P, n) of every particle of plans actions (n, H, nu)."""
        horizon = actions.shape[1]
        total = torch.zeros(self.config.particles, actions.shape[0])
        first = actions[:, 0]
        at_start = x0.expand(1, actions.shape[0], -1)
        charged, alive = self.cost.charge(at_start, first)
        total += charged

        def charge(t: int, x: Tensor) -> None:
            nonlocal alive
            if t + 1 == horizon:
                charged, goes_on = self.cost.terminal(x), None
            else:
                charged, goes_on = self.cost.charge(x, actions[:, t + 1])
            total.add_(charged if alive is None else alive * charged)
            if alive is not None and goes_on is not None:
                alive = alive * goes_on

        self._run(x0, actions, noise, charge)
        return total

    def _run(self, x0: Tensor, actions: Tensor, noise: RolloutNoise, visit: Callable[[int, Tensor], None]) -> None:
        size = actions.shape[0]
        free = self._free[size]
        try:
            rollouts = free.pop()
        except IndexError:
            rollouts = Rollouts(self.model, self._propagation, self.config.particles, size, self._network)
        for t, x in enumerate(rollouts.states(x0, actions, noise)):
            visit(t, x)
        free.append(rollouts)

    def _prepare(self, sizes: set[int]) -> None:
        """Have a snapshot of the model, and places for the buffers of portions of these sizes; forget those not used for long."""
        if self._network is None:
            self._network = self.model.folded()
        for size in sizes:
            self._free[size] = self._free.pop(size, [])
        while len(self._free) > LARGEST_SIZES + len(sizes):
            del self._free[next(iter(self._free))]
