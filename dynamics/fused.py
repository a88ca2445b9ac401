"""Rollouts of a folded network through the compiled kernel: weights packed once, buffers allocated once."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from dynamics.forward import FoldedNetwork, input_width
from dynamics.kernels.compiled import Kernel
from dynamics.kernels.memory import aligned_zeros
from dynamics.kernels.rollout import (
    DRAWS_COMMON,
    DRAWS_EACH,
    DRAWS_NONE,
    FIELDS,
    NOISE_CONSTANT,
    NOISE_LEARNED,
    NOISE_NONE,
)
from dynamics.propagation import Following, Propagation, RolloutNoise
from dynamics.workers import Workers, shares
from robots.errors import NonFiniteError, ShapeError

LARGEST_WIDTH = 2048
"""A layer wider than this goes to torch: a block of its activations no longer fits the processor's caches."""
SHARES_PER_THREAD = 4
"""Pieces that a batch of rollouts is cut into: a thread that is held up leaves its later pieces to the others."""

WHAT_IT_CANNOT = f"the model has quaternions, a layer wider than {LARGEST_WIDTH}, or is propagated by MM"


def supports(network: FoldedNetwork, propagation: Propagation) -> bool:
    """Return whether the kernel can roll this network out this way; torch does what it cannot."""
    return (propagation.fused is not None and not network.state_space.has_quaternions
            and max(weight.shape[-1] for weight in network.weights) <= LARGEST_WIDTH)


