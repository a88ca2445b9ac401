"""What the tests of planning beside the robot share: a machine, planners, and a planner on a clock that only the test moves."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from dynamics.linear import LinearConfig, LinearModel
from dynamics.state_space import Channel, StateSpace
from planners.cost import Cost
from planners.plan import Plan, PlanMemory, PlanReport, PlanStatus
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.exchange import PlanAnswer, PlanRequest, following
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.request_planner import RequestPlanner
from robots.command import Command, CommandMode, CommandSpec
from robots.errors import ConfigurationError
from robots.limits import JointLimits
from robots.observation import NO_POSE, Observation
from robots.spec import RobotSpec

DT, PERIOD = 0.1, 100_000_000
HORIZON = 12
SPACE = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
COMMAND = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-1000.0]), np.array([1000.0]), "N")
SPEC = RobotSpec("slider", ("p",), 1, JointLimits.unlimited(1), DT, (COMMAND,))
REPORT = PlanReport(0.0, 1, 1, 0, 1.0)
MEASURED = AsynchronousConfig(rehearsals=1)
LAW = np.array([-12.0, -7.0])
"""u = LAW x brings the slider to rest, however far it is pushed."""


def slider(push: float = 0.0) -> LinearModel:
    """A mass on a slide; `push` makes it unstable: the further it is, the more it is pushed away."""
    model = LinearModel(SPACE, 1, DT, LinearConfig())
    change = torch.tensor([[0.5 * push * DT**2, push * DT], [DT, 0.0], [0.5 * DT**2, DT], [0.0, 0.0]], dtype=torch.float64)
    model.load_tensors({"coefficients": change, "std": torch.full((2,), 1e-6, dtype=torch.float64), "fits": torch.tensor(1)})
    return model


class Slider:
    """A robot that follows `slider` exactly, but for `kicks` {period: change of the velocity}."""

    spec = SPEC

    def __init__(self, push: float = 0.0, kicks: dict[int, float] | None = None) -> None:
        self.model, self.kicks = slider(push), kicks or {}

    def reset(self, seed: int) -> Observation:
        self.periods, self.x = 0, torch.tensor([1.0, 0.2], dtype=torch.float64)
        return self.observe()

    def send(self, command: Command) -> Command:
        self.applied = torch.tensor(command.values)
        return command

    def tick(self) -> Observation:
        self.x = self.model.step(self.x, self.applied)
        self.x[1] += self.kicks.get(self.periods, 0.0)
        self.periods += 1
        return self.observe()

    def observe(self) -> Observation:
        p, v = self.x.numpy()
        return Observation(int(self.periods * DT * 1e9), np.array([p]), np.array([v]), np.zeros(1), NO_POSE)

    def close(self) -> None:
        pass


class LawPlanner:
    """Plans what the law does, through the machine's own model; notes every state that it was asked about."""

    horizon = HORIZON

    def __init__(self, push: float = 0.0, gains: bool = False) -> None:
        self.model, self.gains, self.asked = slider(push), gains, []

    def plan(self, x0, previous, generator, deadline=None):
        x0 = x0.double()
        self.asked.append(x0)
        states, actions = [x0], []
        for _ in range(self.horizon):
            actions.append(torch.from_numpy(LAW) @ states[-1])
            states.append(self.model.step(states[-1], actions[-1].unsqueeze(0)))
        gains = torch.from_numpy(LAW).expand(self.horizon, 1, 2) if self.gains else None
        return Plan(torch.stack(actions).unsqueeze(-1), torch.stack(states), None, 0.0, PlanStatus.CONVERGED, REPORT, DT, gains=gains)


class CountingPlanner:
    """Plans 100 n + t for period t of its n-th plan; `fails` tells which have no actions, `raises` which raise."""

    horizon = HORIZON

    def __init__(self, fails: Sequence[int] = (), raises: Sequence[int] = ()) -> None:
        self.count, self.fails, self.raises = 0, fails, raises
        self.previous: list[Plan | None] = []
        self.draws: list[float] = []
        self.parameterisation = self

    def shifted(self, parameters):
        return torch.cat([parameters[1:], parameters[-1:]])

    def plan(self, x0, previous, generator, deadline=None):
        self.count += 1
        self.previous.append(previous)
        self.draws.append(float(torch.rand(1, generator=generator)))
        if self.count in self.raises:
            raise ZeroDivisionError("the planner has a defect")
        if self.count in self.fails:
            return Plan(None, None, None, float("inf"), PlanStatus.NO_FINITE_COST, REPORT, DT)
        actions = 100.0 * self.count + torch.arange(self.horizon).unsqueeze(-1)
        return Plan(actions, None, None, 0.0, PlanStatus.ITERATIONS, REPORT, DT, PlanMemory(actions))


