"""The convex part of a quadratic cost: what stays of it when no direction is allowed to bend down."""

from __future__ import annotations

import numpy as np
import torch

from dynamics.workers import one_torch_thread


def convex_part(hessians: np.ndarray) -> np.ndarray:
    """Return the positive semidefinite matrices (T, n, n) that are next to symmetric `hessians` (T, n, n) in the Frobenius norm.

    Negative eigenvalues become zero (Higham 1988). Where some matrix is not finite they are returned as they are.
    """
    if not np.isfinite(hessians).all():
        return hessians
    n = hessians.shape[-1]
    convex = np.zeros_like(hessians)
    pattern = (hessians != 0.0).any(axis=0) & ~np.eye(n, dtype=bool)
    coupled = np.flatnonzero(pattern.any(axis=0))
    alone = np.setdiff1d(np.arange(n), coupled)
    convex[:, alone, alone] = np.maximum(hessians[:, alone, alone], 0.0)
    if len(coupled):
        block = np.ix_(range(len(hessians)), coupled, coupled)
        with one_torch_thread():  # NumPy's library gives other bits on other numbers of threads
            values, vectors = torch.linalg.eigh(torch.from_numpy(hessians[block]))
            part = (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT
            convex[block] = (0.5 * (part + part.mT)).numpy()
    return convex
