"""A neural network that acts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dynamics.checkpoint import check_tensors
from dynamics.network import Parameters, forward, new_network
from dynamics.normaliser import Normaliser
from dynamics.state_space import StateSpace
from robots.command import Command, CommandSpec
from robots.observation import Observation


class NeuralPolicy:
    """u = middle + half range * tanh(network(standardised [x, features(x)])): deterministic and always inside the box."""

    provenance = "policy"

    def __init__(self, state_space: StateSpace, command: CommandSpec, hidden: tuple[int, ...], seed: int) -> None:
        self.state_space, self.command = state_space, command
        width = state_space.nx + state_space.nf
        self.parameters: Parameters = new_network((width, *hidden, command.nu), torch.Generator().manual_seed(seed))
        self._inputs = Normaliser.identity(width)
        lower, upper = (torch.as_tensor(side.copy(), dtype=torch.float32) for side in (command.minimum, command.maximum))
        self._middle, self._half_range = (lower + upper) / 2, (upper - lower) / 2

    def standardise(self, x: Tensor) -> None:
        """Set the input scaling from states (n, nx); done once, before the first optimisation."""
        self._inputs = Normaliser.fit(self._raw(x))

    def action(self, x: Tensor) -> Tensor:
        """Return commands (..., nu) in states x (..., nx); differentiable in x and the parameters."""
        return self._middle + self._half_range * torch.tanh(forward(self.parameters, self._inputs.normalise(self._raw(x))))

    def reset(self, seed: int) -> None:
        """Nothing to do: the policy has neither memory nor randomness."""

    def act(self, observation: Observation) -> Command:
        with torch.no_grad():
            action = self.action(torch.from_numpy(self.state_space.state(observation)).float())
        return Command(self.command.mode, self.command.clip(action.double().numpy()))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything an action depends on, by name."""
        return {"input_mean": self._inputs.mean.clone(), "input_std": self._inputs.std.clone(),
                **{name: value.detach().clone() for name, value in self.parameters.items()}}

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; ShapeError names the first tensor that is missing, unknown or of another shape."""
        check_tensors(state, self.tensors())
        self._inputs = Normaliser(state["input_mean"].clone(), state["input_std"].clone())
        for name, value in self.parameters.items():
            with torch.no_grad():
                value.copy_(state[name])

    def _raw(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.state_space.features(x)], dim=-1)
