"""Planning while the last command acts: what is sent at the start of a period was found before it, for where the robot would then be.

For planners that fit into a period, in the loop's own process, where the model may be refitted between two plans. A planner that takes
longer, or must not hold the loop up, goes beside the robot: `policies.asynchronous`.
"""

from __future__ import annotations

import contextlib
import time
from typing import Protocol, runtime_checkable

import torch

from dynamics.model import DynamicsModel
from policies.policy import Policy
from policies.receding_horizon import RecedingHorizonPolicy
from robots.command import Command
from robots.errors import NumericalError
from robots.observation import Observation


@runtime_checkable
class PlansAhead(Policy, Protocol):
    """A policy that wants to be told what was sent, so that it can think while the robot moves."""

    def ahead(self, observation: Observation, applied: Command) -> None:
        """Make the next command, while `applied`, sent at `observation`, acts; it should take less than a control period."""
        ...


class PlanningAhead:
    """A receding-horizon policy without its delay: commands act from the first moment of their period on, as the model learned it.

    It sees the robot one period late, through the model: x_{k+1} = f(x_k, u_k). Plans that take longer than a period are counted.
    """

    def __init__(self, policy: RecedingHorizonPolicy, model: DynamicsModel, control_dt: float) -> None:
        self.policy, self.provenance = policy, policy.provenance
        self._model, self._control_dt = model, control_dt
        self.late = self.plans = 0
        """Plans since `reset` that were not ready when their period began, and all that were made ahead."""
        self.plan_seconds: float | None = None
        """Time that went into the command of the last `act` [s]; None where a plan was played on."""
        self._next: Command | None = None
        self._acted = time.perf_counter()

    def reset(self, seed: int) -> None:
        """Begin an episode, with a plan that nobody plays: what a first plan compiles and allocates must not delay the first command."""
        with contextlib.suppress(NumericalError):
            self.policy.act_in(torch.zeros(self._model.state_space.nx, dtype=torch.float64))
        self.policy.reset(seed)
        self.late, self.plans, self.plan_seconds = 0, 0, None
        self._next = None

    def act(self, observation: Observation) -> Command:
        """Return the command that `ahead` made, or one planned now where there is none; NumericalError as `RecedingHorizonPolicy.act`."""
        command, self._next = self._next, None
        if command is None:
            command = self.policy.act(observation)
        self.plan_seconds = self.policy.plan_seconds
        self._acted = time.perf_counter()  # what a gate, and sending, take is the plan's no more
        return command

    @torch.no_grad()
    def ahead(self, observation: Observation, applied: Command) -> None:
        x, u = self.policy.state(observation).float(), torch.as_tensor(applied.values.copy()).float()
        self._next = self.policy.act_in(self._model.predict(x, u).mean)
        self.late += time.perf_counter() - self._acted > self._control_dt
        self.plans += 1
