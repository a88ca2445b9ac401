"""`reflexarc plan --asynchronous`: the planner works in a process beside the machine, which does not wait for it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from episodes.episode import Episode
from experiments.paced_robot import PacedRobot
from experiments.plan import prepare
from experiments.plan_cli import Plan
from experiments.plan_report import print_setting, score_words
from experiments.progress import make_console
from experiments.run_directory import replace_file
from experiments.video import replay_video
from planners.planner import PlannerConfig
from policies.asynchronous.config import AsynchronousConfig
from policies.asynchronous.plan_memory import PlanSizes
from policies.asynchronous.policy import AsynchronousPolicy
from policies.asynchronous.process_worker import ProcessWorker
from policies.asynchronous.report import AsynchronousReport
from policies.asynchronous.request_planner import RequestPlanner
from policies.asynchronous.worker import InlineWorker
from policies.episode_loop import EpisodeSource, run_episode
from robots.errors import ConfigurationError
from robots.robot import Robot
from sim.catalog import make_task
from sim.simulator.planning_task import simulated_model
from sim.simulator.randomisation import altered, read_factors
from sim.task import Task


@dataclass(frozen=True)
class TaskPlanner:
    """Makes the planner of one episode, in the process that is to plan."""

    options: Plan
    seed: int
    config: PlannerConfig

    def __call__(self) -> RequestPlanner:
        """Return it; the machine is made only to be looked at."""
        with make_task(self.options.task).robot() as robot:
            made = prepare(self.options, robot, robot.reset(self.seed), self.seed, self.config)
            if made.budget is not None:
                made.planner.rehearse(made.x0, made.budget)
            return RequestPlanner(made.planner, made.problem.model, robot.spec.command(), made.budget)


@dataclass(frozen=True)
class PlayedBeside:
    """One episode with its planner beside it."""

    episode: Episode
    report: AsynchronousReport
    config: PlannerConfig
    differences: tuple[str, ...]
    """How the model planned through differs from the machine."""
    overruns: list[float]
    """By how much control periods were too long for the machine itself [s]; of simulated time there are none."""
    steps: int
    """Control periods that it was to have."""

    @property
    def ended(self) -> str:
        """Why it ended before its time; empty where it is whole, to its time or to the task's end."""
        if self.episode.terminated or self.episode.steps == self.steps:
            return ""
        return self.report.stopped or "the machine or the task's cost left the numbers; the log says where"


def asynchronous_command(options: Plan) -> int:
    """Play the episodes, print what came of them, and return 0."""
    if options.gap:
        raise ConfigurationError("--gap: a plan made beside the machine is not kept; leave out --asynchronous")
    if options.delay_periods is not None and options.budget_ms is not None:
        raise ConfigurationError("--delay-periods and --budget-ms: a declared delay gives one result on any computer, a budget this "
                                 "computer's; leave one out, and bound a declared plan by --search")
    asynchronous_config(options)
    task, console = make_task(options.task), make_console()
    steps = task.episode_steps if options.steps is None else options.steps
    played = []
    with task.robot() as robot, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(options.task, total=steps * options.episodes)
        for i in range(options.episodes):
            played.append(play_beside(task, robot, options, steps, options.seed + i, lambda: progress.advance(bar)))
    _print(console, options, played)
    if options.json is not None:
        replace_file(options.json, json.dumps(_figures(options, played), indent=1).encode())
    if options.video is not None:
        console.print(f"film: {replay_video(task, played[0].episode, options.video)}", highlight=False)
    return 0


def asynchronous_config(options: Plan) -> AsynchronousConfig:
    """Return what the options say of planning beside the machine."""
    return AsynchronousConfig(delay_periods=options.delay_periods, compensate=not options.uncompensated)


def play_beside(task: Task, robot: Robot, options: Plan, steps: int, seed: int, advance: Callable[[], None] = lambda: None) -> PlayedBeside:
    """Return one episode of `steps` control periods from `seed`, in real time unless the delay is declared; `advance` is called once a
    period.
    """
    made = prepare(options, robot, robot.reset(seed), seed)
    make, space, command = TaskPlanner(options, seed, made.config), made.problem.model.state_space, robot.spec.command()
    declared = options.delay_periods is not None
    sizes = PlanSizes(made.planner.horizon, space.nx, space.ndx, command.nu)
    with contextlib.closing(InlineWorker(make()) if declared else ProcessWorker(make, sizes)) as worker:
        policy = AsynchronousPolicy(worker, space, command, robot.spec.control_dt, options.planner, asynchronous_config(options))
        machine = robot if declared else PacedRobot(robot)
        source = EpisodeSource(machine, task.state_space, command, task.cost, task.name)
        with altered(simulated_model(robot), read_factors(options.machine, "--machine")):
            episode = run_episode(source, policy, steps, seed=seed, trial=0, provenance=f"{options.planner} beside the simulator",
                                  watch=lambda observation, recording: advance())
    return PlayedBeside(episode, policy.report, made.config, made.problem.model.differences, [] if declared else machine.overruns,
                        steps)


def _print(console: Console, options: Plan, played: list[PlayedBeside]) -> None:
    first = played[0]
    print_setting(console, options.planner, first.config, first.differences, options.machine)
    time = "in real time" if options.delay_periods is None else f"each plan by declaration {options.delay_periods} periods late"
    table = Table(title=f"{options.task}, planned by {options.planner} beside the machine, {time}")
    for column in ("seed", "score", "periods", "plan [ms]", "95 %", "rounds", "age [ms]", "not fresh", "late"):
        table.add_column(column, justify="right")
    for i, play in enumerate(played):
        report, plans = play.report, 1e3 * np.array(play.report.planning)
        table.add_row(str(options.seed + i), f"{play.episode.total_return:.2f}", str(play.episode.steps), f"{np.median(plans):.1f}",
                      f"{np.percentile(plans, 95):.1f}", f"{np.median(report.iterations):g}", f"{1e3 * np.median(report.ages):.0f}",
                      f"{report.without_fresh:.0%}", str(len(report.late)))
    console.print(table)
    for i, play in enumerate(played):
        console.print(f"seed {options.seed + i}: {play.report.words()}", highlight=False)
        if play.overruns:
            console.print(f"  {len(play.overruns)} periods took the machine itself too long, by up to {1e3 * max(play.overruns):.1f} ms: "
                          "this computer is too busy for real time", highlight=False)
    early = "".join(f"; seed {options.seed + i} ended after {play.episode.steps} of {play.steps} periods"
                    for i, play in enumerate(played) if play.ended)
    console.print(score_words([play.episode.total_return for play in played]) + early, highlight=False)


def _figures(options: Plan, played: list[PlayedBeside]) -> dict:
    return {"task": options.task, "planner": options.planner, "budget_ms": options.budget_ms, "asynchronous": True,
            "delay_periods": options.delay_periods, "compensated": not options.uncompensated,
            "seeds": [options.seed + i for i in range(len(played))], "scores": [play.episode.total_return for play in played],
            "periods": [play.episode.steps for play in played], "ended_early": [play.ended or None for play in played],
            "plan_ms": [1e3 * float(np.median(play.report.planning)) for play in played],
            "age_ms": [1e3 * float(np.median(play.report.ages)) for play in played],
            "without_fresh": [play.report.without_fresh for play in played], "late": [len(play.report.late) for play in played],
            "settings": dataclasses.asdict(played[0].config), "differences": list(played[0].differences)}
