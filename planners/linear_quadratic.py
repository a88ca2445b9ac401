"""Linear-quadratic models along a trajectory, and the policies that are best for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numba
import numpy as np

from planners.convex import convex_part
from planners.riccati import FINE, INDEFINITE, NON_FINITE, backward_pass


class Outcome(IntEnum):
    """How a backward pass ended."""

    FINE = FINE
    INDEFINITE = INDEFINITE
    """Q_uu, regularised as it is, has no smallest value in the box."""
    NON_FINITE = NON_FINITE
    """NaN or infinity among the derivatives."""


OUTCOMES = tuple(Outcome)
"""By their numbers."""


@dataclass(frozen=True)
class LocalPolicy:
    """u_t = actions[t] + step * feedforward[t] + gains[t] @ dx_t, clipped into the box."""

    outcome: Outcome
    feedforward: np.ndarray
    """(H, nu)"""
    gains: np.ndarray
    """(H, nu, ndx); rows of commands that the feedforward brings to a bound are zero."""
    slope: float
    curvature: float

    @classmethod
    def nothing(cls, horizon: int, ndx: int, nu: int) -> LocalPolicy:
        """The policy that changes nothing, whatever it sees."""
        return cls(Outcome.FINE, np.zeros((horizon, nu)), np.zeros((horizon, nu, ndx)), 0.0, 0.0)

    def shortened(self, share: float) -> LocalPolicy:
        """Return the policy with `share` of its feedforward."""
        return replace(self, feedforward=share * self.feedforward)

    def expected_change(self, step: np.ndarray | float) -> np.ndarray | float:
        """Return the cost's change that the quadratic model promises for a step length."""
        return step * self.slope + 0.5 * step * step * self.curvature


@dataclass(frozen=True)
class LinearQuadraticModel:
    """dx_{t+1} = A_t dx_t + B_t du_t + gap_t, and the cost's first and second derivatives, along a trajectory; all float64."""

    a: np.ndarray
    """(H, ndx, ndx)"""
    b: np.ndarray
    """(H, ndx, nu)"""
    gradient: np.ndarray
    """(H, ndx + nu) of the running cost by [x, u]."""
    hessian: np.ndarray
    """(H, ndx + nu, ndx + nu)"""
    end_gradient: np.ndarray
    """(ndx,) of the terminal cost."""
    end_hessian: np.ndarray
    """(ndx, ndx)"""
    gaps: np.ndarray | None = None
    """(H, ndx) from the trajectory's next state to the one that the dynamics lead to; None where there are none."""

    def convexified(self) -> LinearQuadraticModel:
        """Return the model whose cost bends down in no direction of the state; what it says of commands stays."""
        n = self.a.shape[1]
        hessian = self.hessian.copy()
        hessian[:, :n, :n] = convex_part(hessian[:, :n, :n])
        return replace(self, hessian=hessian, end_hessian=convex_part(self.end_hessian[None])[0])

    def backward(self, lowest: np.ndarray, highest: np.ndarray, control_weight: float = 0.0, state_weight: float = 0.0,
                 for_size: bool = False) -> LocalPolicy:
        """Return the policy that is best for this model, with changes of the commands between lowest and highest (H, nu).

        Regularised by control_weight on Q_uu's diagonal and by state_weight on V_xx's inside Q_uu and Q_ux (Tassa et al. 2012);
        the value function is that of the model without either. `for_size`: compile the pass for this number of states and commands
        alone, see `SolverConfig.compile_for_size`.
        """
        gaps = np.empty((0, self.a.shape[1])) if self.gaps is None else self.gaps
        # the compiled pass reads memory as it comes: a cost's own derivatives may lie otherwise, or be float32
        arrays = (np.ascontiguousarray(array, dtype=np.float64) for array in
                  (self.a, self.b, self.gradient, self.hessian, self.end_gradient, self.end_hessian, gaps, lowest, highest))
        given = (*arrays, control_weight, state_weight)
        _, n, m = self.b.shape
        sizes = ((0,) * n, (0,) * m) if for_size else ((), ())
        code, feedforward, gains, slope, curvature = backward_pass(*given, *sizes)
        if self.gaps is not None and code == FINE:
            slope, curvature = model_change(self.a, self.b, self.gradient, self.hessian, self.end_gradient, self.end_hessian, gaps,
                                            feedforward, gains)
        return LocalPolicy(OUTCOMES[code], feedforward, gains, slope, curvature)


@numba.njit(cache=True, fastmath={"contract"}, error_model="numpy")
def model_change(a: np.ndarray, b: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, end_gradient: np.ndarray,
                 end_hessian: np.ndarray, gaps: np.ndarray, feedforward: np.ndarray, gains: np.ndarray) -> tuple[float, float]:
    """Return slope and curvature, along the step length, of the model's own cost where a step also closes gaps.

    The model's states move in proportion to the step, so its cost is exactly step * slope + step^2 / 2 * curvature.
    """
    horizon, n, m = b.shape
    z, moved = np.zeros(n + m), np.zeros(n)  # [dx, du] of the full step
    slope = curvature = 0.0
    for t in range(horizon):
        for i in range(m):
            z[n + i] = feedforward[t, i]
            for j in range(n):
                z[n + i] += gains[t, i, j] * z[j]
        for i in range(n + m):
            slope += gradient[t, i] * z[i]
            for j in range(n + m):
                curvature += z[i] * hessian[t, i, j] * z[j]
        for i in range(n):
            moved[i] = gaps[t, i]
            for j in range(n):
                moved[i] += a[t, i, j] * z[j]
            for j in range(m):
                moved[i] += b[t, i, j] * z[n + j]
        for i in range(n):
            z[i] = moved[i]
    for i in range(n):
        slope += end_gradient[i] * z[i]
        for j in range(n):
            curvature += z[i] * end_hessian[i, j] * z[j]
    return slope, curvature
