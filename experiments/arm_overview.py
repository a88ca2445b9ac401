"""A demonstration on an arm in one picture, for a page that shows no films."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.arm_figures import draw_errors, draw_travel, phase_colours
from experiments.arm_phases import LivedPhase, Phase, live_again
from experiments.arm_video import choose_clips, photograph
from experiments.report.drawing import CARD, GRID, INK, MUTED, SERIES, WARN
from experiments.run_directory import replace_file
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, ReflexarcError

logger = logging.getLogger(__name__)

_PAINT = dict(zip((INK, MUTED, GRID, CARD, WARN, *SERIES), (
    "#16191f", "#5c6470", "#e4e7ec", "#ffffff", "#c22f3d", "#2461d6", "#d4691b", "#0f8a63", "#8449c4", "#c73d6b", "#a17a05", "#1487a0",
    "#6b7280"), strict=True))
"""The report's light colours."""


def write_overview(path: Path, phases: Sequence[Phase], arm: Arm) -> Path:
    """Write a PNG, and return `path`: the arm at work (left out where no pictures can be drawn), where it ended, and the way there.

    ConfigurationError where no phase was judged.
    """
    judged = [phase for phase in phases if phase.judged]
    if not judged:
        raise ConfigurationError("write_overview: expected a phase that reached for goals, got none")
    lived = [one for one in live_again(judged, arm).phases if any(len(time) for time, _ in one.distances)]
    picture = _photograph(lived, arm)
    widths = [*([1.25] if picture is not None else []), 1.15, *([1.0] if lived else [])]
    figure = Figure(figsize=(4.4 * sum(widths) / 1.1, 3.9), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(1, len(widths), width_ratios=widths)))
    if picture is not None:
        shown = axes.pop(0)
        shown.imshow(picture)
        shown.set_axis_off()
    _style(axes[0], "where it ended [mm from the goal]", "")
    draw_errors(axes[0], judged, _PAINT.__getitem__)
    if lived:
        _style(axes[1], "on the way there [mm], median", "time since the goal was given [s]")
        draw_travel(axes[1], lived, _PAINT.__getitem__)
        colours = phase_colours([one.phase for one in lived])
        axes[1].legend([Line2D([], [], color=_PAINT[colour], linewidth=2.0) for colour in colours.values()], list(colours), frameon=False,
                       fontsize=8.5, labelcolor=_PAINT[INK])
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, out.getvalue())
    return path


def _photograph(lived: Sequence[LivedPhase], arm: Arm) -> np.ndarray | None:
    clips = choose_clips(lived, arm)
    try:
        return photograph(clips, arm) if clips else None
    except ReflexarcError as error:
        logger.warning("overview: no picture of the arm: %s", error)
        return None


def _style(axes: Axes, title: str, x_label: str) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PAINT[GRID])
    axes.grid(True, axis="y", color=_PAINT[GRID], linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=_PAINT[MUTED], labelsize=8.5, length=0, pad=5)
    axes.set_title(title, color=_PAINT[INK], fontsize=10.5, loc="left", pad=20)
    axes.set_xlabel(x_label, color=_PAINT[MUTED], fontsize=9)
