"""The figures of an arm's demonstration: how near it came, what it learned, and how much of its limits it used.

`paint` turns the report's stand-in colours (experiments/report/drawing.py) into those of another page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from episodes.episode import Episode
from experiments.arm_phases import LivedPhase, Phase
from experiments.report.drawing import CARD, GRID, INK, MUTED, SERIES, WARN, Key, Plot, new_axes, plain_log_axis, series_colours
from experiments.report.numbers import count, number
from robots.arms.arm import Arm

GOAL_BAR = 0.010
"""A goal counts as reached within this [m]."""
_TRAVEL = 60
"""Moments at which the median over a phase's goals is drawn."""

Paint = Callable[[str], str]


def draw_errors(axes: Axes, phases: Sequence[Phase], paint: Paint = str) -> None:
    """Draw the final errors of phases that were judged: a dot a goal, the median as a line, the bar of 10 mm."""
    colours = phase_colours(phases)
    for i, phase in enumerate(phases):
        errors = np.sort(phase.errors) * 1e3
        aside = 0.22 * np.sin(2.4 * np.arange(len(errors)))  # dots that would cover each other stand apart, the same each time
        axes.plot(i + aside, errors, "o", color=paint(colours[phase.name]), markersize=6, markeredgecolor=paint(CARD), markeredgewidth=0.8,
                  alpha=0.85)
        axes.plot([i - 0.34, i + 0.34], [phase.median * 1e3] * 2, color=paint(INK), linewidth=2.4, solid_capstyle="round")
        axes.annotate(f"{number(phase.median * 1e3, 2)} mm", (i, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                      textcoords="offset points", ha="center", fontsize=10.5, color=paint(INK))
    axes.axhline(GOAL_BAR * 1e3, color=paint(WARN), linewidth=1.2, dashes=(5, 4))
    axes.set_xlim(-0.55, len(phases) - 0.45)
    axes.set_ylim(bottom=0.0)
    axes.set_xticks(range(len(phases)), [textwrap.fill(phase.name, 15 if len(phases) < 5 else 11) for phase in phases])


def draw_travel(axes: Axes, phases: Sequence[LivedPhase], paint: Paint = str) -> None:
    """Draw how far the end effector was from its goal over time: the median over the goals of every phase."""
    colours = phase_colours([lived.phase for lived in phases])
    for lived in phases:
        moments, middle = _median_travel(lived)
        axes.plot(moments, middle * 1e3, color=paint(colours[lived.phase.name]), linewidth=2.0)
    axes.axhline(GOAL_BAR * 1e3, color=paint(WARN), linewidth=1.2, dashes=(5, 4))
    plain_log_axis(axes)
    axes.margins(x=0.01)


def phase_colours(phases: Sequence[Phase]) -> dict[str, str]:
    """Return a stand-in colour for the name of every phase that was judged."""
    return series_colours(dict.fromkeys(phase.name for phase in phases if phase.judged))


def final_errors(phases: Sequence[Phase]) -> Plot:
    """Return the final errors of phases that were judged."""
    figure, axes = new_axes("", "final distance from the goal [mm]", width=500, height=290)
    draw_errors(axes, phases)
    said = "; ".join(f"{phase.name}: median {number(phase.median * 1e3)} mm, worst {number(float(phase.errors.max()) * 1e3)} mm"
                     for phase in phases)
    return Plot("Where it ended", figure, said, (Key("a goal", SERIES[0], "dot"), Key("median", INK), Key("10 mm", WARN, "dashed")),
                "By the arm's own encoders, mean of each goal's last moments.")


def travel(phases: Sequence[LivedPhase]) -> Plot:
    """Return the median distance over time of every phase."""
    figure, axes = new_axes("time since the goal was given [s]", "distance [mm]", width=330, height=290)
    draw_travel(axes, phases)
    colours = phase_colours([lived.phase for lived in phases])
    return Plot("On the way there", figure, "Median distance from the goal over time.",
                (*(Key(name, colour) for name, colour in colours.items()), Key("10 mm", WARN, "dashed")), "Medians over the goals.")


def travel_of_each(phases: Sequence[LivedPhase]) -> list[Plot]:
    """Return for every phase the distance over time of each of its goals, on one scale."""
    colours, plots = phase_colours([lived.phase for lived in phases]), []
    values = np.concatenate([distance for lived in phases for _, distance in lived.distances])
    for lived in phases:
        figure, axes = new_axes("time since the goal was given [s]", "distance [mm]", width=330, height=210)
        for time, distance in lived.distances:
            axes.plot(time, distance * 1e3, color=colours[lived.phase.name], linewidth=1.0, alpha=0.55)
        axes.plot(*(_median_travel(lived) * np.array([[1.0], [1e3]])), color=INK, linewidth=2.0)
        axes.axhline(GOAL_BAR * 1e3, color=WARN, linewidth=1.2, dashes=(5, 4))
        axes.set_ylim(max(values.min() * 0.8e3, 0.2), values.max() * 1.2e3)
        plain_log_axis(axes)
        axes.margins(x=0.01)
        plots.append(Plot(lived.phase.name, figure, f"{count(len(lived.distances), 'goal')}, median thick."))
    return plots


def learning(episodes: Sequence[Episode], final: np.ndarray) -> list[Plot]:
    """Return what every trial earned, and how far from its goal it ended, `final` (n,) [m]; NaN where its states do not tell."""
    trials, by_model = np.arange(len(episodes)), np.array([episode.metadata.model_version is not None for episode in episodes])
    plots = []
    for title, values, label, log in (("Final distance of every trial", final * 1e3, "final distance [mm]", True),
                                      ("Return of every trial", np.array([e.total_return for e in episodes]), "return", False)):
        if not np.isfinite(values).all() or (log and not (values > 0).all()):
            continue
        figure, axes = new_axes("trial", label, width=420, height=250)
        axes.plot(trials, values, color=SERIES[0], linewidth=1.2, alpha=0.5)
        axes.plot(trials[by_model], values[by_model], "o", color=SERIES[0], markersize=6.5, markeredgecolor=CARD, markeredgewidth=1)
        axes.plot(trials[~by_model], values[~by_model], "o", markerfacecolor=CARD, markeredgecolor=MUTED, markersize=6.5,
                  markeredgewidth=1.6)
        legend = [Key("through the model", SERIES[0], "dot"), Key("random motion", MUTED, "ring")]
        if log:
            axes.axhline(GOAL_BAR * 1e3, color=WARN, linewidth=1.2, dashes=(5, 4))
            plain_log_axis(axes)
            legend.append(Key("10 mm", WARN, "dashed"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plots.append(Plot(title, figure, f"From {number(float(values[0]))} in the first trial to {number(float(values[-1]))} in the last.",
                          tuple(legend), "Every trial has another goal and another start."))
    return plots


def shares_of_limits(phases: Sequence[LivedPhase], arm: Arm) -> list[Plot]:
    """Return the largest measured speed and torque of every joint in every phase, as shares of the arm's limits."""
    limits = arm.spec.limits
    plots = []
    for title, name, largest in (("Speed", "dq", limits.velocity_max), ("Torque", "tau", limits.torque_max)):
        shares = worst_shares(phases, name, largest)
        if not np.isfinite(shares).any():
            continue
        figure, axes = new_axes("largest share of the limit [%]", width=420, height=70 + 30 * len(phases))
        colours = series_colours(arm.spec.joint_names)
        for j, colour in enumerate(colours.values()):
            axes.plot(shares[:, j] * 100.0, np.arange(len(phases)) + 0.09 * (j - (arm.spec.nv - 1) / 2), "o", color=colour, markersize=5.5)
        axes.axvline(100.0, color=WARN, linewidth=1.4)
        axes.set_xlim(0.0, max(105.0, float(np.nanmax(shares)) * 105.0))
        axes.set_yticks(range(len(phases)), [textwrap.fill(lived.phase.name, 22) for lived in phases])
        axes.invert_yaxis()
        axes.grid(True, axis="x", color=GRID, linewidth=1)
        phase, joint = np.unravel_index(np.nanargmax(shares), shares.shape)
        note = (f"Worst: {number(float(shares[phase, joint]) * 100.0)} % of {arm.spec.joint_names[joint]}'s limit, in "
                f"{phases[phase].phase.name!r}.")
        legend = (*(Key(name, colour, "dot") for name, colour in colours.items()), Key("limit", WARN))
        plots.append(Plot(title, figure, note, legend, note))
    return plots


def worst_shares(phases: Sequence[LivedPhase], name: str, limits: np.ndarray) -> np.ndarray:
    """Return the largest |rows[name]| / limits (len(phases), nv); NaN where nothing was measured."""
    measured = [np.abs(lived.rows[name]) for lived in phases]
    return np.array([np.where(np.isfinite(values).any(axis=0), np.nan_to_num(values).max(axis=0, initial=0.0), np.nan) / limits
                     for values in measured])


def _median_travel(lived: LivedPhase) -> np.ndarray:
    """Return moments [s] and the median distance over the goals [m]: (2, n), as long as every goal's record is."""
    known = [(time, distance) for time, distance in lived.distances if len(time)]
    if not known:
        return np.zeros((2, 0))
    moments = np.linspace(0.0, min(time[-1] for time, _ in known), _TRAVEL)
    return np.stack([moments, np.median([np.interp(moments, *one) for one in known], axis=0)])
