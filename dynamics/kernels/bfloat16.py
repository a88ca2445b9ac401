"""Pairs of bfloat16 in 32-bit words, the low half first, and their products, summed in float32."""

from __future__ import annotations

from llvmlite import ir

from dynamics.kernels.code import BF16, I16, Code, Value


def bfloat16_bits(code: Code, value: Value) -> Value:
    """Return a vector rounded to bfloat16, as 16-bit integers."""
    rounded = code.builder.fptrunc(value.value, ir.VectorType(BF16, code.lanes))
    return Value(code, code.builder.bitcast(rounded, ir.VectorType(I16, code.lanes)))


def pair(code: Code, low: Value, high: Value) -> Value:
    """Return two vectors rounded to bfloat16 in the halves of each lane's word."""
    halves = [Value(code, code.builder.zext(bfloat16_bits(code, value).value, code.integers)) for value in (low, high)]
    return halves[0] | (halves[1] << 16)


def pair_product(code: Code, weight: Value, rows: Value, total: Value) -> Value:
    """Return total + w0 x0 + w1 x1 in every lane, for pairs of bfloat16 (low half first)."""
    pairs = ir.VectorType(BF16, 2 * code.lanes)
    return code.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", code.vector, total, weight.bits(pairs), rows.bits(pairs))
