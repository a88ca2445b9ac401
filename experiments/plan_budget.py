"""Plans that end in time: how many candidates a budget takes, and how much of it a planner is told of."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from experiments.config import with_settings
from planners.catalog import planner_config_type
from planners.evaluation import Evaluator
from planners.plan import Plan
from planners.planner import Planner, PlannerConfig
from planners.sampling import SamplingConfig
from robots.command import CommandSpec

ROUNDS = 4
"""Rounds of sampling that a budget is shared among: the population is chosen for that many."""
MOST_ROUNDS = 20
POPULATIONS = (8, 512)
REHEARSALS, FIRST_PLANS = 30, 2
"""Plans made before the first one that counts; of them, those that compile and allocate, and tell nothing of the others."""
PATIENCE = 2.0
"""Times that rehearsals would take in time, after which there are no more: for planners that no budget holds."""
WINDOW, LATE_ONES = 400, 200
"""So many plans are remembered; for each of so many begun, after the rehearsals' first, one may come late."""
LARGEST_RESERVE = 0.5
"""Share of the budget."""


def budget_config(name: str, horizon: int, settings: Sequence[str], budget: float | None, evaluator: Evaluator, x0: Tensor,
                  command: CommandSpec) -> PlannerConfig:
    """Return the configuration of planner `name` with `settings` ('NAME=VALUE'); under a budget [s] a sampling planner that is not told
    otherwise gets as many candidates as ROUNDS of them take."""
    config = planner_config_type(name)(horizon=horizon)
    told = {setting.partition("=")[0] for setting in settings}
    if budget is not None and isinstance(config, SamplingConfig) and not told & {"population", "iterations"}:
        population = int(np.clip(budget / ROUNDS / _seconds_a_candidate(evaluator, horizon, x0, command), *POPULATIONS))
        fitting = {"elites": max(2, population // 8)} if hasattr(config, "elites") and "elites" not in told else {}
        config = replace(config, population=population, iterations=MOST_ROUNDS, **fitting)
    return with_settings(config, settings)


def _seconds_a_candidate(evaluator: Evaluator, horizon: int, x0: Tensor, command: CommandSpec) -> float:
    """Return what a candidate costs in time [s]: the median of a few rounds on random actions."""
    generator, count = torch.Generator().manual_seed(0), 32
    low, high = torch.from_numpy(command.minimum.copy()), torch.from_numpy(command.maximum.copy())
    actions = low + (high - low) * torch.rand(count, horizon, command.nu, generator=generator, dtype=torch.float64)
    taken = []
    for _ in range(6):
        started = time.perf_counter()
        evaluator.costs(x0, actions)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:])) / count


class PunctualPlanner:
    """A planner that is told of less time than there is, by as much as it was late before.

    What a planner does after it looked at the clock (one more round, explaining its plan) is known from the plans before. The reserve is
    their largest lateness but one for each LATE_ONES of the last WINDOW: if plans go on as they went, fewer than one in a hundred is
    late, and a computer that stalls once does not halve every plan after. A plan that had nothing to leave out says nothing of what must
    be kept back: it would have been as late with any reserve.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner, self.horizon = planner, planner.horizon
        self.parameterisation = getattr(planner, "parameterisation", None)
        self._late: deque[float] = deque(maxlen=WINDOW)

    def rehearse(self, x0: Tensor, deadline: float, plans: int = REHEARSALS) -> None:
        """Plan from x0 (nx,) as in earnest, so that buffers are made, code is compiled and the lateness known.

        What lives by then is left out of Python's garbage collections from here on: to walk through all of it takes longer than a plan.
        """
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        previous, generator, began = None, torch.Generator().manual_seed(0), time.perf_counter()
        for i in range(plans):
            previous = self.plan(x0, previous, generator, deadline)
            if i < FIRST_PLANS:
                self._late.clear()
            elif time.perf_counter() - began > PATIENCE * plans * deadline:
                return

    def reserve(self, deadline: float) -> float:
        """Return how much of `deadline` is kept back [s]."""
        if not self._late:
            return 0.0
        worst = (len(self._late) + LATE_ONES - REHEARSALS + FIRST_PLANS) // LATE_ONES
        expected = sorted(self._late, reverse=True)[min(worst, len(self._late) - 1)]
        return min(max(expected, 0.0), LARGEST_RESERVE * deadline)

    def plan(self, x0: Tensor, previous: Plan | None, generator: torch.Generator, deadline: float | None = None) -> Plan:
        """See `Planner.plan`."""
        if deadline is None:
            return self.planner.plan(x0, previous, generator)
        reserve = self.reserve(deadline)
        plan = self.planner.plan(x0, previous, generator, deadline - reserve)
        late = plan.report.seconds - (deadline - reserve)
        self._late.append(late if plan.report.iterations > 1 else min(late, reserve))
        return plan
