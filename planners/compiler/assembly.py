"""Machine code for what is written on tapes: over all samples and control periods of a plan."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from ctypes import _CFuncPtr

from llvmlite import ir

from dynamics.kernels.code import Code, Value
from dynamics.kernels.compiled import load, processor_features
from planners.compiler.expression import Number, Scalar, Tape
from planners.compiler.operations import F64, OPERATIONS, TRUTH

_BYTES = 8
"""Of a float64."""
TOTALS = 11
"""Arguments of what `totals` writes."""


def totals(module: ir.Module, name: str, running: tuple[Tape, Sequence[Number | Scalar]], terminal: tuple[Tape, Sequence[Number | Scalar]],
           together: bool) -> None:
    """Write name(first, first_stride, states, sample_stride, period_stride, actions, sample_stride, period_stride, samples, periods, sums).

    For every sample, the sums over its periods of the results of `running`, each, and the one of `terminal` at the end; `together`: all in
    one sum. Addresses of float64, strides in bytes: `first` is the state of period 0, `states` that of period 1, `actions` of period 0.
    """
    code = Code(module, name, TOTALS, 1)
    first, first_stride, states, state_sample, state_period, actions, action_sample, action_period, samples, periods, sums = code.arguments
    count = 1 if together else len(running[1]) + 1

    def sample(n: Value) -> None:
        begins, later, commands = first + n * first_stride, states + n * state_sample, actions + n * action_sample

        def period(t: Value, *so_far: Value) -> list[Value]:
            x = code.where(t.equals(0), begins, later + (t - 1) * state_period)
            added = _values(code, *running, {"x": x, "u": commands + t * action_period})
            return [total + value for total, value in zip(so_far, added, strict=True)]

        end = later + (periods - 1) * state_period
        found = code.repeat(0, periods, period, [code.constant(0.0, F64)] * len(running[1]))
        found += _values(code, *terminal, {"x": end})
        if together:
            found = [functools.reduce(lambda a, b: a + b, found)]
        for k, value in enumerate(found):
            code.store(value, sums + n * (count * _BYTES), k, align=_BYTES)

    code.repeat(0, samples, sample)
    code.finish()


def expansion(module: ir.Module, name: str, tape: Tape, gradient: Sequence[Number | Scalar],
              hessian: Mapping[tuple[int, int], Number | Scalar], sizes: Mapping[str, int]) -> None:
    """Write name(x, u, periods, gradient (periods, n), hessian (periods, n, n)) of float64, one after the other; what is zero everywhere
    is not written."""
    code, n = Code(module, name, 5, 1), len(gradient)
    x, u, periods, gradients, hessians = code.arguments

    def period(t: Value) -> None:
        written = [(i, g) for i, g in enumerate(gradient) if isinstance(g, Number) or g != 0.0]
        places = [(i * n + j, h) for (i, j), h in hessian.items()] + [(j * n + i, h) for (i, j), h in hessian.items() if i != j]
        values = _values(code, tape, [v for _, v in written + places],
                         {"x": x + t * (_BYTES * sizes["x"]), "u": u + t * (_BYTES * sizes["u"])})
        for (place, _), value in zip(written, values, strict=False):
            code.store(value, gradients + t * (_BYTES * n), place, align=_BYTES)
        for (place, _), value in zip(places, values[len(written):], strict=True):
            code.store(value, hessians + t * (_BYTES * n * n), place, align=_BYTES)

    code.repeat(0, periods, period)
    code.finish()


def _values(code: Code, tape: Tape, results: Sequence[Number | Scalar], given: Mapping[str, Value]) -> list[Value]:
    """Have the code compute results from vectors at addresses."""
    there: dict[int, Value] = {}
    for number in tape.behind(results):
        if number.operation is None:
            name, index = number.given
            there[number.place] = code.load(given[name], F64, index, align=_BYTES)
        else:
            there[number.place] = OPERATIONS[number.operation].emit(code, *(_value(code, a, there) for a in number.arguments))
    return [_value(code, r, there) for r in results]


def _value(code: Code, number: Number | Scalar, there: Mapping[int, Value]) -> Value:
    if isinstance(number, Number):
        return there[number.place]
    return code.constant(number, TRUTH if isinstance(number, bool) else F64)


@functools.lru_cache(maxsize=32)
def _compiled(source: str, functions: tuple[tuple[str, int], ...]) -> dict[str, _CFuncPtr]:
    return load(source, processor_features(), dict(functions))


def compiled(module: ir.Module, functions: Mapping[str, int]) -> dict[str, _CFuncPtr]:
    """Return functions of a module by name, each with its number of arguments; the same text is compiled once."""
    return _compiled(str(module), tuple(functions.items()))

