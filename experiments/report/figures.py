"""The figures about the trials of a run: what they earned, what the model was worth, where cost and time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from episodes.episode import Episode
from experiments.report.drawing import (
    CARD,
    GRID,
    INK,
    MUTED,
    SERIES,
    WARN,
    Key,
    Plot,
    new_axes,
    plain_log_axis,
    series_colours,
    short,
    style_axes,
)
from experiments.report.material import Material
from experiments.report.numbers import count, number
from policies.trial import TrialRecord

_LARGEST_TERMS = 7


def learning_curve(material: Material) -> Plot:
    """Return over trials, lived one and the best so far; the upper axis counts control periods."""
    records = material.records
    figure, axes = new_axes("trial", "return", width=500, height=290)
    trials, returns = np.array([r.trial for r in records]), np.array([r.total_return for r in records], dtype=float)
    best = np.maximum.accumulate(np.where(np.isfinite(returns), returns, -np.inf))
    by_model = np.array([r.model_version is not None for r in records])
    legend = []
    threshold = material.task.solved_return
    if threshold is not None:
        axes.axhline(threshold, color=SERIES[2], linewidth=1.4, dashes=(5, 4))
        legend.append(Key(f"counts as solved ({number(threshold)})", SERIES[2], "dashed"))
    axes.step(trials, best, where="post", color=SERIES[1], linewidth=1.6)
    axes.plot(trials, returns, color=SERIES[0], linewidth=1.2, alpha=0.5)
    axes.plot(trials[by_model], returns[by_model], "o", color=SERIES[0], markersize=6.5, markeredgecolor=CARD, markeredgewidth=1)
    axes.plot(trials[~by_model], returns[~by_model], "o", markerfacecolor=CARD, markeredgecolor=MUTED, markersize=6.5, markeredgewidth=1.6)
    legend = [Key("return of a trial", SERIES[0], "dot"), Key("random commands", MUTED, "ring"), Key("running maximum", SERIES[1]), *legend]
    _trial_axis(axes, trials)
    upper = axes.twiny()
    style_axes(upper)
    upper.set_xlim(axes.get_xlim())
    shown = np.unique(np.linspace(0, len(trials) - 1, min(7, len(trials))).round().astype(int))
    upper.set_xticks(trials[shown], [f"{material.steps_lived[i]:,}".replace(",", "\u202f") for i in shown])
    upper.set_xlabel("control periods lived by the end of the trial", color=MUTED, fontsize=10.5, labelpad=8)
    best_index = int(np.argmax(best))
    note = "One run with one seed: it shows that and how it learned, not how surely it always does."
    return Plot("Return of every trial", figure, f"Returns of {count(len(records), 'trial')}; the best is {number(float(best[-1]), 4)} "
                f"in trial {records[best_index].trial}.", tuple(legend), note)


def calibration(records: Sequence[TrialRecord]) -> Plot | None:
    """Return stated against measured coverage on the first and the newest trial that tell it, or None."""
    telling = [(record, sorted((float(level), share) for level, share in record.coverage.items() if _finite(share)))
               for record in records if record.coverage]
    telling = [(record, points) for record, points in telling if points]
    if not telling:
        return None
    figure, axes = new_axes("stated probability", "share of outcomes inside", width=420, height=255)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, dashes=(5, 4))
    legend = [Key("honest", MUTED, "dashed")]
    shown = telling[-1:] if len(telling) == 1 else [telling[0], telling[-1]]
    for (record, points), colour in zip(shown, (SERIES[1], SERIES[0])[-len(shown):], strict=True):
        levels, shares = np.array(points).T
        axes.plot(levels, shares, "o-", color=colour, linewidth=1.6, markersize=4.5)
        legend.append(Key(f"trial {record.trial}", colour))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(True, axis="x", color=GRID, linewidth=1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))
    error = float(np.mean([abs(level - share) for level, share in telling[-1][1]]))
    return Plot("Does the model know what it does not know?", figure,
                f"Calibration on trial {telling[-1][0].trial}: stated and measured coverage differ by {number(error)} on average.",
                tuple(legend), f"One step ahead, on trials before they were learned from. Below the line the model is too sure, above it "
                f"doubts too much. Mean distance on trial {telling[-1][0].trial}: {number(error)}.")


def model_errors(records: Sequence[TrialRecord]) -> list[Plot]:
    """Return one-step error, errors further ahead, and likelihood over the trials that tell them."""
    plots = []
    one_step = [(r.trial, r.one_step_error) for r in records if _finite(r.one_step_error)]
    if one_step:
        plots.append(_error_plot("One-step error", {"one step": one_step}, (SERIES[0],),
                                 "Relative to how much the change of the state varies: 1 is no better than always predicting the mean."))
    ahead: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for k, error in sorted(record.k_step_error.items(), key=lambda item: int(item[0])):
            if k != "1" and _finite(error):
                ahead.setdefault(f"{k} steps", []).append((record.trial, error))
    if ahead:
        plots.append(_error_plot("Error several steps ahead", ahead, (SERIES[0], SERIES[3], SERIES[1], *SERIES[4:]),
                                 "Open loop under the lived commands, relative to how much the state varies in the trial."))
    likelihood = [(r.trial, r.negative_log_likelihood) for r in records if _finite(r.negative_log_likelihood)]
    if likelihood:
        figure, axes = new_axes("trial", "nat per output", width=420, height=240)
        trials, values = np.array(likelihood).T
        axes.plot(trials, values, "o-", color=SERIES[3], linewidth=1.6, markersize=4.5)
        _trial_axis(axes, trials)
        plots.append(Plot("Negative log-likelihood", figure, f"From {number(values[0])} to {number(values[-1])} nat.", (),
                          "Lower is better; it falls when errors shrink and when the stated doubt fits them."))
    return plots


def cost_over_trials(records: Sequence[TrialRecord]) -> Plot | None:
    """Return the cost of every trial stacked by term, or None where no terms are known."""
    totals: dict[str, float] = {}
    for record in records:
        for name, value in record.cost_by_term.items():
            totals[name] = totals.get(name, 0.0) + (abs(value) if _finite(value) else 0.0)
    if not totals:
        return None
    kept, rest = _largest(totals)
    figure, axes = new_axes("trial", "cost of the trial", width=330, height=300)
    trials = np.array([record.trial for record in records])
    above, below = np.zeros(len(records)), np.zeros(len(records))
    colours = series_colours([*kept, *(["other terms"] if rest else [])])
    for name, colour in colours.items():
        members = rest if rest and name == "other terms" and name not in kept else [name]
        values = np.nan_to_num(np.array([sum(_number(r.cost_by_term.get(m)) for m in members) for r in records]), nan=0, posinf=0, neginf=0)
        axes.bar(trials, values, 0.72, bottom=np.where(values >= 0, above, below), color=colour)
        above += values.clip(min=0)
        below += values.clip(max=0)
    axes.axhline(0, color=MUTED, linewidth=1)
    _trial_axis(axes, trials)
    legend = tuple(Key(short(name), colour, "area") for name, colour in colours.items())
    return Plot("Cost by term", figure, "Sums over each trial of " + ", ".join(kept), legend,
                "The return is minus the sum; a term below zero is earned.")


def cost_over_time(episode: Episode) -> Plot | None:
    """Return the terms of the cost along an episode, or None where none are known."""
    if not episode.cost_terms:
        return None
    kept, _ = _largest({name: float(np.abs(values).sum()) for name, values in episode.cost_terms.items()})
    figure, axes = new_axes("time [s]", "cost of a period", width=330, height=190)
    colours = series_colours(kept)
    for name, colour in colours.items():
        axes.step(episode.time[1:], episode.cost_terms[name], where="pre", color=colour, linewidth=1.5)
    axes.margins(x=0.01)
    return Plot(f"Cost along the best trial ({episode.metadata.trial})", figure, "Cost of every control period by term: " + ", ".join(kept),
                tuple(Key(short(name), colour) for name, colour in colours.items()))


def planning_time(episode: Episode, control_dt: float) -> Plot | None:
    """Return a histogram of the planning times of an episode against the control period, or None where nothing was timed."""
    seconds = episode.plan_seconds
    if seconds is None or not np.isfinite(seconds).any():
        return None
    times, period = seconds[np.isfinite(seconds)] * 1e3, control_dt * 1e3
    figure, axes = new_axes("planning time [ms]", "plans")
    low, high = float(times.min()), float(times.max())
    shown = min(high, float(np.percentile(times, 99)) * 2.5)
    axes.hist(times.clip(max=shown), bins=np.linspace(min(low, shown * 0.98), shown, 31), color=SERIES[0])
    legend = [Key("plans", SERIES[0], "area")]
    near = period < 4 * shown
    if near:
        axes.axvline(period, color=WARN, linewidth=1.6)
        legend.append(Key(f"control period ({number(period)} ms)", WARN))
    median, p90, p99 = np.percentile(times, (50, 90, 99))
    late = float((times > period).mean())
    judgement = "Every plan was ready within" if late == 0 else f"{number(100 * late, 2)} % of plans took longer than"
    note = (f"Median {number(median)} ms, 90 % below {number(p90)} ms, 99 % below {number(p99)} ms, longest {number(high)} ms. "
            f"{judgement} the control period of {number(period)} ms.")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return Plot(f"Planning time in trial {episode.metadata.trial}", figure, note, tuple(legend), note)


def wall_clock(records: Sequence[TrialRecord]) -> Plot | None:
    """Return the wall-clock time of every trial split into fitting and acting, or None where nothing was timed."""
    if not any(_number(record.seconds) > 0 for record in records):
        return None
    figure, axes = new_axes("trial", "wall-clock time [s]")
    trials = np.array([record.trial for record in records])
    fit = np.array([_number(record.fit_seconds) for record in records])
    act = np.array([max(0.0, _number(record.seconds) - _number(record.fit_seconds)) for record in records])
    axes.bar(trials, fit, 0.72, color=SERIES[3])
    axes.bar(trials, act, 0.72, bottom=fit, color=SERIES[0])
    _trial_axis(axes, trials)
    note = f"{number(float(fit.sum()))} s of fitting and {number(float(act.sum()))} s of planning, simulating and the rest."
    return Plot("Where the time went", figure, note, (Key("fitting", SERIES[3], "area"), Key("acting", SERIES[0], "area")), note)


def series_over_time(episode: Episode, values: np.ndarray, names: Sequence[str], colour: str, limits: Mapping[str, tuple[float, float]],
                     largest: int) -> list[Plot]:
    """Return one plot for each of the `largest` entries of values (n, len(names)) that move most, in their own order."""
    time = episode.time[: len(values)]
    spread = values.std(axis=0)
    moving = sorted(np.argsort(-spread, kind="stable")[:largest].tolist()) if len(names) > largest else range(len(names))
    plots = []
    for i in moving:
        figure, axes = new_axes("time [s]", width=330, height=175)
        held = len(values) < len(episode.time)
        axes.plot(time, values[:, i], color=colour, linewidth=1.5, drawstyle="steps-post" if held else "default")
        if names[i] in limits:
            low, high = limits[names[i]]
            for limit in (low, high):
                axes.axhline(limit, color=MUTED, linewidth=1, dashes=(2, 3))
            axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
        axes.margins(x=0.01)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        lowest, highest = float(values[:, i].min()), float(values[:, i].max())
        plots.append(Plot(names[i], figure, f"From {number(lowest)} to {number(highest)} along the trial."))
    return plots


def _error_plot(title: str, lines: Mapping[str, list[tuple[int, float]]], colours: Sequence[str], note: str) -> Plot:
    figure, axes = new_axes("trial", "relative error", width=420, height=240)
    legend, everything = [], []
    for (name, points), colour in zip(lines.items(), colours, strict=False):
        trials, errors = np.array(points, dtype=float).T
        everything.append((trials, errors))
        axes.plot(trials, errors, "o-", color=colour, linewidth=1.6, markersize=4.5)
        legend.append(Key(name, colour))
    errors = np.concatenate([values for _, values in everything])
    if errors.min() > 0 and errors.max() > 5 * errors.min():
        plain_log_axis(axes)
    if errors.max() > 0.6:
        axes.axhline(1, color=MUTED, linewidth=1.2, dashes=(5, 4))
        legend.append(Key("no better than the mean", MUTED, "dashed"))
    _trial_axis(axes, np.concatenate([trials for trials, _ in everything]))
    last = "; ".join(f"{name}: {number(points[-1][1])}" for name, points in lines.items())
    return Plot(title, figure, f"Newest errors: {last}.", tuple(legend) if len(legend) > 1 else (), note)


def _trial_axis(axes: Axes, trials: np.ndarray) -> None:
    axes.set_xlim(trials.min() - 0.6, trials.max() + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.spines["bottom"].set(visible=True, color=INK, alpha=0.25)


def _largest(sizes: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Return the names of the largest entries and the rest, both in their own order."""
    if len(sizes) <= _LARGEST_TERMS + 1:
        return list(sizes), []
    kept = set(sorted(sizes, key=lambda name: -sizes[name])[:_LARGEST_TERMS])
    return [name for name in sizes if name in kept], [name for name in sizes if name not in kept]


def _finite(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _number(value: float | None) -> float:
    return float(value) if value is not None and np.isfinite(value) else 0.0
