"""What planners share that follow the model themselves instead of sampling whole plans: checks, box, warm start, status and report."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from planners.evaluation import Evaluator
from planners.parameterisation import Parameterisation
from planners.plan import Plan, PlanMemory, PlanReport, PlanStatus
from planners.planner import check_deadline, checked_memory, checked_state, on_limit
from robots.command import CommandSpec


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    parameters: Tensor | None
    """(K, nu) of the plan; None where nothing that was tried has a finite cost."""
    cost: float
    """Risk-adjusted cost of the plan, by the evaluator; +inf without one."""
    status: PlanStatus
    iterations: int
    samples: int
    nonfinite: int
    effective_samples: float
    visits: tuple[int, ...] = ()


class ModelPlanner(ABC):
    """A planner of one `search`; its result is judged by the evaluator, as every planner's is.

    It follows the model as it stands, the evaluator its snapshot: refresh that after a refit, and fit while nothing plans.
    """

    def __init__(self, evaluator: Evaluator, command: CommandSpec, control_dt: float, parameterisation: Parameterisation) -> None:
        self.evaluator, self.control_dt, self.parameterisation = evaluator, control_dt, parameterisation
        self.horizon = parameterisation.horizon
        self.lower = torch.as_tensor(command.minimum.copy(), dtype=torch.float32)
        self.upper = torch.as_tensor(command.maximum.copy(), dtype=torch.float32)
        self.middle, self.half_range = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2

    @abstractmethod
    def search(self, x0: Tensor, nominal: Tensor | None, generator: torch.Generator, time_is_up: Callable[[], bool]) -> Found:
        """Return the best plan from x0 (nx,) that was found before all iterations were used or the time was up.

        `nominal`: (K, nu) parameters of the shifted previous plan, None on a fresh start.
        """

    def plan(self, x0: Tensor, previous: Plan | None, generator: torch.Generator, deadline: float | None = None) -> Plan:
        """See `Planner.plan`."""
        started = time.perf_counter()
        check_deadline(deadline)
        x0 = checked_state(x0, self.evaluator.model.state_space.nx, self.evaluator.dtype)
        found = self.search(x0, self._nominal(previous), generator,
                            lambda: deadline is not None and time.perf_counter() - started > deadline)
        counts = (found.iterations, found.samples, found.nonfinite, found.effective_samples)
        if found.parameters is None:
            report = PlanReport(time.perf_counter() - started, *counts, visits=found.visits)
            return Plan.without_actions(PlanStatus.NO_FINITE_COST, report, self.control_dt)
        actions = self.actions(found.parameters)
        expected = self.evaluator.explain(x0, actions)
        report = PlanReport(time.perf_counter() - started, *counts, expected.cost_by_term, on_limit(actions[0], self.lower, self.upper),
                            found.visits)
        return Plan(actions, expected.states, expected.states_std, found.cost, found.status, report, self.control_dt,
                    PlanMemory(found.parameters))

    def actions(self, parameters: Tensor) -> Tensor:
        """Return actions (..., H, nu) in the box of parameters (..., K, nu)."""
        return self.clip(self.parameterisation.actions(parameters))

    def clip(self, values: Tensor) -> Tensor:
        """Return commands (..., nu) moved into the box."""
        return values.clamp(self.lower, self.upper)

    def _nominal(self, previous: Plan | None) -> Tensor | None:
        memory = checked_memory(previous, (self.parameterisation.parameters, len(self.lower)))
        return None if memory is None else self.clip(self.parameterisation.shifted(memory.mean))
