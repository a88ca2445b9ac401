"""A planner that answers requests: it rolls the state forward to where its plan will begin, and remembers its last plan."""

from __future__ import annotations

import time

import numpy as np
import torch

from dynamics.feedback_rollout import roll_out_feedback
from dynamics.model import DynamicsModel
from planners.plan import Plan
from planners.planner import Planner
from policies.asynchronous.exchange import PlanAnswer, PlanRequest, error_words
from policies.warm_start import warm_start
from robots.command import CommandSpec
from robots.errors import ConfigurationError


class RequestPlanner:
    """A planner with its model, its generator and its last plan; one thread or process owns it."""

    def __init__(self, planner: Planner, model: DynamicsModel, command: CommandSpec, deadline: float | None = None) -> None:
        """`deadline`: time that an answer may take [s], the way to the plan's beginning included; None: as long as it takes."""
        if deadline is not None and not deadline > 0:
            raise ConfigurationError(f"deadline: expected a positive number of seconds, got {deadline}")
        self.planner, self.model, self.command = planner, model, command
        self._deadline, self._lowest, self._highest = deadline, command.minimum.copy(), command.maximum.copy()
        self._generator = torch.Generator()
        self._previous: Plan | None = None

    def answer(self, request: PlanRequest) -> PlanAnswer:
        """Return the plan that was asked for. Nothing is raised: what went wrong is in the answer."""
        started = time.monotonic_ns()
        if request.seed is not None:
            self._generator.manual_seed(request.seed)
            self._previous = None
        try:
            plan = self._plan(request, started)
        except Exception as error:  # it has to reach the one who acts, whatever it is
            self._previous = None
            return PlanAnswer(None, None, None, np.inf, 0, started, time.monotonic_ns(), error_words(error), broken=True)
        if plan is None or plan.actions is None:
            self._previous = None
            words = "the model left the numbers on the way to the plan's beginning" if plan is None else str(plan.status)
            iterations = 0 if plan is None else plan.report.iterations
            return PlanAnswer(None, None, None, np.inf, iterations, started, time.monotonic_ns(), words)
        self._previous = plan
        return PlanAnswer(*_arrays(plan), plan.cost, plan.report.iterations, started, time.monotonic_ns(), str(plan.status))

    def _plan(self, request: PlanRequest, started: int) -> Plan | None:
        """Return the planner's plan, None where the way leads out of the numbers."""
        begins = self._at_the_beginning(request)
        if not np.isfinite(begins).all():
            return None
        previous = warm_start(self._previous, request.later, self.planner)
        left = None if self._deadline is None else max(self._deadline - (time.monotonic_ns() - started) * 1e-9, 1e-3)
        return self.planner.plan(torch.from_numpy(begins.copy()), previous, self._generator, left)

    def _at_the_beginning(self, request: PlanRequest) -> np.ndarray:
        """Return the state (nx,) where the plan is to begin."""
        way, last = request.way, self._previous
        if not len(way.actions):
            return request.x
        if request.after and last is not None:
            way = way.joining(*_arrays(last), request.later)
        states, _ = roll_out_feedback(self.model, request.x, way.states, way.actions, np.zeros(1), np.zeros_like(way.actions), way.gains,
                                      self._lowest, self._highest)
        return states[0, -1]


def _arrays(plan: Plan) -> tuple[np.ndarray | None, ...]:
    """Return a plan's actions, states and gains, float64."""
    return tuple(None if value is None else value.double().numpy() for value in (plan.actions, plan.states, plan.gains))
