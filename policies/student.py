"""Networks that are taught, and how one of them sees the model's states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from dynamics.network import Parameters
from policies.neural_policy import NeuralPolicy
from robots.command import CommandSpec


class Student(Protocol):
    """What can be taught: a network whose commands are differentiable."""

    command: CommandSpec
    parameters: Parameters

    def standardise(self, x: Tensor) -> None:
        """Set the input scaling from states (n, nx)."""
        ...

    def action(self, x: Tensor) -> Tensor:
        """Return commands (..., nu) in states x (..., nx)."""
        ...


class ThroughView:
    """A policy over a state space of its own, as one over the model's: `view` makes its states (..., nx') of the model's (..., nx)."""

    def __init__(self, policy: NeuralPolicy, view: Callable[[Tensor], Tensor]) -> None:
        self.policy, self.command, self.parameters, self._view = policy, policy.command, policy.parameters, view

    def standardise(self, x: Tensor) -> None:
        self.policy.standardise(self._view(x))

    def action(self, x: Tensor) -> Tensor:
        return self.policy.action(self._view(x))
