"""The whole-horizon rollout of an ensemble as one function: particles of candidate plans, a block of rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from dynamics.kernels.code import F32, I64, Code, Value
from dynamics.kernels.dense import Tile, write_dense
from dynamics.kernels.functions import exp, sine_cosine

FIELDS = (
    "particles", "horizon", "columns", "blocks",  # P, H, N rounded up to whole blocks, N / R
    "nx", "nu", "no", "members", "every_member",  # every_member: 1 where a particle follows the mean of all
    "layers", "layer_table", "network", "member_size",  # bytes from one member's weights to the next's
    "angles", "angle_states", "output_states", "kept",  # (angles,) and (no,) indices; (no,) 1 for a change, 0 for an absolute output
    "lower", "upper",  # (no,) smallest and largest values of the states that the outputs move
    "noise_kind", "inverse_largest", "smallest", "scale", "constant_variance",  # see NOISE_*; (E, no) each, scale (no,)
    "draw_kind", "draws", "member_of",  # see DRAWS_*; (H, P, no) or (H, P, no, columns); (H, P) member of each particle
    "start", "actions", "states",  # (nx,), (H, nu, columns), (H, P, nx, columns)
    "hidden_size",  # bytes of one scratch buffer of hidden activations
)
"""The entries of the argument table: 64-bit integers, counts or addresses."""

LAYER_FIELDS = ("count", "groups", "weights", "bias")
"""Of every layer: features (or pairs) it reads, groups of outputs, and where in a member its weights and bias lie [byte]."""

NOISE_NONE, NOISE_LEARNED, NOISE_CONSTANT = range(3)
DRAWS_NONE, DRAWS_COMMON, DRAWS_EACH = range(3)


@dataclass(frozen=True)
class _Layers:
    """The dense layers by where they stand in a network."""

    first: ir.Function
    middle: ir.Function
    last: ir.Function
    only: ir.Function


def write_rollout(module: ir.Module, name: str, tile: Tile, bfloat16: bool) -> None:
    """Write rollout(arguments, first, end, scratch): roll out the units first ... end - 1.

    Unit i is particle i // blocks of the candidates in block i % blocks. Every unit writes its own part of `states`.
    """
    only = write_dense(module, f"{name}_only", tile, False, False, activate=False)
    layers = _Layers(write_dense(module, f"{name}_first", tile, False, bfloat16, activate=True),
                     write_dense(module, f"{name}_middle", tile, bfloat16, bfloat16, activate=True),
                     write_dense(module, f"{name}_last", tile, bfloat16, False, activate=False) if bfloat16 else only, only)
    code = Code(module, name, 4, tile.lanes)
    arguments, first, end, scratch = code.arguments
    a = {field: code.load(arguments, I64, i, align=8) for i, field in enumerate(FIELDS)}
    vectors, width = tile.vectors, tile.lanes * 4
    row_bytes = tile.rows * 4
    # scratch: two hidden buffers, outputs, four sums over members, inputs
    hidden = (scratch, scratch + a["hidden_size"])
    output = hidden[1] + a["hidden_size"]
    mean, change_sum, square_sum, variance_sum = (output + a["hidden_size"] + a["no"] * (row_bytes * i) for i in range(4))
    inputs = variance_sum + a["no"] * row_bytes

    def per_row(address: Value, feature: Value, m: int) -> Value:
        return code.load(address, code.vector, feature * vectors + m, align=width)

    def keep(value: Value, address: Value, feature: Value, m: int) -> None:
        code.store(value, address, feature * vectors + m, align=width)

    def unit(i: Value) -> None:
        particle, column = i // a["blocks"], (i % a["blocks"]) * tile.rows

        def begin(s: Value) -> None:
            value = code.broadcast(code.load(a["start"], F32, s))
            for m in range(vectors):
                keep(value, inputs, s, m)

        code.repeat(0, a["nx"], begin)
        code.repeat(0, a["horizon"], lambda t: step(t, particle, column))

    def step(t: Value, particle: Value, column: Value) -> None:
        # inputs: [x, sin(angles), cos(angles), u]
        def angle(n: Value) -> None:
            state = code.load(a["angle_states"], I64, n, align=8)
            for m in range(vectors):
                sine, cosine = sine_cosine(code, per_row(inputs, state, m))
                keep(sine, inputs, a["nx"] + n, m)
                keep(cosine, inputs, a["nx"] + a["angles"] + n, m)

        def command(j: Value) -> None:
            at = (t * a["nu"] + j) * a["columns"] + column
            for m in range(vectors):
                keep(code.load(a["actions"] + at * 4, code.vector, m), inputs, a["nx"] + a["angles"] * 2 + j, m)

        code.repeat(0, a["angles"], angle)
        code.repeat(0, a["nu"], command)

        row = t * a["particles"] + particle
        one = code.load(a["member_of"], I64, row, align=8)
        all_of_them = a["every_member"].equals(1)
        begin = code.where(all_of_them, code.constant(0), one)
        stop = code.where(all_of_them, a["members"], one + 1)

        def member(e: Value) -> None:
            network(a["network"] + e * a["member_size"])

            def collect(j: Value) -> None:
                for m in range(vectors):
                    value = per_row(output, j, m)
                    is_first = e.equals(begin)
                    zero = value.like(0.0)
                    base = code.where(is_first, value, per_row(mean, j, m))
                    change = value - base  # of the first: 0, or NaN where it is not a number
                    keep(base, mean, j, m)
                    keep(code.where(is_first, zero, per_row(change_sum, j, m)) + change, change_sum, j, m)
                    keep(code.fma(change, change, code.where(is_first, zero, per_row(square_sum, j, m))), square_sum, j, m)

            def collect_variance(j: Value) -> None:
                for m in range(vectors):
                    before = code.where(e.equals(begin), code.constant(0.0, code.vector), per_row(variance_sum, j, m))
                    keep(before, variance_sum, j, m)

                    def learned(m: int = m, before: Value = before) -> None:
                        at = e * a["no"] + j
                        raw = per_row(output, a["no"] + j, m)
                        inverse = code.broadcast(code.load(a["inverse_largest"], F32, at)) + exp(code, -raw)
                        variance = 1.0 / inverse + code.broadcast(code.load(a["smallest"], F32, at))
                        scale = code.broadcast(code.load(a["scale"], F32, j))
                        keep(before + variance * (scale * scale), variance_sum, j, m)

                    def constant(m: int = m, before: Value = before) -> None:
                        variance = code.broadcast(code.load(a["constant_variance"], F32, e * a["no"] + j))
                        keep(before + variance, variance_sum, j, m)

                    code.if_(a["noise_kind"].equals(NOISE_LEARNED), learned)
                    code.if_(a["noise_kind"].equals(NOISE_CONSTANT), constant)

            code.repeat(0, a["no"], collect)
            code.if_(a["draw_kind"] > DRAWS_NONE, lambda: code.repeat(0, a["no"], collect_variance))

        code.repeat(begin, stop, member)
        share = 1.0 / code.broadcast(Value(code, code.builder.sitofp((stop - begin).value, F32)))

        def move(j: Value) -> None:
            state = code.load(a["output_states"], I64, j, align=8)
            kept, lower, upper = (code.broadcast(code.load(a[name], F32, j)) for name in ("kept", "lower", "upper"))
            for m in range(vectors):
                change = per_row(change_sum, j, m) * share
                centre = per_row(mean, j, m) + change
                variance = per_row(variance_sum, j, m) * share + (per_row(square_sum, j, m) * share - change * change)
                variance = code.where(variance < 0.0, variance.like(0.0), variance)  # by rounding alone; NaN stays
                std = code.square_root(variance)

                def go(by: Value, m: int = m) -> None:
                    value = code.fma(per_row(inputs, state, m), kept, by)
                    value = code.where(value < lower, lower, value)  # a comparison with NaN is false: NaN stays
                    keep(code.where(value > upper, upper, value), inputs, state, m)

                def common(m: int = m, centre: Value = centre, std: Value = std) -> None:
                    go(code.fma(std, code.broadcast(code.load(a["draws"], F32, row * a["no"] + j)), centre), m)

                def each(m: int = m, centre: Value = centre, std: Value = std) -> None:
                    at = (row * a["no"] + j) * a["columns"] + column
                    go(code.fma(std, code.load(a["draws"] + at * 4, code.vector, m), centre), m)

                code.if_(a["draw_kind"].equals(DRAWS_NONE), lambda m=m, centre=centre: go(centre, m))
                code.if_(a["draw_kind"].equals(DRAWS_COMMON), common)
                code.if_(a["draw_kind"].equals(DRAWS_EACH), each)

        code.repeat(0, a["no"], move)

        def remember(s: Value) -> None:
            at = (row * a["nx"] + s) * a["columns"] + column
            for m in range(vectors):
                code.store(per_row(inputs, s, m), a["states"] + at * 4, m)

        code.repeat(0, a["nx"], remember)

    def network(weights: Value) -> None:
        def layer(n: Value | int) -> tuple[Value, ...]:
            at = n * len(LAYER_FIELDS) if isinstance(n, Value) else code.constant(n * len(LAYER_FIELDS))
            count, groups, weight, bias = (code.load(a["layer_table"], I64, at + i, align=8) for i in range(len(LAYER_FIELDS)))
            return count, weights + weight, weights + bias, groups

        def run(function: ir.Function, n: Value | int, source: Value, target: Value) -> None:
            count, weight, bias, groups = layer(n)
            code.call(function, source, count, weight, bias, target, groups)

        def middle(n: Value, source: Value, target: Value) -> list[Value]:
            run(layers.middle, n, source, target)
            return [target, source]

        def deep() -> None:
            run(layers.first, 0, inputs, hidden[0])
            source, _ = code.repeat(1, a["layers"] - 1, middle, hidden)
            run(layers.last, a["layers"] - 1, source, output)

        code.if_(a["layers"].equals(1), lambda: run(layers.only, 0, inputs, output), deep)

    code.repeat(first, end, unit)
    code.finish()
