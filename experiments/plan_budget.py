"""Plans that end in time: how many candidates a budget takes, and how much of it a planner is told of."""

from __future__ import annotations

import contextlib
import gc
import time
from collections import deque
from collections.abc import Iterator, Sequence
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
TRIALS = 10
"""Rounds that are timed to choose it; the first compiles and allocates."""
REHEARSALS, FIRST_PLANS = 30, 2
"""Plans made before the first one that counts; of them, those that compile and allocate, and tell nothing of the others."""
PATIENCE = 2.0
"""Times that rehearsals would take in time, after which there are no more: for planners that no budget holds."""
WINDOW, LATE_ONES = 400, 200
"""So many plans are remembered; for each of so many one may come late."""
STALL, STALL_LEAST = 4.0, 0.1
"""A lateness is the computer's, not the planner's, beyond so many times what one plan in ten reaches, and beyond this share of the
budget."""
MARGIN = 0.05
"""Share of the budget that is kept back beyond what was seen."""
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
    """Return what a candidate costs in time [s] where nothing disturbs it: the lower quartile of a few rounds on random actions."""
    generator, count = torch.Generator().manual_seed(0), 32
    low, high = torch.from_numpy(command.minimum.copy()), torch.from_numpy(command.maximum.copy())
    actions = low + (high - low) * torch.rand(count, horizon, command.nu, generator=generator, dtype=torch.float64)
    taken = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        evaluator.costs(x0, actions)
        taken.append(time.perf_counter() - started)
    return float(np.quantile(taken[1:], 0.25)) / count


class PunctualPlanner:
    """A planner that is told of less time than there is, by as much as it was late before and a MARGIN.

    What a planner does after it looked at the clock (one more round, explaining its plan) is known from the plans before, but late were of
    these only the few that happened to come close to their time: so more is kept back than was seen. The reserve is the largest lateness
    of the last WINDOW plans, but one for each LATE_ONES, and the MARGIN; a stall of the computer, which is far beyond the others, is
    forgiven as often and once more. A plan that had nothing to leave out says nothing of what must be kept back: it would have been as
    late with any reserve.

    Python's garbage collections wait until the plan is made. They come right after it, in the same control period, and are not in its
    `report.seconds`: who commands a machine in real time must leave time for them.
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
        seen = sorted(self._late, reverse=True)
        forgiven = len(seen) // LATE_ONES
        stall = max(STALL * seen[len(seen) // 10], STALL_LEAST * deadline)
        if seen[forgiven] > stall and len(seen) > forgiven + 1:
            forgiven += 1
        return min(max(seen[forgiven] + MARGIN * deadline, 0.0), LARGEST_RESERVE * deadline)

    def plan(self, x0: Tensor, previous: Plan | None, generator: torch.Generator, deadline: float | None = None) -> Plan:
        """See `Planner.plan`."""
        if deadline is None:
            return self.planner.plan(x0, previous, generator)
        reserve = self.reserve(deadline)
        with _no_collections():
            plan = self.planner.plan(x0, previous, generator, deadline - reserve)
        late = plan.report.seconds - (deadline - reserve)
        self._late.append(late if plan.report.iterations > 1 else min(late, reserve - MARGIN * deadline))
        return plan


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Have Python collect no garbage within the block."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
