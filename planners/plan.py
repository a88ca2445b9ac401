"""What a planner returns: actions, what they should lead to, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from robots.errors import ConfigurationError


class PlanStatus(StrEnum):
    """How planning ended."""

    CONVERGED = "converged"
    """The planner's own stopping rule was met."""
    ITERATIONS = "iterations"
    """All iterations were used, as planned."""
    DEADLINE = "deadline"
    """Time ran out; the plan is the best so far."""
    NO_FINITE_COST = "no finite cost"
    """Not one sample had a finite cost; there are no actions."""
    NO_DESCENT = "no descent"
    """No step lowered the cost, however the problem was regularised; the plan is the best so far."""
    INDEFINITE = "indefinite"
    """The cost's curvature by the commands stayed negative under the largest regularisation; the plan is the best so far."""
    NON_FINITE_DERIVATIVES = "derivatives not finite"
    """The model or the cost cannot be differentiated along the best plan so far, which is the plan."""
    INFEASIBLE = "infeasible"
    """No plan was found that keeps the bounds on the states and ends at the goal; there are no actions."""


@dataclass(frozen=True)
class PlanReport:
    """What a person may want to know of a plan."""

    seconds: float
    """Planning time [s]."""
    iterations: int
    samples: int
    """Candidate plans evaluated."""
    nonfinite: int
    """Candidates whose cost was NaN or infinite, and counted as +inf."""
    effective_samples: float
    """How many candidates shaped the result: elites, or 1 / sum w^2 for weighted ones."""
    cost_by_term: dict[str, float] = field(default_factory=dict)
    """Expected cost of the plan, split into the cost's terms along the horizon and 'terminal'."""
    active_limits: tuple[bool, ...] = ()
    """(nu,) True where the first action lies on a limit."""
    visits: tuple[int, ...] = ()
    """Simulations of a tree search that began with each of its actions; empty for other planners."""
    defect: float = 0.0
    """Largest distance, in any entry, from the states a planner solved for to `Plan.states`, where the actions lead."""


@dataclass(frozen=True)
class PlanMemory:
    """What a planner keeps from one step to the next; it travels inside the plan."""

    mean: Tensor
    """(K, nu) parameters of the nominal plan: actions, or knots of a spline."""
    elites: Tensor | None = None
    """(k, K, nu) good parameters to try again."""
    feedforward: Tensor | None = None
    """(H, nu) the change of the actions that a planner with gains last found and has not made."""


@dataclass(frozen=True)
class Plan:
    """A plan from x0 over H periods of `control_dt` seconds."""

    actions: Tensor | None
    """(H, nu) commands; None where the status says that there are none."""
    states: Tensor | None
    """(H + 1, nx) expected states, from x0 on."""
    states_std: Tensor | None
    """(H + 1, nx) spread of the particles about them."""
    cost: float
    """Cost of the plan, +inf without one: the risk-adjusted cost of the sample that it is, or where it is a mean of samples, the
    sum of `report.cost_by_term`."""
    status: PlanStatus
    report: PlanReport
    control_dt: float
    memory: PlanMemory | None = None
    gains: Tensor | None = None
    """(H, nu, ndx) feedback about the plan: u_t = actions[t] + gains[t] @ state_space.difference(states[t], x), clipped into the box;
    None from planners without."""

    @classmethod
    def without_actions(cls, status: PlanStatus, report: PlanReport, control_dt: float) -> Plan:
        """Return what stands for a plan where none was found."""
        return cls(None, None, None, float("inf"), status, report, control_dt)

    def action_at(self, seconds: float) -> np.ndarray:
        """Return the command (nu,) float64 that holds `seconds` after the plan's start; the last one holds on after its end."""
        if self.actions is None:
            raise ConfigurationError(f"this plan has no actions: {self.status}")
        step = min(max(int(seconds / self.control_dt + 1e-9), 0), len(self.actions) - 1)
        return self.actions[step].to(torch.float64).numpy()
