"""A task's own cost over simulated states: the task names its state otherwise than the simulator does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dynamics.state_space import StateSpace
from planners.cost import Cost
from robots.errors import ConfigurationError
from sim.simulator.physics_space import READINGS, PhysicsSpace


class TaskCost(Cost):
    """`cost` over a task's state space, charged on states of `space`."""

    def __init__(self, cost: Cost, task: StateSpace, space: PhysicsSpace, stands_for: Mapping[tuple[str, int], str]) -> None:
        """`stands_for`: which entry of x, by name, an entry (source, index) of the task's state is that neither q, dq nor a constant has.

        ConfigurationError where an entry is found nowhere.
        """
        places = {(channel.source, index): name for channel in space.channels if channel.source != READINGS
                  for name, index in zip(channel.names, channel.indices, strict=True)} | dict(stands_for)
        entries = []
        for channel in task.channels:
            for name, index in zip(channel.names, channel.indices, strict=True):
                if (channel.source, index) not in places:
                    raise ConfigurationError(f"the task's {name} ({channel.source}[{index}]) is not known of a simulated state")
                entries.append(space.names.index(places[channel.source, index]))
        self._cost, self._entries = cost, torch.tensor(entries)
        self.pure = cost.pure

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return self._cost.terms(x[..., self._entries], u)

    def running(self, x: Tensor, u: Tensor) -> Tensor:
        return self._cost.running(x[..., self._entries], u)

    def terminal(self, x: Tensor) -> Tensor:
        return self._cost.terminal(x[..., self._entries])
