"""A tree of plans over a finite set of actions, grown by simulations of a deterministic model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dynamics.model import DynamicsModel
from planners.cost import Cost
from robots.errors import ConfigurationError, UnknownNameError

ROLLOUTS = ("hold", "random")


@dataclass(frozen=True)
class TreeSearchConfig:
    """What every tree search is told."""

    horizon: int = 25
    """H, control periods."""
    simulations: int = 100
    """Walks down the tree."""
    levels: tuple[int, ...] = (5,)
    """Values that each command may take, evenly from its lower to its upper limit; one number serves all. 1 is the middle."""
    actions: tuple[tuple[float, ...], ...] = ()
    """The commands (A, nu) to choose from, in place of a grid of `levels`."""
    hold: int = 3
    """Control periods that a chosen action is held: the tree has ceil(H / hold) decisions."""
    discount: float = 1.0
    """Weight of a cost against the same one a period earlier, in (0, 1]."""
    rollout: str = "hold"
    """What goes on where the tree ends: 'hold' the last action, or 'random' ones."""
    rollout_periods: int | None = None
    """Control periods that a rollout goes on before it ends in the terminal cost; None: to the horizon, 0: that cost at once."""
    previous_share: float = 0.5
    """Share of the prior that goes to what the previous plan does next, in [0, 1); the rest is spread evenly."""

    def __post_init__(self) -> None:
        least = {"horizon": 1, "simulations": 1, "hold": 1, "rollout_periods": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ConfigurationError(f"{name}: expected at least {smallest}, got {value}")
        if not self.levels or min(self.levels) < 1:
            raise ConfigurationError(f"levels: expected at least 1 for each command, got {self.levels}")
        if self.rollout not in ROLLOUTS:
            raise UnknownNameError("rollout", self.rollout, ROLLOUTS)
        if not 0.0 < self.discount <= 1.0 or not 0.0 <= self.previous_share < 1.0:
            raise ConfigurationError(f"tree search: expected 0 < discount <= 1 and 0 <= previous_share < 1, got discount={self.discount}, "
                                     f"previous_share={self.previous_share}")

    @property
    def decisions(self) -> int:
        """Actions chosen in a plan."""
        return -(-self.horizon // self.hold)


@dataclass
class Node:
    """A state that the tree has been through, and what is known of each of the A actions there.

    Costs are of whole plans, from the root to the end.
    """

    depth: int
    """Decisions that led here."""
    estimate: float
    """What the rollout that first came here cost."""
    held: int | None
    """The action that led here; it goes first where nothing else speaks."""
    prior: np.ndarray
    """(A,) what each action is expected to be worth a look, a share of 1."""
    costs: np.ndarray
    """(A,) the best plan found that goes on with the action: at first its rollout, then the best below it; +inf where none is finite."""
    done: np.ndarray
    """(A,) True where nothing is left to find out: a plan's last action, one that leaves the numbers, or all below is done."""
    x: Tensor
    """(A, nx) states after the action."""
    charged: Tensor
    """(A,) running costs paid until there, from the root on."""
    weight: Tensor
    """(A,) what a cost that is paid there counts: discount and probability that the episode still goes on."""
    follows_previous: bool
    """True while all actions from the root on are the previous plan's."""
    visits: np.ndarray = field(init=False)
    """(A,) simulations that took the action."""
    children: dict[int, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.visits = np.zeros(len(self.prior), dtype=np.int64)

    def ranked(self) -> list[int]:
        """Return the visited actions, that of the least cost first; of equals the one visited most."""
        tried = np.flatnonzero(self.visits)
        return tried[np.lexsort((-self.visits[tried], self.costs[tried]))].tolist()


class Tree:
    """Grows by `simulate`: down to an action that was not tried yet, whose rollout then speaks for it, and back up.

    When a state is entered, all of its actions are stepped and rolled out in one batch, since the model takes many rows in
    almost the time of one. The model is deterministic, so an action is worth what the best plan that begins with it costs,
    and what is done need not be visited again.
    """

    def __init__(self, model: DynamicsModel, cost: Cost, x0: Tensor, actions: Tensor, config: TreeSearchConfig, preferred: list[int] | None,
                 generator: torch.Generator) -> None:
        """x0: (nx,); actions: (A, nu); preferred: an action for every decision, what the previous plan does, or None."""
        self._model, self._cost, self._config, self._generator = model, cost, config, generator
        self._actions, self._preferred = actions.to(x0.dtype), preferred
        self.samples = self.nonfinite = 0
        """Plans rolled out; those that cost no finite number."""
        start = torch.tensor([0.0, 1.0], dtype=torch.float64)
        self.root = self._enter(x0, *start, 0, None, math.inf, True)
        finite = np.isfinite(self.root.costs)
        if finite.any():
            self.root.estimate = float(np.average(self.root.costs[finite], weights=self.root.prior[finite]))

    def simulate(self, choose: Callable[[Node], int], first: int | None = None) -> None:
        """Follow `choose`, or `first` at the root, to an action that was not visited before, and tell all nodes on the way."""
        path, node = [], self.root
        action = choose(node) if first is None else first
        while True:
            path.append((node, action))
            if node.visits[action] == 0:
                break
            if action not in node.children:
                follows = node.follows_previous and self._preferred is not None and action == self._preferred[node.depth]
                node.children[action] = self._enter(node.x[action], node.charged[action], node.weight[action], node.depth + 1, action,
                                                    float(node.costs[action]), follows)
            node = node.children[action]
            action = choose(node)
        node.done[action] |= node.depth + 1 == self._config.decisions
        for node, action in reversed(path):
            node.visits[action] += 1
            below = node.children.get(action)
            if below is not None:
                node.costs[action] = below.costs[below.visits > 0].min()
                node.done[action] = below.done.all()

    def line(self, action: int) -> Tensor:
        """Return the commands (H, nu) of the best plan found that begins with `action`; past the tree the last action is held."""
        chosen, node = [action], self.root.children.get(action)
        while node is not None and node.visits.any():
            chosen.append(node.ranked()[0])
            node = node.children.get(chosen[-1])
        chosen += chosen[-1:] * (self._config.decisions - len(chosen))
        return self._actions[torch.tensor(chosen).repeat_interleave(self._config.hold)[: self._config.horizon]]

    @torch.no_grad()
    def _enter(self, x: Tensor, charged: Tensor, weight: Tensor, depth: int, held: int | None, estimate: float, follows: bool) -> Node:
        """Return the node of state x (nx,), all of its actions stepped and rolled out."""
        count, left = len(self._actions), self._config.horizon - depth * self._config.hold
        periods = min(self._config.hold, left)
        after = self._play((x.expand(count, -1), charged.expand(count), weight.expand(count)), self._actions, periods)
        further = left - periods if self._config.rollout_periods is None else min(self._config.rollout_periods, left - periods)
        totals = self._roll_out(after, further)
        lost = ~(after[0].isfinite().all(-1) & after[1].isfinite() & after[2].isfinite())
        costs = torch.where(totals.isfinite() & ~lost, totals, torch.inf).numpy()
        self.samples, self.nonfinite = self.samples + count, self.nonfinite + int(np.isinf(costs).sum())
        return Node(depth, estimate, held, self._prior(depth, follows), costs, lost.numpy(), *after, follows)

    def _roll_out(self, after: tuple[Tensor, Tensor, Tensor], periods: int) -> Tensor:
        """Return what plans (A,) cost that go on for `periods` as they began, or at random, and then end."""
        actions = self._actions
        while periods > 0:
            if self._config.rollout == "random":
                actions = self._actions[torch.randint(len(actions), (len(actions),), generator=self._generator)]
            after = self._play(after, actions, min(self._config.hold, periods))
            periods -= self._config.hold
        x, charged, weight = after
        return charged + weight * self._cost.terminal(x).double()

    def _play(self, now: tuple[Tensor, Tensor, Tensor], actions: Tensor, periods: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return states (A, nx), costs paid (A,) and weights (A,) after actions (A, nu) were held for `periods`."""
        x, charged, weight = now
        for _ in range(periods):
            running, survival = self._cost.charge(x, actions)
            charged = charged + weight * running.double()
            weight = weight * self._config.discount * (1.0 if survival is None else survival.double())
            x = self._model.step(x, actions)
        return x, charged, weight

    def _prior(self, depth: int, follows: bool) -> np.ndarray:
        prior = np.full(len(self._actions), 1 / len(self._actions))
        if follows and self._preferred is not None:
            prior *= 1 - self._config.previous_share
            prior[self._preferred[depth]] += self._config.previous_share
        return prior
