"""Plans by few numbers: raw sequences, or splines through knots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from robots.errors import ConfigurationError, UnknownNameError

INTERPOLATIONS = ("raw", "zero", "linear", "cubic")


@dataclass(frozen=True)
class Parameterisation:
    """A linear map from parameters (K, nu) to actions (H, nu).

    'raw': the actions themselves (K = H); 'zero': every knot holds; 'linear', 'cubic': interpolation between knots, the
    first at the plan's start, the last at its end. Knots lie evenly.
    """

    horizon: int
    """H, control periods."""
    interpolation: str = "raw"
    knots: int = 6
    """K for the splines."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigurationError(f"horizon: expected at least 1, got {self.horizon}")
        if self.interpolation not in INTERPOLATIONS:
            raise UnknownNameError("interpolation", self.interpolation, INTERPOLATIONS)
        if self.interpolation != "raw" and not 2 <= self.knots <= self.horizon:
            raise ConfigurationError(f"knots: expected 2 to the horizon ({self.horizon}), got {self.knots}")

    @property
    def parameters(self) -> int:
        """K."""
        return self.horizon if self.interpolation == "raw" else self.knots

    @cached_property
    def _basis(self) -> np.ndarray:
        """(H, K)"""
        if self.interpolation == "raw":
            return np.eye(self.horizon)
        if self.interpolation == "zero":
            owner = np.minimum(np.arange(self.horizon) * self.knots // self.horizon, self.knots - 1)
            return np.eye(self.knots)[owner]
        at, knots = np.linspace(0.0, 1.0, self.horizon), np.linspace(0.0, 1.0, self.knots)
        if self.interpolation == "linear" or self.knots == 2:
            return np.stack([np.interp(at, knots, unit) for unit in np.eye(self.knots)], axis=1)
        return CubicSpline(knots, np.eye(self.knots), bc_type="natural")(at)

    @cached_property
    def _basis_32(self) -> np.ndarray:
        """(H, K) float32"""
        return self._basis.astype(np.float32)

    @cached_property
    def _shift(self) -> np.ndarray:
        """(K, K): the parameters that fit the actions of one period later best, the last action repeated."""
        later = np.minimum(np.arange(self.horizon) + 1, self.horizon - 1)
        return np.eye(self.horizon)[later] if self.interpolation == "raw" else np.linalg.pinv(self._basis) @ self._basis[later]

    def actions(self, parameters: Tensor) -> Tensor:
        """Return actions (..., H, nu) of parameters (..., K, nu)."""
        return parameters if self.interpolation == "raw" else _mapped(self._basis, parameters)

    def bounded(self, parameters: Tensor, lower: np.ndarray, upper: np.ndarray, actions: Tensor, first: Tensor | None = None) -> None:
        """Clip parameters (N, K, nu) float32 into the box of lower and upper (nu,), in place, and write their actions, clipped too, into
        `actions` (N, H, nu); `first` (K, nu) goes in the place of the first ones.

        One compiled call, for calls take longer than such work where physics has emptied the caches.
        """
        basis, beginning = _NOTHING if self.interpolation == "raw" else self._basis_32, _NOTHING if first is None else first.numpy()
        _bound(basis, parameters.numpy(), beginning, lower, upper, actions.numpy())

    def continued(self, parameters: Tensor, lower: np.ndarray, upper: np.ndarray) -> Tensor:
        """Return parameters (K, nu) float32 `shifted`, and clipped into the box of lower and upper (nu,); one compiled call too."""
        moved = torch.empty_like(parameters)
        _continue(_NOTHING_64 if self.interpolation == "raw" else self._shift, parameters.numpy(), lower, upper, moved.numpy())
        return moved

    def shifted(self, parameters: Tensor) -> Tensor:
        """Return parameters (..., K, nu) moved one control period ahead: the warm start of the next plan."""
        if self.interpolation == "raw":
            return torch.cat([parameters[..., 1:, :], parameters[..., -1:, :]], dim=-2)
        return _mapped(self._shift, parameters)


def _mapped(matrix: np.ndarray, parameters: Tensor) -> Tensor:
    """Return matrix (M, K) @ parameters (..., K, nu): compiled, since torch takes longer to begin than such a product takes, unless
    gradients must flow."""
    if parameters.requires_grad:
        return torch.matmul(torch.as_tensor(matrix, dtype=parameters.dtype), parameters)
    *batch, knots, nu = parameters.shape
    flat = parameters.contiguous().view(-1, knots, nu).numpy()
    return torch.from_numpy(_multiply(matrix, flat)).view(*batch, len(matrix), nu)


_NOTHING, _NOTHING_64 = np.empty((0, 0), np.float32), np.empty((0, 0))


@numba.njit(cache=True)
def _continue(matrix: np.ndarray, parameters: np.ndarray, lower: np.ndarray, upper: np.ndarray, moved: np.ndarray) -> None:
    """Write matrix (K, K) @ parameters (K, nu), clipped, into `moved`; no matrix: the next ones, the last one twice."""
    knots, nu = parameters.shape
    if len(matrix) == 0:
        moved[:-1], moved[-1] = parameters[1:], parameters[-1]
    else:
        moved[:] = _multiply(matrix, parameters.reshape((1, knots, nu)))[0]
    for k in range(knots):
        for i in range(nu):
            moved[k, i] = _inside(moved[k, i], lower[i], upper[i])


@numba.njit(cache=True)
def _bound(matrix: np.ndarray, parameters: np.ndarray, first: np.ndarray, lower: np.ndarray, upper: np.ndarray,
           actions: np.ndarray) -> None:
    """Clip parameters (N, K, nu) in place and write matrix (H, K) @ parameters, clipped, into actions (N, H, nu); no matrix: themselves.

    `first` (K, nu): goes in the place of the first ones, where it is not empty.
    """
    count, knots, nu = parameters.shape
    if len(first) > 0:
        parameters[0] = first
    for n in range(count):
        for k in range(knots):
            for i in range(nu):
                parameters[n, k, i] = _inside(parameters[n, k, i], lower[i], upper[i])
        for h in range(actions.shape[1]):
            for i in range(nu):
                if len(matrix) == 0:
                    total = parameters[n, h, i]
                else:
                    total = np.float32(0.0)
                    for k in range(knots):
                        total += matrix[h, k] * parameters[n, k, i]
                actions[n, h, i] = _inside(total, lower[i], upper[i])


@numba.njit(inline="always")
def _inside(value: float, low: float, high: float) -> float:
    """Return the value clipped; what is no number stays so."""
    return low if value < low else high if value > high else value


@numba.njit(cache=True)
def _multiply(matrix: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Return (N, M, nu) of matrix (M, K) and parameters (N, K, nu), in their precision."""
    count, knots, nu = parameters.shape
    out = np.zeros((count, len(matrix), nu), dtype=parameters.dtype)
    for n in range(count):
        for m in range(len(matrix)):
            for k in range(knots):
                weight = parameters.dtype.type(matrix[m, k])
                if weight != 0:
                    for i in range(nu):
                        out[n, m, i] += weight * parameters[n, k, i]
    return out
