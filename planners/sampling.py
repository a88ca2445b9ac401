"""What every sampling planner shares: sample, evaluate, update, with warm start, clipping, status and report."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from planners.evaluation import NOTHING_EXPLAINED, Evaluator, Explanation
from planners.parameterisation import Parameterisation
from planners.plan import Plan, PlanMemory, PlanReport, PlanStatus
from planners.planner import check_deadline, checked_memory, checked_state, on_limit
from robots.command import CommandSpec
from robots.errors import ConfigurationError


@dataclass
class Search:
    """Where a search stands; parameters are (K, nu)."""

    mean: Tensor
    std: Tensor
    elites: Tensor | None = None
    """(k, K, nu) best parameters of the last iteration."""
    best: Tensor | None = None
    """(K, nu) best parameters of all iterations."""
    best_cost: float = float("inf")
    effective_samples: float = 0.0
    converged: bool = False


@dataclass(frozen=True)
class SamplingConfig:
    """What every sampling planner is told."""

    horizon: int = 25
    """H, control periods."""
    population: int = 200
    """Candidate plans an iteration."""
    iterations: int = 3
    """Rounds of sampling."""
    interpolation: str = "raw"
    """Search raw actions, or knots of a 'zero', 'linear' or 'cubic' spline."""
    knots: int = 6
    """Knots of the spline."""

    def __post_init__(self) -> None:
        Parameterisation(self.horizon, self.interpolation, self.knots)
        if self.population < 2:
            raise ConfigurationError(f"population: expected at least 2 candidates, got {self.population}")
        if self.iterations < 1:
            raise ConfigurationError(f"iterations: expected at least 1, got {self.iterations}")


def check_elites(elites: int, population: int, momentum: float) -> None:
    """Raise ConfigurationError unless the elites fit into the population and the momentum lies in [0, 1)."""
    if not 1 <= elites <= population:
        raise ConfigurationError(f"elites: expected 1 to the population ({population}), got {elites}")
    if not 0.0 <= momentum < 1.0:
        raise ConfigurationError(f"momentum: expected 0 <= momentum < 1, got {momentum}")


class SamplingPlanner(ABC):
    """The loop; what is a planner's own is how it begins, samples, updates and picks."""

    acts_on_best: bool = False
    """True where the best sample is the plan, False where the mean is."""
    explains: bool = True
    """Roll the result out once more, for its expected states and its cost by term. Set it False where nobody reads these: the plan then
    has neither, and its cost is the best sample's; a mean of samples is then not looked at before it is acted on."""

    def __init__(self, evaluator: Evaluator, command: CommandSpec, control_dt: float, config: SamplingConfig) -> None:
        self.evaluator, self.config, self.control_dt = evaluator, config, control_dt
        self.horizon = config.horizon
        self.parameterisation = Parameterisation(config.horizon, config.interpolation, config.knots)
        self.lower = torch.as_tensor(command.minimum.copy(), dtype=torch.float32)
        self.upper = torch.as_tensor(command.maximum.copy(), dtype=torch.float32)
        self.half_range = (self.upper - self.lower) / 2
        self._box = self.lower.numpy(), self.upper.numpy()
        self._room: Tensor | None = None

    @abstractmethod
    def begin(self, nominal: Tensor, previous: Plan | None) -> Search:
        """Return the search about the nominal parameters (K, nu): the previous plan shifted, or the middle of the box."""

    @abstractmethod
    def sample(self, search: Search, iteration: int, generator: torch.Generator) -> Tensor:
        """Return new candidate parameters (N, K, nu) float32; the loop clips them in place."""

    @abstractmethod
    def update(self, search: Search, candidates: Tensor, costs: Tensor, iteration: int) -> Search:
        """Return the search after candidates (N, K, nu) turned out to cost (N,), at least one of it finite."""

    def plan(self, x0: Tensor, previous: Plan | None, generator: torch.Generator, deadline: float | None = None) -> Plan:
        """See `Planner.plan`. No iteration is begun that would, at the pace so far, pass the deadline."""
        started = time.perf_counter()
        check_deadline(deadline)
        x0 = checked_state(x0, self.evaluator.model.state_space.nx, self.evaluator.dtype)
        memory = checked_memory(previous, (self.parameterisation.parameters, len(self.lower)))
        nominal = self.parameterisation.continued(memory.mean, *self._box) if memory is not None else self._middle()
        search = self.begin(nominal, previous)
        samples = nonfinite = iteration = 0
        status = PlanStatus.ITERATIONS
        for iteration in range(1, self.config.iterations + 1):
            candidates = self.sample(search, iteration - 1, generator)
            first = nominal if iteration == 1 and memory is not None else None
            actions = self._room_for(len(candidates))
            self.parameterisation.bounded(candidates, *self._box, actions, first)
            costs = self.evaluator.costs(x0, actions, generator)
            finite, best, cost = _judged(costs.numpy())
            samples, nonfinite = samples + costs.shape[0], nonfinite + costs.shape[0] - finite
            if finite:
                if cost < search.best_cost:
                    search.best, search.best_cost = candidates[best].clone(), cost
                search = self.update(search, candidates, costs, iteration - 1)
            if search.converged:
                status = PlanStatus.CONVERGED
                break
            spent = time.perf_counter() - started
            if deadline is not None and iteration < self.config.iterations and spent * (iteration + 1) / iteration > deadline:
                status = PlanStatus.DEADLINE
                break
        return self._finish(x0, search, status, started, iteration, samples, nonfinite)

    def _finish(self, x0: Tensor, search: Search, status: PlanStatus, started: float, iterations: int, samples: int,
                nonfinite: int) -> Plan:
        if search.best is None:
            report = PlanReport(time.perf_counter() - started, iterations, samples, nonfinite, search.effective_samples)
            return Plan.without_actions(PlanStatus.NO_FINITE_COST, report, self.control_dt)
        chosen, actions, expected, cost = self._choose(x0, search)
        report = PlanReport(time.perf_counter() - started, iterations, samples, nonfinite, search.effective_samples,
                            expected.cost_by_term, on_limit(actions[0], self.lower, self.upper))
        memory = PlanMemory(chosen, search.elites)
        return Plan(actions, expected.states, expected.states_std, cost, status, report, self.control_dt, memory)

    def _choose(self, x0: Tensor, search: Search) -> tuple[Tensor, Tensor, Explanation, float]:
        """Return the parameters to act on, their actions, what these are expected to do, and what they cost."""
        if not self.explains:
            return *self._acted(search.best if self.acts_on_best else search.mean), NOTHING_EXPLAINED, search.best_cost
        if not self.acts_on_best:
            chosen, actions = self._acted(search.mean)
            expected = self.evaluator.explain(x0, actions)
            cost = sum(expected.cost_by_term.values())
            if math.isfinite(cost):
                return chosen, actions, expected, cost
        # also where the mean of finite samples has no finite cost itself
        chosen, actions = self._acted(search.best)
        return chosen, actions, self.evaluator.explain(x0, actions), search.best_cost

    def _acted(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return parameters (K, nu), clipped, and their actions (H, nu)."""
        clipped, actions = parameters[None].clone(), torch.empty((1, self.horizon, len(self.lower)))
        self.parameterisation.bounded(clipped, *self._box, actions)
        return clipped[0], actions[0]

    def _room_for(self, count: int) -> Tensor:
        """Return where the actions (N, H, nu) of candidates are written, the same for every plan: new memory takes longer to be had than
        they take to be written."""
        if self._room is None or len(self._room) < count:
            self._room = torch.empty((count, self.horizon, len(self.lower)), dtype=self.evaluator.dtype)
        return self._room[:count]

    def _clip(self, values: Tensor) -> Tensor:
        return values.clamp(self.lower, self.upper)

    def _middle(self) -> Tensor:
        return ((self.lower + self.upper) / 2).expand(self.parameterisation.parameters, -1).clone()


@numba.njit(cache=True)
def _judged(costs: np.ndarray) -> tuple[int, int, float]:
    """Return how many of the costs (N,) are finite, which is least, and that; NaN counts as infinite."""
    finite, best, least = 0, 0, np.inf
    for n in range(len(costs)):
        finite += np.isfinite(costs[n])
        if costs[n] < least:
            best, least = n, float(costs[n])
    return finite, best, least


def best_candidates(candidates: Tensor, costs: Tensor, count: int) -> Tensor:
    """Return the `count` cheapest candidates (k, K, nu), cheapest first; fewer where fewer costs are finite."""
    count = min(count, int(costs.isfinite().sum()))
    return candidates[costs.topk(count, largest=False).indices]
