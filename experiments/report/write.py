"""Writes the report of a run: what it says, in which order."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.config import settings_for, to_json
from experiments.report.drawing import SERIES
from experiments.report.figures import (
    calibration,
    cost_over_time,
    cost_over_trials,
    learning_curve,
    model_errors,
    planning_time,
    series_over_time,
    wall_clock,
)
from experiments.report.material import Material, gather
from experiments.report.numbers import count, duration, number
from experiments.report.page import Page, Tile
from experiments.report.rollouts import predict_along, rollout_legend, rollout_plots
from experiments.run_directory import RunDirectory, replace_file
from experiments.video import ReplayError, replay_video
from policies.trial import TrialRecord
from robots.errors import StoreError
from sim.rendering import RenderingUnavailableError

logger = logging.getLogger(__name__)

_TRIAL_COLUMNS = ("trial", "acted by", "return", "periods", "one-step error", "10-step error", "likelihood [nat]", "plan [ms]",
                  "plan p99 [ms]", "fit [s]", "total [s]", "seed")


def write_report(run: RunDirectory, *, videos: bool = True) -> Path:
    """Write `run.report_path`, one HTML file that holds all it shows, and return it.

    It is written for whatever there is: without a checkpoint, without a model, or where no pictures can be drawn it says
    what is missing. Videos are kept in the run and made once. Raises StoreError where the file cannot be written.
    """
    material = gather(run)
    page = Page(f"{material.task.name} · Reflexarc")
    _headline(page, material)
    if material.records:
        page.section("Learning")
        page.plots([learning_curve(material), cost_over_trials(material.records)], columns="lead")
        if videos:
            _videos(page, material)
        _model(page, material)
        _best(page, material)
        _time(page, material)
    _details(page, material)
    for trouble in dict.fromkeys(material.troubles):
        logger.warning("report: %s", trouble)
        page.notice(f"Could not be read: {trouble}")
    replace_file(run.report_path, page.document(_footer(material)).encode())
    return run.report_path


def _headline(page: Page, material: Material) -> None:
    records, task = material.records, material.task
    threshold = task.solved_return
    badge = None
    if threshold is not None and records:
        badge = ("solved", True) if material.solved_at is not None else ("not solved yet", False)
    page.header("Reflexarc learning run", task.name, f"{_sentence(task.summary)} {_what_happened(material)}", badge)
    if not records:
        return
    best, dt = records[material.best], material.control_dt
    returns = [record.total_return for record in records]
    steps = int(material.steps_lived[-1])
    timed = records[material.newest_planned] if material.newest_planned is not None else None
    told = next((record for record in reversed(records) if record.one_step_error is not None), None)
    ten = told.k_step_error.get("10") if told is not None else None
    page.tiles([
        Tile("Best return", number(best.total_return, 4),
             f"trial {best.trial}" + (f", solved from {number(threshold)}" if threshold is not None else "")),
        Tile("Recent return", number(float(np.median(returns[-3:])), 4), f"median of the last {count(min(3, len(returns)), 'trial')}"),
        Tile("Experience", duration(steps * dt) if dt is not None else "–", count(steps, "control period")),
        Tile("Wall-clock", duration(sum(record.seconds for record in records)) if any(record.seconds for record in records) else "–",
             "planning and fitting included"),
        Tile("Planning", f"{number(timed.plan_milliseconds_median)} ms" if timed is not None else "–",
             f"median, of {number(dt * 1e3)} ms a period" if timed is not None and dt is not None else "no plan was timed"),
        Tile("Model error", number(told.one_step_error, 2) if told is not None else "–",
             "no model judged yet" if told is None else "one step" + (f"; {number(ten, 2)} ten steps ahead" if ten is not None else "")),
    ])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _what_happened(material: Material) -> str:
    records, threshold, dt = material.records, material.task.solved_return, material.control_dt
    if not records:
        return "Nothing was lived yet."

    def lived(trial: int) -> str:
        steps = int(material.steps_lived[trial])
        return count(steps, "control period") + (f" ({duration(steps * dt)} of experience)" if dt is not None else "")

    best, planned = records[material.best], material.config.learning.trials
    course = f" So far {len(records)} of {count(planned, 'trial')} were lived." if len(records) < planned else ""
    if material.newest_by_model is None:
        return f"Only random commands so far, {count(len(records), 'trial')} of them; no model has acted yet.{course}"
    if material.solved_at is not None:
        return f"Solved at trial {material.solved_at}, after {lived(material.solved_at)}.{course}"
    missing = f", {number(threshold)} would count as solved" if threshold is not None else ""
    return (f"Best return {number(best.total_return, 4)} at trial {best.trial} of {len(records) - 1}, after {lived(best.trial)}{missing}."
            f"{course}")


def _videos(page: Page, material: Material) -> None:
    page.section("First and best", "Filmed afterwards, in real time: the simulation is driven again by the commands that were applied.")
    first_title = "The first trial that a model acted in" if material.newest_by_model is not None else "The first trial"
    shown = [(material.first, first_title)] if material.first != material.best else []
    shown.append((material.best, "The best trial" if shown else f"{first_title}, and the best"))
    films, failures = [], []
    for trial, title in shown:
        record = material.records[trial]
        try:
            path = _video(material, trial)
        except (RenderingUnavailableError, ReplayError, StoreError) as error:
            failures.append(f"No video of trial {trial}: {error}")
            continue
        if path is not None:
            films.append((path, title, f"trial {trial}, return {number(record.total_return, 4)}, {count(record.steps, 'control period')}"))
    if films:
        page.videos(films)
    for failure in failures:
        logger.warning("report: %s", failure)
        page.notice(failure)


def _video(material: Material, trial: int) -> Path | None:
    """Return the video of `trial`, made now unless there is one newer than its episode; None if the episode cannot be read."""
    episode, path = material.episode(trial), material.run.video_path(f"trial-{trial:06d}")
    if episode is None:
        return None
    if path.exists() and path.stat().st_mtime >= material.run.store().path(trial).stat().st_mtime:
        return path
    width, height = (480, 360) if material.task.engine == "pybullet" else (640, 480)  # its renderer's time grows with every pixel
    return replay_video(material.task, episode, path, width=width, height=height,
                        caption=f"{material.task.name}, trial {trial}", mode=material.config.mode)


def _model(page: Page, material: Material) -> None:
    page.section("What the model was worth", "Judged on what the model had not learned from: a whole trial, or its "
                 "part after the last fit within it.")
    if material.newest_by_model is None:
        page.notice("No model has acted yet, so there is nothing to judge.")
        return
    plots = model_errors(material.records)
    coverage = calibration(material.records)
    page.plots([*plots, coverage])
    if not plots:
        page.notice("No trial judged the model: it was fitted again within each of them, or there is no checkpoint.")
    elif coverage is None:
        page.notice(f"Calibration: the model {material.config.model!r} states no doubt, so there is none to check.")
    _rollouts(page, material)


def _rollouts(page: Page, material: Material) -> None:
    model, trial = material.model, material.newest_by_model
    episode = material.episode(trial) if trial is not None else None
    if model is None or trial is None or episode is None:
        page.notice("Predicted against lived: there is no checkpoint with a fitted model to predict with.")
        return
    rollouts = predict_along(model, episode, material.config.search.horizon, material.config.seed)
    seconds = float(episode.time[rollouts.horizon] - episode.time[0])
    unseen = episode.metadata.model_version == model.fits and material.records[trial].one_step_error is not None
    page.section(f"Predicted against lived, trial {trial}",
                 ("The model has not learned from this trial yet." if unseen else
                  "The model has already learned from at least a part of this trial, so this flatters it.")
                 + f" From each dot it predicts {rollouts.horizon} control periods ({number(seconds)} s, the planner's horizon) "
                 "under the commands that were applied, with no look at what followed. "
                 "The entries with the largest errors come first."
                 + ("" if rollouts.stochastic else " The model states no doubt, so there are no bands."))
    page.legend(rollout_legend(rollouts))
    plots = rollout_plots(rollouts)
    page.plots(plots, columns=2 if len(plots) in (1, 2, 4) else 3)
    if len(plots) < len(rollouts.names):
        page.notice(f"{len(plots)} of {len(rollouts.names)} predicted entries are shown.")


def _best(page: Page, material: Material) -> None:
    best = material.episode(material.best)
    if best is None:
        return
    mode = material.config.mode
    specs = best.metadata.robot_spec["commands"]
    spec = next((command for command in specs if command["mode"] == mode), specs[0])
    limits = {name: (float(low), float(high)) for name, low, high in zip(spec["names"], spec["minimum"], spec["maximum"], strict=True)}
    page.section(f"The best trial ({material.best})", f"Commands as applied [{spec['unit']}], dotted their limits, then the state.")
    commands = series_over_time(best, best.applied, best.command_names, SERIES[1], limits, 6)
    states = series_over_time(best, best.x, best.state_names, SERIES[0], {}, 9 - (len(commands) + 1) % 3)  # whole rows, cost included
    page.plots([*commands, *states, cost_over_time(best)], columns=3)
    left_out = [f"{len(shown)} of {len(names)} {what}" for shown, names, what in
                ((commands, best.command_names, "commands"), (states, best.state_names, "state entries")) if len(shown) < len(names)]
    if left_out:
        page.notice(f"Shown are {' and '.join(left_out)}, those that moved most.")


def _time(page: Page, material: Material) -> None:
    planned = material.episode(material.newest_planned) if material.newest_planned is not None else None
    histogram = planning_time(planned, material.control_dt) if planned is not None and material.control_dt is not None else None
    clock = wall_clock(material.records)
    page.section("Time")
    page.plots([histogram, clock])
    if histogram is None:
        page.notice("No trial planned while it was lived, so there are no planning times.")


def _details(page: Page, material: Material) -> None:
    config = material.config
    page.section("To do it again", _reproducibility(material))
    page.command(f"reflexarc learn {shlex.quote(config.task)} --seed {config.seed}")
    values = _flat(to_json(config))
    differing = _differing(material, values)
    page.table("Configuration" + (f", differs from the task's settings in {len(differing)} of {len(values)} entries" if differing else ""),
               ("entry", "value", "the task's settings"), ((name, value, differing.get(name, "")) for name, value in values.items()),
               numeric=False)
    if material.records:
        page.table("Trials", _TRIAL_COLUMNS, map(_trial_row, material.records), numeric=True)
    told = next((record for record in reversed(material.records) if record.one_step_rmse), None)
    if told is not None:
        page.table(f"One-step error of every predicted entry in trial {told.trial}", ("entry", "root mean square error, in its own unit"),
                   ((name, number(error)) for name, error in told.one_step_rmse.items()), numeric=False)
    page.table("Versions", ("package", "version"), [("commit", material.commit), *material.packages.items()], numeric=False)


def _trial_row(record: TrialRecord) -> tuple[str, ...]:
    numbers = (record.one_step_error, record.k_step_error.get("10"), record.negative_log_likelihood, record.plan_milliseconds_median,
               record.plan_milliseconds_p99, record.fit_seconds, record.seconds)
    periods = f"{record.steps}{' †' if record.terminated else ''}"
    return (str(record.trial), record.provenance, number(record.total_return, 4), periods, *map(number, numbers), str(record.seed))


def _reproducibility(material: Material) -> str:
    commit = material.commit
    state = f"commit {commit[:12]}" + (" with changes that were not committed" if commit.endswith("+") else "")
    differs = bool(_differing(material, _flat(to_json(material.config))))
    return (f"Seed {material.config.seed}, {state}."
            + (" The settings differ from the task's own, as the configuration below marks." if differs else "")
            + (" † marks trials that the task ended." if any(record.terminated for record in material.records) else ""))


def _differing(material: Material, values: dict[str, str]) -> dict[str, str]:
    """Return the entries of the task's own settings that this run's differ from."""
    config = material.config
    usual = _flat(to_json(replace(settings_for(config.task, material.task.episode_steps), seed=config.seed)))
    return {name: usual.get(name, "not there") for name, value in values.items() if usual.get(name) != value}


def _flat(values: object, prefix: str = "") -> dict[str, str]:
    """Return nested JSON values as one level of dotted names."""
    if isinstance(values, dict):
        return {name: value for key, inner in values.items() for name, value in _flat(inner, f"{prefix}.{key}" if prefix else key).items()}
    return {prefix: ", ".join(map(str, values)) if isinstance(values, list) else "none" if values is None else str(values)}


def _footer(material: Material) -> str:
    return f"Reflexarc {material.packages.get('reflexarc', '')} · {material.run.path.resolve().name} · commit {material.commit[:12]}"
