"""Matrix products C = A B of a training step, tile by tile in registers, with what follows a product done before it is stored.

Lanes are columns of B, so that weights (in, out) and activations (rows, width) are read as torch keeps them. A's entries are
broadcast one at a time, whatever its strides: rows of activations forwards and backwards, their columns for a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from llvmlite import ir

from dynamics.kernels.bfloat16 import bfloat16_bits, pair, pair_product
from dynamics.kernels.code import F32, I32, Code, Value
from dynamics.kernels.functions import exp


@dataclass(frozen=True)
class ProductTile:
    """What one pass of the innermost loop holds in registers."""

    lanes: int
    """Columns in a vector register of float32."""
    rows: int
    """Rows of C; even. Buffers have whole tiles of rows."""
    vectors: int
    """Vectors of columns."""


class Finish(Enum):
    """What becomes of a product z before it is stored."""

    PLAIN = "plain"
    """z itself."""
    SUM = "sum"
    """z, added to what was there."""
    SILU = "silu"
    """h = silu(z), and silu'(z) beside it."""
    SLOPE = "slope"
    """z times the slope that SILU stored."""


PRODUCT_ARGUMENTS = ("a", "a_row", "a_step", "b", "b_step", "count", "row_tiles", "vectors", "bias", "out", "out_pairs", "slope", "width",
                     "add")
"""Addresses, and strides and widths in words of four bytes: a number, or a pair of bfloat16 along the summed index.
`add`: 1 where a SUM goes on from what is there, 0 where it begins."""


