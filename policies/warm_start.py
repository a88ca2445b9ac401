"""Taking up the last plan after several periods, where planners know only of one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from planners.plan import Plan, PlanMemory
from planners.planner import Planner


def warm_start(plan: Plan | None, periods: int, planner: Planner) -> Plan | None:
    """Return `plan`, begun `periods` ago, as if it had been begun one period ago, as `Planner.plan` expects it: its parameters, and where
    it has gains its whole feedback policy, are those of `periods` - 1 later.

    None where it is spent, or cannot be shifted: then the planner starts afresh.
    """
    if plan is None or plan.memory is None or periods >= planner.horizon > 1:
        return None
    if periods == 1:
        return plan
    parameterisation = getattr(planner, "parameterisation", None)
    if parameterisation is None:
        return None
    mean, elites = plan.memory.mean, plan.memory.elites
    for _ in range(periods - 1):
        mean = parameterisation.shifted(mean)
        elites = None if elites is None else parameterisation.shifted(elites)
    memory, states, gains = PlanMemory(mean, elites), None, None
    if plan.gains is not None and plan.states is not None:
        past = min(periods - 1, len(plan.gains))
        states = torch.cat([plan.states[past:], plan.states[-1:].expand(past, -1)])  # beyond the plan there are no gains about them
        gains, feedforward = _later(plan.gains, past), plan.memory.feedforward
        memory = replace(memory, feedforward=None if feedforward is None else _later(feedforward, past))
    return replace(plan, states=states, states_std=None, memory=memory, gains=gains)


def _later(values: Tensor, periods: int) -> Tensor:
    """Return values (H, ...) from `periods` on; zero at the end."""
    return torch.cat([values[periods:], torch.zeros_like(values[:periods])])
