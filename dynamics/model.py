"""The `DynamicsModel` protocol: what happens next, and how sure the model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dynamics.forward import FoldedNetwork
from dynamics.state_space import StateSpace


@dataclass(frozen=True)
class Prediction:
    """A predicted next state with the two kinds of doubt kept apart."""

    mean: Tensor
    """(..., nx) predicted next state."""
    aleatoric_std: Tensor
    """(..., no) noise that more data would not remove, on the model's outputs."""
    epistemic_std: Tensor
    """(..., no) disagreement that more data would remove; zero for a single model."""

    @property
    def std(self) -> Tensor:
        """(..., no) both together."""
        return torch.hypot(self.aleatoric_std, self.epistemic_std)


@runtime_checkable
class DynamicsModel(Protocol):
    """A model of one control period over a state space."""

    state_space: StateSpace
    nu: int

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """Return what follows from commands u (..., nu) in states x (..., nx)."""
        ...

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a next state (..., nx): drawn with `generator`, or the mean without one. Differentiable in x and u."""
        ...


@runtime_checkable
class EnsembleModel(DynamicsModel, Protocol):
    """A model of E members that rollouts run side by side."""

    members: int

    def folded(self) -> FoldedNetwork:
        """Return the members' weights with all scaling folded in, for rollouts; a snapshot, not a view."""
        ...

    def member_outputs(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return every member's output mean and variance (E, ..., no) in states x (..., nx); differentiable."""
        ...
