"""What a policy asks of a planner that works beside it, and what it gets back: plain arrays, so that they can cross between processes."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

import numpy as np

from policies.asynchronous.committed_plan import Way
from robots.errors import NumericalError, ReflexarcError


class PlanningStopped(NumericalError):
    """There is nothing to act on any more: the planner died, raised, or is so slow that its last plan is spent."""


def error_words(error: Exception) -> str:
    """Return an error's own words, and where it arose unless it was raised on purpose."""
    words = f"{type(error).__name__}: {error}"
    return words if isinstance(error, ReflexarcError) else "\n".join([words, *traceback.format_exception(error)])


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """A plan is wanted for the state that the way leads to from x."""

    x: np.ndarray
    """(nx,) as observed."""
    way: Way
    later: int = 1
    """Periods between the beginnings of the last plan and of this one."""
    seed: int | None = None
    """A new episode begins: forget the last plan, and draw from this seed."""


@dataclass(frozen=True, eq=False)
class PlanAnswer:
    """A plan, or why there is none."""

    actions: np.ndarray | None
    """(H, nu); None: no plan, for the reason in `words`."""
    states: np.ndarray | None
    """(H + 1, nx) expected from where the way led, on."""
    gains: np.ndarray | None
    """(H, nu, ndx)"""
    cost: float
    iterations: int
    started_ns: int
    """When the planner heard of the request, on the host's monotonic clock [ns]."""
    finished_ns: int
    """When it was done [ns]."""
    words: str = ""
    """The planner's status, or what happened to it."""
    broken: bool = False
    """Whether the planner raised an error, which the next request would raise again."""

    @property
    def seconds(self) -> float:
        """Time spent on the way and the plan [s]."""
        return (self.finished_ns - self.started_ns) * 1e-9
