"""One episode of the planners' comparison: a planner, a task, and so much time or so many rollouts a plan."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from experiments.bench.planners_cells import Asked, Cell
from experiments.bench.planners_field import TASKS, UNBOUNDED, Entrant, PlannedTask, why_not
from experiments.plan import Played, play
from experiments.plan_cli import Plan
from experiments.report.numbers import duration
from planners.plan import PlanStatus
from planners.planner import PlannerConfig
from robots.errors import MissingExtraError, ReflexarcError
from robots.robot import Robot
from sim.task import Task

TIME, ROLLOUTS = "time", "rollouts"
TOO_SLOW = 10.0
"""Times the budget, where time is equal: a planner whose plans take longer is not lived with, its time is told."""
LOOK = 3
"""Control periods that are lived to see what a plan takes."""
TRIES, CLOSE = 8, 0.05
"""At the effort of a planner; a share of the allowance that it may leave."""
STRETCH = 4
"""Times an effort that the next try may be: few iterations tell little of what many take."""


def ask(task: PlannedTask, entrant: Entrant, equal: str, allowance: float, steps: int | None, seed: int) -> Asked:
    """Return what is to be lived; `steps` None: the task's own."""
    settings = entrant.settings
    if equal == ROLLOUTS and entrant.samples:
        settings = entrant.for_rollouts(round(allowance))
    elif equal == TIME and not entrant.samples:
        settings = entrant.with_effort(UNBOUNDED)
    return Asked(task.task, entrant.planner, equal, allowance, steps or task.steps, settings, seed)


def live(asked: Asked, entrant: Entrant, task: Task, robot: Robot, threads: int | None, advance: Callable[[], None], machine: str,
         code: str, longest: float | None = None) -> Cell:
    """Return what comes of one episode; what the planner cannot do is a cell with its own words.

    `longest`: where rollouts are equal, skip an episode that would take longer [s]; None: live it however long it takes.
    """
    began = time.perf_counter()

    def nothing(why: str, note: str, milliseconds: float | None = None) -> Cell:
        return Cell(asked, None, 0, milliseconds, None, None, None, None, None, note, time.perf_counter() - began, machine, code, why=why)

    if (reason := why_not(entrant, robot.spec.command().nu)) is not None:
        return nothing(*reason)
    options = Plan(asked.task, asked.planner, asked.allowance if asked.equal == TIME else None, search=asked.settings, threads=threads)
    try:
        if not entrant.samples:
            options = replace(options, search=entrant.with_effort(_effort(entrant, options, task, robot, asked)))
        if asked.equal == TIME or longest is not None:
            looked = float(np.median(play(task, robot, options, LOOK, asked.seed).log.milliseconds))
            if (reason := _too_long(asked, looked, longest)) is not None:
                return nothing(*reason, looked)
        played = play(task, robot, options, asked.steps, asked.seed, advance)
    except MissingExtraError as error:
        return replace(nothing("package missing", str(error)), failed=True)
    except ReflexarcError as error:
        return nothing("refused", str(error))
    return _cell(asked, played, time.perf_counter() - began, machine, code)


def _too_long(asked: Asked, milliseconds: float, longest: float | None) -> tuple[str, str] | None:
    """Return why an episode is not lived whose plans take so long, in a few words and in a sentence; None where it is."""
    if asked.equal == TIME:
        if milliseconds <= TOO_SLOW * asked.allowance:
            return None
        return "too slow", f"a plan takes {milliseconds:.0f} ms, more than {TOO_SLOW:g} times the budget"
    seconds = milliseconds * 1e-3 * asked.steps
    if longest is None or seconds <= longest:
        return None
    return "skipped", (f"skipped because --skip-longer {longest / 60:g} was asked for: a plan takes {milliseconds:.0f} ms, the episode "
                       f"{duration(seconds)}")


def _effort(entrant: Entrant, options: Plan, task: Task, robot: Robot, asked: Asked) -> int:
    """Return the effort of a planner that does not sample for what is allowed, found by trying."""
    if asked.equal == ROLLOUTS:
        return _effort_for_rollouts(entrant, options, task, robot, asked)
    if not entrant.paced:
        return UNBOUNDED
    plans = play(task, robot, options, LOOK, asked.seed).log.plans
    cut = [plan.report.iterations for plan in plans if plan.status is PlanStatus.DEADLINE]
    return max(1, max(cut)) if cut else UNBOUNDED


def _effort_for_rollouts(entrant: Entrant, options: Plan, task: Task, robot: Robot, asked: Asked) -> int:
    """Return the largest effort tried with which plans stay within the rollouts allowed even where they take all the iterations that they
    may; 1 where none does. It depends on what is simulated, not on any clock."""
    def spent(effort: int) -> tuple[float, float]:
        """Return the rollouts and the iterations of a plan, mean: plans that converge take fewer iterations than they may."""
        played = play(task, robot, replace(options, search=entrant.with_effort(effort)), LOOK, asked.seed)
        return played.rollouts, float(np.mean(played.log.rounds))

    least, first = spent(1)
    fits, over, effort = 1, UNBOUNDED, 3
    for _ in range(TRIES if least < asked.allowance else 0):
        rollouts, iterations = spent(effort)
        # where no plan went on after its first iteration, what it began with counts as the iteration's: that is too much, not too little
        more = rollouts > least and iterations > first
        slope = (rollouts - least) / (iterations - first) if more else rollouts / max(iterations, 1.0)
        most = rollouts + slope * max(effort - iterations, 0.0)
        fits, over = (effort, over) if most <= asked.allowance else (fits, effort)
        if over - fits <= 1 or 0.0 <= asked.allowance - most <= CLOSE * asked.allowance:
            break
        effort = int(np.clip(effort + (asked.allowance - most) / slope, fits + 1, min(STRETCH * effort, over - 1)))
    return fits


def _cell(asked: Asked, played: Played, seconds: float, machine: str, code: str) -> Cell:
    spent, lived = played.log.milliseconds, played.episode.steps
    note = "" if lived == asked.steps else f"ended after {lived} of {asked.steps} control periods"
    within = float(np.mean(spent <= asked.allowance)) if asked.equal == TIME else None
    # who fails early earns nothing from then on; where a task charges, it has no score: the rest would have cost something
    score = -float(played.episode.cost.sum()) / asked.steps + 0.0 if lived == asked.steps or TASKS[asked.task].rewarded else None
    return Cell(asked, score, lived, float(np.median(spent)), float(np.percentile(spent, 95)),
                float(spent.max()), within, float(np.median(played.log.rounds)), played.rollouts, note, seconds, machine, code,
                why="" if score is not None else "ended early", config=settings_of(played.config))


def settings_of(config: PlannerConfig) -> tuple[str, ...]:
    """Return all settings of a planner as 'NAME=VALUE', values as `--search` takes them."""
    def written(value: object) -> str:
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

    return tuple(f"{name}={written(value)}" for name, value in dataclasses.asdict(config).items())
