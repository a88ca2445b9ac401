"""`reflexarc plan`: control through the simulator, scored by the task."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from episodes.episode import Episode
from experiments.config import with_settings
from experiments.plan_cli import Plan
from experiments.plan_report import Foresight, PlanLog, foresight, offline_cost
from experiments.progress import make_console
from experiments.run_directory import replace_file
from experiments.video import replay_video
from planners.catalog import make_planner, planner_config_type
from planners.planner import PlannerConfig
from planners.sampling import SamplingConfig
from policies.episode_loop import EpisodeSource, run_episode
from policies.receding_horizon import RecedingHorizonPolicy
from robots.command import CommandSpec
from robots.errors import ConfigurationError, UnknownNameError
from robots.robot import Robot
from sim.catalog import make_task
from sim.simulator.planning_copy import PlanningCopy
from sim.simulator.planning_task import PLANNING_TASKS, make_problem
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.task import Task

ROUNDS = 3
"""Rounds of sampling that a budget is shared among: the population is chosen for that many."""
MOST_ROUNDS = 20
POPULATIONS = (16, 512)


@dataclass(frozen=True)
class Played:
    """One episode under a planner."""

    episode: Episode
    log: PlanLog
    foresight: Foresight
    config: PlannerConfig
    differences: tuple[str, ...]
    """How the model planned through differs from the machine."""
    gap: tuple[float, float] | None = None
    """Cost of a plan, and of the same problem solved with far more effort; None where nobody asked."""


def plan_command(options: Plan) -> int:
    """Play the episodes, print what came of them, and return 0."""
    if options.task not in PLANNING_TASKS:
        raise UnknownNameError("task to plan through the simulator", options.task, PLANNING_TASKS)
    if options.budget_ms is not None and not options.budget_ms > 0:
        raise ConfigurationError(f"--budget-ms: expected a positive time [ms], got {options.budget_ms}")
    if options.episodes < 1 or not 0 <= options.seed < 2**32 - options.episodes:
        raise ConfigurationError(f"--episodes and --seed: expected at least 1 and 0 to 2^32 - episodes, got {options.episodes} and "
                                 f"{options.seed}")
    task, console = make_task(options.task), make_console()
    steps = task.episode_steps if options.steps is None else options.steps
    played = []
    with task.robot() as robot, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(options.task, total=steps * options.episodes)
        for i in range(options.episodes):
            played.append(play(task, robot, options, steps, options.seed + i, lambda: progress.advance(bar), options.gap and i == 0))
    _print(console, options, played)
    if options.video is not None:
        console.print(f"film: {replay_video(task, played[0].episode, options.video)}", highlight=False)
    if options.json is not None:
        replace_file(options.json, json.dumps(_figures(options, played), indent=1).encode())
    return 0


def play(task: Task, robot: Robot, options: Plan, steps: int, seed: int, advance: Callable[[], None] = lambda: None,
         gap: bool = False) -> Played:
    """Return one episode of `steps` control periods from `seed`; `advance` is called once a period."""
    observation, command = robot.reset(seed), robot.spec.command()
    planning_copy = None
    if options.substeps is not None or options.integrator is not None or options.softened:
        planning_copy = PlanningCopy(options.substeps, options.integrator, options.softened)
    problem = make_problem(options.task, robot, options.threads, planning_copy)
    space, evaluator = problem.model.state_space, SimulatorEvaluator(problem.model, problem.cost)
    budget = None if options.budget_ms is None else options.budget_ms * 1e-3
    horizon = problem.horizon if options.horizon is None else max(1, round(options.horizon / robot.spec.control_dt))
    config = _config(options, horizon, evaluator, torch.from_numpy(space.state(observation)), command)
    planner = make_planner(options.planner, evaluator, command, robot.spec.control_dt, config)
    log = PlanLog(RecedingHorizonPolicy(planner, space, command, options.planner, deadline=budget))
    source = EpisodeSource(robot, task.state_space, command, task.cost, task.name)
    episode = run_episode(source, log, steps, seed=seed, trial=0, provenance=f"{options.planner} through the simulator",
                          watch=lambda observation, recording: advance())
    better = None
    if gap:
        middle = log.plans[len(log.plans) // 2]
        better = (middle.cost, offline_cost(evaluator, command, robot.spec.control_dt, middle, seed))
    return Played(episode, log, foresight(log, problem.cost, space), config, problem.model.differences, better)


def _config(options: Plan, horizon: int, evaluator: SimulatorEvaluator, x0: torch.Tensor, command: CommandSpec) -> PlannerConfig:
    """Return the planner's configuration; under a budget a sampling planner gets as many candidates as ROUNDS of them take."""
    config = planner_config_type(options.planner)(horizon=horizon)
    told = {setting.partition("=")[0] for setting in options.search}
    if options.budget_ms is not None and isinstance(config, SamplingConfig) and not told & {"population", "iterations"}:
        seconds = _seconds_a_candidate(evaluator, horizon, x0, command)
        population = int(np.clip(1e-3 * options.budget_ms / ROUNDS / seconds, *POPULATIONS))
        fitting = {"elites": max(2, population // 8)} if hasattr(config, "elites") and "elites" not in told else {}
        config = replace(config, population=population, iterations=MOST_ROUNDS, **fitting)
    return with_settings(config, options.search)


def _seconds_a_candidate(evaluator: SimulatorEvaluator, horizon: int, x0: torch.Tensor, command: CommandSpec) -> float:
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


def _print(console: Console, options: Plan, played: list[Played]) -> None:
    first = played[0]
    setting = ", ".join(f"{field.name} {getattr(first.config, field.name)}" for field in dataclasses.fields(first.config))
    console.print(f"{options.planner}: {setting}", highlight=False)
    console.print("planned through: " + ("; ".join(first.differences) or "the machine's own model, unchanged"), highlight=False)
    table = Table(title=f"{options.task}, planned by {options.planner} through the simulator")
    for column in ("seed", "score", "periods", "plan [ms] median", "95 %", "longest", "rounds", "candidates that count"):
        table.add_column(column, justify="right")
    for i, play in enumerate(played):
        spent = play.log.milliseconds
        table.add_row(str(options.seed + i), f"{play.episode.total_return:.2f}", str(play.episode.steps), f"{np.median(spent):.1f}",
                      f"{np.percentile(spent, 95):.1f}", f"{spent.max():.1f}", f"{np.median(play.log.rounds):g}",
                      f"{np.median(play.log.effective):.1f}")
    console.print(table)
    if options.budget_ms is not None:
        spent = np.concatenate([play.log.milliseconds for play in played])
        console.print(f"plans within the budget of {options.budget_ms:g} ms: {np.mean(spent <= options.budget_ms):.1%}", highlight=False)
    console.print(first.foresight.table(first.log))
    if first.gap is not None:
        console.print(f"gap: the plan in the middle of the first episode costs {first.gap[0]:.5g}; with far more effort {first.gap[1]:.5g} "
                      "was found", highlight=False)
    scores = [play.episode.total_return for play in played]
    spread = f", from {min(scores):.2f} to {max(scores):.2f}" if len(scores) > 1 else ""
    console.print(f"score: median {np.median(scores):.2f}{spread} over {len(scores)} episode(s)", highlight=False)


def _figures(options: Plan, played: list[Played]) -> dict:
    return {"task": options.task, "planner": options.planner, "budget_ms": options.budget_ms,
            "seeds": [options.seed + i for i in range(len(played))], "scores": [play.episode.total_return for play in played],
            "plan_ms": [float(np.median(play.log.milliseconds)) for play in played],
            "settings": dataclasses.asdict(played[0].config), "differences": list(played[0].differences)}