def write_product(module: ir.Module, name: str, tile: ProductTile, pairs_in: bool, pairs_out: bool, finish: Finish,
                  biased: bool) -> ir.Function:
    """Write the function name(*PRODUCT_ARGUMENTS): out[m, n] = finish(bias[n] + sum over k < count of a[m, k] b[k, n]).

    `pairs_in`: A and B hold pairs of bfloat16. `pairs_out`: the result is stored as bfloat16 twice, row by row in `out` and as pairs
    of rows in `out_pairs`; otherwise as float32 in `out`. `width` is the length of a row of the result. Sums are float32.
    """
    code = Code(module, name, len(PRODUCT_ARGUMENTS), tile.lanes)
    v = dict(zip(PRODUCT_ARGUMENTS, code.arguments, strict=True))
    width_bytes = tile.lanes * 4

    def at(address: Value, words: Value) -> Value:
        return address + words * 4

    def panel(first: Value, vectors: int) -> None:
        b = at(v["b"], first * tile.lanes)
        if biased:
            start = [code.load(at(v["bias"], first * tile.lanes), code.vector, n, align=width_bytes) for n in range(vectors)]
        else:
            start = [code.constant(0.0, code.vector)] * vectors

        def row_tile(m: Value) -> None:
            a = at(v["a"], m * v["a_row"] * tile.rows)
            row_starts = [at(a, v["a_row"] * i) for i in range(tile.rows)]

            def add(k: Value, *sums: Value) -> list[Value]:
                column = at(b, k * v["b_step"])
                kind = code.integers if pairs_in else code.vector
                right = [code.load(column, kind, n, align=width_bytes) for n in range(vectors)]
                step, added = k * v["a_step"], []
                for i in range(tile.rows):
                    left = code.broadcast(code.load(row_starts[i], I32 if pairs_in else F32, step))
                    for n in range(vectors):
                        total = sums[i * vectors + n]
                        added.append(pair_product(code, left, right[n], total) if pairs_in else code.fma(left, right[n], total))
                return added

            sums = code.repeat(0, v["count"], add, start * tile.rows)
            for n in range(vectors):
                results = []
                for i in range(tile.rows):
                    row = m * tile.rows + i
                    results.append(finished(sums[i * vectors + n], row * v["width"] + (first + n) * tile.lanes))
                store(results, m * tile.rows, (first + n) * tile.lanes)

        code.repeat(0, v["row_tiles"], row_tile)

    def finished(z: Value, place: Value) -> Value:
        if finish is Finish.SILU:
            sigmoid = 1.0 / (exp(code, -z) + 1.0)
            h = z * sigmoid
            code.store(code.fma(h, 1.0 - sigmoid, sigmoid), at(v["slope"], place), align=width_bytes)
            return h
        if finish is Finish.SLOPE:
            return z * code.load(at(v["slope"], place), code.vector, align=width_bytes)
        if finish is Finish.SUM:
            return code.where(v["add"].equals(1), z + code.load(at(v["out"], place), code.vector, align=width_bytes), z)
        return z

    def store(results: list[Value], row: Value, column: Value) -> None:
        for i, result in enumerate(results):
            place = (row + i) * v["width"] + column
            if pairs_out:
                code.store(bfloat16_bits(code, result), v["out"] + place * 2, align=width_bytes // 2)
            else:
                code.store(result, at(v["out"], place), align=width_bytes)
        if pairs_out:
            for i in range(0, len(results), 2):
                place = (row // 2 + i // 2) * v["width"] + column
                code.store(pair(code, results[i], results[i + 1]), at(v["out_pairs"], place), align=width_bytes)

    whole = v["vectors"] // tile.vectors
    code.repeat(0, whole, lambda p: panel(p * tile.vectors, tile.vectors))
    code.repeat(whole * tile.vectors, v["vectors"], lambda n: panel(n, 1))
    return code.finish()


def write_column_sums(module: ir.Module, name: str, tile: ProductTile, pairs_in: bool) -> ir.Function:
    """Write name(b, b_step, count, vectors, out, add): out[n] = sum over k < count of b[k, n], the gradient of a bias; where `add` is 1
    it goes on from what is there."""
    code = Code(module, name, 6, tile.lanes)
    b, step, count, vectors, out, going_on = code.arguments
    ones = code.constant(0x3F803F80, code.integers)  # a pair of bfloat16 ones

    def column(n: Value) -> None:
        def add(k: Value, total: Value) -> list[Value]:
            address = b + (k * step + n * tile.lanes) * 4
            if pairs_in:
                return [pair_product(code, ones, code.load(address, code.integers, align=tile.lanes * 4), total)]
            return [total + code.load(address, code.vector, align=tile.lanes * 4)]

        zero = code.constant(0.0, code.vector)
        start = code.where(going_on.equals(1), code.load(out, code.vector, n, align=tile.lanes * 4), zero)
        total, = code.repeat(0, count, add, [start])
        code.store(total, out, n, align=tile.lanes * 4)

    code.repeat(0, vectors, column)
    return code.finish()


def write_transpose(module: ir.Module, name: str, tile: ProductTile) -> ir.Function:
    """Write name(source, blocks, columns, target): the transpose of a matrix of blocks x columns blocks, each lanes x lanes."""
    code = Code(module, name, 4, tile.lanes)
    source, blocks, columns, target = code.arguments
    lanes = tile.lanes

    def block(i: Value, j: Value) -> None:
        rows = [code.load(source + ((i * lanes + r) * columns + j) * (lanes * 4), code.vector, align=lanes * 4) for r in range(lanes)]
        distance = 1
        while distance < lanes:  # swap the blocks off the diagonal, of 1, 2, 4, ... entries
            low = [lane if not lane & distance else lanes + (lane ^ distance) for lane in range(lanes)]
            high = [lane | distance if not lane & distance else lanes + lane for lane in range(lanes)]
            for r in range(lanes):
                if not r & distance:
                    a, b = rows[r], rows[r | distance]
                    rows[r], rows[r | distance] = _shuffle(code, a, b, low), _shuffle(code, a, b, high)
            distance *= 2
        for r, row in enumerate(rows):
            code.store(row, target + ((j * lanes + r) * blocks + i) * (lanes * 4), align=lanes * 4)

    code.repeat(0, blocks, lambda i: code.repeat(0, columns, lambda j: block(i, j)) and None)
    return code.finish()


def write_pack(module: ir.Module, name: str, tile: ProductTile) -> ir.Function:
    """Write name(source, row_pairs, vectors, target): pairs of rows of float32 as words of two bfloat16."""
    code = Code(module, name, 4, tile.lanes)
    source, row_pairs, vectors, target = code.arguments

    def row_pair(k: Value) -> None:
        def word(n: Value) -> None:
            low, high = (code.load(source, code.vector, (k * 2 + i) * vectors + n, align=tile.lanes * 4) for i in range(2))
            code.store(pair(code, low, high), target, k * vectors + n, align=tile.lanes * 4)

        code.repeat(0, vectors, word)

    code.repeat(0, row_pairs, row_pair)
    return code.finish()


def _shuffle(code: Code, a: Value, b: Value, picks: list[int]) -> Value:
    mask = ir.Constant(ir.VectorType(I32, len(picks)), picks)
    return Value(code, code.builder.shuffle_vector(a.value, b.value, mask))
