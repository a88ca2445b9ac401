"""What is rehearsed before a robot moves: a request from no state in particular, and acting on what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynamics.state_space import StateSpace
from policies.asynchronous.committed_plan import CommittedPlan, Way, way_along
from policies.asynchronous.exchange import PlanRequest
from robots.command import CommandSpec


@dataclass(frozen=True)
class Rehearsal:
    """A robot that stands at zero, its orientations upright, and is commanded as little as it can be."""

    space: StateSpace
    command: CommandSpec

    def request(self, seed: int | None) -> PlanRequest:
        """Return the request for a plan a period ahead; `seed` as in `PlanRequest`."""
        x, still = self._x(), self._still()
        way = Way(still[None], np.tile(x, (2, 1)), np.zeros((1, len(still), self.space.ndx)))
        return PlanRequest(x, way, seed=seed)

    def act(self, plan: CommittedPlan) -> None:
        """Do once what is done with a plan in a period."""
        x, still = self._x(), self._still()
        plan.command_for(0, x, self.space, self.command)
        way_along([plan], 0, x, still, min(2, len(plan.actions)), self.space)

    def _x(self) -> np.ndarray:
        x = np.zeros(self.space.nx)
        for first, *_ in self.space.quaternions:
            x[first] = 1.0
        return x

    def _still(self) -> np.ndarray:
        return self.command.clip(np.zeros(self.command.nu))
