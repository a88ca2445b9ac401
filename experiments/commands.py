"""What the subcommands of `reflexarc` do."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from dynamics.workers import checked_threads
from experiments.config import RunConfig, settings_for, with_planner, with_settings
from experiments.evaluate import evaluate, print_evaluation
from experiments.learn import learn, new_run
from experiments.progress import make_console
from experiments.run_directory import RunDirectory, replace_file
from experiments.termination import EXIT_CODE, Terminated, sigterm_raises
from experiments.video import replay_video
from policies.trial import TrialRecord
from robots.errors import ConfigurationError, ReflexarcError, StoreError, UnknownNameError, VersionError
from sim.catalog import make_task

if TYPE_CHECKING:
    from experiments.cli import Demo, Evaluate, Learn, Report, Resume

Config = TypeVar("Config")

DEMO_TRIALS = 8
"""Trials of the demonstration: enough to solve it and stay there, in a few minutes on two cores."""


def run_config(options: Learn) -> RunConfig:
    """Return the configuration of `reflexarc learn` with the task's settings where nothing else was asked for.

    Raises UserError for unknown names and values that do not fit.
    """
    task = make_task(options.task)
    with task.robot() as robot:
        control_dt = robot.spec.control_dt
        robot.spec.command(options.mode)  # refuses a mode that the robot lacks
    config = replace(settings_for(task.name, task.episode_steps, control_dt), seed=options.seed)
    if options.planner is not None:
        config = with_planner(config, options.planner)
    learning = _override(config.learning, trials=options.trials, random_trials=options.random_trials, episode_steps=options.steps,
                         refit_every=options.refit_every, replan_every=options.replan_every)
    search = _override(config.search, horizon=options.horizon, population=options.population, iterations=options.iterations,
                       elites=options.elites, interpolation=options.interpolation, knots=options.knots)
    search = with_settings(search, options.search)
    evaluation = _override(config.evaluation, propagation=options.propagation, particles=options.particles, risk=options.risk,
                           kernel=options.kernel)
    fit = _override(config.ensemble.fit, epochs=options.epochs)
    ensemble = replace(config.ensemble, fit=fit)
    if options.hidden is not None:
        decay = ensemble.weight_decay[-1:] if len(options.hidden) != len(ensemble.hidden) else ensemble.weight_decay
        ensemble = replace(ensemble, hidden=options.hidden, weight_decay=decay)
    ensemble = _override(ensemble, members=options.members)
    if options.particles is None:
        evaluation = replace(evaluation, particles=_particles(evaluation.propagation, options.model or config.model, ensemble.members))
    return _override(config, learning=learning, search=search, evaluation=evaluation, ensemble=ensemble,
                     algorithm=options.algorithm, model=options.model, mode=options.mode)


def _particles(propagation: str, model: str, members: int) -> int:
    """Return the particles that suit a propagation: one for the mean, else a multiple of the members."""
    if propagation == "E":
        return 1
    return members if model.endswith("ensemble") else 5


def _override(config: Config, **values: object) -> Config:
    """Return `config` with the values that are not None; ConfigurationError for one that this kind of config does not have."""
    given = {name: value for name, value in values.items() if value is not None}
    known = {f.name for f in dataclasses.fields(config)}
    for name in given:
        if name not in known:
            raise ConfigurationError(f"--{name.replace('_', '-')}: a {type(config).__name__} has no such setting; "
                                     f"it has {', '.join(sorted(known))}")
    return replace(config, **given)


def learn_command(options: Learn) -> int:
    """Start a run and learn."""
    config = run_config(options)
    checked_threads(options.threads)
    run = new_run(config, options.runs, options.name)
    return _learn_and_report(run, options.threads, options.report)


def resume_command(options: Resume) -> int:
    """Go on with a run."""
    return _learn_and_report(RunDirectory.open(options.run_directory), options.threads, options.report)


def report_command(options: Report) -> int:
    """Write a report again."""
    from experiments.report import write_report  # brings matplotlib, which the other commands need not wait for

    make_console().print(f"report: {write_report(RunDirectory.open(options.run_directory), videos=options.videos)}")
    return 0


def demo_command(options: Demo) -> int:
    """Learn the cart-pole swing-up and show it; UnknownNameError for another demonstration's name."""
    if options.name != "cartpole":
        raise UnknownNameError("demonstration", options.name, ("arm", "cartpole"))
    config = replace(settings_for("cartpole", 200), seed=options.seed)
    config = replace(config, learning=replace(config.learning, trials=DEMO_TRIALS))
    console, number = make_console(), 1
    while True:
        path = options.runs / (f"demo-{number}" if number > 1 else "demo")
        if not (path / "config.json").exists():
            run = new_run(config, options.runs, path.name)
            break
        number += 1
        try:
            run = RunDirectory.open(path)
            records = run.records()
        except StoreError as error:
            console.print(f"leaving {path} alone: {error}", markup=False)
            continue
        except VersionError:
            continue  # a demonstration of another version stays as it is
        if run.config == config and len(records) < DEMO_TRIALS:
            console.print(f"going on with {path}")
            break
    console.print("A cart-pole hangs still and knows nothing. It moves at random once, learns an ensemble of its dynamics, and plans\n"
                  "through it with the cross-entropy method, 25 times a second. 170 of 200 is a solved swing-up.")
    return _learn_and_report(run, options.threads, True)


