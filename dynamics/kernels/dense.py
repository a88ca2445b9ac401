"""One layer of a network for a block of rows: outputs = silu(weights · inputs + bias), kept in registers while it is summed.

Lanes are rows (candidate plans): a block is [feature][row], so that weights, noise and members are the same for all lanes,
and a row's arithmetic does not depend on the block or thread that it lands in.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from dynamics.kernels.bfloat16 import pair, pair_product
from dynamics.kernels.code import F32, I32, Code, Value
from dynamics.kernels.functions import silu


@dataclass(frozen=True)
class Tile:
    """What one pass of the innermost loop holds in registers."""

    lanes: int
    """Rows in a vector register of float32."""
    vectors: int
    """Registers of rows in a block."""
    outputs: int
    """Outputs that are summed at a time; even."""

    @property
    def rows(self) -> int:
        """Rows R in a block."""
        return self.lanes * self.vectors


def write_dense(module: ir.Module, name: str, tile: Tile, paired_inputs: bool, paired_outputs: bool, activate: bool) -> ir.Function:
    """Write the function dense(inputs, count, weights, bias, outputs, groups) and return it.

    `inputs`: (count, R) float32, or with `paired_inputs` pairs of features as bfloat16, (count, R, 2); `weights`: (groups, count,
    tile.outputs) of the same kind; `bias`: (groups, tile.outputs) float32; `outputs`: (groups tile.outputs, R) float32, or with
    `paired_outputs` pairs of bfloat16. All sums are float32.
    """
    code = Code(module, name, 6, tile.lanes)
    inputs, count, weights, bias, outputs, groups = code.arguments
    row_kind = ir.VectorType(I32, tile.lanes) if paired_inputs else code.vector
    weight_kind = I32 if paired_inputs else F32

    def group(g: Value) -> None:
        start = [code.broadcast(code.load(bias, F32, g * tile.outputs + j)) for j in range(tile.outputs)]
        sums = [value for value in start for _ in range(tile.vectors)]

        def add_feature(k: Value, *sums: Value) -> list[Value]:
            rows = [code.load(inputs, row_kind, k * tile.vectors + m, align=tile.lanes * 4) for m in range(tile.vectors)]
            at = (g * count + k) * tile.outputs
            added = []
            for j in range(tile.outputs):
                weight = code.broadcast(code.load(weights, weight_kind, at + j))
                for m in range(tile.vectors):
                    total = sums[j * tile.vectors + m]
                    added.append(pair_product(code, weight, rows[m], total) if paired_inputs else code.fma(weight, rows[m], total))
            return added

        sums = code.repeat(0, count, add_feature, sums)
        results = [silu(code, total) for total in sums] if activate else sums
        if not paired_outputs:
            for i, result in enumerate(results):
                code.store(result, outputs, g * (tile.outputs * tile.vectors) + i, align=tile.lanes * 4)
            return
        for j in range(0, tile.outputs, 2):
            for m in range(tile.vectors):
                both = pair(code, results[j * tile.vectors + m], results[(j + 1) * tile.vectors + m])
                code.store(both, outputs, (g * (tile.outputs // 2) + j // 2) * tile.vectors + m, align=tile.lanes * 4)

    code.repeat(0, groups, group)
    return code.finish()
