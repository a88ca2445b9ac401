"""Training steps compiled for the processor at hand, at their first use."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from enum import Enum

from llvmlite import ir

from dynamics.gradient.epoch import write_epoch
from dynamics.gradient.heads import write_gaussian, write_squared_logistic
from dynamics.gradient.products import ProductTile
from dynamics.kernels.compiled import has_bfloat16, load, processor_features

VARIANCE_BOUND_PENALTY = 0.01
"""Weight of sum(lmax) - sum(lmin) in the loss (Chua et al. 2018)."""


class Head(Enum):
    """The losses that have a compiled gradient."""

    GAUSSIAN = "gaussian"
    SQUARED_LOGISTIC = "squared_logistic"


@dataclass(frozen=True)
class EpochKernel:
    """A compiled epoch; `run` may be called from several threads at once and lets Python's other threads go on."""

    tile: ProductTile
    run: ctypes._CFuncPtr
    """run(table, first, end), see `epoch.write_epoch`."""


def product_tile(features: frozenset[str]) -> ProductTile | None:
    """Return the tile that suits the registers of a processor, or None where there are no fused multiply-adds."""
    if "avx512f" in features:
        return ProductTile(lanes=16, rows=8, vectors=3)
    if {"avx2", "fma"} <= features:
        return ProductTile(lanes=8, rows=4, vectors=3)
    return None


def compile_epoch(layers: int, head: Head, products: str) -> EpochKernel | None:
    """Return the kernel for networks of `layers` layers with float32 or bfloat16 products, or None where the processor lacks the
    instructions."""
    return _compile(layers, head, products == "bfloat16", processor_features())


@functools.cache
def _compile(layers: int, head: Head, bfloat16: bool, features: frozenset[str]) -> EpochKernel | None:
    tile = product_tile(features)
    if tile is None or (bfloat16 and not has_bfloat16(features)):
        return None
    module = ir.Module("reflexarc_epoch")
    write_head = {Head.GAUSSIAN: functools.partial(write_gaussian, penalty=VARIANCE_BOUND_PENALTY),
                  Head.SQUARED_LOGISTIC: write_squared_logistic}[head]
    write_epoch(module, "epoch", tile, layers, bfloat16, write_head)
    return EpochKernel(tile, load(module, features, {"epoch": 3})["epoch"])
