"""Adam's descent of one network over an epoch's minibatches: by autograd, or by the compiled kernel in buffers that stay."""

from __future__ import annotations

import ctypes
import math
from typing import Protocol

import torch
from torch import Tensor

from dynamics.gradient.adam import BETA1, BETA2
from dynamics.gradient.compiled import EpochKernel, compile_epoch
from dynamics.gradient.epoch import CHUNK_ROWS, EPOCH_FIELDS, LAYER_FIELDS
from dynamics.kernels.memory import aligned_zeros
from dynamics.losses import HeadLoss, Loss
from dynamics.network import Parameters, layer_count


class Descent(Protocol):
    """Gradient steps of one network's parameters, in place."""

    def epoch(self, order: Tensor, sizes: list[int], learning_rates: list[float]) -> float:
        """Make one step for each of the minibatches that `sizes` cut rows `order` into, and return their mean loss."""
        ...

    def publish(self) -> None:
        """Bring the parameters and the optimiser's moments up to date; until then they may lag behind."""
        ...


def make_descent(parameters: Parameters, optimiser: torch.optim.Adam, loss: Loss, inputs: Tensor, targets: Tensor, largest_batch: int,
                 products: str) -> Descent:
    """Return the descent of `loss` over inputs (n, in) and targets (n, targets): compiled where the loss and the processor allow."""
    if isinstance(loss, HeadLoss):
        kernel = compile_epoch(layer_count(parameters), loss.head, products) or compile_epoch(layer_count(parameters), loss.head, "float32")
        if kernel is not None:
            return CompiledDescent(kernel, parameters, optimiser, loss, inputs, targets, largest_batch)
    return AutogradDescent(parameters, optimiser, loss, inputs, targets)


