"""Standardisation of a model's inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normaliser:
    """Maps values to (values - mean) / std, column by column."""

    mean: Tensor
    """(n,) float32."""
    std: Tensor
    """(n,) float32, all positive."""

    @classmethod
    def identity(cls, n: int) -> Normaliser:
        """The normaliser that changes nothing."""
        return cls(torch.zeros(n), torch.ones(n))

    @classmethod
    def fit(cls, values: Tensor, floor: float = 1e-6) -> Normaliser:
        """Return the normaliser of values (rows, n); a column that hardly varies (std below `floor`) keeps its scale."""
        values = values.double()
        std = values.std(0, correction=0)
        return cls(values.mean(0).float(), torch.where(std < floor, torch.ones_like(std), std).float())

    def normalise(self, values: Tensor) -> Tensor:
        """Return standardised values (..., n)."""
        return (values - self.mean) / self.std

    def denormalise(self, values: Tensor) -> Tensor:
        """Return values (..., n) in their own units: the inverse of `normalise`."""
        return values * self.std + self.mean
