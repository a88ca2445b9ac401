"""An ensemble's mean for a block of rows, and its gradients by reverse differentiation, as functions of one pass through all layers."""

from __future__ import annotations

from llvmlite import ir

from dynamics.kernels.code import I64, Code, Value
from dynamics.kernels.few_rows import ROWS, Panels, add_layer
from dynamics.kernels.functions import exp, silu

FIELDS = (
    "layers", "layer_table", "members", "member_size", "network", "row",  # bytes from one member's weights, one row to the next
    "periods", "blocks", "inputs",  # H, H / ROWS rounded up, (blocks ROWS, row)
    "outputs", "output_weights",  # no; in a member, where the last layer's weights lie as rows of outputs [byte]
    "gradients", "gradient_row", "gradient_member",  # (E, blocks ROWS no, gradient_row), bytes from one row, one member to the next
)
"""The entries of the argument table: 64-bit integers, counts or addresses. The last layer's weights are divided by E."""

LAYER_FIELDS = ("count", "registers", "weights", "bias", "back_count", "back_registers", "back_weights")
"""Of every layer, and of its way back: inputs, registers of outputs, and where in a member weights and bias lie [byte]."""


def scratch_size(row: int, layers: int) -> int:
    """Return the bytes of a thread's scratch: two blocks of activations, and the slopes of every hidden layer."""
    return (2 + layers) * ROWS * row


def write_mean(module: ir.Module, name: str, panels: Panels, rows: int) -> None:
    """Write mean(arguments, inputs, means, scratch): add the outputs of all members for `rows` rows of inputs to `means`."""
    hidden = _write_forward(module, f"{name}_hidden", panels, rows, last=False)
    last = _write_forward(module, f"{name}_last", panels, rows, last=True)
    code = Code(module, name, 4, panels.lanes)
    arguments, inputs, means, scratch = code.arguments
    a = _fields(code, arguments)
    blocks = (scratch, scratch + a["row"] * ROWS)

    def member(e: Value) -> None:
        def layer(n: Value, source: Value, target: Value, other: Value) -> list[Value]:
            at = _layer(code, a, e, n)
            code.call(hidden, source, a["row"], at["count"], at["weights"], at["bias"], target, at["registers"])
            return [target, other, target]

        source, *_ = code.repeat(0, a["layers"] - 1, layer, (inputs, *blocks))
        at = _layer(code, a, e, a["layers"] - 1)
        code.call(last, source, a["row"], at["count"], at["weights"], at["bias"], means, at["registers"])

    code.repeat(0, a["members"], member)
    code.finish()


