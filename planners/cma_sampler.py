"""The full covariance of CMA-ES, learned and drawn from on one thread: a BLAS rounds sums differently for another number of threads."""

from __future__ import annotations

import numpy as np
import torch
from cma.sampler import GaussFullSampler

from dynamics.workers import one_torch_thread


class OneThreadSampler(GaussFullSampler):
    """As `cma`'s own sampler, its products summed in one fixed order, so that one seed gives one result at any thread count."""

    def __init__(self, standard: GaussFullSampler) -> None:
        """Take the place of `standard`, which has not learned anything yet."""
        super().__init__(standard.dimension, lazy_update_gap=standard.lazy_update_gap, randn=standard.randn, eigenmethod=eigen)
        self.C, self.B, self.D = standard.C.copy(), standard.B.copy(), standard.D.copy()

    def sample(self, number: int, lazy_update_gap: float | None = None, same_length: bool = False) -> np.ndarray:
        """Return draws (number, n) of the present covariance; `same_length` is not offered."""
        self.update_now(lazy_update_gap)
        return np.einsum("ij,kj->ki", self.B, self.D * self.randn(number, self.dimension))

    def update(self, vectors: list[np.ndarray], weights: list[float], c1_times_delta_hsigma: float = 0.0) -> None:
        """Learn from vectors (k, n): C <- (1 + c1_times_delta_hsigma - sum w) C + sum w v v', negative w on v scaled to length sqrt n."""
        steps, shares = np.asarray(vectors), np.array(weights, dtype=np.float64)
        self.C *= 1.0 + c1_times_delta_hsigma - shares.sum()
        for k in (shares < 0.0).nonzero()[0]:
            shares[k] *= self.dimension / (self.norm(steps[k]) + 1e-9) ** 2
        self.C += np.einsum("ki,kj->ij", shares[:, None] * steps, steps)
        self.count_tell += 1

    def transform_inverse(self, x: np.ndarray) -> np.ndarray:
        """Return C^-1/2 x (n,)."""
        return np.einsum("ij,j->i", self.B, np.einsum("ji,j->i", self.B, x) / self.D)


def eigen(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues (n,), ascending, and the eigenvectors (n, n) as columns, on one thread."""
    with one_torch_thread():
        values, vectors = torch.linalg.eigh(torch.from_numpy(np.ascontiguousarray(covariance)))
    return values.numpy(), vectors.numpy()
