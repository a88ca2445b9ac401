"""Adam's update of a flat vector of parameters (Kingma and Ba 2015), with an L2 penalty that is constant over each section."""

from __future__ import annotations

from llvmlite import ir

from dynamics.gradient.products import ProductTile
from dynamics.kernels.code import F32, I64, Code, Value

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

ADAM_ARGUMENTS = ("parameters", "gradient", "mean", "square", "sections", "section_count", "rates")
"""`sections`: (section_count + 1, 2) 64-bit integers: where a section begins [vectors], and the bits of its penalty; `rates`: two floats,
step / (1 - beta1^t) and 1 / sqrt(1 - beta2^t)."""


def write_adam(module: ir.Module, name: str, tile: ProductTile) -> ir.Function:
    """Write name(*ADAM_ARGUMENTS), one step t of Adam in place."""
    code = Code(module, name, len(ADAM_ARGUMENTS), tile.lanes)
    v = dict(zip(ADAM_ARGUMENTS, code.arguments, strict=True))
    step, correction = (code.broadcast(code.load(v["rates"], F32, i)) for i in range(2))
    arrays = [v[field] for field in ("parameters", "gradient", "mean", "square")]

    def section(s: Value) -> None:
        begin = code.load(v["sections"], I64, s * 2, align=8)
        penalty = code.broadcast(code.load(v["sections"] + s * 16 + 8, F32))

        def update(i: Value) -> None:
            parameter, gradient, mean, square = (code.load(array, code.vector, i, align=tile.lanes * 4) for array in arrays)
            gradient = code.fma(penalty, parameter, gradient)
            mean = code.fma(gradient - mean, gradient.like(1.0 - BETA1), mean)
            square = code.fma(gradient * gradient, gradient.like(1.0 - BETA2), square * BETA2)
            parameter = parameter - step * mean / code.fma(code.square_root(square), correction, EPSILON)
            for value, array in ((parameter, v["parameters"]), (mean, v["mean"]), (square, v["square"])):
                code.store(value, array, i, align=tile.lanes * 4)

        code.repeat(begin, code.load(v["sections"], I64, s * 2 + 2, align=8), update)

    code.repeat(0, v["section_count"], section)
    return code.finish()
