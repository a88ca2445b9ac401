"""Dense layers for a block of few rows: lanes are outputs, so that every weight is read once for all rows, one after the other.

A block is [row][feature], its rows `row` bytes apart. A layer's weights lie in panels of `together` registers of outputs and then of
one each, a panel as [feature][output]; `packed` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dynamics.kernels.code import F32, Code, Value

ROWS = 6
"""Of a block: with `Panels.together` registers of outputs, as many sums as the processor has registers for."""


@dataclass(frozen=True)
class Panels:
    """How weights are laid out for a processor."""

    lanes: int
    """Outputs in a vector register of float32."""

    @property
    def together(self) -> int:
        """Registers of outputs that are summed at a time."""
        return 4 if self.lanes == 16 else 2

    def registers(self, width: int) -> int:
        """Return how many registers hold `width` numbers."""
        return -(-width // self.lanes)

    def padded(self, width: int) -> int:
        """Return `width` rounded up to whole registers."""
        return self.registers(width) * self.lanes

    def packed(self, weight: np.ndarray) -> np.ndarray:
        """Return weights (in, out) as the kernels read them, padded with zeros: one dimension, float32."""
        features, width = weight.shape
        registers = self.registers(width)
        padded = np.zeros((features, registers * self.lanes), np.float32)
        padded[:, :width] = weight
        full = registers - registers % self.together
        edges = [*range(0, full, self.together), *range(full, registers + 1)]
        return np.concatenate([padded[:, a * self.lanes: b * self.lanes].ravel() for a, b in pairwise(edges)])


Finish = Callable[[int, Value, Value], None]
"""finish(r, v, total) does what is to be done with the sums of register v of row r."""


def add_layer(code: Code, panels: Panels, rows: int, inputs: Value, row: Value, count: Value, weights: Value, registers: Value,
              bias: Value | None, finish: Finish) -> None:
    """Have `code` sum weights · inputs (+ bias) over `count` features, for every register of outputs of `rows` rows."""

    def panel(first: Value, width: int) -> None:
        at = weights + first * count * (4 * panels.lanes)

        def add_feature(k: Value, *sums: Value) -> Sequence[Value]:
            weight = [code.load(at, code.vector, k * width + j) for j in range(width)]
            added = []
            for r in range(rows):
                number = code.broadcast(code.load(inputs + row * r, F32, k))
                added += [code.fma(number, weight[j], sums[r * width + j]) for j in range(width)]
            return added

        if bias is None:
            start = [code.constant(0.0, code.vector)] * width
        else:
            start = [code.load(bias, code.vector, first + j) for j in range(width)]
        sums = code.repeat(0, count, add_feature, start * rows)
        for r in range(rows):
            for j in range(width):
                finish(r, first + j, sums[r * width + j])

    whole = registers // panels.together
    code.repeat(0, whole, lambda p: panel(p * panels.together, panels.together))
    code.repeat(whole * panels.together, registers, lambda v: panel(v, 1))
