"""The mean of an ensemble's members, from a snapshot of their weights, with Jacobians by hand: what iLQR follows."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from dynamics.feedback_rollout import check_feedback, roll_out_feedback_by_torch
from dynamics.fused_mean import FusedMean, mean_kernel
from dynamics.linearize import check_rows, linearize_by_torch
from dynamics.model import Prediction
from dynamics.neural_ensemble import NeuralEnsemble
from dynamics.state_space import rotation_matrix
from dynamics.workers import Workers


class EnsembleMean:
    """One step is the ensemble's own mean step, to float32; `refresh` takes the weights as they are. Not for several threads at once.

    Compiled for states of plain numbers and angles where the processor has fused multiply-adds; by torch elsewhere.
    """

    def __init__(self, model: NeuralEnsemble, workers: Workers | None = None, *, compiled: bool = True) -> None:
        """`workers`: who shares the work; None: the calling thread does all of it, to the same bits."""
        self.state_space, self.nu, self._model, self._workers = model.state_space, model.nu, model, workers
        self._kernel = mean_kernel() if compiled and not model.state_space.has_quaternions else None
        self._taken = -1  # a number of changes
        self.refresh()

    @property
    def lone_rollouts_pay(self) -> bool:
        """See `dynamics.feedback_rollout`: compiled, one rollout takes a fifth of eleven; torch takes as long for either."""
        return self._kernel is not None

    def refresh(self) -> None:
        """Take a new snapshot of the weights where they were changed since the last one."""
        if self._taken == self._model.changes:
            return
        self._taken = self._model.changes
        network, no = self._model.folded(), self.state_space.no
        self._weights, self._biases = list(network.weights), list(network.biases)
        self._weights[-1], self._biases[-1] = self._weights[-1][..., :no].contiguous(), self._biases[-1][..., :no].contiguous()
        self._fused = None if self._kernel is None else FusedMean(network, self._kernel, self._workers)

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean next state (..., nx) of states x (..., nx) under commands u (..., nu)."""
        batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
        x, u = x.expand(*batch, x.shape[-1]), u.expand(*batch, u.shape[-1])
        *_, output = self._layers(self._inputs(x, u).flatten(0, -2) if batch else self._inputs(x, u).unsqueeze(0))
        return self.state_space.advance(x, output.mean(0).reshape(*batch, -1))

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """See `DynamicsModel.predict`: the whole ensemble's."""
        return self._model.predict(x, u)

    def roll_out_feedback(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray,
                          gains: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.feedback_rollout`."""
        if self._fused is None:
            return roll_out_feedback_by_torch(self, x0, states, actions, steps, feedforward, gains, lower, upper)
        check_feedback(self.state_space, self.nu, x0=x0, states=states, actions=actions, steps=steps, feedforward=feedforward, gains=gains,
                       lower=lower, upper=upper)
        return self._fused.roll_out_feedback(x0, states, actions, steps, feedforward, gains, lower, upper)

    @torch.no_grad()
    def linearize(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.linearize`: the network's gradients by hand, and the chain rule for what is around it."""
        space = self.state_space
        if space.has_quaternions:
            return linearize_by_torch(self, x, u)
        check_rows(self, x, u)
        x, u = np.asarray(x, dtype=np.float64), np.asarray(u, dtype=np.float64)
        gradients = self._gradients(x, u) if self._fused is None else self._fused.gradients(x, u)
        a, b = np.zeros((len(x), space.ndx, space.ndx)), np.zeros((len(x), space.ndx, self.nu))
        _chain(gradients, x, space.angle_inputs.numpy(), space.output_tangents.numpy(),
               space.absolute_outputs.numpy(), a, b)
        return a, b

    def _gradients(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return what `FusedMean.gradients` does: all outputs of all members in one product a layer."""
        *hidden, _ = self._layers(self._inputs(torch.as_tensor(x), torch.as_tensor(u)))
        members, rows, no = len(self._weights[-1]), len(x), self.state_space.no
        gradients = self._weights[-1].mT.unsqueeze(1)  # (E, 1, no, h), by the last hidden layer
        for before, weight in zip(reversed(hidden), reversed(self._weights[:-1]), strict=True):
            share = torch.sigmoid(before)
            slopes = share * (1 + before * (1 - share))  # of x sigmoid(x)
            flat = (gradients * slopes.unsqueeze(2)).reshape(members, rows * no, -1)
            gradients = torch.bmm(flat, weight.mT).view(members, rows, no, -1)
        return (gradients.expand(members, rows, no, -1) / members).reshape(members, rows * no, -1).numpy()

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


@numba.njit(cache=True, error_model="numpy")
def _chain(gradients: np.ndarray, x: np.ndarray, angles: np.ndarray, tangents: np.ndarray, absolute: np.ndarray, a: np.ndarray,
           b: np.ndarray) -> None:
    """Write the Jacobians of a step, a and b zeroed, from the members' gradients (E, T no, d or more) by raw inputs."""
    members, (periods, nx), nu, outputs, turning = len(gradients), x.shape, b.shape[2], len(tangents), len(angles)
    total = np.empty(nx + 2 * turning + nu)
    for t in range(periods):
        for i in range(nx):
            a[t, i, i] = 1.0
        for o in range(outputs):
            for j in range(len(total)):
                total[j] = 0.0
                for e in range(members):
                    total[j] += gradients[e, t * outputs + o, j]
            i = tangents[o]
            if absolute[o]:
                a[t, i, i] = 0.0
            for j in range(nx):
                a[t, i, j] += total[j]
            for j in range(turning):
                angle = x[t, angles[j]]
                a[t, i, angles[j]] += math.cos(angle) * total[nx + j] - math.sin(angle) * total[nx + turning + j]
            for j in range(nu):
                b[t, i, j] = total[nx + 2 * turning + j]
