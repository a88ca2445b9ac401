"""The forward pass of an ensemble in rollouts: scaling folded into the weights, buffers allocated once.

The state lives in the first nx columns of the input buffer, so that a step is: sines and cosines, E batched products,
add the change. Columns that a model does not read have zero weights; states that it does not move have zero changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynamics.state_space import StateSpace, rotation_matrix


@dataclass(frozen=True)
class FoldedNetwork:
    """Weights of E members over raw inputs [x, sin(angles), cos(angles), rotation matrices, u] of width d."""

    state_space: StateSpace
    nu: int
    weights: tuple[Tensor, ...]
    """Layers (E, in, out); the last one's outputs are mean (no) and, where the noise is learned, log-variance (no)."""
    biases: tuple[Tensor, ...]
    """Layers (E, 1, out)."""
    variance_bounds: tuple[Tensor, Tensor] | None
    """exp(-lmax) and exp(lmin), (E, 1, no) each, of the standardised outputs, or None where the noise is constant."""
    output_scale: Tensor
    """(no,) what the log-variance's standard deviation is multiplied by."""
    constant_std: Tensor | None
    """(E, 1, no) constant noise where none is learned; None together with no bounds: the model is deterministic."""
    state_bounds: tuple[Tensor, Tensor] | None = None
    """Smallest and largest states (nx,) each that a rollout may reach: it is stopped there. None: it may go anywhere."""

    @property
    def members(self) -> int:
        """E."""
        return self.weights[0].shape[0]

    def to(self, device: torch.device) -> FoldedNetwork:
        """Return the network on a device."""
        def moved(pair: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
            return None if pair is None else (pair[0].to(device), pair[1].to(device))

        return replace(self, weights=tuple(w.to(device) for w in self.weights), biases=tuple(b.to(device) for b in self.biases),
                       variance_bounds=moved(self.variance_bounds), output_scale=self.output_scale.to(device),
                       constant_std=None if self.constant_std is None else self.constant_std.to(device),
                       state_bounds=moved(self.state_bounds))

    @property
    def stochastic(self) -> bool:
        """True where the model states noise of its own."""
        return self.variance_bounds is not None or self.constant_std is not None


def input_width(space: StateSpace, nu: int) -> int:
    """Return the width d of a folded network's raw input."""
    return space.nx + 2 * len(space.angle_inputs) + 9 * _rotations(space) + nu


def over_raw_input(space: StateSpace, nu: int, weight: Tensor) -> Tensor:
    """Return weights (..., d, out) over the raw input that do what weight (..., nf + nu, out) does over `StateSpace.features`, then u.

    A difference of two states becomes a weight on either.
    """
    commands = input_width(space, nu) - nu
    columns = torch.cat([space.linear_inputs, torch.arange(space.nx, commands)])  # of the features but for the differences
    own, differences, command = weight.split([len(columns), len(space.differences), nu], dim=-2)
    raw = weight.new_zeros(*weight.shape[:-2], commands + nu, weight.shape[-1])
    raw[..., columns, :] = own
    raw[..., commands:, :] = command
    raw.index_add_(-2, space.difference_inputs[:, 0], differences)
    raw.index_add_(-2, space.difference_inputs[:, 1], differences, alpha=-1)
    return raw


def _rotations(space: StateSpace) -> int:
    return (space.nf - len(space.linear_inputs) - 2 * len(space.angle_inputs) - len(space.differences)) // 9


class Forward:
    """Buffers and the step of a folded network for a fixed number of particles and candidates."""

    def __init__(self, network: FoldedNetwork, particles: int, candidates: int) -> None:
        self.network, self.particles, self.candidates = network, particles, candidates
        self.device = network.weights[0].device
        """Where the buffers are."""
        space = network.state_space
        self._space = space
        width = input_width(space, network.nu)
        self.inputs = torch.zeros(particles, candidates, width, device=self.device)  # (P, N, d)
        self.x = self.inputs[..., : space.nx]
        """(P, N, nx) the state, a view into the input buffer."""
        angles = space.angle_inputs.to(self.device)
        n = len(angles)
        contiguous = n > 0 and bool((angles[1:] - angles[:-1] == 1).all())
        self._angles = slice(int(angles[0]), int(angles[0]) + n) if contiguous else angles
        self._sin, self._cos = self.inputs[..., space.nx: space.nx + n], self.inputs[..., space.nx + n: space.nx + 2 * n]
        self._rotation_start = space.nx + 2 * n
        self._u = self.inputs[..., width - network.nu:]
        self._hidden: dict[int, list[Tensor]] = {}
        self._keep = torch.ones(space.nx, device=self.device)
        if space.absolute_outputs.any():
            self._keep[space.output_states[space.absolute_outputs[space.output_entries]]] = 0.0
        self._has_absolute = bool((self._keep == 0).any())
        outputs = space.output_states.to(self.device)
        in_order = len(outputs) > 0 and bool((outputs[1:] - outputs[:-1] == 1).all())
        self._moved: slice | Tensor = slice(int(outputs[0]), int(outputs[-1]) + 1) if in_order else outputs

    def outputs(self, u: Tensor, rows_of_all: bool) -> tuple[Tensor, Tensor | None]:
        """Return the members' output mean and std (E, rows, no) for the present states and commands u (N, nu).

        `rows_of_all`: every member sees every particle (rows = P N); otherwise particle slots are dealt out, P/E to each
        member (rows = P N / E). The tensors are buffers: they hold until the next call.
        """
        network = self.network
        self._u.copy_(u)
        if len(self._space.angle_inputs):
            angles = self.x[..., self._angles]
            torch.sin(angles, out=self._sin)
            torch.cos(angles, out=self._cos)
        if self._space.has_quaternions:
            self._write_rotations()
        flat = self.inputs.view(-1, self.inputs.shape[-1])
        members = network.members
        hidden = flat.expand(members, *flat.shape) if rows_of_all else flat.view(members, -1, flat.shape[-1])
        buffers = self._buffers(hidden.shape[1])
        last = len(network.weights) - 1
        for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight, out=buffers[layer])  # (E, rows, out)
            if layer < last:
                torch.nn.functional.silu(hidden, inplace=True)
        no = self._space.no
        mean = hidden[..., :no]
        if network.variance_bounds is not None:
            inverse_max, smallest = network.variance_bounds
            std = buffers[-1]
            torch.neg(hidden[..., no:], out=std)
            std.exp_().add_(inverse_max).reciprocal_().add_(smallest).sqrt_().mul_(network.output_scale)
            return mean, std
        return mean, network.constant_std

    def move(self, output: Tensor) -> None:
        """Advance the state buffer by outputs (P, N, no)."""
        if self._space.has_quaternions:
            self.x.copy_(self._space.advance(self.x, output))
        else:
            if self._has_absolute:
                self.x.mul_(self._keep)
            if isinstance(self._moved, slice):
                self.x[..., self._moved].add_(output)
            else:
                self.x.index_add_(-1, self._moved, output)
        self.stop_at_bounds()

    def stop_at_bounds(self) -> None:
        """Bring states that left the network's bounds back to them; what is not a number stays so."""
        if self.network.state_bounds is not None:
            torch.clamp(self.x, *self.network.state_bounds, out=self.x)

    def _buffers(self, rows: int) -> list[Tensor]:
        if rows not in self._hidden:
            members = self.network.members
            self._hidden[rows] = [torch.empty(members, rows, weight.shape[-1], device=self.device) for weight in self.network.weights]
            self._hidden[rows].append(torch.empty(members, rows, self._space.no, device=self.device))
        return self._hidden[rows]

    def _write_rotations(self) -> None:
        at = self._rotation_start
        for start, _, _, use in self._space.quaternions:
            if use:
                self.inputs[..., at: at + 9] = rotation_matrix(self.x[..., start:start + 4]).flatten(-2)
                at += 9
