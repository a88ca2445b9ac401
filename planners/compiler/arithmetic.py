"""What torch's operations on numbers are on a tape. Methods have torch's names and arguments, and take arrays of numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from planners.compiler.expression import NotCompilable, Number, Scalar, Tape


class Arithmetic:
    """Torch's operations on one tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def each(self, operation: str, *arguments: Any) -> np.ndarray:
        """Apply one of our own operations number by number; truths are 1 and 0 where numbers are asked for, numbers true but zero."""
        def apply(*given: Any) -> Number | Scalar:
            lifted = [plain(a) for a in given]
            if operation in ("and", "or", "not"):
                lifted = [a if is_truth(a) else self._tape.apply("ne", a, 0.0) for a in lifted]
            elif operation == "select":
                condition, *chosen = lifted
                condition = condition if is_truth(condition) else self._tape.apply("ne", condition, 0.0)
                lifted = [condition, *(chosen if all(map(is_truth, chosen)) else map(self._number, chosen))]
            else:
                lifted = [self._number(a) for a in lifted]
            return self._tape.apply(operation, *lifted)

        return as_array(np.frompyfunc(apply, len(arguments), 1)(*arguments))

    def add(self, a: Any, b: Any, *, alpha: float = 1) -> np.ndarray:
        return self.each("add", a, b if alpha == 1 else self.each("mul", b, alpha))

    def sub(self, a: Any, b: Any, *, alpha: float = 1) -> np.ndarray:
        return self.each("sub", a, b if alpha == 1 else self.each("mul", b, alpha))

    def rsub(self, a: Any, b: Any, *, alpha: float = 1) -> np.ndarray:
        return self.sub(b, a, alpha=alpha)

    def div(self, a: Any, b: Any, *, rounding_mode: str | None = None) -> np.ndarray:
        if rounding_mode not in (None, "floor"):
            raise NotCompilable(f"it divides with rounding_mode={rounding_mode!r}")
        if rounding_mode is None:
            return self.each("div", a, b)
        return self.each("round", self.each("div", self.each("sub", a, self.remainder(a, b)), b))

    def remainder(self, a: Any, b: Any) -> np.ndarray:
        rest = self.each("fmod", a, b)
        beyond = self.each("and", self.each("ne", rest, 0.0), self.each("ne", self.each("lt", rest, 0.0), self.each("lt", b, 0.0)))
        return self.each("select", beyond, self.each("add", rest, b), rest)

    def pow(self, a: Any, b: Any) -> np.ndarray:
        return self.each("pow", a, b)

    def square(self, a: Any) -> np.ndarray:
        return self.each("mul", a, a)

    def rsqrt(self, a: Any) -> np.ndarray:
        return self.each("div", 1.0, self.each("sqrt", a))

    def reciprocal(self, a: Any) -> np.ndarray:
        return self.each("div", 1.0, a)

    def sinc(self, a: Any) -> np.ndarray:
        angle = self.each("mul", a, math.pi)
        at_zero = self.each("eq", angle, 0.0)
        safe = self.each("select", at_zero, 1.0, angle)
        return self.each("select", at_zero, 1.0, self.each("div", self.each("sin", safe), safe))

    def softplus(self, a: Any, beta: float = 1, threshold: float = 20) -> np.ndarray:
        scaled = self.each("mul", a, beta)
        straight = self.each("gt", scaled, threshold)
        bent = self.each("div", self.each("log1p", self.each("exp", self.each("select", straight, 0.0, scaled))), beta)
        return self.each("select", straight, a, bent)

    def relu(self, a: Any) -> np.ndarray:
        return self.each("select", self.each("le", a, 0.0), 0.0, a)

    def clamp(self, a: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> np.ndarray:
        low, high = (low if low is not None else min), (high if high is not None else max)
        if low is not None:
            a = self.each("select", self.each("lt", a, low), low, a)
        return a if high is None else self.each("select", self.each("gt", a, high), high, a)

    def clamp_min(self, a: Any, low: Any) -> np.ndarray:
        return self.clamp(a, low)

    def clamp_max(self, a: Any, high: Any) -> np.ndarray:
        return self.clamp(a, None, high)

    def where(self, condition: Any, yes: Any, no: Any) -> np.ndarray:
        return self.each("select", condition, yes, no)

    def to_copy(self, a: Any, *, dtype: torch.dtype | None = None, **_: Any) -> np.ndarray:
        if dtype not in (None, torch.float64, torch.float32, torch.bool):
            raise NotCompilable(f"it turns numbers into {dtype}")
        if dtype == torch.bool:
            return self.each("ne", a, 0.0)
        return as_array(np.frompyfunc(self._number, 1, 1)(a))

    def _number(self, value: Any) -> Number | Scalar:
        return self._tape.apply("select", plain(value), 1.0, 0.0) if is_truth(value) else value

    def sum(self, a: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> np.ndarray:
        return self._reduced("add", self.to_copy(a), dim, keepdim, 0.0)

    def prod(self, a: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> np.ndarray:
        return self._reduced("mul", self.to_copy(a), dim, keepdim, 1.0)

    def mean(self, a: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> np.ndarray:
        total = self.sum(a, dim, keepdim)
        return self.each("div", total, np.size(a) / np.size(total))

    def amax(self, a: Any, dim: Any = (), keepdim: bool = False) -> np.ndarray:
        return self._reduced("max", self.to_copy(a), dim, keepdim, None)

    def amin(self, a: Any, dim: Any = (), keepdim: bool = False) -> np.ndarray:
        return self._reduced("min", self.to_copy(a), dim, keepdim, None)

    def all(self, a: Any, dim: Any = None, keepdim: bool = False) -> np.ndarray:
        return self._reduced("and", self.each("ne", a, 0.0), dim, keepdim, True)

    def any(self, a: Any, dim: Any = None, keepdim: bool = False) -> np.ndarray:
        return self._reduced("or", self.each("ne", a, 0.0), dim, keepdim, False)

    def linalg_vector_norm(self, a: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> np.ndarray:
        if ord == 1:
            return self.sum(self.each("abs", a), dim, keepdim)
        if ord != 2:
            raise NotCompilable(f"it uses the norm of order {ord}")
        squares = self.sum(self.square(a), dim, keepdim)
        # at zero its slope is taken to be zero, as torch has it
        root = self.each("sqrt", self.each("select", self.each("gt", squares, 0.0), squares, 1.0))
        return self.each("select", self.each("gt", squares, 0.0), root, squares)

    def _reduced(self, operation: str, a: Any, dim: Any, keepdim: bool, of_nothing: Any) -> np.ndarray:
        a = as_array(a)
        axes = range(a.ndim) if dim is None or dim == () or dim == [] else [dim] if isinstance(dim, int) else dim
        axes = sorted(axis % a.ndim for axis in axes) if a.ndim else []
        kept = [axis for axis in range(a.ndim) if axis not in axes]
        rows = a.transpose(kept + list(axes)).reshape(*(a.shape[k] for k in kept), -1)
        result = np.empty(rows.shape[:-1], object)
        for index in np.ndindex(result.shape):
            numbers = list(rows[index])
            total = numbers[0] if numbers else of_nothing
            for number in numbers[1:]:
                total = self._tape.apply(operation, plain(total), plain(number))
            result[index] = total
        return result.reshape([1 if axis in axes else a.shape[axis] for axis in range(a.ndim)]) if keepdim else result

    def mm(self, a: Any, b: Any) -> np.ndarray:
        products = self.each("mul", as_array(a)[..., :, :, None], as_array(b)[..., None, :, :])
        return self.sum(products, [-2])

    bmm = matmul = mm

    def addmm(self, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> np.ndarray:
        return self.each("add", self.each("mul", bias, beta), self.each("mul", self.mm(a, b), alpha))

    def masked_fill(self, a: Any, where: Any, value: Any) -> np.ndarray:
        return self.each("select", where, value, a)

    def hypot(self, a: Any, b: Any) -> np.ndarray:
        return self.linalg_vector_norm(np.stack(np.broadcast_arrays(as_array(a), as_array(b))), 2, [0])

    def isnan(self, a: Any) -> np.ndarray:
        return self.each("ne", a, a)

    def mv(self, a: Any, b: Any) -> np.ndarray:
        return self.sum(self.each("mul", a, b), [-1])

    dot = vdot = mv

    def linalg_cross(self, a: Any, b: Any, *, dim: int = -1) -> np.ndarray:
        a, b = (np.moveaxis(as_array(v), dim, 0) for v in np.broadcast_arrays(as_array(a), as_array(b)))
        parts = [self.each("sub", self.each("mul", a[i], b[j]), self.each("mul", a[j], b[i])) for i, j in ((1, 2), (2, 0), (0, 1))]
        return np.stack(parts, axis=dim if dim >= 0 else parts[0].ndim + 1 + dim)


ELEMENTWISE = {name: name for name in (
    "mul", "neg", "atan2", "sqrt", "abs", "floor", "ceil", "round", "sign", "exp", "log", "log1p", "expm1", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "sigmoid", "erf", "fmod", "trunc", "lt", "le", "gt", "ge", "eq", "ne")} | {
    "maximum": "max", "minimum": "min", "logical_and": "and", "logical_or": "or", "logical_not": "not",
    "bitwise_and": "and", "bitwise_or": "or", "bitwise_not": "not", "true_divide": "div"}
"""Torch's operations that take number by number, and what they are here."""
_TRUTHS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not")


def as_array(value: Any) -> np.ndarray:
    """Return numbers as an array, objects where one of them is not plain; the same array where it is one."""
    return value if isinstance(value, np.ndarray) else np.asarray(value, dtype=object if isinstance(value, Number | list) else None)


def plain(value: Any) -> Any:
    """Return NumPy's numbers as Python's, integers that are no truths as floats."""
    if isinstance(value, Number | bool | float):
        return value
    return bool(value) if isinstance(value, np.bool_) else float(value)


def is_truth(value: Any) -> bool:
    """Return whether a value is true or false, not a number."""
    if isinstance(value, Number):
        return value.operation in _TRUTHS or (value.operation == "select" and all(map(is_truth, value.arguments[1:])))
    return isinstance(value, bool | np.bool_)
