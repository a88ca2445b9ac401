"""A cost that was learned from lived rewards."""

from __future__ import annotations

import torch
from torch import Tensor

from dynamics.reward import RewardModel
from dynamics.value import ValueModel
from planners.cost import Cost
from robots.command import CommandSpec
from robots.errors import ConfigurationError


class LearnedCost(Cost):
    """The negative of a reward model's prediction along the plan and of a value model's at its end; what comes after a
    predicted end of the episode counts no more.

    A small charge on effort settles ties: where all rewards are equal (balancing, or far from a sparse goal), a planner
    would else pick any of the plans, and shake. It is never part of what an episode is said to have earned.
    """

    def __init__(self, model: RewardModel, value: ValueModel, command: CommandSpec, effort: float = 0.05) -> None:
        if effort < 0:
            raise ConfigurationError(f"LearnedCost.effort: expected at least 0, got {effort}")
        self.model, self.value = model, value
        self._effort = effort
        """Charge on full effort in every command entry for one period, as a share of the lived rewards' root mean square."""
        self._middle = torch.as_tensor((command.minimum + command.maximum) / 2)
        self._half_range = torch.as_tensor((command.maximum - command.minimum) / 2)

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"learned reward": -self.model.predict(x, u)[0], "effort": self._effort_cost(u)}

    def terminal(self, x: Tensor) -> Tensor:
        return -self.value.predict(x)

    def survival(self, x: Tensor, u: Tensor) -> Tensor | None:
        if not self.model.sees_endings:
            return None
        return 1.0 - self.model.predict(x, u)[1]

    def charge(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
        reward, ending = self.model.predict(x, u)
        return self._effort_cost(u) - reward, 1.0 - ending if self.model.sees_endings else None

    def _effort_cost(self, u: Tensor) -> Tensor:
        effort = ((u - self._middle.to(u.dtype)) / self._half_range.to(u.dtype)).square().mean(-1)
        return self._effort * self.model.reward_scale * effort
