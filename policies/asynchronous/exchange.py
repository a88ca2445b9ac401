"""What a policy asks of a planner that works beside it, and what it gets back: plain arrays, so that they can cross between processes."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

import numpy as np

from policies.asynchronous.committed_plan import Way
from robots.errors import NumericalError, ReflexarcError


class PlanningStopped(NumericalError):
    """There is nobody who plans any more, or nothing to act on: the planner died or raised, or its last plan is spent."""


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
    number: int = 0
    """Of this request; a worker counts those made to it, by whatever policy, from 1 on."""
    after: int = 0
    """0, or an offer: number of the request whose plan, which nobody knows yet, the way goes along as soon as it begins."""
    begin_by_ns: int = 0
    """Of an offer: later than this it is not worth beginning, since its plan would not be ready in time [ns, the host's clock]."""


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
    goes_on: int = 0
    """Number of the offer that the planner goes on with at once; 0: it waits for a request."""

    @property
    def seconds(self) -> float:
        """Time spent on the way and the plan [s]."""
        return (self.finished_ns - self.started_ns) * 1e-9


def following(offer: PlanRequest | None, made: PlanRequest, answer: PlanAnswer, now_ns: int) -> PlanRequest | None:
    """Return the offer if a planner that just `made` the plan in `answer` is to go on with it at `now_ns` [ns], else None."""
    fits = offer is not None and offer.after == made.number and now_ns <= offer.begin_by_ns and not answer.broken
    return offer if fits else None
