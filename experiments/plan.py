"""`reflexarc plan`: control through the simulator, scored by the task."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from episodes.episode import Episode
from experiments.plan_budget import PunctualPlanner, budget_config
from experiments.plan_cli import Plan
from experiments.plan_report import Foresight, PlanLog, foresight, offline_cost, print_setting, score_words
from experiments.progress import make_console
from experiments.run_directory import replace_file
from experiments.video import replay_video
from planners.catalog import PLANNERS, make_planner, planner_config_type
from planners.planner import PlannerConfig
from planners.risk import make_risk
from planners.sampling import SamplingConfig
from policies.episode_loop import EpisodeSource, run_episode
from policies.receding_horizon import RecedingHorizonPolicy
from robots.errors import ConfigurationError, UnknownNameError
from robots.observation import Observation
from robots.robot import Robot
from sim.catalog import make_task
from sim.simulator.planning_task import PLANNING_TASKS, Problem, make_problem, planning_task, simulated_model
from sim.simulator.randomisation import Randomisation, altered, read_factors, read_ranges
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.task import Task


@dataclass(frozen=True)
class Played:
    """One episode under a planner."""

    episode: Episode
    log: PlanLog
    foresight: Foresight
    config: PlannerConfig
    differences: tuple[str, ...]
    """How the model planned through differs from the machine."""
    rollouts: float
    """Rollouts over a horizon that a plan takes, derivatives counted by what is simulated for them; mean over the episode."""
    gap: tuple[float, float] | None = None
    """Cost of a plan, and of the same problem solved with far more effort; None where nobody asked."""


def plan_command(options: Plan) -> int:
    """Play the episodes, print what came of them, and return 0."""
    if options.task not in PLANNING_TASKS:
        raise UnknownNameError("task to plan through the simulator", options.task, PLANNING_TASKS)
    if options.budget_ms is not None and not options.budget_ms > 0:
        raise ConfigurationError(f"--budget-ms: expected a positive time [ms], got {options.budget_ms}")
    make_risk(options.risk)
    if options.risk != "mean" and not options.randomise:
        raise ConfigurationError(f"--risk {options.risk}: without --randomise there is one model, and nothing to weigh")
    if options.variants != Plan.variants and not options.randomise:
        raise ConfigurationError(f"--variants {options.variants}: without --randomise nothing is drawn; add it")
    if options.machine and options.video is not None:
        raise ConfigurationError("--machine and --video: a film is made by a machine that is not altered, which would live otherwise; "
                                 "leave one out")
    _randomisation(options, options.seed)
    if options.episodes < 1 or not 0 <= options.seed < 2**32 - options.episodes:
        raise ConfigurationError(f"--episodes and --seed: expected at least 1 and 0 to 2^32 - episodes, got {options.episodes} and "
                                 f"{options.seed}")
    if options.asynchronous:
        from experiments.plan_asynchronous import asynchronous_command

        return asynchronous_command(options)
    if options.delay_periods is not None or options.uncompensated:
        raise ConfigurationError("--delay-periods and --uncompensated: only --asynchronous has a delay; add it")
    task, console = make_task(options.task), make_console()
    steps = task.episode_steps if options.steps is None else options.steps
    played = []
    with task.robot() as robot, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(options.task, total=steps * options.episodes)
        for i in range(options.episodes):
            played.append(play(task, robot, options, steps, options.seed + i, lambda: progress.advance(bar), options.gap and i == 0))
    _print(console, options, played)
    if options.json is not None:
        replace_file(options.json, json.dumps(_figures(options, played), indent=1).encode())
    if options.video is not None:
        console.print(f"film: {replay_video(task, played[0].episode, options.video)}", highlight=False)
    return 0


def play(task: Task, robot: Robot, options: Plan, steps: int, seed: int, advance: Callable[[], None] = lambda: None,
         gap: bool = False) -> Played:
    """Return one episode of `steps` control periods from `seed`; `advance` is called once a period."""
    made, command = prepare(options, robot, robot.reset(seed), seed), robot.spec.command()
    problem, evaluator, planner, config, budget = made.problem, made.evaluator, made.planner, made.config, made.budget
    space, horizon = problem.model.state_space, planner.horizon
    if budget is not None:
        planner.rehearse(made.x0, budget)
    log = PlanLog(RecedingHorizonPolicy(planner, space, command, options.planner, deadline=budget))
    source = EpisodeSource(robot, task.state_space, command, task.cost, task.name)
    before = problem.model.periods
    with altered(simulated_model(robot), read_factors(options.machine, "--machine")):
        episode = run_episode(source, log, steps, seed=seed, trial=0, provenance=f"{options.planner} through the simulator",
                              watch=lambda observation, recording: advance())
    rollouts = (problem.model.periods - before) / horizon / len(log.plans)
    better = None
    if gap:
        middle = log.plans[len(log.plans) // 2]
        better = (middle.cost, offline_cost(evaluator, command, robot.spec.control_dt, middle, seed))
    return Played(episode, log, foresight(log, problem.cost, space), config, problem.model.differences, rollouts, better)


@dataclass(frozen=True)
class Prepared:
    """A planner and what it plans through, for one episode."""

    problem: Problem
    evaluator: SimulatorEvaluator
    config: PlannerConfig
    planner: PunctualPlanner
    x0: torch.Tensor
    """(nx,) where the episode begins."""
    budget: float | None
    """Time a plan may take [s]."""


def prepare(options: Plan, robot: Robot, observation: Observation, seed: int, config: PlannerConfig | None = None) -> Prepared:
    """Return the planner for the episode that begins with `observation` of `robot`, just reset with `seed`; with `config`, where it is
    known, and else with what the options and this computer's speed make it.
    """
    command, told = robot.spec.command(), ("substeps", "integrator", "cold_starts")
    given = {name: value for name in told if (value := getattr(options, name)) is not None}
    if options.softened:
        given["softened"] = True
    planning_copy = replace(planning_task(options.task).copy, **given)
    problem = make_problem(options.task, robot, options.threads, planning_copy, _randomisation(options, seed))
    evaluator = SimulatorEvaluator(problem.model, problem.cost, options.risk)
    budget = None if options.budget_ms is None else options.budget_ms * 1e-3
    horizon = problem.horizon if options.horizon is None else max(1, round(options.horizon / robot.spec.control_dt))
    x0 = torch.from_numpy(problem.model.state_space.state(observation))
    if config is None:
        config = budget_config(options.planner, horizon, options.search, budget, evaluator, x0, command)
    planner = PunctualPlanner(make_planner(options.planner, evaluator, command, robot.spec.control_dt, config))
    return Prepared(problem, evaluator, config, planner, x0, budget)


def _randomisation(options: Plan, seed: int) -> Randomisation | None:
    """Return what is drawn of the model planned through, None where nothing is; ConfigurationError for a planner that sees one model."""
    if not options.randomise:
        return None
    if not issubclass(planner_config_type(options.planner), SamplingConfig):
        sampling = [name for name, (_, config) in PLANNERS.items() if issubclass(config, SamplingConfig)]
        raise ConfigurationError(f"--randomise: planner {options.planner!r} follows one model; those that roll plans out through variants "
                                 f"are {', '.join(sampling)}")
    return Randomisation(read_ranges(options.randomise, "--randomise"), options.variants, seed)


def _print(console: Console, options: Plan, played: list[Played]) -> None:
    first = played[0]
    print_setting(console, options.planner, first.config, first.differences, options.machine)
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
    console.print(score_words([play.episode.total_return for play in played]), highlight=False)


def _figures(options: Plan, played: list[Played]) -> dict:
    return {"task": options.task, "planner": options.planner, "budget_ms": options.budget_ms,
            "seeds": [options.seed + i for i in range(len(played))], "scores": [play.episode.total_return for play in played],
            "plan_ms": [float(np.median(play.log.milliseconds)) for play in played],
            "settings": dataclasses.asdict(played[0].config), "differences": list(played[0].differences)}
