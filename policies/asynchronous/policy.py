"""A planner that works beside the robot, as a policy: it acts on the plan it has while the next one is made for when it will be ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dynamics.state_space import StateSpace
from policies.asynchronous.committed_plan import CommittedPlan, Way, plan_at, way_along
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.delay import DelayEstimate
from policies.asynchronous.exchange import PlanAnswer, PlanningStopped, PlanRequest
from policies.asynchronous.rehearsal import Rehearsal
from policies.asynchronous.report import AsynchronousReport
from policies.asynchronous.requests import Asked, Requests
from policies.asynchronous.robot_clock import RobotClock
from policies.asynchronous.worker import PlanWorker
from robots.command import Command, CommandSpec
from robots.observation import Observation

logger = logging.getLogger(__name__)

SILENT_FROM = 3.0
"""Times that a plan usually takes, or periods where it takes less, after which a planner that does not answer is told of. After half a
plan it is in any case, unless plans usually take longer: the plan in hand is not to be over by then."""


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

    `act` waits twice only: for the first plan, while the robot is at rest, and where the delay is declared. Where the planner died,
    raised or is silent, the plan in hand is followed to its end; there PlanningStopped is raised, unless `when_spent` says otherwise.
    It reads time from the observations (`RobotClock`); the host's clock measures how long plans take. A loop that knows `PlansAhead` tells
    it what was applied; otherwise what was commanded counts.
    """

    def __init__(self, worker: PlanWorker, state_space: StateSpace, command: CommandSpec, control_dt: float, provenance: str,
                 config: AsynchronousConfig, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`control_dt`: the planner's and the robot's control period [s]. `clock`: the host's, which the worker's answers are stamped
        with [ns]. Who made the worker closes it."""
        self.provenance, self.config = provenance, config
        self._space, self._command, self._clock = state_space, command, clock
        self._requests = Requests(worker, clock)
        self._control_dt, self._period_ns = control_dt, round(control_dt * 1e9)
        self._delays = DelayEstimate(config.quantile, config.window)
        self._start_over(0)

    def reset(self, seed: int) -> None:
        """Begin an episode: throw away the plan in the making, and learn, the first time, what a plan takes. This is the time for it: no
        robot waits for a command yet.
        """
        while self._requests.at_work is not None:
            self._fetched()
        self._start_over(seed)
        if self.config.delay_periods is None:
            self._rehearse()

    def act(self, observation: Observation) -> Command:
        stamp, x = self._robot_clock.read(observation.stamp_ns), self._space.state(observation)
        unheard = None if self._told else self._acted  # the loop said nothing of the last command
        try:
            if not self._plans:
                self._begin(stamp, x)
            begun = self._clock()
            self._collect(stamp)
            values = self._decide(stamp, x)
        except PlanningStopped as error:
            self.report.stopped = str(error)
            raise
        self._acted, self._told = _Acted(stamp, begun, x, values), False
        if unheard is not None:
            self._hand_over(values)
        return Command(self._command.mode, values)

    def ahead(self, observation: Observation, applied: Command) -> None:
        """Hand the state over, now that it is known what acts on it; returns at once where the delay is measured."""
        self._told = True
        self._hand_over(applied.values)

    def _start_over(self, seed: int) -> None:
        self._seed, self._robot_clock = seed, RobotClock(self._period_ns)
        self._plans: list[CommittedPlan] = []
        """The one in use, then those that are to begin."""
        self._acted: _Acted | None = None
        self._told, self._newest_start_ns = True, 0
        self._warned, self._silent, self._trouble = False, False, ""
        self.report = AsynchronousReport(self._control_dt, self.config.advice)
        self.plan_seconds: float | None = None
        """Time that went into the plan that began with the last `act` [s]; None where none did."""
        self._in_use: CommittedPlan | None = None

    def _rehearse(self) -> None:
        """Make plans that nobody acts on, from no state in particular. What the first one compiles and allocates is not counted, nor are
        those without actions, which may end early. Acting on one, too, takes far longer the first time.
        """
        missing = self.config.rehearsals - len(self._delays)
        if missing <= 0:
            return
        rehearsal, seed = Rehearsal(self._space, self._command), self._seed
        for _ in range(1 + missing):
            sent = self._clock()
            answer = self._answered(rehearsal.request(seed), 0, 0)
            if seed is None and answer.actions is not None:
                self._delays.add(self._clock() - sent)
            seed = None
        if answer.actions is not None:
            rehearsal.act(self._committed(answer, 0, 0))
        self.report = AsynchronousReport(self._control_dt, self.config.advice)

    def _begin(self, stamp: int, x: np.ndarray) -> None:
        """Have a first plan; the robot waits, at rest."""
        nowhere, before = Way.nowhere(x, self._space, self._command.nu), self._clock()
        answer = self._answered(PlanRequest(x, nowhere, seed=self._seed), stamp, stamp)
        if answer.actions is None:
            raise PlanningStopped(f"planning failed: {answer.words}; there is no plan to begin with, so nothing is commanded")
        self._plans.append(self._committed(answer, stamp, stamp))
        self._newest_start_ns = stamp
        if self.config.delay_periods is None:
            self._robot_clock.waited(stamp, self._clock() - before)

    def _answered(self, request: PlanRequest, start_ns: int, stamp: int) -> PlanAnswer:
        """Return the answer to `request`, waiting for it."""
        while self._requests.at_work is not None:  # waited for in vain before
            self._wait()
        sent = self._clock()
        self._requests.submit(request, start_ns, stamp, sent)
        _, answer = self._wait()
        self.report.handovers += [(answer.started_ns - sent) * 1e-9, (self._clock() - answer.finished_ns) * 1e-9]
        return answer

    def _wait(self) -> tuple[Asked, PlanAnswer]:
        return self._sound(self._fetched())

    def _fetched(self) -> tuple[Asked, PlanAnswer]:
        """Return what was asked and its answer, whatever it says, waiting for it."""
        ready = self._requests.answer(self.config.patience)
        if ready is None:
            raise PlanningStopped(f"the planner did not answer within {self.config.patience:g} s; {self.config.advice}")
        return ready

    def _sound(self, ready: tuple[Asked, PlanAnswer]) -> tuple[Asked, PlanAnswer]:
        """Return what was asked and its answer; PlanningStopped where the planner raised."""
        _, answer = ready
        self.report.planning.append(answer.seconds)
        self.report.iterations.append(answer.iterations)
        if answer.broken:
            raise PlanningStopped(f"the planner raised an error: {answer.words}")
        return ready

    def _collect(self, stamp: int) -> None:
        """Take over the plans that were asked for and are ready."""
        middle = stamp + self._period_ns // 2
        try:
            while not self.report.lost and (ready := self._ready(middle)) is not None:
                self._take(*ready, middle)
        except PlanningStopped as error:
            self._lose(error, stamp)

    def _ready(self, middle: int) -> tuple[Asked, PlanAnswer] | None:
        at_work = self._requests.at_work
        if at_work is None:
            return None
        if self.config.delay_periods is not None:
            # before its beginning, by declaration, the planner is still at it, however quick or without success it was
            return None if middle < at_work.start_ns else self._wait()
        ready = self._requests.answer()
        if ready is not None:
            return self._sound(ready)
        self._listen_for_silence(at_work)
        return None

    def _take(self, asked: Asked, answer: PlanAnswer, middle: int) -> None:
        if self.config.delay_periods is None and answer.actions is not None:  # without any it may have ended early
            delay = asked.delay_ns(answer)
            self._delays.add(delay)
            self.report.delays.append(delay * 1e-9)
        if asked.offered:
            self.report.at_once += 1
        else:
            self.report.handovers.append((answer.started_ns - asked.sent_ns) * 1e-9)
        self._newest_start_ns = asked.start_ns
        self._silent = False
        if answer.actions is None:
            self._failed(answer.words)
        else:
            self._take_over(answer, asked, middle)
        self._warn_if_slow()

    def _lose(self, error: PlanningStopped, stamp: int) -> None:
        """Go on without a planner; without a plan there is nothing to go on with."""
        if not self._plans:
            raise error
        newest = self._plans[-1]
        self.report.lost, self._trouble, self._silent = str(error), "nobody plans any more", False
        logger.error("%s. The plan in hand is followed to its end, %.3g ms from now%s", error, max(newest.end_ns - stamp, 0) * 1e-6,
                     "" if newest.gains is None else ", with its feedback")

    def _listen_for_silence(self, at_work: Asked) -> None:
        """Say aloud, once, that the planner takes far longer than ever before: it may have been stopped, or hang."""
        silence, usual = self._clock() - at_work.sent_ns, max(self._delays.nanoseconds, self._period_ns)
        half = len(self._plans[-1].actions) * self._period_ns // 2
        if silence <= min(SILENT_FROM * usual, max(usual, half)):
            return
        self.report.silence = max(self.report.silence, silence * 1e-9)
        if not self._silent:
            self._silent = True
            logger.warning("the planner has not answered for %.3g ms; its plans take %.3g ms. The plan in hand is followed to its end",
                           silence * 1e-6, self._delays.nanoseconds * 1e-6)

    def _take_over(self, answer: PlanAnswer, asked: Asked, middle: int) -> None:
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
            self._spent(stamp, plan)
        return plan.command_for(stamp, x, self._space, self._command)

    def _spent(self, stamp: int, plan: CommittedPlan) -> None:
        """Note that nothing is left but a plan that is over, and stop unless it is to be held on."""
        why = self._trouble or "no newer one has come"
        if self._silent:
            why = f"no newer one has come: the planner has not answered for {self.report.silence:.3g} s"
        if self.config.when_spent == "stop":
            words = f"{self.report.words()}." + ("" if self.report.lost else f" To go on: {self.config.advice}")
            ended = max(stamp - plan.end_ns, 0) * 1e-6
            raise PlanningStopped(f"the last plan ended {ended:.3g} ms ago and {why}, so nothing is commanded. {words}")
        self.report.held += 1
        if self.report.held == 1:
            logger.warning("the last plan is over and %s; its last action is held on. %s", why, self.report.words())

    def _hand_over(self, applied: np.ndarray) -> None:
        """Ask for the next plan from the newest state: at once if the planner is free, and else for when it is."""
        acted, at_work, declared = self._acted, self._requests.at_work, self.config.delay_periods
        if acted is None or self.report.lost or (at_work is not None and declared is not None):
            return
        periods = self._delays.periods(self._period_ns) if declared is None else declared
        before = self._plans[-1].start_ns if at_work is None else at_work.start_ns
        periods = min(max(periods, round((before - acted.stamp_ns) / self._period_ns) + 1), len(self._plans[-1].actions))
        start = acted.stamp_ns + periods * self._period_ns
        # Begun later than this its plan would be ready when one made from the next state is, and be the older of the two.
        begin_by = acted.begun_ns + periods * self._period_ns - self._delays.nanoseconds
        if at_work is not None and begin_by < self._clock():
            return
        last = self._newest_start_ns if at_work is None else at_work.start_ns
        way = Way.nowhere(acted.x, self._space, self._command.nu)
        if self.config.compensate:
            way = way_along(self._plans, acted.stamp_ns, acted.x, applied, periods, self._space)
        request = PlanRequest(acted.x, way, max(1, round((start - last) / self._period_ns)))
        if at_work is not None:
            self._requests.offer(request, start, acted.stamp_ns, acted.begun_ns, begin_by)
            return
        try:
            self._requests.submit(request, start, acted.stamp_ns, acted.begun_ns)
        except PlanningStopped as error:
            self._lose(error, acted.stamp_ns)

    def _warn_if_slow(self) -> None:
        if not self._warned and self.report.too_slow:
            self._warned = True
            logger.warning("%s", self.report.words())
