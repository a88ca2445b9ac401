"""An ensemble's mean through compiled kernels: its gradients along a trajectory, and rollouts of feedback policies."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from dynamics.forward import FoldedNetwork, input_width
from dynamics.kernels.compiled import best_tile, load, processor_features
from dynamics.kernels.ensemble_mean import FIELDS, LAYER_FIELDS, scratch_size, write_gradients, write_mean
from dynamics.kernels.few_rows import ROWS, Panels
from dynamics.kernels.memory import aligned_zeros
from dynamics.state_space import Kind
from dynamics.workers import Workers, portions

Item = TypeVar("Item")


@dataclass(frozen=True)
class MeanKernel:
    """Compiled functions; several threads may call them at once, and let Python's other threads go on."""

    panels: Panels
    mean_of_one: ctypes._CFuncPtr
    """mean(arguments, inputs, means, scratch) for one row, see `kernels.ensemble_mean.write_mean`."""
    mean: ctypes._CFuncPtr
    """The same for ROWS rows."""
    gradients: ctypes._CFuncPtr
    """gradients(arguments, first, end, scratch), see `kernels.ensemble_mean.write_gradients`."""


def mean_kernel() -> MeanKernel | None:
    """Return the functions compiled for this processor, or None where it has no fused multiply-adds."""
    return compile_mean(processor_features())


@functools.cache
def compile_mean(features: frozenset[str]) -> MeanKernel | None:
    """Return the functions for a processor with `features` (0.6 s), or None where it has no fused multiply-adds."""
    tile = best_tile(features)
    if tile is None:
        return None
    panels, module = Panels(tile.lanes), ir.Module("reflexarc_mean")
    write_mean(module, "mean_of_one", panels, 1)
    write_mean(module, "mean", panels, ROWS)
    write_gradients(module, "gradients", panels)
    functions = load(module, features, {"mean_of_one": 4, "mean": 4, "gradients": 4})
    return MeanKernel(panels, **functions)