class PackedNetwork:
    """The weights of a folded network in the order in which the kernel reads them."""

    def __init__(self, network: FoldedNetwork, kernel: Kernel) -> None:
        """Raises NonFiniteError where a weight is not a finite number."""
        for number, tensor in enumerate((*network.weights, *network.biases)):
            if not tensor.isfinite().all():
                kind, layer = divmod(number, len(network.weights))
                raise NonFiniteError(f"network: the {('weights', 'biases')[kind]} of layer {layer} hold NaN or infinity; "
                                     "fit the model again")
        self.network, self.kernel = network, kernel
        sections: list[Tensor] = []
        layers: list[int] = []
        width, at = None, 0  # of the layer before; where this layer starts [byte]
        self.hidden_width = 0
        """Outputs of the widest layer, padded."""
        for n, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            pairs = kernel.bfloat16 and n > 0  # raw inputs stay float32: their scale is not that of the data
            packed_weight, packed_bias = _packed(weight, bias, kernel.tile.outputs, width, pairs)
            width = packed_bias.shape[1]
            self.hidden_width = max(self.hidden_width, width)
            layers += [packed_weight.shape[1] // width, width // kernel.tile.outputs, at, at + packed_weight.shape[1] * 4]
            at = layers[-1] + width * 4
            sections += [packed_weight, packed_bias]
        self.memory = torch.cat([section.view(torch.int32) for section in sections], dim=1)  # (E, words)
        self.layers = torch.tensor(layers)
        space = network.state_space
        self.angles = space.angle_inputs.to(torch.int64).contiguous()
        self.output_states = space.output_states.to(torch.int64).contiguous()
        self.kept = (~space.absolute_outputs[space.output_entries]).float().contiguous()
        bounds = network.state_bounds or space.unbounded()
        self.lower, self.upper = (bound[self.output_states].contiguous() for bound in bounds)
        self.scale = network.output_scale.contiguous()
        self.noise_kind, none = NOISE_NONE, torch.zeros(1)
        self.inverse_largest = self.smallest = self.constant_variance = none
        if network.variance_bounds is not None:
            self.noise_kind = NOISE_LEARNED
            self.inverse_largest, self.smallest = (bound.flatten().contiguous() for bound in network.variance_bounds)
        elif network.constant_std is not None:
            self.noise_kind = NOISE_CONSTANT
            self.constant_variance = network.constant_std.square().flatten().contiguous()


def _packed(weight: Tensor, bias: Tensor, outputs: int, inputs: int | None, pairs: bool) -> tuple[Tensor, Tensor]:
    """Return weights (E, groups count outputs) and biases (E, groups outputs) of a layer (E, in, out), padded with zeros.

    `inputs`: the padded width of the layer before. With `pairs` features stand in pairs of bfloat16 in one 32-bit word.
    """
    members, features, width = weight.shape
    groups = -(-width // outputs)
    padded = torch.zeros(members, inputs or features, groups * outputs)
    padded[:, :features, :width] = weight
    padded_bias = torch.zeros(members, groups * outputs)
    padded_bias[:, :width] = bias[:, 0]
    grouped = padded.view(members, -1, groups, outputs).transpose(1, 2)  # (E, groups, in, outputs)
    if pairs:
        grouped = grouped.reshape(members, groups, -1, 2, outputs).transpose(-1, -2).to(torch.bfloat16).contiguous()
        grouped = grouped.view(torch.float32)
    return grouped.reshape(members, -1), padded_bias


class FusedRollouts:
    """Rollouts of `candidates` open-loop plans over a horizon; allocates nothing that grows with them once it is made."""

    def __init__(self, packed: PackedNetwork, propagation: Propagation, particles: int, candidates: int, horizon: int,
                 workers: Workers) -> None:
        network, tile = packed.network, packed.kernel.tile
        space = network.state_space
        propagation.check(particles, network.members)
        self._packed, self._workers = packed, workers
        self._particles, self._candidates, self._horizon = particles, candidates, horizon
        blocks = -(-candidates // tile.rows)
        self._columns = blocks * tile.rows
        self._actions = torch.zeros(horizon, network.nu, self._columns)
        self._all_states = torch.zeros(horizon, particles, space.nx, self._columns)
        self._start = torch.zeros(space.nx)
        self._member_of = torch.zeros(horizon, particles, dtype=torch.int64)
        self._shares = shares(particles * blocks, SHARES_PER_THREAD * workers.threads)
        hidden_size = packed.hidden_width * tile.rows * 4
        rows = 4 * space.no + input_width(space, network.nu)
        self._scratch = [aligned_zeros(3 * hidden_size // 4 + rows * tile.rows) for _ in self._shares]
        counts = {
            "particles": particles, "horizon": horizon, "columns": self._columns, "blocks": blocks, "nx": space.nx, "nu": network.nu,
            "no": space.no, "members": network.members, "every_member": int(propagation.fused is Following.ALL_MEMBERS),
            "layers": len(network.weights), "member_size": packed.memory.shape[1] * 4, "angles": len(packed.angles),
            "noise_kind": packed.noise_kind, "hidden_size": hidden_size}
        addresses = {
            "layer_table": packed.layers, "network": packed.memory, "angle_states": packed.angles, "output_states": packed.output_states,
            "kept": packed.kept, "lower": packed.lower, "upper": packed.upper, "inverse_largest": packed.inverse_largest,
            "smallest": packed.smallest, "scale": packed.scale, "constant_variance": packed.constant_variance,
            "member_of": self._member_of, "start": self._start, "actions": self._actions, "states": self._all_states}
        self._arguments = counts | {name: tensor.data_ptr() for name, tensor in addresses.items()}

    @torch.no_grad()
    def states(self, x0: Tensor, actions: Tensor, noise: RolloutNoise) -> Tensor:
        """Return x_1, ..., x_H, (H, P, N, nx), from x0 (nx,) under actions (N, H, nu): the same bits for any number of threads.

        The tensor is a view of a buffer that the next call overwrites; its last two dimensions are transposed in memory.
        """
        if actions.shape[:2] != (self._candidates, self._horizon):
            raise ShapeError(f"FusedRollouts: made for {self._candidates} candidates and {self._horizon} periods, got actions of shape "
                             f"{tuple(actions.shape)}")
        self._start.copy_(x0)
        self._actions[..., : self._candidates].copy_(actions.permute(1, 2, 0))
        self._member_of.copy_(_members(noise, self._horizon, self._particles, self._packed.network.members))
        draws, kind = _draws(noise, self._columns)
        values = self._arguments | {"draws": draws.data_ptr(), "draw_kind": kind}
        arguments = (ctypes.c_int64 * len(FIELDS))(*(values[field] for field in FIELDS))
        run = self._packed.kernel.run

        def run_share(i: int) -> None:
            run(ctypes.addressof(arguments), self._shares[i].start, self._shares[i].stop, self._scratch[i].data_ptr())

        self._workers.map(run_share, range(len(self._shares)))
        return self._all_states[..., : self._candidates].transpose(-1, -2)


def _members(noise: RolloutNoise, horizon: int, particles: int, members: int) -> Tensor:
    """Return the member (H, P) that each particle follows: the one that its slot belongs to."""
    slots = torch.arange(particles).expand(horizon, -1) if noise.slots is None else noise.slots
    return slots.div(max(1, particles // members), rounding_mode="floor")


def _draws(noise: RolloutNoise, columns: int) -> tuple[Tensor, int]:
    """Return the draws by particle as the kernel reads them, and their kind."""
    if noise.normal is None:
        return torch.zeros(1), DRAWS_NONE
    normal = noise.normal
    if noise.slots is not None:
        normal = normal.gather(1, noise.slots[..., None, None].expand_as(normal))
    if normal.shape[2] == 1:
        return normal.contiguous(), DRAWS_COMMON
    draws = normal.new_zeros(*normal.shape[:2], normal.shape[3], columns)
    draws[..., : normal.shape[2]] = normal.transpose(2, 3)
    return draws, DRAWS_EACH
