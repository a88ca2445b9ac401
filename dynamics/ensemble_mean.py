"""The mean of an ensemble's members, from a snapshot of their weights, with Jacobians by hand: what iLQR follows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dynamics.linearize import linearize_by_torch
from dynamics.model import EnsembleModel, Prediction
from dynamics.state_space import rotation_matrix


class EnsembleMean:
    """One step is the ensemble's own mean step, to float32; `refresh` takes the weights as they are."""

    def __init__(self, model: EnsembleModel) -> None:
        self.state_space, self.nu, self._model = model.state_space, model.nu, model
        self.refresh()

    def refresh(self) -> None:
        """Take a new snapshot of the weights."""
        network, no = self._model.folded(), self.state_space.no
        self._weights, self._biases = list(network.weights), list(network.biases)
        self._weights[-1], self._biases[-1] = self._weights[-1][..., :no].contiguous(), self._biases[-1][..., :no].contiguous()

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean next state (..., nx) of states x (..., nx) under commands u (..., nu)."""
        batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
        x, u = x.expand(*batch, x.shape[-1]), u.expand(*batch, u.shape[-1])
        *_, output = self._layers(self._inputs(x, u).flatten(0, -2) if batch else self._inputs(x, u).unsqueeze(0))
        return self.state_space.advance(x, output.mean(0).reshape(*batch, -1))

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """See `DynamicsModel.predict`: the whole ensemble's."""
        return self._model.predict(x, u)

    @torch.no_grad()
    def linearize(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.linearize`: one forward pass of the rows, then all outputs' gradients of all members in one product a layer."""
        space = self.state_space
        if space.has_quaternions:
            return linearize_by_torch(self, x, u)
        states, commands = torch.as_tensor(x), torch.as_tensor(u)
        *hidden, _ = self._layers(self._inputs(states, commands))
        members, rows, no = len(self._weights[-1]), len(x), space.no
        gradients = self._weights[-1].mT.unsqueeze(1)  # (E, 1, no, h), by the last hidden layer
        for before, weight in zip(reversed(hidden), reversed(self._weights[:-1]), strict=True):
            share = torch.sigmoid(before)
            slopes = share * (1 + before * (1 - share))  # of x sigmoid(x)
            flat = (gradients * slopes.unsqueeze(2)).reshape(members, rows * no, -1)
            gradients = torch.bmm(flat, weight.mT).view(members, rows, no, -1)
        by_input = gradients.expand(members, rows, no, -1).mean(0).double()  # (T, no, d)
        by_state = by_input[..., : space.nx].clone()
        angles, n = space.angle_inputs, len(space.angle_inputs)
        if n:
            sines, cosines = by_input[..., space.nx: space.nx + n], by_input[..., space.nx + n: space.nx + 2 * n]
            at = states[:, angles].unsqueeze(1)
            by_state[..., angles] += torch.cos(at) * sines - torch.sin(at) * cosines
        a = torch.eye(space.ndx, dtype=torch.float64).repeat(rows, 1, 1)
        absolute = space.output_tangents[space.absolute_outputs]
        a[:, absolute, absolute] = 0.0
        a[:, space.output_tangents] += by_state
        b = torch.zeros(rows, space.ndx, self.nu, dtype=torch.float64)
        b[:, space.output_tangents] = by_input[..., -self.nu:]
        return a.numpy(), b.numpy()

    def _inputs(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the raw input (..., d) of a folded network."""
        space, angles = self.state_space, x[..., self.state_space.angle_inputs]
        turned = [rotation_matrix(x[..., start:start + 4]).flatten(-2) for start, _, _, use in space.quaternions if use]
        return torch.cat([x, torch.sin(angles), torch.cos(angles), *turned, u], dim=-1).float()

    def _layers(self, inputs: Tensor) -> list[Tensor]:
        """Return what every layer of inputs (n, d) comes to (E, n, h), before its bend."""
        found, hidden = [], inputs.expand(len(self._weights[0]), *inputs.shape)
        for weight, bias in zip(self._weights, self._biases, strict=True):
            found.append(torch.baddbmm(bias, hidden, weight))
            hidden = torch.nn.functional.silu(found[-1])
        return found
