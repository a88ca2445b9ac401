"""One network for one input: lanes are the outputs of a layer, so that a state costs hundreds of nanoseconds."""

from __future__ import annotations

from itertools import pairwise

from llvmlite import ir

from dynamics.kernels.code import F32, Code, Value
from dynamics.kernels.functions import exp, silu

_TOGETHER = 8
"""Registers of outputs that are summed at a time: enough to hide the time of a multiply-add."""


def padded(width: int, lanes: int) -> int:
    """Return `width` rounded up to whole registers."""
    return -(-width // lanes) * lanes


def write_network(module: ir.Module, name: str, lanes: int, widths: tuple[int, ...]) -> None:
    """Write the function network(inputs, weights, scratch, outputs), of addresses of float32.

    `inputs`: (widths[0],); `weights`: for every layer (inputs + 1, padded outputs) one after the other, the last row its bias and all
    of a hidden layer halved, then (2, padded widths[-1]) middle and half range of the outputs; `scratch`: two rows as wide as the
    widest padded layer; `outputs`: (padded widths[-1],). Between the layers is silu, at the end middle + half range * tanh.
    """
    code = Code(module, name, 4, lanes)
    source, weights, scratch, outputs = code.arguments
    row_size = 4 * max(padded(width, lanes) for width in widths)
    last = len(widths) - 2
    for layer, (count, width) in enumerate(pairwise(widths)):
        target = outputs if layer == last else scratch + row_size * (layer % 2)
        groups = padded(width, lanes) // lanes
        for first in range(0, groups, _TOGETHER):
            together = range(first, min(first + _TOGETHER, groups))
            for group, total in zip(together, _sums(code, source, weights, count, groups, together), strict=True):
                code.store(total if layer == last else silu(code, total + total), target, group)
        source = target
        weights = weights + 4 * lanes * groups * (count + 1)
    for group in range(groups):
        middle, half_range = (code.load(weights, code.vector, row * groups + group) for row in range(2))
        code.store(code.fma(_tanh(code, code.load(outputs, code.vector, group)), half_range, middle), outputs, group)
    code.finish()


def _sums(code: Code, source: Value, weights: Value, count: int, groups: int, together: range) -> list[Value]:
    """Return weights · inputs + bias for the registers `together` of a layer's outputs."""

    def add_input(k: Value, *sums: Value) -> list[Value]:
        number = code.broadcast(code.load(source, F32, k))
        return [code.fma(number, code.load(weights, code.vector, k * groups + g), total) for g, total in zip(together, sums, strict=True)]

    return code.repeat(0, count, add_input, [code.load(weights, code.vector, groups * count + g) for g in together])


def _tanh(code: Code, x: Value) -> Value:
    """Return tanh x = 1 - 2 / (1 + e^2x), never beyond 1."""
    return 1.0 - 2.0 / (exp(code, x + x) + 1.0)