class FusedMean:
    """The mean of a folded network's members, for states of plain numbers and angles. Not for several threads at once.

    A row's numbers are the same bits in any batch and on any number of threads.
    """

    def __init__(self, network: FoldedNetwork, kernel: MeanKernel, workers: Workers | None) -> None:
        """`workers`: who shares the work; None: the calling thread does all of it."""
        space, panels = network.state_space, kernel.panels
        self._kernel, self._workers, self._members = kernel, workers, network.members
        self._threads = 1 if workers is None else workers.threads
        self._outputs, self._width = space.no, input_width(space, network.nu)
        self._angles, self._moved = space.angle_inputs.numpy(), space.output_states.numpy()
        self._absolute = space.absolute_outputs[space.output_entries].numpy()
        self._turns = np.array([channel.kind is Kind.ANGLE for channel in space.channels for _ in channel.indices])
        weights, biases = ([tensor.numpy() for tensor in tensors] for tensors in (network.weights, network.biases))
        weights[-1], biases[-1] = (parameter[-1][..., : space.no] / self._members for parameter in (weights, biases))
        self._row = panels.padded(max(space.no, *(weight.shape[1] for weight in weights)))
        self._gradient_row = panels.padded(self._width)
        packed = _Packed(panels, self._members)
        for weight, bias in zip(weights, biases, strict=True):
            packed.add(weight, bias[:, 0])
        basis = np.zeros((self._members, space.no, self._row), np.float32)
        basis[..., : weights[-1].shape[1]] = weights[-1].swapaxes(1, 2)
        output_weights = packed.place(basis)
        self._memory, self._table = packed.memory(), np.array(packed.table)
        self._scratch_size = scratch_size(self._row, len(weights))
        self._values = {
            "layers": len(weights), "layer_table": self._table.ctypes.data, "members": self._members, "member_size": packed.size,
            "network": self._memory.ctypes.data, "row": 4 * self._row, "outputs": space.no, "output_weights": output_weights,
            "gradient_row": 4 * self._gradient_row}
        self._buffers: _Buffers | None = None
        self._begun: _Begun | None = None

    def gradients(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return gradients (E, T no, d or more) float32 of the outputs in states x (T, nx) under commands u (T, nu) by raw inputs.

        Their sum over the members is that of the mean. It is a buffer, which the next call, or rollout, overwrites.
        """
        inputs, periods = self._inputs(x, u), len(x)
        begun, self._begun = self._begun, None
        if begun is not None and begun.work.cancel():
            begun = None
        if begun is not None and not begun.is_of(inputs):
            begun.work.result()
            begun = None
        run, gradients = self._differentiation(inputs, periods)
        units = iter(range(0 if begun is None else self._members, self._members * -(-periods // ROWS)))
        self._map(run, [units] * self._threads)  # all take from one: a thread that is held up leaves the later ones to the others
        if begun is not None:
            begun.work.result()
        return gradients[:, : periods * self._outputs]

    def roll_out_feedback(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray,
                          gains: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.feedback_rollout`."""
        x0, states, actions, steps, feedforward, gains, lower, upper = (
            np.ascontiguousarray(values, dtype=np.float64) for values in (x0, states, actions, steps, feedforward, gains, lower, upper))
        reached, commands = np.empty((len(steps), *states.shape)), np.empty((len(steps), *actions.shape))
        reached[:, 0] = x0
        arguments, horizon = self._arguments(), len(actions)

        def run(rows: slice, first: int = 0, end: int = horizon) -> None:
            mean, size = (self._kernel.mean_of_one, 1) if rows.stop - rows.start == 1 else (self._kernel.mean, ROWS)
            _follow(ctypes.cast(mean, ctypes.c_void_p).value, arguments, _zeros(size, self._row), _zeros(size, self._row),
                    _zeros(self._scratch_size), self._angles, self._moved, self._absolute, self._turns, states, actions, steps[rows],
                    feedforward, gains, lower, upper, reached[rows], commands[rows], first, end)

        if len(steps) == 1 and horizon > ROWS and self._threads > 1:
            run(slice(0, 1), 0, ROWS)
            self._begin(reached[0, :ROWS], commands[0, :ROWS], horizon)
            run(slice(0, 1), ROWS, horizon)
        else:
            self._map(run, portions(len(steps), ROWS))
        return reached, commands

    def _begin(self, x: np.ndarray, u: np.ndarray, periods: int) -> None:
        """Have an idle thread begin with the gradients along a rollout that goes on: one that is alone is mostly the next trajectory."""
        if self._begun is None or self._begun.work.done():
            inputs = self._inputs(x, u)
            run, _ = self._differentiation(inputs, periods)
            self._begun = _Begun(inputs, periods, self._workers.begin(lambda: run(range(self._members))))

    def _differentiation(self, inputs: np.ndarray, periods: int) -> tuple[Callable[[Iterable[int]], None], np.ndarray]:
        """Return what differentiates units of a trajectory, see `write_gradients`, and where to; `inputs` (T or fewer, d) begin it."""
        blocks = -(-periods // ROWS)
        if self._buffers is None or self._buffers.periods != periods:
            self._buffers = _Buffers(periods, _zeros(blocks * ROWS, self._row),
                                     _zeros(self._members, blocks * ROWS * self._outputs, self._gradient_row))
        rows, gradients = self._buffers.inputs, self._buffers.gradients
        rows[: len(inputs), : self._width] = inputs
        arguments = self._arguments(periods=periods, blocks=blocks, inputs=rows.ctypes.data, gradients=gradients.ctypes.data,
                                    gradient_member=gradients[0].nbytes)

        def run(units: Iterable[int]) -> None:
            scratch = _zeros(self._scratch_size)
            given, at, differentiate = arguments.ctypes.data, scratch.ctypes.data, self._kernel.gradients
            for unit in units:
                differentiate(given, unit, unit + 1, at)

        return run, gradients

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is returned as such
    def _inputs(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return the raw inputs (T, d) float32, see `FoldedNetwork`."""
        angles = x[:, self._angles]
        return np.concatenate([x, np.sin(angles), np.cos(angles), u], axis=1).astype(np.float32)

    def _map(self, work: Callable[[Item], None], items: list[Item]) -> None:
        if self._workers is not None and len(items) > 1:
            self._workers.map(work, items)
            return
        for item in items:
            work(item)

    def _arguments(self, **values: int) -> np.ndarray:
        """Return the argument table with these values besides the network's own."""
        return np.array([(self._values | values).get(field, 0) for field in FIELDS])


class _Packed:
    """Memory of the members' weights as it grows, and the layers' table."""

    def __init__(self, panels: Panels, members: int) -> None:
        self._panels, self._members = panels, members
        self._sections: list[np.ndarray] = []
        self.table: list[int] = []
        self.size = 0
        """Of a member [byte]."""

    def add(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Add a layer of weights (E, in, out) and biases (E, out), and its way back."""
        panels, (_, inputs, outputs) = self._panels, weight.shape
        padded = np.zeros((self._members, panels.padded(outputs)), np.float32)
        padded[:, :outputs] = bias
        ahead = self.place(np.stack([panels.packed(member) for member in weight]))
        entries = {"count": inputs, "registers": panels.registers(outputs), "weights": ahead, "bias": self.place(padded),
                   "back_count": outputs, "back_registers": panels.registers(inputs),
                   "back_weights": self.place(np.stack([panels.packed(member.T) for member in weight]))}
        self.table += [entries[field] for field in LAYER_FIELDS]

    def place(self, section: np.ndarray) -> int:
        """Add a section (E, ...) float32 and return where in a member it lies [byte]."""
        self._sections.append(section.reshape(self._members, -1))
        at, self.size = self.size, self.size + 4 * self._sections[-1].shape[1]
        return at

    def memory(self) -> np.ndarray:
        """Return everything, one member after the other."""
        memory = _zeros(self._members, self.size // 4)
        np.concatenate(self._sections, axis=1, out=memory)
        return memory


def _zeros(*shape: int) -> np.ndarray:
    """Return zeros float32 that start on a cache line."""
    return aligned_zeros(math.prod(shape)).numpy().reshape(shape)


@dataclass(frozen=True)
class _Buffers:
    """What gradients along so many periods are computed in."""

    periods: int
    inputs: np.ndarray
    gradients: np.ndarray


@dataclass(frozen=True)
class _Begun:
    """Gradients of a trajectory's first block, which a thread is at."""

    inputs: np.ndarray
    """Raw inputs (ROWS, d)."""
    periods: int
    """Of the whole trajectory."""
    work: Future[None]

    def is_of(self, inputs: np.ndarray) -> bool:
        """Whether the raw inputs (T, d) of a trajectory are what it begins with."""
        return len(inputs) == self.periods and np.array_equal(self.inputs, inputs[:ROWS])


@intrinsic
def _call(typing_context, function, arguments, inputs, means, scratch):
    """Call the function at an address with four addresses."""

    def generate(context, builder, signature, values):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _follow(mean: int, arguments: np.ndarray, inputs: np.ndarray, means: np.ndarray, scratch: np.ndarray, angles: np.ndarray,
            moved: np.ndarray, absolute: np.ndarray, turns: np.ndarray, states: np.ndarray, actions: np.ndarray,
            steps: np.ndarray, feedforward: np.ndarray, gains: np.ndarray, lower: np.ndarray, upper: np.ndarray, reached: np.ndarray,
            commands: np.ndarray, first: int, end: int) -> None:
    """Write the states first + 1 ... end and the commands of a block of rollouts.

    States are float64, what the network reads and says is float32.
    """
    nx, nu, turning = reached.shape[2], len(lower), len(angles)
    away = np.empty(nx)
    for t in range(first, end):
        for n in range(len(steps)):
            x, u, row = reached[n, t], commands[n, t], inputs[n]
            for j in range(nx):
                away[j] = x[j] - states[t, j]
                if turns[j]:
                    away[j] -= 2 * math.pi * np.round(away[j] / (2 * math.pi))
                row[j] = x[j]
            for j in range(turning):
                row[nx + j], row[nx + turning + j] = math.sin(x[angles[j]]), math.cos(x[angles[j]])
            for i in range(nu):
                wanted = actions[t, i] + steps[n] * feedforward[t, i]
                for j in range(nx):
                    wanted += gains[t, i, j] * away[j]
                u[i] = min(max(wanted, lower[i]), upper[i])
                row[nx + 2 * turning + i] = u[i]
        means[:] = 0.0
        _call(mean, arguments.ctypes.data, inputs.ctypes.data, means.ctypes.data, scratch.ctypes.data)
        for n in range(len(steps)):
            x, following = reached[n, t], reached[n, t + 1]
            for j in range(nx):
                following[j] = x[j]
            for j in range(len(moved)):
                following[moved[j]] = means[n, j] + (0.0 if absolute[j] else x[moved[j]])