def _learn_and_report(run: RunDirectory, threads: int | None, report: bool) -> int:
    with sigterm_raises():
        return _learn_then_report(run, threads, report)


def _learn_then_report(run: RunDirectory, threads: int | None, report: bool) -> int:
    console, started = make_console(), time.perf_counter()
    console.print(f"run {run.path}  (task {run.config.task}, seed {run.config.seed}; stop with Ctrl-C, "
                  f"go on with: reflexarc resume {run.path})",
                  highlight=False)
    try:
        records = learn(run, console, threads)
    except KeyboardInterrupt as stop:
        console.print(f"stopped; go on with: reflexarc resume {run.path}")
        return EXIT_CODE if isinstance(stop, Terminated) else 130
    except ReflexarcError:
        console.print(f"the finished trials are kept in {run.path}")
        raise
    _print_outcome(console, run, records, time.perf_counter() - started)
    if report:
        from experiments.report import write_report

        console.print("writing the report (rendering videos takes a few seconds)")
        console.print(f"report: {write_report(run)}")
    console.print(f"metrics: tensorboard --logdir {run.path / 'metrics'}")
    return 0


def _print_outcome(console: Console, run: RunDirectory, records: list[TrialRecord], seconds: float) -> None:
    returns = [record.total_return for record in records]
    last = sorted(returns[-3:])[len(returns[-3:]) // 2]
    solved = make_task(run.config.task).solved_return
    verdict = ""
    if solved is not None:
        first = next((record.trial for record in records if record.total_return >= solved), None)
        verdict = f"; solved ({solved:g}) at trial {first}" if first is not None else f"; not solved ({solved:g}) yet"
    console.print(f"{len(records)} trials, {sum(r.steps for r in records)} control periods, {seconds:.0f} s: "
                  f"best return {max(returns):.1f}, median of the last {len(returns[-3:])} {last:.1f}{verdict}", highlight=False)


def evaluate_command(options: Evaluate) -> int:
    """Let a policy act and print what it earned."""
    if options.policy != "random" and not Path(options.policy).is_dir():
        raise UnknownNameError("policy", options.policy, ["random"], hint="or the folder of a run, as in --policy runs/NAME")
    console = make_console()
    result, lived = evaluate(options.task, options.policy, options.episodes, options.steps, options.seed, options.mode,
                             options.keep, options.threads, console)
    print_evaluation(console, result)
    if options.json is not None:
        replace_file(options.json, json.dumps(dataclasses.asdict(result), indent=1).encode())
    if options.video is not None:
        best = max(lived, key=lambda episode: episode.total_return)
        console.print(f"video: {replay_video(make_task(options.task), best, options.video, mode=result.mode)}")
    return 0