class AutogradDescent:
    """The descent of any loss."""

    def __init__(self, parameters: Parameters, optimiser: torch.optim.Adam, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        self._parameters, self._optimiser, self._loss, self._inputs, self._targets = parameters, optimiser, loss, inputs, targets

    def epoch(self, order: Tensor, sizes: list[int], learning_rates: list[float]) -> float:
        inputs, targets = self._inputs[order].split(sizes), self._targets[order].split(sizes)
        total = torch.zeros((), dtype=torch.float64)
        for batch_inputs, batch_targets, rate in zip(inputs, targets, learning_rates, strict=True):
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            self._optimiser.zero_grad(set_to_none=False)
            value = self._loss(self._parameters, batch_inputs, batch_targets)
            value.backward()
            self._optimiser.step()
            total += value.detach()
        return float(total) / len(sizes)

    def publish(self) -> None:
        """Nothing lags behind."""


class CompiledDescent:
    """The descent of a loss with a compiled head. All numbers of a network lie in one flat vector, padded to whole registers."""

    def __init__(self, kernel: EpochKernel, parameters: Parameters, optimiser: torch.optim.Adam, loss: HeadLoss, inputs: Tensor,
                 targets: Tensor, largest_batch: int) -> None:
        self._kernel, self._parameters, self._optimiser, self._loss = kernel, parameters, optimiser, loss
        tile, layers = kernel.tile, layer_count(parameters)
        lanes = tile.lanes
        self._group = _whole(loss.outputs, lanes)
        decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
        widths = [parameters["weight0"].shape[0]] + [parameters[f"weight{n}"].shape[1] for n in range(layers)]
        padded = [_whole(width, lanes) for width in widths[:-1]] + [loss.output_groups * self._group]

        # where each tensor lies in the flat vector, and the penalty from there on
        self._places: dict[str, tuple[int, int, int]] = {}
        sections, at = [], 0
        for n in range(layers):
            for name, rows in ((f"weight{n}", padded[n]), (f"bias{n}", 1)):
                self._places[name] = (at, rows, padded[n + 1])
                sections.append((at // lanes, decay[id(parameters[name])]))
                at += rows * padded[n + 1]
        for name in ("variance_max", "variance_min"):  # bounds of the noise; without them, zeros that stay
            self._places[name] = (at, 1, self._group)
            sections.append((at // lanes, 0.0))
            at += self._group
        self._vectors = {title: aligned_zeros(at) for title in ("parameters", "gradient", "mean", "square")}
        self._steps = self._load()

        rows = _whole(min(largest_batch, CHUNK_ROWS), tile.rows)
        self._held: list[Tensor] = []  # what the kernel has addresses of
        self._inputs, self._targets = _padded(inputs, padded[0]), _padded(targets, self._group)
        pairs = {title: 0 for title in ("pairs", "transposed_pairs", "result_pairs", "delta_pairs")}
        flat, slopes = self._vectors["parameters"].data_ptr(), self._vectors["gradient"].data_ptr()
        self._layer_table: list[int] = []
        for n in range(layers):
            weight, bias = self._places[f"weight{n}"][0] * 4, self._places[f"bias{n}"][0] * 4
            matrix, result = padded[n] * padded[n + 1], rows * padded[n + 1]
            values = pairs | dict(
                in_count=widths[n], in_tiles=-(-widths[n] // tile.rows), in_blocks=padded[n] // lanes, in_width=padded[n],
                out_count=widths[n + 1] if n < layers - 1 else padded[n + 1], out_vectors=padded[n + 1] // lanes,
                out_blocks=padded[n + 1] // lanes, out_width=padded[n + 1], weight=flat + weight, bias=flat + bias,
                weight_gradient=slopes + weight, bias_gradient=slopes + bias, transposed=self._buffer(matrix), pairs=self._buffer(matrix),
                transposed_pairs=self._buffer(matrix), result=self._buffer(result), result_pairs=self._buffer(result),
                slope=self._buffer(result), delta=self._buffer(result), delta_pairs=self._buffer(result))
            self._layer_table += [values[title] for title in LAYER_FIELDS]
        weights = aligned_zeros(2 * self._group).view(2, -1)
        weights[:, : loss.outputs] = loss.weights
        self._held.append(weights)
        bounds = self._places["variance_max"][0] * 4
        self._sections = torch.zeros(len(sections) + 1, 2, dtype=torch.int64)
        self._sections[:-1, 0] = torch.tensor([begin for begin, _ in sections])
        self._sections[:-1].view(torch.float32)[:, 2] = torch.tensor([penalty for _, penalty in sections])
        self._sections[-1, 0] = at // lanes
        self._table = dict(input_width=padded[0], target_width=self._group, target_vectors=self._group // lanes, weights=weights.data_ptr(),
                           bounds=flat + bounds, bounds_gradient=slopes + bounds, sections=self._sections.data_ptr(),
                           section_count=len(sections)) | {title: vector.data_ptr() for title, vector in self._vectors.items()}
        self._batch_inputs, self._batch_targets = aligned_zeros(0), aligned_zeros(0)

    @torch.no_grad()
    def epoch(self, order: Tensor, sizes: list[int], learning_rates: list[float]) -> float:
        """See `Descent`."""
        tile, steps = self._kernel.tile, len(sizes)
        if len(self._batch_inputs) < (len(order) + tile.rows) * self._inputs.shape[1]:  # the last tile may read past the end
            self._batch_inputs = aligned_zeros((len(order) + tile.rows) * self._inputs.shape[1])
            self._batch_targets = aligned_zeros((len(order) + tile.rows) * self._targets.shape[1])
        for source, target in ((self._inputs, self._batch_inputs), (self._targets, self._batch_targets)):
            torch.index_select(source, 0, order, out=target[: len(order) * source.shape[1]].view(len(order), -1))
        starts = torch.tensor([0, *sizes]).cumsum(0)
        shares = self._loss.row_share / torch.tensor(sizes, dtype=torch.float32)
        taken = range(self._steps + 1, self._steps + steps + 1)
        rates = torch.tensor([(rate / (1.0 - BETA1**t), 1.0 / math.sqrt(1.0 - BETA2**t))
                              for t, rate in zip(taken, learning_rates, strict=True)])
        losses = aligned_zeros(steps * tile.lanes)
        values = self._table | dict(inputs=self._batch_inputs.data_ptr(), targets=self._batch_targets.data_ptr(), starts=starts.data_ptr(),
                                    shares=shares.data_ptr(), rates=rates.data_ptr(), losses=losses.data_ptr())
        table = (ctypes.c_int64 * (len(EPOCH_FIELDS) + len(self._layer_table)))(*(values[f] for f in EPOCH_FIELDS), *self._layer_table)
        self._kernel.run(ctypes.addressof(table), 0, steps)
        self._steps += steps
        return float(losses.double().sum()) / steps

    @torch.no_grad()
    def publish(self) -> None:
        """See `Descent`."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self._view(self._vectors["parameters"], name).reshape(parameter.shape))
            state = self._optimiser.state[parameter]
            if self._steps and not state:
                state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
            if state:
                state["step"].fill_(self._steps)
                state["exp_avg"].copy_(self._view(self._vectors["mean"], name).reshape(parameter.shape))
                state["exp_avg_sq"].copy_(self._view(self._vectors["square"], name).reshape(parameter.shape))

    def gradient(self, name: str) -> Tensor:
        """Return the last step's gradient of the loss in a parameter, without its penalty."""
        return self._view(self._vectors["gradient"], name).reshape(self._parameters[name].shape)

    @property
    def padding(self) -> Tensor:
        """What lies between the parameters in the flat vector: zeros, always."""
        values = self._vectors["parameters"].clone()
        for name in self._parameters:
            self._view(values, name).zero_()
        return values

    @torch.no_grad()
    def _load(self) -> int:
        """Take over parameters and moments, and return the steps taken so far."""
        steps = 0
        for name, parameter in self._parameters.items():
            values = {"parameters": parameter}
            state = self._optimiser.state.get(parameter, {})
            if state:
                steps = int(state["step"])
                values |= {"mean": state["exp_avg"], "square": state["exp_avg_sq"]}
            for vector, value in values.items():
                view = self._view(self._vectors[vector], name)
                view.copy_(value.reshape(view.shape))
        return steps

    def _view(self, vector: Tensor, name: str) -> Tensor:
        """Return the part of a flat vector that is a parameter (rows, groups of columns, columns)."""
        at, rows, width = self._places[name]
        shape = self._parameters[name].shape
        last = layer_count(self._parameters) - 1
        groups = self._loss.output_groups if name in (f"weight{last}", f"bias{last}") else 1
        whole = vector[at : at + rows * width].view(rows, groups, -1)
        return whole[: shape[0] if len(shape) == 2 else 1, :, : shape[-1] // groups]

    def _buffer(self, words: int) -> int:
        self._held.append(aligned_zeros(words))
        return self._held[-1].data_ptr()


def _whole(count: int, size: int) -> int:
    """Return `count` rounded up to a multiple of `size`."""
    return -(-count // size) * size


def _padded(values: Tensor, width: int) -> Tensor:
    """Return values (n, m) with zeros up to `width` columns."""
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))
