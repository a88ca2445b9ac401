"""The learning curves of a rung as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.bench.ladder import LadderTask, Published
from experiments.bench.ladder_rows import Curve, LadderRow, at, curves

_INK, _MUTED, _GRID = "#1f2430", "#6b7280", "#e5e7eb"
_RETURNS, _BEST, _OTHERS, _BAR = "#1f6fb5", "#1f6fb5", "#c2410c", "#15803d"
_OUTLINE = (withStroke(linewidth=2.5, foreground="white"),)
_SETTLING = 0.1
"""Share of the control periods whose trials need not all be seen."""
_MOSTLY = 0.5
"""A trial with a larger share of its periods upside down is marked."""


def draw_curves(entry: LadderTask, rows: list[LadderRow]) -> bytes:
    """Return a PNG: every seed thin, their median thick with a band from worst to best, the running maximum, what others published."""
    figure = Figure(figsize=(8.4, 4.7), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _style(axes)
    seeds = curves(rows)
    several = len(seeds) > 1
    for i, curve in enumerate(seeds.values()):
        axes.plot(_steps(curve), [row.raw_return for row in curve], color=_RETURNS, linewidth=0.8, alpha=0.5,
                  label="raw return of each seed" if several and i == 0 else None)
    reached = _reached_by_all(seeds)
    returns = np.array([[_known(at(curve, steps)).raw_return for steps in reached] for curve in seeds.values()])
    best = np.array([[_known(at(curve, steps)).running_max for steps in reached] for curve in seeds.values()])
    if several and reached:
        axes.fill_between(reached, returns.min(0), returns.max(0), color=_RETURNS, alpha=0.13, linewidth=0,
                          label="worst to best seed")
    if reached:
        axes.plot(reached, np.median(returns, 0), color=_RETURNS, linewidth=2.4,
                  label=f"raw return, median of {len(seeds)} seeds" if several else "raw return, one seed")
        axes.plot(reached, np.median(best, 0), color=_BEST, linewidth=1.4, dashes=(4, 2.5),
                  label="running maximum, median" if several else "running maximum")
    rolled = [row for row in rows if row.upside_down is not None and row.upside_down > _MOSTLY]
    if rolled:
        axes.plot(_steps(rolled), [row.raw_return for row in rolled], "v", color=_INK, markersize=4.5, linestyle="none",
                  label="trial lived mostly upside down")
    _draw_published(axes, entry, max(row.steps_total for row in rows))
    axes.set_xlim(left=0)
    _leave_out_the_first_steps(axes, entry, rows)
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    axes.set_title(f"{entry.task}: return of every trial, {count}", color=_INK, fontsize=12, loc="left", pad=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False, fontsize=8.5, labelcolor=_INK)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _style(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(True, axis="y", color=_GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, length=0, pad=5)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\u202f")))
    axes.set_xlabel("control periods lived", color=_MUTED, fontsize=9.5)
    axes.set_ylabel("return", color=_MUTED, fontsize=9.5)


def _draw_published(axes: Axes, entry: LadderTask, last: int) -> None:
    """Draw published figures where they lie, those beyond the curves as lines at their height, and the bars."""
    near = [point for point in entry.published if point.steps <= 1.05 * last]
    for label in dict.fromkeys(point.label for point in near):
        points = [point for point in near if point.label == label]
        axes.plot([p.steps for p in points], [p.value for p in points], "D", color=_OTHERS, markersize=6, markeredgecolor="white",
                  linestyle="none", label=label, zorder=5)
        for point in points:
            axes.annotate(f"{point.value:g}", (point.steps, point.value), xytext=(0, -13), textcoords="offset points", ha="center",
                          fontsize=8.5, color=_OTHERS, zorder=6, path_effects=_OUTLINE)
    for point in entry.published:
        if point not in near:
            _draw_far(axes, point)
    bars = {steps: bar for steps, bar in entry.bars.items() if steps <= 1.05 * last}
    if bars:
        axes.plot(list(bars), list(bars.values()), "_", color=_BAR, markersize=26, markeredgewidth=2, linestyle="none", zorder=4,
                  label="bar for the median raw return")


def _leave_out_the_first_steps(axes: Axes, entry: LadderTask, rows: list[LadderRow]) -> None:
    """Begin the upright axis higher where the first trials would take most of it, and say so."""
    last = max(row.steps_total for row in rows)
    settled = [row.raw_return for row in rows if row.steps_total > _SETTLING * last]
    shown = [*settled, *(point.value for point in entry.published), *(row.running_max for row in rows[-1:])]
    size, lowest = max(shown) - min(shown), min(row.raw_return for row in rows)
    if size > 0 and max(shown) - lowest > 3 * size:
        axes.set_ylim(min(shown) - 0.4 * size, max(shown) + 0.15 * size)
        axes.set_ylabel(f"return (the first trials lie below, from {lowest:.0f})", color=_MUTED, fontsize=9.5)


def _draw_far(axes: Axes, point: Published) -> None:
    axes.axhline(point.value, color=_OTHERS, linewidth=1.1, linestyle=(0, (1, 2)))
    axes.annotate(f"{point.label}: {point.value:g} after {point.steps:,} periods".replace(",", "\u202f"), (0.01, point.value),
                  xycoords=("axes fraction", "data"), xytext=(0, -12), textcoords="offset points", fontsize=8.5, color=_OTHERS,
                  path_effects=_OUTLINE)


def _steps(curve: Curve) -> list[int]:
    return [row.steps_total for row in curve]


def _reached_by_all(seeds: Mapping[int, Curve]) -> list[int]:
    """Return the ends of trials at which every seed's return is known."""
    ends = sorted({row.steps_total for curve in seeds.values() for row in curve})
    return [steps for steps in ends if all(at(curve, steps) is not None for curve in seeds.values())]


def _known(row: LadderRow | None) -> LadderRow:
    assert row is not None
    return row
