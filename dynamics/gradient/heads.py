"""Losses of a network's outputs with their gradients, row by row; outputs, targets and gradients are (rows, vectors of lanes)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from llvmlite import ir

from dynamics.gradient.products import ProductTile
from dynamics.kernels.code import F32, Code, Value
from dynamics.kernels.functions import exp, horner

HEAD_ARGUMENTS = ("outputs", "targets", "gradient", "rows", "padded_rows", "vectors", "share", "weights", "bounds", "bounds_gradient",
                  "loss", "add")
"""`share`: address of the float by which a row's loss counts; `weights`, `bounds`, `bounds_gradient`: (2, vectors lanes); `loss`:
(lanes,), whose sum is the batch's loss; `add`: 1 where it and `bounds_gradient` go on from what is there, 0 where they begin."""


def write_gaussian(module: ir.Module, name: str, tile: ProductTile, penalty: float) -> ir.Function:
    """Write name(*HEAD_ARGUMENTS): share sum[v^p ((mu - y)^2 / v + log v)] + penalty sum(lmax - lmin), with v = exp(bounded
    log-variance) and v^p no variable of the gradient.

    `outputs` hold the means and then the raw log-variances, in as many vectors; `bounds` lmax and lmin; `weights` 1 where there is
    an output, and then p of every output. v = 1 / (exp(-lmax) + exp(-raw)) + exp(lmin) is the double softplus of Chua et al. 2018 in
    closed form.
    """
    code, v, load, keep = _begin(module, name, tile)
    share = code.broadcast(code.load(v["share"], F32))
    vectors = v["vectors"]
    zero = code.constant(0.0, code.vector)
    _begin_loss(code, v)
    is_first = v["add"].equals(0)

    def column(n: Value) -> None:
        upper, lower, weight = load(v["bounds"], n), load(v["bounds"], vectors + n), load(v["weights"], n)
        power = load(v["weights"], vectors + n)
        least, largest = exp(code, -upper), exp(code, lower)
        counted = share * weight

        def row(r: Value, loss: Value, upper_sum: Value, lower_sum: Value) -> list[Value]:
            at = r * vectors * 2 + n
            inverse = exp(code, -load(v["outputs"], at + vectors))
            soft = 1.0 / (inverse + least)
            precision = 1.0 / (soft + largest)
            log_precision = log(code, precision)
            heard = counted * exp(code, -log_precision * power)
            error = load(v["outputs"], at) - load(v["targets"], r * vectors + n)
            scaled = error * precision
            by_log_variance = (1.0 - error * scaled) * heard
            by_soft = by_log_variance * soft * precision
            keep(scaled * 2.0 * heard, v["gradient"], at)
            keep(by_soft * (inverse * soft), v["gradient"], at + vectors)
            return [code.fma(error * scaled - log_precision, heard, loss), code.fma(by_soft, least * soft, upper_sum),
                    code.fma(by_log_variance, largest * precision, lower_sum)]

        loss, upper_sum, lower_sum = code.repeat(0, v["rows"], row, [zero] * 3)
        charge = code.where(is_first, weight * penalty, zero)  # once a batch
        for place, total in ((n, upper_sum + charge), (vectors + n, lower_sum - charge)):
            keep(code.where(is_first, total, total + load(v["bounds_gradient"], place)), v["bounds_gradient"], place)
        keep(load(v["loss"], 0) + loss + (upper - lower) * charge, v["loss"], 0)

        def clear(r: Value) -> None:
            keep(zero, v["gradient"], r * vectors * 2 + n)
            keep(zero, v["gradient"], r * vectors * 2 + n + vectors)

        code.repeat(v["rows"], v["padded_rows"], clear)

    code.repeat(0, vectors, column)
    return code.finish()


def write_squared_logistic(module: ir.Module, name: str, tile: ProductTile) -> ir.Function:
    """Write name(*HEAD_ARGUMENTS): share sum[w0 (o - y)^2 + w1 (log(1 + exp(o)) - o y)], with `weights` w0 and w1 of every output."""
    code, v, load, keep = _begin(module, name, tile)
    share = code.broadcast(code.load(v["share"], F32))
    vectors = v["vectors"]
    zero = code.constant(0.0, code.vector)
    _begin_loss(code, v)

    def column(n: Value) -> None:
        squared, logistic = (load(v["weights"], vectors * i + n) * share for i in range(2))

        def row(r: Value, loss: Value) -> list[Value]:
            output, target = load(v["outputs"], r * vectors + n), load(v["targets"], r * vectors + n)
            error = output - target
            inverse = exp(code, -output) + 1.0
            keep(error * 2.0 * squared + (1.0 / inverse - target) * logistic, v["gradient"], r * vectors + n)
            surprise = log(code, inverse) + output * (1.0 - target)  # log(1 + e^o) = log(1 + e^-o) + o
            return [loss + error * error * squared + surprise * logistic]

        loss, = code.repeat(0, v["rows"], row, [zero])
        keep(load(v["loss"], 0) + loss, v["loss"], 0)
        code.repeat(v["rows"], v["padded_rows"], lambda r: keep(zero, v["gradient"], r * vectors + n))

    code.repeat(0, vectors, column)
    return code.finish()


def _begin_loss(code: Code, v: dict[str, Value]) -> None:
    """Set the loss to zero where a batch begins."""
    code.if_(v["add"].equals(0), lambda: code.store(code.constant(0.0, code.vector), v["loss"], align=code.lanes * 4))


_LOG_DEGREE = 9


def _log_coefficients() -> list[float]:
    """Return the polynomial of log(1 + t) / t on -1/3 <= t <= 1/3, lowest first."""
    def ratio(s: np.ndarray) -> np.ndarray:
        t = s / 3.0
        return np.where(t == 0.0, 1.0, np.log1p(t) / np.where(t == 0.0, 1.0, t))

    series = np.polynomial.chebyshev.chebinterpolate(ratio, _LOG_DEGREE)
    return [c * 3.0**i for i, c in enumerate(np.polynomial.chebyshev.cheb2poly(series))]


_LOG = _log_coefficients()


def log(code: Code, x: Value) -> Value:
    """Return log x of positive normal numbers, within a few roundings; NaN stays: x = 2^n (1 + t) with |t| <= 1/3."""
    bits = x.bits(code.integers)
    scaled = bits - _float_bits(2.0 / 3.0)
    exponent = Value(code, code.builder.ashr(scaled.value, scaled.like(23).value))  # rounds down, also below zero
    mantissa = (bits - (exponent << 23)).bits(code.vector)
    t = mantissa - 1.0
    whole = Value(code, code.builder.sitofp(exponent.value, code.vector))
    result = code.fma(whole, x.like(math.log(2.0)), t * horner(code, t, _LOG))
    return result + (x - x)  # NaN and infinity are not numbers here


def _float_bits(number: float) -> int:
    return int(np.float32(number).view(np.int32))


def _begin(module: ir.Module, name: str, tile: ProductTile) -> tuple[Code, dict[str, Value], Callable[[Value, Value | int], Value],
                                                                     Callable[[Value, Value, Value | int], None]]:
    """Return a new function's code, its arguments by name, and how vectors are read and written."""
    code = Code(module, name, len(HEAD_ARGUMENTS), tile.lanes)
    values = dict(zip(HEAD_ARGUMENTS, code.arguments, strict=True))

    def load(address: Value, index: Value | int) -> Value:
        return code.load(address, code.vector, index, align=tile.lanes * 4)

    def keep(value: Value, address: Value, index: Value | int) -> None:
        code.store(value, address, index, align=tile.lanes * 4)

    return code, values, load, keep
