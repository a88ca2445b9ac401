"""A planner as a policy: it owns the warm start, and when to plan again."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from dynamics.state_space import StateSpace
from planners.plan import Plan
from planners.planner import Planner
from policies.warm_start import warm_start
from robots.command import Command, CommandSpec
from robots.errors import ConfigurationError, NumericalError
from robots.observation import Observation


class RecedingHorizonPolicy:
    """Plans from what is observed and plays the plan, for `replan_every` periods before it plans again.

    1 is model predictive control; the planner's horizon is open-loop control, blind until the plan is spent.
    """

    def __init__(self, planner: Planner, state_space: StateSpace, command: CommandSpec, provenance: str, replan_every: int = 1,
                 deadline: float | None = None) -> None:
        if not 1 <= replan_every <= planner.horizon:
            raise ConfigurationError(f"replan_every: expected 1 to the horizon ({planner.horizon}), got {replan_every}")
        if deadline is not None and not deadline > 0:
            raise ConfigurationError(f"deadline: expected a positive number of seconds, got {deadline}")
        self.planner, self.provenance = planner, provenance
        self.before_plan: Callable[[], None] | None = None
        """Called before every plan: the moment at which a refitted model may be taken over."""
        self._state_space, self._command, self._replan_every, self._deadline = state_space, command, replan_every, deadline
        self.plan: Plan | None = None
        """The newest plan, for reports."""
        self.plan_seconds: float | None = None
        """Time the last `act` spent planning [s]; None where it played on."""
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self.plan, self.plan_seconds, self._age = None, None, 0

    def act(self, observation: Observation) -> Command:
        """Return the command; NumericalError if not one candidate has a finite cost."""
        return self.act_in(self.state(observation))

    def state(self, observation: Observation) -> Tensor:
        """Return the model's state (nx,) float64 of what is observed."""
        return torch.from_numpy(self._state_space.state(observation))

    def act_in(self, x0: Tensor) -> Command:
        """Return the command in state x0 (nx,), as `act`."""
        self.plan_seconds = None
        if self.plan is None or self.plan.actions is None or self._age >= self._replan_every:
            started = time.perf_counter()
            if self.before_plan is not None:
                self.before_plan()
            self.plan = self.planner.plan(x0, warm_start(self.plan, self._age, self.planner), self._generator, self._deadline)
            self._age = 0
            self.plan_seconds = time.perf_counter() - started
        if self.plan.actions is None:
            raise NumericalError(f"planning failed: {self.plan.status} among {self.plan.report.samples} samples; the model or the cost "
                                 "left the numbers at this state, so nothing is commanded")
        action = self.plan.actions[self._age].double().numpy()
        self._age += 1
        return Command(self._command.mode, self._command.clip(action))
