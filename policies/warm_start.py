"""Taking up the last plan after several periods, where planners know only of one."""

from __future__ import annotations

from dataclasses import replace

from planners.plan import Plan, PlanMemory
from planners.planner import Planner


def warm_start(plan: Plan | None, periods: int, planner: Planner) -> Plan | None:
    """Return `plan`, begun `periods` ago, as if it had been begun one period ago, as `Planner.plan` expects it.

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
    return replace(plan, states=None, states_std=None, memory=PlanMemory(mean, elites))
