"""Where planning happens: at once, or in a thread beside the control loop (`process_worker`: in a process)."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from policies.asynchronous.exchange import PlanAnswer, PlanningStopped, PlanRequest, following
from policies.asynchronous.request_planner import RequestPlanner
from robots.errors import ConfigurationError

STARTING_SECONDS = 120.0
"""Time that a planner may take to be made [s]: a process imports, a model is built."""
ENDING_SECONDS = 2.0
"""Time that the plan in the making may take when a worker is closed [s]."""


class PlanWorker(Protocol):
    """Answers one request at a time, in their order."""

    numbers: Iterator[int]
    """For requests to it: none that another one had. An offer that a policy before left here is taken for no other's."""

    def submit(self, request: PlanRequest) -> None:
        """Hand over a request and return at once; who works was told of no other. PlanningStopped if nobody is there."""
        ...

    def offer(self, request: PlanRequest) -> None:
        """Leave a request to go on with as soon as the one at work is done (`exchange.following`), in the place of the last offer."""
        ...

    def result(self, timeout: float = 0.0) -> PlanAnswer | None:
        """Return the next answer, None where there is none within `timeout` [s]. PlanningStopped if there never will be one."""
        ...

    def close(self) -> None:
        """End it. Harmless twice."""
        ...


class InlineWorker:
    """Plans in `submit`, which takes as long as that: for delays that are declared, not lived."""

    def __init__(self, planner: RequestPlanner) -> None:
        self._planner, self.numbers = planner, itertools.count(1)
        self._answer: PlanAnswer | None = None

    def submit(self, request: PlanRequest) -> None:
        self._answer = self._planner.answer(request)

    def offer(self, request: PlanRequest) -> None:
        """Nothing is ever at work that an offer could wait for."""

    def result(self, timeout: float = 0.0) -> PlanAnswer | None:
        answer, self._answer = self._answer, None
        return answer

    def close(self) -> None:
        pass


class ThreadWorker:
    """Plans in a thread of this process: for planners that let go of Python's lock while they work, and models that are refitted here.

    A planner that keeps the lock delays the control loop; give it a process.
    """

    def __init__(self, make: Callable[[], RequestPlanner]) -> None:
        """`make` is called in the thread; what it raises is raised here."""
        self.numbers = itertools.count(1)
        self._requests: queue.SimpleQueue[PlanRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[PlanAnswer | Exception | None] = queue.SimpleQueue()
        self._offer: PlanRequest | None = None
        self._thread = threading.Thread(target=self._work, args=(make,), name="reflexarc-planner", daemon=True)
        self._thread.start()
        try:
            made = self._answers.get(timeout=STARTING_SECONDS)
        except queue.Empty:
            raise ConfigurationError(f"the planner was not made within {STARTING_SECONDS:.0f} s") from None
        if made is not None:
            raise made

    def submit(self, request: PlanRequest) -> None:
        self._check_alive()
        self._requests.put(request)

    def offer(self, request: PlanRequest) -> None:
        self._offer = request

    def result(self, timeout: float = 0.0) -> PlanAnswer | None:
        try:
            return self._answers.get(timeout=timeout) if timeout > 0 else self._answers.get_nowait()
        except queue.Empty:
            self._check_alive()
            return None

    def close(self) -> None:
        if self._thread.is_alive():
            self._requests.put(None)
            self._thread.join(ENDING_SECONDS)

    def _check_alive(self) -> None:
        if not self._thread.is_alive():
            raise PlanningStopped("the planning thread has ended; make a new worker")

    def _work(self, make: Callable[[], RequestPlanner]) -> None:
        try:
            planner = make()
        except Exception as error:  # raised where the worker is made
            self._answers.put(error)
            return
        self._answers.put(None)
        while (request := self._requests.get()) is not None:
            while request is not None:
                answer = planner.answer(request)
                request = following(self._offer, request, answer, time.monotonic_ns())
                self._answers.put(replace(answer, goes_on=0 if request is None else request.number))
