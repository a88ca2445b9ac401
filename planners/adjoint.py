"""The slope of a cost along a plan, where model and cost know their derivatives: one sweep back (the adjoint method)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from planners.compiler.compiled_cost import CompiledCost


@runtime_checkable
class DifferentiableRollouts(Protocol):
    """A model that rolls many plans out at once and differentiates many periods at once, float64."""

    particles: int
    """P, rollouts of every plan."""

    def rollouts(self, x0: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the states (P, N, H, nx) that plans (N, H, nu) lead to from x0 (nx,); a buffer."""
        ...

    def linearize(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return A (T, ndx, ndx) and B (T, ndx, nu) of one period from x (T, nx) under u (T, nu)."""
        ...


def costs_and_slopes(model: DifferentiableRollouts, cost: CompiledCost, x0: np.ndarray,
                     actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what plans actions (N, H, nu) cost from x0 (nx,), (N,), and the derivatives (N, H, nu) of that by the actions.

    What diverged costs +inf and has a slope of NaN. `model` has one particle.
    """
    count, horizon, nu = actions.shape
    states = np.empty((count, horizon + 1, len(x0)))
    states[:, 0], states[:, 1:] = x0, model.rollouts(x0, actions)[0]
    costs = cost.totals(x0, states[:, 1:], actions)
    sound = np.flatnonzero(np.isfinite(costs))
    slopes = np.full_like(actions, np.nan)
    if len(sound):
        a, b = (np.asarray(part).reshape(len(sound), horizon, *part.shape[1:]) for part in
                model.linearize(states[sound, :-1].reshape(-1, len(x0)), actions[sound].reshape(-1, nu)))
        slopes[sound] = _swept(cost, states[sound], actions[sound], a, b)
    costs[~np.isfinite(costs)] = np.inf
    return costs, slopes


def _swept(cost: CompiledCost, states: np.ndarray, actions: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the slopes (N, H, nu); v_t = dJ/dx_t = l_x + A' v_{t+1}, dJ/du_t = l_u + B' v_{t+1}."""
    ndx = a.shape[-1]
    running, end = (np.stack(parts) for parts in zip(*(cost.slopes(x, u) for x, u in zip(states, actions, strict=True)), strict=True))
    slopes, v = running[:, :, ndx:], end
    for t in range(actions.shape[1] - 1, -1, -1):
        slopes[:, t] += np.einsum("nij,ni->nj", b[:, t], v)
        v = running[:, t, :ndx] + np.einsum("nij,ni->nj", a[:, t], v)
    return slopes
