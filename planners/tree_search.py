"""Monte-Carlo tree search over a finite set of commands: PUCT, and Gumbel with sequential halving."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planners.evaluation import Evaluator
from planners.model_planner import Found, ModelPlanner
from planners.parameterisation import Parameterisation
from planners.plan import PlanStatus
from planners.tree import Node, Tree, TreeSearchConfig
from robots.command import CommandSpec
from robots.errors import ConfigurationError

LARGEST_ACTIONS = 1000
"""More than this and a tree of a few hundred simulations is no deeper than random shooting."""
LINES = 8
"""Best plans, of different first actions, that the evaluator judges: where one has no finite cost to it, the next serves."""


@dataclass(frozen=True)
class PUCTConfig(TreeSearchConfig):
    """Tree search by predictor and upper confidence bounds."""

    exploration: float = 1.25
    """Weight of the bound against the value in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.exploration < math.inf:
            raise ConfigurationError(f"exploration: expected a positive number, got {self.exploration}")


@dataclass(frozen=True)
class GumbelConfig(TreeSearchConfig):
    """Tree search that samples its first actions without replacement and halves them."""

    considered: int = 16
    """m, first actions that are looked at."""
    visit_scale: float = 50.0
    """c_visit of Danihelka et al. 2022: a value in [0, 1] counts (c_visit + most visits) c_scale against the prior's logarithm."""
    value_scale: float = 0.04
    """c_scale; values fill [0, 1] at every node, so that the paper's 1 would look at nothing but the best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.considered < 1:
            raise ConfigurationError(f"considered: expected at least 1, got {self.considered}")
        if not 0.0 <= self.visit_scale < math.inf or not 0.0 < self.value_scale < math.inf:
            raise ConfigurationError(f"Gumbel: expected visit_scale >= 0 and value_scale > 0, got visit_scale={self.visit_scale}, "
                                     f"value_scale={self.value_scale}")


class TreeSearchPlanner(ModelPlanner):
    """Grows a tree anew at every plan; what is a planner's own is how it walks. The plan is the tree's best line.

    Where all that the tree can hold is done, the plan is the best of all sequences of these actions, and the status says
    converged. What the model says is its mean; the evaluator judges the plan with its particles and its risk.
    """

    config: TreeSearchConfig

    def __init__(self, evaluator: Evaluator, command: CommandSpec, control_dt: float, config: TreeSearchConfig) -> None:
        """As every planner; ConfigurationError where the actions do not fit the commands, or are too many."""
        super().__init__(evaluator, command, control_dt, Parameterisation(config.horizon))
        self.config = config
        self.choices = self._choices()
        """(A, nu) the commands it chooses from."""

    @abstractmethod
    def grow(self, tree: Tree, generator: torch.Generator, time_is_up: Callable[[], bool]) -> PlanStatus:
        """Simulate until the simulations are used, the time is up or all is done, and say which."""

    def search(self, x0: Tensor, nominal: Tensor | None, generator: torch.Generator, time_is_up: Callable[[], bool]) -> Found:
        preferred = None if nominal is None else self._nearest(nominal[:: self.config.hold])
        tree = Tree(self.evaluator.model, self.evaluator.cost, x0, self.choices, self.config, preferred, generator)
        root = tree.root
        if root.done.all() and np.isinf(root.costs).all():
            return Found(None, math.inf, PlanStatus.NO_FINITE_COST, 0, tree.samples, tree.nonfinite, 0.0, tuple(root.visits.tolist()))
        status = self.grow(tree, generator, time_is_up)
        lines = torch.stack([tree.line(action) for action in root.ranked()[:LINES]]).float()
        if nominal is not None:
            lines = torch.cat([lines, nominal.unsqueeze(0)])  # the last resort
        costs = self.evaluator.costs(x0, self.actions(lines), generator)
        chosen = int(costs.isfinite().int().argmax())  # the first that is finite
        share = root.visits / root.visits.sum()
        return Found(lines[chosen] if costs[chosen].isfinite() else None, float(costs[chosen]), status, int(root.visits.sum()),
                     tree.samples + len(lines), tree.nonfinite + int((~costs.isfinite()).sum()), float(1 / (share**2).sum()),
                     tuple(root.visits.tolist()))

    def _choices(self) -> Tensor:
        nu = len(self.lower)
        if self.config.actions:
            choices = torch.tensor(self.config.actions, dtype=torch.float32).reshape(len(self.config.actions), -1)
            if choices.shape[1] != nu or not bool(((choices >= self.lower) & (choices <= self.upper)).all()):
                raise ConfigurationError(f"actions: expected lists of {nu} numbers between {self.lower.tolist()} and "
                                         f"{self.upper.tolist()}, got {self.config.actions}")
        else:
            levels = self.config.levels * nu if len(self.config.levels) == 1 else self.config.levels
            if len(levels) != nu:
                raise ConfigurationError(f"levels: expected 1 number or {nu} (one for each command), got {self.config.levels}")
            if math.prod(levels) > LARGEST_ACTIONS:
                raise ConfigurationError(f"levels: {' x '.join(map(str, levels))} make {math.prod(levels)} actions, and a tree takes at "
                                         f"most {LARGEST_ACTIONS}; give fewer levels, a list of actions, or plan with one that samples")
            values = [torch.linspace(low, high, n) if n > 1 else torch.tensor([(low + high) / 2])
                      for low, high, n in zip(self.lower.tolist(), self.upper.tolist(), levels, strict=True)]
            choices = self.clip(torch.tensor(list(itertools.product(*(v.tolist() for v in values)))))
        if not 2 <= len(choices) <= LARGEST_ACTIONS:
            raise ConfigurationError(f"a tree search takes 2 to {LARGEST_ACTIONS} actions, got {len(choices)}")
        return choices

    def _nearest(self, commands: Tensor) -> list[int]:
        distances = ((commands[:, None] - self.choices) / self.half_range).square().sum(-1)  # (decisions, A)
        return distances.argmin(1).tolist()


class PUCT(TreeSearchPlanner):
    """Goes where value and curiosity are largest together, q + c prior sqrt(1 + visits) / (1 + visits of the action) (Silver et al. 2017).

    The value q lies in [0, 1] between the worst and the best plan known at the node; an action not tried yet has that of
    its rollout, which was paid for when the node was entered. The plan begins with the action of the least cost.
    """

    config: PUCTConfig

    def grow(self, tree: Tree, generator: torch.Generator, time_is_up: Callable[[], bool]) -> PlanStatus:
        for simulation in range(1, self.config.simulations + 1):
            tree.simulate(self._choose)
            if tree.root.done.all():
                return PlanStatus.CONVERGED
            if time_is_up() and simulation < self.config.simulations:
                return PlanStatus.DEADLINE
        return PlanStatus.ITERATIONS

    def _choose(self, node: Node) -> int:
        curiosity = self.config.exploration * node.prior * math.sqrt(1 + node.visits.sum()) / (1 + node.visits)
        return _largest(advantage(node.costs) + curiosity, node)


class Gumbel(TreeSearchPlanner):
    """Samples m first actions by the Gumbel-top-m trick and halves them in rounds; below, visits follow the improved policy
    softmax(log prior + sigma(completed q)) (Danihelka et al. 2022).

    The plan begins with the action of the least cost among those sampled, never with another: in expectation that is no worse
    than to follow the prior, however few the simulations.
    """

    config: GumbelConfig

    def grow(self, tree: Tree, generator: torch.Generator, time_is_up: Callable[[], bool]) -> PlanStatus:
        root, budget = tree.root, self.config.simulations
        uniform = torch.rand(len(root.prior), generator=generator, dtype=torch.float64).clamp_min(1e-300)
        drawn = np.log(root.prior) - torch.log(-torch.log(uniform)).numpy()  # log prior + Gumbel noise
        possible = np.flatnonzero(~root.done)
        considered = possible[np.argsort(-drawn[possible], kind="stable")][: min(self.config.considered, budget)].tolist()
        for action in _halving(considered, budget, lambda: drawn + self._scaled(root)):
            open_ = [a for a in considered if not root.done[a]]
            if not open_:
                return PlanStatus.CONVERGED if len(considered) == len(possible) else PlanStatus.ITERATIONS
            tree.simulate(self._choose, action if action in open_ else min(open_, key=lambda a: (root.visits[a], -drawn[a])))
            if time_is_up() and root.visits.sum() < budget:
                return PlanStatus.DEADLINE
        return PlanStatus.ITERATIONS

    def _choose(self, node: Node) -> int:
        improved = np.log(node.prior) + self._scaled(node)
        improved = np.exp(improved - improved.max())
        return _largest(improved / improved.sum() - node.visits / (1 + node.visits.sum()), node)

    def _scaled(self, node: Node) -> np.ndarray:
        """Return sigma(completed q) (A,)."""
        return (self.config.visit_scale + node.visits.max()) * self.config.value_scale * advantage(completed(node))


def advantage(costs: np.ndarray) -> np.ndarray:
    """Return the value in [0, 1] of costs (A,): 1 for the least, 0 for the largest finite one and for +inf; 0 where they are equal."""
    finite = np.isfinite(costs)
    if not finite.any():
        return np.zeros_like(costs)
    low, high = costs[finite].min(), costs[finite].max()
    if high == low:
        return np.where(finite & ~finite.all(), 1.0, 0.0)
    return np.where(finite, (high - np.where(finite, costs, high)) / (high - low), 0.0)


def completed(node: Node) -> np.ndarray:
    """Return the costs (A,) of a node's actions, those of which nothing finite is known completed by a mix of what is (Danihelka et al.
    2022, eq. 33).

    What is known is the rollouts, until an action is visited. The mix is the rollout that first came to the node and the
    prior's mean of what is known, which weighs as much as there were visits.
    """
    known = np.isfinite(node.costs)
    if known.all() or not known.any():
        return node.costs
    mean, visits = np.average(node.costs[known], weights=node.prior[known]), node.visits.sum()
    mix = (node.estimate + visits * mean) / (1 + visits) if math.isfinite(node.estimate) else mean
    return np.where(known | (node.visits > 0), node.costs, mix)


def _halving(considered: list[int], budget: int, score: Callable[[], np.ndarray]) -> Iterator[int]:
    """Yield `budget` actions: rounds in which all that remain have equal visits; after each the worse half by `score` drops out."""
    remaining, rounds, left = considered, max(1, math.ceil(math.log2(len(considered)))), budget
    while left > 0:
        for action in itertools.islice(itertools.cycle(remaining), min(left, len(remaining) * max(1, budget // (rounds * len(remaining))))):
            yield action
            left -= 1
        scores = score()
        remaining = sorted(remaining, key=lambda a: -scores[a])[: max(2, len(remaining) // 2)]


def _largest(scores: np.ndarray, node: Node) -> int:
    """Return the action of the largest score among those that are not done; of equals the one held so far, or the first."""
    scores = np.where(node.done, -np.inf, scores)
    equal = np.flatnonzero(scores == scores.max())
    return int(node.held if node.held in equal else equal[0])
