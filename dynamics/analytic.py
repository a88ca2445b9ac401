"""A model written down as formulas, compiled: its step, its derivatives and its feedback rollouts."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np
import torch
from torch import Tensor

from dynamics.model import Prediction
from dynamics.state_space import Kind, StateSpace
from robots.errors import ConfigurationError

Step = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""step(x (nx,), u (nu,), out (nx,)) writes the next state, in a form that numba compiles."""
Jacobian = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""jacobian(x (nx,), u (nu,), a (nx, nx), b (nx, nu)) writes the step's derivatives; a and b come zeroed."""


class AnalyticModel:
    """x_next = step(x, u), exactly, without noise, for states of plain numbers and angles; compiled at its first use in a process.

    Differentiated by its `jacobian` (`dynamics.linearize`), not through torch. ConfigurationError for a space with rotations.
    """

    def __init__(self, state_space: StateSpace, nu: int, step: Step, jacobian: Jacobian) -> None:
        if state_space.has_quaternions:
            raise ConfigurationError("AnalyticModel: expected a state of plain numbers and angles, got a quaternion; "
                                     "write the model with torch, as a DynamicsModel of its own")
        self.state_space, self.nu = state_space, nu
        self._step, self._jacobian = _compiled(step), _compiled(jacobian)
        self._turns = np.array([channel.kind is Kind.ANGLE for channel in state_space.channels for _ in channel.indices])

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the next state (..., nx) of states x (..., nx) under commands u (..., nu)."""
        batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
        rows, commands = (v.detach().double().expand(*batch, v.shape[-1]).reshape(-1, v.shape[-1]).contiguous().numpy() for v in (x, u))
        out = np.empty_like(rows)
        _step_rows(self._step, rows, commands, out)
        return torch.from_numpy(out).reshape(*batch, -1).to(x.dtype)

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """Return the next state, without doubt."""
        mean = self.step(x, u)
        certain = mean.new_zeros(*mean.shape[:-1], self.state_space.no)
        return Prediction(mean, certain, certain)

    def linearize(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.linearize`."""
        a, b = np.zeros((len(x), x.shape[1], x.shape[1])), np.zeros((len(x), x.shape[1], u.shape[1]))
        _jacobian_rows(self._jacobian, x, u, a, b)
        return a, b

    def roll_out_feedback(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray,
                          gains: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.feedback_rollout`."""
        reached, commands = np.empty((len(steps), *states.shape)), np.empty((len(steps), *actions.shape))
        _roll_out(self._step, self._turns, x0, states, actions, steps, feedforward, gains, lower, upper, reached, commands)
        return reached, commands


@functools.cache
def _compiled(function: Callable) -> Callable:
    """Return the function compiled, the same one for all models that it makes: what calls it is compiled anew for every other."""
    return function if isinstance(function, numba.core.dispatcher.Dispatcher) else numba.njit(error_model="numpy")(function)


@numba.njit(error_model="numpy")
def _step_rows(step: Step, x: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
    for row in range(len(x)):
        step(x[row], u[row], out[row])


@numba.njit(error_model="numpy")
def _jacobian_rows(jacobian: Jacobian, x: np.ndarray, u: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    for row in range(len(x)):
        jacobian(x[row], u[row], a[row], b[row])


@numba.njit(error_model="numpy")
def _roll_out(step: Step, turns: np.ndarray, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray,
              feedforward: np.ndarray, gains: np.ndarray, lower: np.ndarray, upper: np.ndarray, reached: np.ndarray,
              commands: np.ndarray) -> None:
    nx, nu = len(x0), len(lower)
    away = np.empty(nx)
    for sample in range(len(steps)):
        for i in range(nx):
            reached[sample, 0, i] = x0[i]
        for t in range(len(actions)):
            x, u = reached[sample, t], commands[sample, t]
            for j in range(nx):
                away[j] = x[j] - states[t, j]
                if turns[j]:
                    away[j] -= 2 * np.pi * np.round(away[j] / (2 * np.pi))
            for i in range(nu):
                wanted = actions[t, i] + steps[sample] * feedforward[t, i]
                for j in range(nx):
                    wanted += gains[t, i, j] * away[j]
                u[i] = min(max(wanted, lower[i]), upper[i])
            step(x, u, reached[sample, t + 1])
