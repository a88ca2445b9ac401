"""What the compiler can compute: every operation's value, its simpler forms, its derivative and its instructions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from dynamics.kernels.code import Code, Value

F64, TRUTH = ir.DoubleType(), ir.IntType(1)


def _never(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Operation:
    """An operation on numbers, some of which may be plain."""

    value: Callable[..., float | bool]
    """value(*plain numbers)"""
    emit: Callable[..., Value]
    """emit(code, *values) writes the instructions."""
    pulls: tuple[Callable[..., Any], ...] = ()
    """pulls[k](g, r, *arguments) returns g times the derivative of the result r by argument k, None where it is zero everywhere.
    None at all: no derivative by anything."""
    simplify: Callable[..., Any] = _never
    """simplify(*arguments) returns the same result with less, or None."""


def _is(argument: object, number: float) -> bool:
    return isinstance(argument, float | int) and argument == number


def _simpler_sum(a: Any, b: Any) -> Any:
    return b if _is(a, 0.0) else a if _is(b, 0.0) else None


def _simpler_difference(a: Any, b: Any) -> Any:
    return a if _is(b, 0.0) else None


def _simpler_product(a: Any, b: Any) -> Any:
    return b if _is(a, 1.0) else a if _is(b, 1.0) else None


def _simpler_power(a: Any, exponent: Any) -> Any:
    match exponent:
        case 1:
            return a
        case 2:
            return a * a
        case 3:
            return a * a * a
        case 4:
            return (a * a) * (a * a)
        case -1:
            return 1.0 / a
        case 0.5:
            return a.apply("sqrt")
    return None


def _power_by_base(g: Any, r: Any, a: Any, exponent: Any) -> Any:
    return g * (exponent * a.apply("pow", exponent - 1.0))


def _power_by_exponent(g: Any, r: Any, a: Any, exponent: Any) -> Any:
    apply = exponent.tape.apply
    return g * (r * apply("log", apply("select", apply("eq", a, 0.0), 1.0, a)))  # at zero: no slope, as torch has it


def _angle_by(k: int) -> Callable[..., Any]:
    """Return the pull of atan2(y, x) along its argument k; at the origin zero, as torch has it."""
    def pull(g: Any, r: Any, y: Any, x: Any) -> Any:
        apply = r.tape.apply
        square = apply("add", apply("mul", x, x), apply("mul", y, y))
        per_square = g / apply("select", apply("eq", square, 0.0), 1.0, square)
        return per_square * x if k == 0 else -(per_square * y)

    return pull


def _simpler_choice(condition: Any, yes: Any, no: Any) -> Any:
    return (yes if condition else no) if isinstance(condition, bool) else yes if yes is no else None


def _choose(code: Code, condition: Value, yes: Value, no: Value) -> Value:
    return code.where(condition, yes, no)


def _function(name: str) -> Callable[..., Value]:
    """Return what calls a function of C's library, or LLVM's own."""
    return lambda code, *values: code.intrinsic(name, F64, *values)


def _compare(sign: str) -> Callable[..., Value]:
    def emit(code: Code, a: Value, b: Value) -> Value:
        compare = code.builder.fcmp_unordered if sign == "!=" else code.builder.fcmp_ordered  # what is no number differs from all
        return Value(code, compare(sign, a.value, b.value))

    return emit


def _larger(g: Any, condition: str, a: Any, b: Any, yes: bool) -> Any:
    """Return g where the condition holds (`yes`) or not; half of it where a equals b, as torch has it."""
    tape = (a if hasattr(a, "tape") else b).tape
    half = tape.apply("select", tape.apply("eq", a, b), 0.5 * g, 0.0 if yes else g)
    return tape.apply("select", tape.apply(condition, a, b), g if yes else 0.0, half)


def _extreme(condition: str, plain: Callable[..., float]) -> Operation:
    def emit(code: Code, a: Value, b: Value) -> Value:
        first = Value(code, code.builder.or_(_compare(condition)(code, a, b).value, _compare("!=")(code, a, a).value))
        return code.where(first, a, b)

    return Operation(plain, emit, (lambda g, r, a, b: _larger(g, "gt" if condition == ">" else "lt", a, b, True),
                                   lambda g, r, a, b: _larger(g, "gt" if condition == ">" else "lt", a, b, False)))


def _one(plain: Callable[[float], float], name: str, pull: Callable[..., Any] | None = None) -> Operation:
    return Operation(lambda a: float(plain(a)), _function(name), () if pull is None else (pull,))


def _condition(sign: str, plain: Callable[..., bool]) -> Operation:
    return Operation(lambda a, b: bool(plain(a, b)), _compare(sign))


def _remainder(a: float, b: float) -> float:
    return float(np.fmod(a, b))


def _divided(a: float, b: float) -> float:
    return float(np.float64(a) / np.float64(b))


OPERATIONS: dict[str, Operation] = {
    "add": Operation(lambda a, b: a + b, lambda c, a, b: a + b, (lambda g, r, a, b: g, lambda g, r, a, b: g), _simpler_sum),
    "sub": Operation(lambda a, b: a - b, lambda c, a, b: a - b, (lambda g, r, a, b: g, lambda g, r, a, b: -g), _simpler_difference),
    "mul": Operation(lambda a, b: a * b, lambda c, a, b: a * b, (lambda g, r, a, b: g * b, lambda g, r, a, b: g * a), _simpler_product),
    "div": Operation(_divided, lambda c, a, b: a / b, (lambda g, r, a, b: g / b, lambda g, r, a, b: -(g * r / b)),
                     lambda a, b: a if _is(b, 1.0) else None),
    "neg": Operation(lambda a: -a, lambda c, a: -a, (lambda g, r, a: -g,)),
    "pow": Operation(lambda a, b: float(np.float64(a) ** b), _function("llvm.pow.f64"), (_power_by_base, _power_by_exponent),
                     _simpler_power),
    "atan2": Operation(math.atan2, _function("atan2"), (_angle_by(0), _angle_by(1))),
    "fmod": Operation(_remainder, lambda c, a, b: Value(c, c.builder.frem(a.value, b.value)),
                      (lambda g, r, a, b: g, lambda g, r, a, b: -(g * r.tape.apply("trunc", r.tape.apply("div", a, b))))),
    "select": Operation(lambda condition, yes, no: yes if condition else no, _choose,
                        (_never, lambda g, r, c, yes, no: c.apply("select", g, 0.0), lambda g, r, c, yes, no: c.apply("select", 0.0, g)),
                        _simpler_choice),
    "max": _extreme(">", lambda a, b: float(np.maximum(a, b))),
    "min": _extreme("<", lambda a, b: float(np.minimum(a, b))),
    "sqrt": _one(np.sqrt, "llvm.sqrt.f64", lambda g, r, a: 0.5 * g / r),
    "abs": _one(np.abs, "llvm.fabs.f64", lambda g, r, a: g * a.apply("sign")),
    "floor": _one(np.floor, "llvm.floor.f64"),
    "trunc": _one(np.trunc, "llvm.trunc.f64"),
    "ceil": _one(np.ceil, "llvm.ceil.f64"),
    "round": _one(np.rint, "llvm.rint.f64"),
    "sign": Operation(lambda a: float(np.sign(a)),
                      lambda c, a: c.where(a > 0.0, a.like(1.0), c.where(a < 0.0, a.like(-1.0), a))),
    "exp": _one(np.exp, "llvm.exp.f64", lambda g, r, a: g * r),
    "log": _one(np.log, "llvm.log.f64", lambda g, r, a: g / a),
    "log1p": _one(np.log1p, "log1p", lambda g, r, a: g / (1.0 + a)),
    "expm1": _one(np.expm1, "expm1", lambda g, r, a: g * (r + 1.0)),
    "sin": _one(np.sin, "llvm.sin.f64", lambda g, r, a: g * a.apply("cos")),
    "cos": _one(np.cos, "llvm.cos.f64", lambda g, r, a: -(g * a.apply("sin"))),
    "tan": _one(np.tan, "tan", lambda g, r, a: g * (1.0 + r * r)),
    "asin": _one(np.arcsin, "asin", lambda g, r, a: g / (1.0 - a * a).apply("sqrt")),
    "acos": _one(np.arccos, "acos", lambda g, r, a: -(g / (1.0 - a * a).apply("sqrt"))),
    "atan": _one(np.arctan, "atan", lambda g, r, a: g / (1.0 + a * a)),
    "sinh": _one(np.sinh, "sinh", lambda g, r, a: g * a.apply("cosh")),
    "cosh": _one(np.cosh, "cosh", lambda g, r, a: g * a.apply("sinh")),
    "tanh": _one(np.tanh, "tanh", lambda g, r, a: g * (1.0 - r * r)),
    "sigmoid": Operation(lambda a: 1.0 / (1.0 + float(np.exp(-a))), lambda c, a: 1.0 / (c.intrinsic("llvm.exp.f64", F64, -a) + 1.0),
                         (lambda g, r, a: g * (r * (1.0 - r)),)),
    "erf": Operation(math.erf, _function("erf"), (lambda g, r, a: g * (2.0 / math.sqrt(math.pi)) * (-(a * a)).apply("exp"),)),
    "lt": _condition("<", lambda a, b: a < b),
    "le": _condition("<=", lambda a, b: a <= b),
    "gt": _condition(">", lambda a, b: a > b),
    "ge": _condition(">=", lambda a, b: a >= b),
    "eq": _condition("==", lambda a, b: a == b),
    "ne": _condition("!=", lambda a, b: a != b),
    "and": Operation(lambda a, b: bool(a and b), lambda c, a, b: a & b),
    "or": Operation(lambda a, b: bool(a or b), lambda c, a, b: a | b),
    "not": Operation(lambda a: not a, lambda c, a: a ^ True),
}
