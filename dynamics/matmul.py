"""Which float32 matrix product torch uses here, after a probe of its numerics."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)

LARGEST_RELATIVE_ERROR = 1e-5
"""A product whose error is above this (relative to its largest entry) is not called float32."""


@dataclass(frozen=True)
class MatmulProbe:
    """What the probe measured and chose."""

    fast: bool
    """True where torch now goes through oneDNN."""
    relative_error: float
    """Largest error of the fast product against float64, relative to the largest entry."""


def enable_fast_float32() -> MatmulProbe:
    """Route torch's float32 products to oneDNN where that is exact enough, and say what was found.

    On AMD processors torch's default library takes AVX2 paths; torch's 'bf16' switch takes oneDNN's AVX-512 ones instead.
    With AMX units the same switch may truly round to bfloat16: the probe then measures an error above 1e-5 and leaves the
    default in place. Changes a setting of the whole process, so it is called explicitly.
    """
    backend = torch.backends.mkldnn
    if not backend.is_available():
        return MatmulProbe(False, 0.0)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 160, 200, generator=generator), torch.randn(2, 200, 200, generator=generator)
    exact = torch.bmm(a.double(), b.double())
    before = backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "bf16"
    error = float((torch.bmm(a, b).double() - exact).abs().max() / exact.abs().max())
    fast = error <= LARGEST_RELATIVE_ERROR
    if not fast:
        backend.matmul.fp32_precision = before
    logger.info("float32 products: %s (relative error %.1e)", "oneDNN" if fast else "torch's default", error)
    return MatmulProbe(fast, error)
