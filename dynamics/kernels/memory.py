"""Memory that kernels read and write a whole register at a time."""

from __future__ import annotations

import torch
from torch import Tensor

CACHE_LINE = 64
"""[byte]; no register is longer."""


def aligned_zeros(words: int) -> Tensor:
    """Return zeros (words,) float32 that start on a cache line."""
    spare = torch.zeros(words + CACHE_LINE // 4)
    offset = -spare.data_ptr() % CACHE_LINE // 4
    return spare[offset : offset + words]