def write_gradients(module: ir.Module, name: str, panels: Panels) -> None:
    """Write gradients(arguments, first, end, scratch): the gradients of all outputs by all inputs, for units first ... end - 1.

    Unit i is member i % E in the periods of block i // E: their activations' slopes on the way forward, then the output basis on its
    way back, ROWS pairs of (period, output) at a time.
    """
    forward = _write_slopes(module, f"{name}_forward", panels)
    begin = _write_begin(module, f"{name}_begin", panels)
    middle = _write_back(module, f"{name}_middle", panels, bend=True)
    first_layer = _write_back(module, f"{name}_first", panels, bend=False)
    code = Code(module, name, 4, panels.lanes)
    arguments, first, end, scratch = code.arguments
    a = _fields(code, arguments)
    block_size = a["row"] * ROWS
    one, other, slopes = scratch, scratch + block_size, scratch + block_size * 2

    def unit(i: Value) -> None:
        e, block = i % a["members"], i // a["members"]
        start = block * ROWS
        left = a["periods"] - start
        periods = code.where(left < ROWS, left, code.constant(ROWS))

        def ahead(n: Value, source: Value, target: Value, spare: Value) -> list[Value]:
            at = _layer(code, a, e, n)
            code.call(forward, source, a["row"], at["count"], at["weights"], at["bias"], target, at["registers"], slopes + block_size * n)
            return [target, spare, target]

        code.repeat(0, a["layers"] - 1, ahead, (a["inputs"] + start * a["row"], one, other))
        basis = a["network"] + e * a["member_size"] + a["output_weights"]
        results = a["gradients"] + e * a["gradient_member"] + start * a["outputs"] * a["gradient_row"]

        def pairs(tile: Value) -> None:
            pair = tile * ROWS
            last = _layer(code, a, e, a["layers"] - 2)
            code.call(begin, basis, slopes + block_size * (a["layers"] - 2), a["row"], one, last["registers"], pair, a["outputs"])

            def back(m: Value, source: Value, target: Value) -> list[Value]:
                n = a["layers"] - 2 - m
                at = _layer(code, a, e, n)
                code.call(middle, source, a["row"], at["back_count"], at["back_weights"], target, at["back_registers"], a["row"],
                          slopes + block_size * (n - 1), pair, a["outputs"])
                return [target, source]

            source, _ = code.repeat(0, a["layers"] - 2, back, (one, other))
            at = _layer(code, a, e, code.constant(0))
            code.call(first_layer, source, a["row"], at["back_count"], at["back_weights"], results + pair * a["gradient_row"],
                      at["back_registers"], a["gradient_row"])

        code.repeat(0, (periods * a["outputs"] + (ROWS - 1)) // ROWS, pairs)

    code.repeat(first, end, unit)
    code.finish()


def _fields(code: Code, arguments: Value) -> dict[str, Value]:
    return {field: code.load(arguments, I64, i, align=8) for i, field in enumerate(FIELDS)}


def _layer(code: Code, a: dict[str, Value], e: Value, n: Value) -> dict[str, Value]:
    """Return what is to know of layer n of member e, with addresses for places."""
    entries = {field: code.load(a["layer_table"], I64, n * len(LAYER_FIELDS) + i, align=8) for i, field in enumerate(LAYER_FIELDS)}
    member = a["network"] + e * a["member_size"]
    return entries | {field: member + entries[field] for field in ("weights", "bias", "back_weights")}


def _write_forward(module: ir.Module, name: str, panels: Panels, rows: int, last: bool) -> ir.Function:
    """Write layer(inputs, row, count, weights, bias, outputs, registers): silu of the sums, or, of the last one, added to outputs."""
    code = Code(module, name, 7, panels.lanes)
    inputs, row, count, weights, bias, outputs, registers = code.arguments

    def finish(r: int, v: Value, total: Value) -> None:
        target = outputs + row * r
        code.store(total + code.load(target, code.vector, v) if last else silu(code, total), target, v)

    add_layer(code, panels, rows, inputs, row, count, weights, registers, bias, finish)
    return code.finish()


def _write_slopes(module: ir.Module, name: str, panels: Panels) -> ir.Function:
    """Write layer(inputs, row, count, weights, bias, outputs, registers, slopes): silu of the sums, and its slopes."""
    code = Code(module, name, 8, panels.lanes)
    inputs, row, count, weights, bias, outputs, registers, slopes = code.arguments

    def finish(r: int, v: Value, x: Value) -> None:
        share = 1.0 / (exp(code, -x) + 1.0)
        value = x * share
        code.store(value, outputs + row * r, v)
        code.store(share + value * (1.0 - share), slopes + row * r, v)

    add_layer(code, panels, ROWS, inputs, row, count, weights, registers, bias, finish)
    return code.finish()


def _write_begin(module: ir.Module, name: str, panels: Panels) -> ir.Function:
    """Write begin(basis, slopes, row, outputs, registers, pair, count): gradients of outputs by the last hidden layer's sums.

    Row r is the pair (period, output) of number pair + r, output by output for one period after the other.
    """
    code = Code(module, name, 7, panels.lanes)
    basis, slopes, row, outputs, registers, pair, count = code.arguments
    for r in range(ROWS):
        weight, slope = basis + row * ((pair + r) % count), slopes + row * ((pair + r) // count)
        code.repeat(0, registers, lambda v, r=r, weight=weight, slope=slope: code.store(
            code.load(weight, code.vector, v) * code.load(slope, code.vector, v), outputs + row * r, v))
    return code.finish()


def _write_back(module: ir.Module, name: str, panels: Panels, bend: bool) -> ir.Function:
    """Write back(inputs, row, count, weights, outputs, registers, output_row[, slopes, pair, outputs]): gradients one layer back.

    With `bend` they are multiplied by the slopes of the layer that they come to.
    """
    code = Code(module, name, 10 if bend else 7, panels.lanes)
    inputs, row, count, weights, outputs, registers, output_row = code.arguments[:7]
    slope = [code.arguments[7] + row * ((code.arguments[8] + r) // code.arguments[9]) for r in range(ROWS)] if bend else []

    def finish(r: int, v: Value, total: Value) -> None:
        code.store(total * code.load(slope[r], code.vector, v) if bend else total, outputs + output_row * r, v)

    add_layer(code, panels, ROWS, inputs, row, count, weights, registers, None, finish)
    return code.finish()
