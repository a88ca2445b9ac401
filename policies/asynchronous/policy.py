"""A planner that works beside the robot, as a policy: it acts on the plan it has while the next one is made for when it will be ready."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dynamics.state_space import StateSpace
from policies.asynchronous.committed_plan import CommittedPlan, Way, plan_at, way_along
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.delay import DelayEstimate
from policies.asynchronous.exchange import PlanAnswer, PlanningStopped, PlanRequest
from policies.asynchronous.report import ADVICE, AsynchronousReport
from policies.asynchronous.worker import PlanWorker
from robots.command import Command, CommandSpec
from robots.observation import Observation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Asked:
    """A request that is out."""

    start_ns: int
    """When its plan is to begin."""
    observed_ns: int
    begun_ns: int
    """When the period began whose state was handed over, and ..."""
    sent_ns: int
    """... when it was; both on the host's clock."""


@dataclass(frozen=True)
class _Acted:
    """The last command."""

    stamp_ns: int
    begun_ns: int
    x: np.ndarray
    values: np.ndarray


class AsynchronousPolicy:
    """Acts on a committed plan, with its feedback where it has any, and never waits for the next: that is made by `worker` meanwhile, for
    the state to which the commands decided on lead until it is ready.

    `act` waits twice only: for the first plan, while the robot is at rest, and where the delay is declared. It raises
    PlanningStopped where the worker died or raised, and where a plan is spent. It reads time from the observations; the host's clock
    measures how long plans take. A loop that knows `PlansAhead` tells it what was applied; otherwise what was commanded counts.
    """

    def __init__(self, worker: PlanWorker, state_space: StateSpace, command: CommandSpec, control_dt: float, provenance: str,
                 config: AsynchronousConfig, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`control_dt`: the planner's and the robot's control period [s]. `clock`: the host's, which the worker's answers are stamped
        with [ns]. Who made the worker closes it."""
        self.provenance, self.config = provenance, config
        self._worker, self._space, self._command, self._clock = worker, state_space, command, clock
        self._control_dt, self._period_ns = control_dt, round(control_dt * 1e9)
        self._delays = DelayEstimate(config.quantile, config.window)
        self._asked: _Asked | None = None
        self._start_over(0)

    def reset(self, seed: int) -> None:
        """Begin an episode: throw away the plan in the making, and learn, the first time, what a plan takes. This is the time for it: no
        robot waits for a command yet.
        """
        if self._asked is not None:
            self._wait()
        self._start_over(seed)
        if self.config.delay_periods is None:
            self._rehearse()

    def act(self, observation: Observation) -> Command:
        stamp, x = observation.stamp_ns, self._space.state(observation)
        unheard = None if self._told else self._acted  # the loop said nothing of the last command
        with self._its_end_noted():
            if not self._plans:
                self._begin(stamp, x)
            begun = self._clock()
            self._collect(stamp)
            values = self._decide(stamp, x)
            self._acted, self._told = _Acted(stamp, begun, x, values), False
            if unheard is not None:
                self._hand_over(values)
        return Command(self._command.mode, values)

    def ahead(self, observation: Observation, applied: Command) -> None:
        """Hand the state over, now that it is known what acts on it; returns at once where the delay is measured."""
        self._told = True
        with self._its_end_noted():
            self._hand_over(applied.values)

    @contextlib.contextmanager
    def _its_end_noted(self) -> Iterator[None]:
        try:
            yield
        except PlanningStopped as error:
            self.report.stopped = str(error)
            raise

    def _start_over(self, seed: int) -> None:
        self._seed, self._asked = seed, None
        self._plans: list[CommittedPlan] = []
        """The one in use, then those that are to begin."""
        self._acted: _Acted | None = None
        self._told = True
        self._newest_start_ns = 0
        self._warned = False
        self._trouble = ""
        self.report = AsynchronousReport(self._control_dt)
        self.plan_seconds: float | None = None
        """Time that went into the plan that began with the last `act` [s]; None where none did."""
        self._in_use: CommittedPlan | None = None

    def _rehearse(self) -> None:
        """Make plans that nobody acts on, from no state in particular. What the first one compiles and allocates is not counted, nor are
        those without actions, which may end early.
        """
        missing = self.config.rehearsals - len(self._delays)
        if missing <= 0:
            return
        x = np.zeros(self._space.nx)
        for first, *_ in self._space.quaternions:
            x[first] = 1.0
        still = self._command.clip(np.zeros(self._command.nu))
        way = Way(still[None], np.tile(x, (2, 1)), np.zeros((1, len(still), self._space.ndx)))
        seed: int | None = self._seed
        for _ in range(1 + missing):
            sent = self._clock()
            answer = self._answered(PlanRequest(x, way, seed=seed), 0, 0)
            if seed is None and answer.actions is not None:
                self._delays.add(self._clock() - sent)
            seed = None
        self.report = AsynchronousReport(self._control_dt)

    def _begin(self, stamp: int, x: np.ndarray) -> None:
        """Have a first plan; the robot waits, at rest."""
        nowhere = Way.nowhere(x, self._space, self._command.nu)
        answer = self._answered(PlanRequest(x, nowhere, seed=self._seed), stamp, stamp)
        if answer.actions is None:
            raise PlanningStopped(f"planning failed: {answer.words}; there is no plan to begin with, so nothing is commanded")
        self._plans.append(self._committed(answer, stamp, stamp))
        self._newest_start_ns = stamp

    def _answered(self, request: PlanRequest, start_ns: int, stamp: int) -> PlanAnswer:
        """Return the answer to `request`, waiting for it."""
        if self._asked is not None:  # waited for in vain before
            self._wait()
        sent = self._clock()
        self._asked = _Asked(start_ns, stamp, sent, sent)
        self._worker.submit(request)
        answer = self._wait()
        self.report.handovers += [(answer.started_ns - sent) * 1e-9, (self._clock() - answer.finished_ns) * 1e-9]
        return answer

    def _wait(self) -> PlanAnswer:
        answer = self._worker.result(self.config.patience)
        if answer is None:
            raise PlanningStopped(f"the planner did not answer within {self.config.patience:g} s, so nothing is commanded: {ADVICE}")
        return self._sound(answer)

    def _sound(self, answer: PlanAnswer) -> PlanAnswer:
        """Return the answer to what was asked; PlanningStopped where the planner raised."""
        self._asked = None
        self.report.planning.append(answer.seconds)
        self.report.iterations.append(answer.iterations)
        if answer.broken:
            raise PlanningStopped(f"the planner raised an error, so nothing is commanded: {answer.words}")
        return answer

    def _collect(self, stamp: int) -> None:
        """Take over the plan that was asked for, where it is ready."""
        asked, declared = self._asked, self.config.delay_periods is not None
        if asked is None:
            return
        middle = stamp + self._period_ns // 2
        if declared:
            if middle < asked.start_ns:
                return  # by declaration the planner is still at it, however quick or without success it was
            answer = self._wait()
        elif (answer := self._worker.result()) is not None:
            self._sound(answer)
        else:
            return
        if not declared:
            delay = answer.finished_ns - asked.begun_ns
            self._delays.add(delay)
            self.report.delays.append(delay * 1e-9)
        self.report.handovers.append((answer.started_ns - asked.sent_ns) * 1e-9)
        self._newest_start_ns = asked.start_ns
        if answer.actions is None:
            self._failed(answer.words)
        else:
            self._take_over(answer, asked, middle)
        self._warn_if_slow()

    def _take_over(self, answer: PlanAnswer, asked: _Asked, middle: int) -> None:
        plan = self._committed(answer, asked.start_ns, asked.observed_ns)
        if plan.spent_at(middle):
            self.report.useless += 1
            self._trouble = "the plan that came last was over before it came"
            return
        late = plan.step_at(middle)
        if late > 0:
            self.report.late.append(late)
        self._plans.append(plan)
        self._trouble = ""

    def _failed(self, words: str) -> None:
        if not self.report.failures:
            logger.warning("the planner found no plan: %s. The plan before is followed to its end; the next is made afresh", words)
        self.report.failures[words] += 1
        self._trouble = f"the planner found no plan: {words}"

    def _committed(self, answer: PlanAnswer, start_ns: int, observed_ns: int) -> CommittedPlan:
        return CommittedPlan(start_ns, observed_ns, self._period_ns, answer.actions, answer.states, answer.gains, answer.seconds)

    def _decide(self, stamp: int, x: np.ndarray) -> np.ndarray:
        """Return the command (nu,) of the plan in use."""
        plan, middle = plan_at(self._plans, stamp), stamp + self._period_ns // 2
        self._plans = self._plans[self._plans.index(plan):]
        fresh, self._in_use = plan is not self._in_use, plan
        self.plan_seconds = plan.seconds if fresh else None
        self.report.fresh += fresh
        self.report.ages.append((stamp - plan.observed_ns) * 1e-9)
        if plan.spent_at(middle):
            if self.config.when_spent == "stop":
                raise PlanningStopped(f"the last plan ended {(stamp - plan.end_ns) * 1e-6:.3g} ms ago and "
                                      f"{self._trouble or 'no newer one has come'}, so nothing is commanded. {self.report.words()}. "
                                      f"To go on: {ADVICE}")
            self.report.held += 1
            if self.report.held == 1:
                logger.warning("the last plan is over and %s; its last action is held on. %s", self._trouble or "no newer one has come",
                               self.report.words())
        return plan.command_for(stamp, x, self._space, self._command)

    def _hand_over(self, applied: np.ndarray) -> None:
        """Ask for the next plan from the newest state, if the planner is free."""
        acted, declared = self._acted, self.config.delay_periods
        if self._asked is not None or acted is None:
            return
        newest = self._plans[-1]
        periods = self._delays.periods(self._period_ns) if declared is None else declared
        after_newest = round((newest.start_ns - acted.stamp_ns) / self._period_ns) + 1
        periods = min(max(periods, after_newest), len(newest.actions))
        start = acted.stamp_ns + periods * self._period_ns
        later = max(1, round((start - self._newest_start_ns) / self._period_ns))
        way = Way.nowhere(acted.x, self._space, self._command.nu)
        if self.config.compensate:
            way = way_along(self._plans, acted.stamp_ns, acted.x, applied, periods, self._space)
        self._asked = _Asked(start, acted.stamp_ns, acted.begun_ns, self._clock())
        self._worker.submit(PlanRequest(acted.x, way, later))

    def _warn_if_slow(self) -> None:
        if not self._warned and self.report.too_slow:
            self._warned = True
            logger.warning("%s", self.report.words())
