"""The processor's own limit: multiply-adds in registers, nothing else."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from llvmlite import ir

from dynamics.kernels.bfloat16 import pair_product
from dynamics.kernels.code import I32, Code, Value
from dynamics.kernels.dense import Tile

CHAINS = 16
"""Independent sums: enough to hide a multiply-add's latency."""


def write_peak(module: ir.Module, name: str, tile: Tile, bfloat16: bool) -> None:
    """Write peak(rounds, target): CHAINS x rounds multiply-adds of vectors (or of pairs of bfloat16)."""
    code = Code(module, name, 2, tile.lanes)
    rounds, target = code.arguments
    factor = code.load(target, code.vector)
    bits = factor.bits(ir.VectorType(I32, tile.lanes))

    def multiply(_: Value, *sums: Value) -> list[Value]:
        return [pair_product(code, bits, bits, s) if bfloat16 else code.fma(s, factor, factor) for s in sums]

    sums = code.repeat(0, rounds, multiply, [factor + float(i) for i in range(CHAINS)])
    for i, total in enumerate(sums):
        code.store(total, target, i)
    code.finish()


def measured_peak(peak: Callable[[int, int], None], lanes: int, bfloat16: bool, threads: int) -> float:
    """Return the multiply-adds that `threads` threads do together, times two [GFLOP/s]: the best of five runs of about 30 ms."""
    rounds = 200_000
    operations = 2 * rounds * CHAINS * lanes * (2 if bfloat16 else 1)

    def run(_: int) -> None:
        target = (ctypes.c_float * (lanes * CHAINS))()
        peak(rounds, ctypes.addressof(target))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(threads)))  # starts the threads
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            list(pool.map(run, range(threads)))
            seconds.append(time.perf_counter() - started)
    return threads * operations / min(seconds) / 1e9
