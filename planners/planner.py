"""The `Planner` protocol."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from planners.plan import Plan, PlanMemory
from robots.errors import ConfigurationError, NonFiniteError, ShapeError

ON_LIMIT = 1e-6
"""As near to a limit as this, in halves of the range, is on it."""


class PlannerConfig(Protocol):
    """What the configuration of every planner has."""

    @property
    def horizon(self) -> int:
        """H, control periods."""
        ...


@runtime_checkable
class Planner(Protocol):
    """Finds what to do if the model is right. Its memory is the previous plan; nothing is hidden in the planner."""

    horizon: int
    """H, control periods."""

    def plan(self, x0: Tensor, previous: Plan | None, generator: torch.Generator, deadline: float | None = None) -> Plan:
        """Return a plan from state x0 (nx,).

        `previous`: the plan made one control period ago (None: a fresh start). All randomness comes from `generator`.
        `deadline`: seconds this call may take; when they are over the best plan so far is returned. Samples with a cost that
        is not finite count as +inf; if none is finite the status says so and there are no actions.
        """
        ...


def checked_state(x0: Tensor, nx: int, dtype: torch.dtype) -> Tensor:
    """Return a state to plan from (nx,) in `dtype`; ShapeError or NonFiniteError where it is none."""
    if x0.shape != (nx,):
        raise ShapeError(f"x0: expected ({nx},), got {tuple(x0.shape)}")
    x0 = x0.detach().to(dtype)
    if not all(map(math.isfinite, x0.tolist())):  # few numbers: NumPy takes longer to begin
        raise NonFiniteError(f"x0: expected a finite state, got {x0.tolist()}")
    return x0


def check_deadline(deadline: float | None) -> None:
    """Raise ConfigurationError for a deadline that is no number: no time would ever be later."""
    if deadline is not None and math.isnan(deadline):
        raise ConfigurationError(f"deadline: expected a number of seconds, or None for as long as it takes; got {deadline}")


def checked_memory(previous: Plan | None, shape: tuple[int, int]) -> PlanMemory | None:
    """Return what is kept of the previous plan, None where nothing is; ShapeError unless its parameters have `shape` (K, nu)."""
    memory = previous.memory if previous is not None else None
    if memory is not None and memory.mean.shape != shape:
        raise ShapeError(f"previous: expected a plan of {shape} parameters, got {tuple(memory.mean.shape)}; it was made by another planner")
    return memory


def on_limit(command: Tensor | np.ndarray, lower: Tensor | np.ndarray, upper: Tensor | np.ndarray) -> tuple[bool, ...]:
    """Return (nu,) whether the entries of a command (nu,) lie on, or beyond, a limit `lower` or `upper` (nu,), or as near as ON_LIMIT.

    Beside an infinite limit the other one of an entry is to be met exactly.
    """
    on = []
    for value, low, high in zip(command.tolist(), lower.tolist(), upper.tolist(), strict=True):
        half_range = (high - low) / 2
        near = ON_LIMIT * half_range if half_range < math.inf else 0.0
        on.append(value <= low + near or value >= high - near)
    return tuple(on)
