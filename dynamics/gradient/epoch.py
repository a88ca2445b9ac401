"""An epoch of gradient steps as one function: forward, loss, backward and Adam for each minibatch in turn."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dynamics.gradient.adam import ADAM_ARGUMENTS, write_adam
from dynamics.gradient.heads import HEAD_ARGUMENTS
from dynamics.gradient.products import (
    Finish,
    ProductTile,
    write_column_sums,
    write_pack,
    write_product,
    write_transpose,
)
from dynamics.kernels.code import I64, Code, Value

CHUNK_ROWS = 256
"""Rows of a batch that go through the network at a time: their activations stay in the caches. Gradients of a batch are sums over
its chunks."""

EPOCH_FIELDS = ("inputs", "targets", "input_width", "target_width", "starts", "target_vectors", "shares", "weights",
                "bounds", "bounds_gradient", "losses", "parameters", "gradient", "mean", "square", "sections", "section_count", "rates")
"""Addresses and widths [words]. Of every step: `starts` (steps + 1,) 64-bit rows of `inputs` and `targets`; `shares` and `rates`, see
the loss and Adam; `losses` (steps, lanes)."""

LAYER_FIELDS = ("in_count", "in_tiles", "in_blocks", "in_width", "out_count", "out_vectors", "out_blocks", "out_width", "weight", "bias",
                "weight_gradient", "bias_gradient", "transposed", "pairs", "transposed_pairs", "result", "result_pairs", "slope",
                "delta", "delta_pairs")
"""Of every layer: features it reads, in tiles of rows, in blocks of lanes, and in words of a row; its outputs likewise; weights and
their gradient (in, out); the weights transposed, and both as pairs; h and silu'(z) of its outputs, and the loss's slope in z."""


def is_paired(layer: int, layers: int, bfloat16: bool) -> bool:
    """Return whether a layer's products are of bfloat16: all but the first, which reads raw inputs, and the last, whose outputs
    must be exact."""
    return bfloat16 and 0 < layer < layers - 1


def write_epoch(module: ir.Module, name: str, tile: ProductTile, layers: int, bfloat16: bool,
                write_head: Callable[[ir.Module, str, ProductTile], ir.Function]) -> None:
    """Write name(table, first, end): the steps first ... end - 1 of a network of `layers` layers.

    `table`: EPOCH_FIELDS, then LAYER_FIELDS of every layer, as 64-bit integers.
    """
    products: dict[str, ir.Function] = {}

    def product(pairs_in: bool, pairs_out: bool, finish: Finish, biased: bool) -> ir.Function:
        title = f"{name}_{'pairs' if pairs_in else 'floats'}_{finish.value}_{'pairs' if pairs_out else 'floats'}{'_biased' * biased}"
        if title not in products:
            products[title] = write_product(module, title, tile, pairs_in, pairs_out, finish, biased)
        return products[title]

    paired = [is_paired(n, layers, bfloat16) for n in range(layers)]
    forward = [product(paired[n], n + 1 < layers and paired[n + 1], Finish.SILU if n < layers - 1 else Finish.PLAIN, True)
               for n in range(layers)]
    backward = [product(paired[n], paired[n - 1], Finish.SLOPE, False) for n in range(1, layers)]
    gradient = [product(paired[n], False, Finish.SUM, False) for n in range(layers)]
    sums = {pairs: write_column_sums(module, f"{name}_sums_{pairs}", tile, pairs) for pairs in set(paired)}
    head, adam = write_head(module, f"{name}_head", tile), write_adam(module, f"{name}_adam", tile)
    transpose, pack = write_transpose(module, f"{name}_transpose", tile), write_pack(module, f"{name}_pack", tile)

    code = Code(module, name, 3, tile.lanes)
    table, first, end = code.arguments

    def field(title: str) -> Value:
        return code.load(table, I64, EPOCH_FIELDS.index(title), align=8)

    def of_layer(n: int, title: str) -> Value:
        return code.load(table, I64, len(EPOCH_FIELDS) + n * len(LAYER_FIELDS) + LAYER_FIELDS.index(title), align=8)

    def halved(count: Value) -> Value:
        return (count + 1) // 2

    def left_of(n: int, inputs: Value) -> tuple[Value, Value]:
        """Return where the inputs of layer n lie, and the words of a row."""
        if n == 0:
            return inputs, field("input_width")
        return of_layer(n - 1, "result"), of_layer(n - 1, "out_width") // 2 if paired[n] else of_layer(n - 1, "out_width")

    def step(t: Value) -> None:
        start = code.load(field("starts"), I64, t, align=8)
        rows = code.load(field("starts"), I64, t + 1, align=8) - start
        for n in range(1, layers):
            code.call(transpose, of_layer(n, "weight"), of_layer(n, "in_blocks"), of_layer(n, "out_blocks"), of_layer(n, "transposed"))
            if paired[n]:
                code.call(pack, of_layer(n, "weight"), halved(of_layer(n, "in_count")), of_layer(n, "out_vectors"), of_layer(n, "pairs"))
                code.call(pack, of_layer(n, "transposed"), halved(of_layer(n, "out_count")), of_layer(n, "in_blocks"),
                          of_layer(n, "transposed_pairs"))

        def part(c: Value) -> None:
            left = rows - c * CHUNK_ROWS
            chunk(t, start + c * CHUNK_ROWS, code.where(left < CHUNK_ROWS, left, left.like(CHUNK_ROWS)), code.where(c < 1, c, c.like(1)))

        code.repeat(0, (rows + (CHUNK_ROWS - 1)) // CHUNK_ROWS, part)
        values = {title: field(title) for title in ADAM_ARGUMENTS if title != "rates"} | {"rates": field("rates") + t * 8}
        code.call(adam, *(values[argument] for argument in ADAM_ARGUMENTS))

    def chunk(t: Value, start: Value, rows: Value, add: Value) -> None:
        row_tiles = (rows + (tile.rows - 1)) // tile.rows
        inputs = field("inputs") + start * field("input_width") * 4
        targets = field("targets") + start * field("target_width") * 4
        for n in range(layers):
            left, words = left_of(n, inputs)
            count = of_layer(n, "in_count")
            code.call(forward[n], left, words, 1, of_layer(n, "pairs" if paired[n] else "weight"), of_layer(n, "out_width"),
                      halved(count) if paired[n] else count, row_tiles, of_layer(n, "out_vectors"), of_layer(n, "bias"),
                      of_layer(n, "result"), of_layer(n, "result_pairs"), of_layer(n, "slope"), of_layer(n, "out_width"), 0)
        last = layers - 1
        values = dict(outputs=of_layer(last, "result"), targets=targets, gradient=of_layer(last, "delta"), rows=rows,
                      padded_rows=row_tiles * tile.rows, vectors=field("target_vectors"), share=field("shares") + t * 4,
                      weights=field("weights"), bounds=field("bounds"), bounds_gradient=field("bounds_gradient"),
                      loss=field("losses") + t * (tile.lanes * 4), add=add)
        code.call(head, *(values[argument] for argument in HEAD_ARGUMENTS))
        for n in reversed(range(layers)):
            delta = of_layer(n, "delta_pairs" if paired[n] else "delta")
            width, vectors, summed = of_layer(n, "out_width"), of_layer(n, "out_vectors"), halved(rows) if paired[n] else rows
            code.call(sums[paired[n]], delta, width, summed, vectors, of_layer(n, "bias_gradient"), add)
            left, words = left_of(n, inputs)
            if paired[n]:
                left, words = of_layer(n - 1, "result_pairs"), of_layer(n - 1, "out_width")
            code.call(gradient[n], left, 1, words, delta, width, summed, of_layer(n, "in_tiles"), vectors, 0,
                      of_layer(n, "weight_gradient"), 0, 0, width, add)
            if n > 0:
                count = of_layer(n, "out_count")
                code.call(backward[n - 1], of_layer(n, "delta"), width // 2 if paired[n] else width, 1,
                          of_layer(n, "transposed_pairs" if paired[n] else "transposed"), of_layer(n, "in_width"),
                          halved(count) if paired[n] else count, row_tiles, of_layer(n, "in_blocks"), 0, of_layer(n - 1, "delta"),
                          of_layer(n - 1, "delta_pairs"), of_layer(n - 1, "slope"), of_layer(n - 1, "out_width"), 0)

    code.repeat(first, end, step)
    code.finish()
