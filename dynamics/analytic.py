"""A model written down as formulas, compiled: its step, its derivatives and its feedback rollouts."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numba
import numpy as np
import torch
from torch import Tensor

from dynamics.feedback_rollout import check_feedback
from dynamics.linearize import check_rows
from dynamics.model import Prediction
from dynamics.state_space import Kind, StateSpace
from robots.errors import ConfigurationError, ShapeError

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
        self._step_rows = _step_rows(step)
        self.compiled_jacobian, self.compiled_rollout = _jacobian_rows(jacobian), _roll_out(step)
        """What `linearize` and `roll_out_feedback` call, to be called from compiled code too."""
        self.turns = np.array([channel.kind is Kind.ANGLE for channel in state_space.channels for _ in channel.indices])
        """(nx,) True where an entry is an angle."""
        self._no_gaps = np.empty((0, state_space.nx))

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the next state (..., nx) of states x (..., nx) under commands u (..., nu)."""
        if x.shape[-1] != self.state_space.nx or u.shape[-1] != self.nu:
            raise ShapeError(f"AnalyticModel: expected states of {self.state_space.nx} and commands of {self.nu} entries, got "
                             f"{x.shape[-1]} and {u.shape[-1]}")
        batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
        rows, commands = (v.detach().double().expand(*batch, v.shape[-1]).reshape(-1, v.shape[-1]).contiguous().numpy() for v in (x, u))
        out = np.empty_like(rows)
        self._step_rows(rows, commands, out)
        return torch.from_numpy(out).reshape(*batch, -1).to(x.dtype)

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """Return the next state, without doubt."""
        mean = self.step(x, u)
        certain = mean.new_zeros(*mean.shape[:-1], self.state_space.no)
        return Prediction(mean, certain, certain)

    def linearize(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.linearize`."""
        check_rows(self, x, u)
        return self.compiled_jacobian(*_contiguous(x, u))

    def roll_out_feedback(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray,
                          gains: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.feedback_rollout`."""
        check_feedback(self.state_space, self.nu, x0=x0, states=states, actions=actions, steps=steps, feedforward=feedforward, gains=gains,
                       lower=lower, upper=upper)
        given = _contiguous(x0, states, actions, steps, feedforward, gains, lower, upper)
        return self.compiled_rollout(self.turns, *given, self._no_gaps)

    def roll_out_with_gaps(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray,
                           gains: np.ndarray, lower: np.ndarray, upper: np.ndarray, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `dynamics.feedback_rollout`."""
        check_feedback(self.state_space, self.nu, x0=x0, states=states, actions=actions, steps=steps, feedforward=feedforward, gains=gains,
                       lower=lower, upper=upper, gaps=gaps)
        return self.compiled_rollout(self.turns, *_contiguous(x0, states, actions, steps, feedforward, gains, lower, upper, gaps))


def _contiguous(*arrays: np.ndarray) -> list[np.ndarray]:
    """Return the arrays as float64, row after row: numba would compile for seconds for every other layout."""
    return [np.ascontiguousarray(array, dtype=np.float64) for array in arrays]


# The loops are compiled around each formula, once a process for all models that share it.


@functools.cache
def compiled(formula: Callable) -> Callable:
    """Return a formula compiled, as it is where it was."""
    return formula if isinstance(formula, numba.core.dispatcher.Dispatcher) else numba.njit(error_model="numpy")(formula)


@functools.cache
def _step_rows(formula: Step) -> Callable[..., None]:
    step = compiled(formula)

    @numba.njit(error_model="numpy")
    def rows(x, u, out):
        for row in range(len(x)):
            step(x[row], u[row], out[row])

    return rows


@functools.cache
def _jacobian_rows(formula: Jacobian) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    jacobian = compiled(formula)

    @numba.njit(error_model="numpy")
    def rows(x, u):
        a, b = np.zeros((len(x), x.shape[1], x.shape[1])), np.zeros((len(x), x.shape[1], u.shape[1]))
        for row in range(len(x)):
            jacobian(x[row], u[row], a[row], b[row])
        return a, b

    return rows


@functools.cache
def _roll_out(formula: Step) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    step = compiled(formula)

    @numba.njit(error_model="numpy")
    def roll_out(turns, x0, states, actions, steps, feedforward, gains, lower, upper, gaps):
        nx, nu = len(x0), len(lower)
        reached, commands = np.empty((len(steps), *states.shape)), np.empty((len(steps), *actions.shape))
        away = np.empty(nx)
        for sample in range(len(steps)):
            for i in range(nx):
                reached[sample, 0, i] = x0[i]
            for t in range(len(actions)):
                x, u, following = reached[sample, t], commands[sample, t], reached[sample, t + 1]
                for j in range(nx):
                    away[j] = x[j] - states[t, j]
                    if turns[j]:
                        away[j] -= 2 * np.pi * np.round(away[j] / (2 * np.pi))
                for i in range(nu):
                    wanted = actions[t, i] + steps[sample] * feedforward[t, i]
                    for j in range(nx):
                        wanted += gains[t, i, j] * away[j]
                    u[i] = min(max(wanted, lower[i]), upper[i])
                step(x, u, following)
                if len(gaps):
                    for j in range(nx):
                        following[j] -= (1.0 - steps[sample]) * gaps[t, j]
        return reached, commands

    return roll_out
