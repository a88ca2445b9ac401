"""exp, silu, sine and cosine of vectors of float32, within a few roundings; what is not a number stays so."""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import chebyshev

from dynamics.kernels.code import Code, Value

MAGIC = 1.5 * 2.0**23
"""Added to a float32 below 2^22 it leaves the nearest integer in the low bits."""
LARGEST_ANGLE = 2.0**16
"""Sines of larger angles [rad] are not a number: a rollout that turned so far has diverged."""
_LOG2_E = math.log2(math.e)
_EXP_RANGE = 87.0
# pi/2 in three parts, the first two short enough that q times them is exact for q < 2^16
_HALF_PI = (1.5703125, 4.837512969970703e-4, 7.549789948768648e-8)


def _polynomial(function: object, half_width: float, degree: int) -> list[float]:
    """Return the coefficients, lowest first, of the Chebyshev interpolant of `function` on [-half_width, half_width]."""
    series = chebyshev.chebinterpolate(lambda t: function(half_width * t), degree)  # type: ignore[operator]
    return [c / half_width**i for i, c in enumerate(chebyshev.cheb2poly(series))]


_EXP2 = _polynomial(np.exp2, 0.5, 6)
# of y = r^2 in [0, (pi/4)^2], about its middle for the fit, then shifted back
_MIDDLE = (math.pi / 4) ** 2 / 2


def _in_square(function: object, degree: int) -> list[float]:
    shifted = _polynomial(lambda t: function(np.sqrt(t + _MIDDLE)), _MIDDLE, degree)  # type: ignore[operator]
    return list(np.polynomial.Polynomial(shifted)(np.polynomial.Polynomial([-_MIDDLE, 1.0])).coef)


_SINC = _in_square(lambda r: np.sinc(r / np.pi), 4)
_COS = _in_square(np.cos, 4)


def horner(code: Code, x: Value, coefficients: list[float]) -> Value:
    """Return the polynomial with these coefficients, lowest first."""
    value = x.like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = code.fma(value, x, coefficient)
    return value


def exp(code: Code, x: Value) -> Value:
    """Return e^x for |x| <= 87, and the value at the nearer end beyond: 2^n 2^f with n = round(x log2 e)."""
    x = code.where(x > _EXP_RANGE, x.like(_EXP_RANGE), x)  # a comparison with NaN is false: NaN stays
    x = code.where(x < -_EXP_RANGE, x.like(-_EXP_RANGE), x)
    shifted = code.fma(x, x.like(_LOG2_E), MAGIC)
    whole = shifted - MAGIC
    fraction = code.fma(x, x.like(_LOG2_E), -whole)
    power = horner(code, fraction, _EXP2)
    return (power.bits(code.integers) + (shifted.bits(code.integers) << 23)).bits(code.vector)


def silu(code: Code, x: Value) -> Value:
    """Return x / (1 + e^-x)."""
    return x / (exp(code, -x) + 1.0)


def sine_cosine(code: Code, x: Value) -> tuple[Value, Value]:
    """Return sin x and cos x for |x| <= LARGEST_ANGLE, NaN beyond: r = x - q pi/2 in [-pi/4, pi/4], then quadrant q."""
    shifted = code.fma(x, x.like(2 / math.pi), MAGIC)
    quarters = shifted - MAGIC
    r = x
    for part in _HALF_PI:
        r = code.fma(quarters, x.like(-part), r)
    y = r * r
    sine, cosine = r * horner(code, y, _SINC), horner(code, y, _COS)
    q = shifted.bits(code.integers)
    odd = (q & 1).equals(1)
    small = x * x <= LARGEST_ANGLE**2
    results = []
    for even_value, odd_value, quadrant in ((sine, cosine, q), (cosine, sine, q + 1)):
        value = code.where(odd, odd_value, even_value).bits(code.integers) ^ ((quadrant & 2) << 30)
        results.append(code.where(small, value.bits(code.vector), x.like(math.nan)))
    return results[0], results[1]
