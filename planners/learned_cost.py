"""A cost that was learned from lived rewards."""

from __future__ import annotations

from torch import Tensor

from dynamics.reward import RewardModel
from planners.cost import Cost


class LearnedCost(Cost):
    """The negative of a reward model's prediction; what comes after a predicted end of the episode counts no more."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"learned reward": -self.model.predict(x, u)[0]}

    def terminal(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])

    def survival(self, x: Tensor, u: Tensor) -> Tensor | None:
        if not self.model.sees_endings:
            return None
        return 1.0 - self.model.predict(x, u)[1]