class Clock:
    """The host's clock [ns], moved by hand."""

    def __init__(self) -> None:
        self.now = 5_000_000_000

    def __call__(self) -> int:
        return self.now


class TimedWorker:
    """A worker whose n-th plan takes as long as `periods(n)` tells, n from 1 on, on the test's clock; a `deaf` one takes no offers."""

    def __init__(self, planner: RequestPlanner, clock: Clock, periods: Callable[[int], float], deaf: bool = False) -> None:
        self.planner, self.clock, self.periods, self.deaf, self.numbers = planner, clock, periods, deaf, itertools.count(1)
        self.requests: list[PlanRequest] = []
        """As they were begun."""
        self.answers: list[PlanAnswer] = []
        """Not fetched yet; what is at work is the last of them, until its time."""
        self.offered: PlanRequest | None = None

    def submit(self, request: PlanRequest) -> None:
        assert not self.answers, "one request at a time"
        self._begin(request, self.clock.now)

    def offer(self, request: PlanRequest) -> None:
        self._go_on()
        if not self.deaf and self.answers and self.answers[-1].finished_ns > self.clock.now:
            self.offered = request

    def result(self, timeout: float = 0.0) -> PlanAnswer | None:
        self._go_on()
        if not self.answers or self.answers[0].finished_ns > self.clock.now + timeout * 1e9:
            return None
        self.clock.now = max(self.clock.now, self.answers[0].finished_ns)
        self._go_on()
        return self.answers.pop(0)

    def close(self) -> None:
        pass

    def _begin(self, request: PlanRequest, now: int) -> None:
        self.requests.append(request)
        taken = self.periods(len(self.requests)) * PERIOD
        self.answers.append(replace(self.planner.answer(request), started_ns=now, finished_ns=now + round(min(taken, 1e18))))

    def _go_on(self) -> None:
        """Begin with what lay there when the last plan was done."""
        while self.offered is not None and self.answers[-1].finished_ns <= self.clock.now:
            done, offer, self.offered = self.answers[-1], self.offered, None
            offer = following(offer, self.requests[-1], done, done.finished_ns)
            if offer is not None:
                self.answers[-1] = replace(done, goes_on=offer.number)
                self._begin(offer, done.finished_ns)


def timed(planner, periods, config=MEASURED, deaf=False):
    """A policy whose n-th plan takes `periods(n)` control periods; the first two are rehearsals, the third is the first plan."""
    clock = Clock()
    worker = TimedWorker(RequestPlanner(planner, slider(), COMMAND), clock, periods, deaf)
    return clock, worker, AsynchronousPolicy(worker, SPACE, COMMAND, DT, "beside", config, clock)


def live_a_period(policy, robot, observation, clock):
    """Act on an observation, let the period pass, and return what is observed then."""
    policy.ahead(observation, robot.send(policy.act(observation)))
    observation = robot.tick()
    clock.now += PERIOD
    return observation


class PositionCost(Cost):
    """p^2, a little v^2 and u^2."""

    def terms(self, x, u):
        return {"position": x[..., 0].square(), "command": 1e-3 * u.square().sum(-1)}

    def terminal(self, x):
        return x.square().sum(-1)


class SleepingPlanner(CountingPlanner):
    """Never comes back from its second plan."""

    def plan(self, x0, previous, generator, deadline=None):
        if self.count:
            time.sleep(600)
        return super().plan(x0, previous, generator, deadline)


def sleeping_planner() -> RequestPlanner:
    """Made wherever this is called."""
    return RequestPlanner(SleepingPlanner(), slider(), COMMAND)


def law_planner() -> RequestPlanner:
    """Plans for an unstable slider, with feedback, made wherever this is called."""
    return RequestPlanner(LawPlanner(push=4.0, gains=True), slider(4.0), COMMAND)


def refused_planner() -> RequestPlanner:
    """Cannot be made."""
    raise ConfigurationError("horizon: expected at least 1, got 0")


def dying_planner() -> RequestPlanner:
    """Takes its process with it."""
    os._exit(3)


def icem_planner() -> RequestPlanner:
    """A sampling planner over the slider, made wherever this is called; only there is it imported, which takes its time."""
    from dynamics.workers import Workers
    from planners.evaluation import EvaluationConfig, PlanEvaluator
    from planners.icem import ICEM, ICEMConfig

    tight = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([-3.0]), np.array([3.0]), "N")
    evaluator = PlanEvaluator(slider(), PositionCost(), EvaluationConfig("TSinf", 1, kernel="torch"), Workers(1))
    planner = ICEM(evaluator, tight, DT, ICEMConfig(horizon=HORIZON, population=24, elites=5, iterations=2))
    return RequestPlanner(planner, slider(), tight)
