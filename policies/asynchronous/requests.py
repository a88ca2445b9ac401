"""What was asked of a planner beside the robot and is not answered yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from policies.asynchronous.exchange import PlanAnswer, PlanRequest
from policies.asynchronous.worker import PlanWorker


@dataclass(frozen=True)
class Asked:
    """A request, its place on the robot's clock, and when it left."""

    number: int
    start_ns: int
    """When its plan is to begin."""
    observed_ns: int
    """When its state was observed; like the beginning on the robot's clock."""
    begun_ns: int
    """When the period began whose state was handed over, and ..."""
    sent_ns: int
    """... when it was; both on the host's clock."""
    offered: bool = False
    """Whether it was to be begun as soon as the one before was done."""

    def delay_ns(self, answer: PlanAnswer) -> int:
        """Return how long after the period's beginning a plan is ready that need not wait for another one [ns]."""
        waited = max(answer.started_ns - self.sent_ns, 0) if self.offered else 0
        return answer.finished_ns - self.begun_ns - waited


class Requests:
    """The request that the worker is at, and the offers from which it goes on by itself."""

    def __init__(self, worker: PlanWorker, clock: Callable[[], int]) -> None:
        self._worker, self._clock = worker, clock
        self._offers: dict[int, Asked] = {}
        """By their numbers, those made since the worker was seen to begin with what it is at: it may have taken any of them."""
        self.at_work: Asked | None = None
        """What the worker is at, as far as its answers tell."""

    def submit(self, request: PlanRequest, start_ns: int, observed_ns: int, begun_ns: int) -> None:
        """Ask an idle worker; PlanningStopped if nobody is there. Times as in `Asked`."""
        number = next(self._worker.numbers)
        asked = Asked(number, start_ns, observed_ns, begun_ns, self._clock())
        self._worker.submit(replace(request, number=number))
        self.at_work = asked

    def offer(self, request: PlanRequest, start_ns: int, observed_ns: int, begun_ns: int, begin_by_ns: int) -> None:
        """Leave a request to go on with after the one at work, unless that lasts beyond `begin_by_ns`."""
        number = next(self._worker.numbers)
        self._offers[number] = Asked(number, start_ns, observed_ns, begun_ns, self._clock(), offered=True)
        self._worker.offer(replace(request, number=number, after=self.at_work.number, begin_by_ns=begin_by_ns))

    def answer(self, timeout: float = 0.0) -> tuple[Asked, PlanAnswer] | None:
        """Return what was asked and its answer, None where there is none within `timeout` [s]; PlanningStopped if there never will be."""
        answer = self._worker.result(timeout)
        if answer is None:
            return None
        asked, self.at_work = self.at_work, self._offers.get(answer.goes_on)
        self._offers.clear()
        return asked, answer
