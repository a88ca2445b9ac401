"""The planners' scores as a picture."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.bench.planners_cells import Cell
from experiments.bench.planners_field import ENTRANTS, TASKS
from experiments.bench.planners_marks import OTHER_ROLLOUTS, is_late, is_unequal

_INK, _MUTED, _GRID = "#1f2430", "#6b7280", "#e5e7eb"
_KINDS = {"time": ("#1f6fb5", 0.13, "equal time"), "rollouts": ("#c2410c", -0.13, "equal rollouts")}
_COLUMNS = 3
_LEGEND_COLUMNS = 5
"""As many as fit the width; more make two lines."""


def draw_planners(cells: Sequence[Cell], today: str) -> bytes:
    """Return a PNG: a field a task, a line a planner, its median score at equal time and at equal rollouts with a bar from worst to best
    seed; open points are planners that more than one plan in a hundred kept over the budget, squares figures of other code than `today`,
    and a section sign stands at points whose plans took more or fewer rollouts than were to be equal."""
    tasks = [name for name in TASKS if any(cell.asked.task == name for cell in cells)]
    planners = [name for name in ENTRANTS if any(cell.asked.planner == name for cell in cells)]
    rows = -(-len(tasks) // _COLUMNS)
    figure = Figure(figsize=(10.5, 0.7 + rows * (0.75 + 0.24 * len(planners))), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    fields = figure.subplots(rows, _COLUMNS, sharey=True, squeeze=False).ravel()
    for axes in fields[len(tasks):]:
        axes.set_visible(False)
    for axes, task in zip(fields, tasks, strict=False):
        _style(axes, task, planners)
        for cell_kind in _KINDS:
            for line, planner in enumerate(planners):
                _draw(axes, line, [c for c in cells if (c.asked.task, c.asked.planner, c.asked.equal) == (task, planner, cell_kind)],
                      today)
    handles = [Line2D([], [], color=colour, marker="o", linestyle="none", label=_label(cells, kind, words))
               for kind, (colour, _, words) in _KINDS.items()]
    handles.append(Line2D([], [], color=_MUTED, marker="o", fillstyle="none", linestyle="none", label="budget not kept"))
    if is_unequal(cells):
        handles.append(Line2D([], [], color=_MUTED, marker=r"$\S$", linestyle="none", label="rollouts not equal"))
    if any(cell.code != today for cell in cells if cell.lived):
        handles.append(Line2D([], [], color=_MUTED, marker="s", linestyle="none", label="lived with other code"))
    handles.append(Line2D([], [], color=_MUTED, marker="x", linestyle="none", label="not lived: see the page"))
    columns = len(handles) if len(handles) <= _LEGEND_COLUMNS else -(-len(handles) // 2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=_INK)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _label(cells: Sequence[Cell], kind: str, words: str) -> str:
    allowance = next((cell.asked.allowance for cell in cells if cell.asked.equal == kind), None)
    unit = "ms" if kind == "time" else "rollouts"
    return words if allowance is None else f"{words}: {allowance:g} {unit} a plan"


def _style(axes: Axes, task: str, planners: Sequence[str]) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(True, axis="both", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=8.5, length=0, pad=4)
    axes.set_yticks(range(len(planners)), planners)
    axes.set_ylim(len(planners) - 0.5, -0.5)
    axes.set_title(task, color=_INK, fontsize=10, loc="left")
    axes.set_xlabel("reward a control period", color=_MUTED, fontsize=8)
    if TASKS[task].rewarded:
        axes.set_xlim(-0.03, 1.03)


def _draw(axes: Axes, line: int, same: Sequence[Cell], today: str) -> None:
    if not same:
        return
    colour, offset, _ = _KINDS[same[0].asked.equal]
    scores = [cell.score for cell in same if cell.score is not None]
    if not scores:
        axes.plot([0.0], [line - offset], "x", color=colour, markersize=4.5, alpha=0.6, transform=axes.get_yaxis_transform(), clip_on=False)
        return
    marker, fill = "s" if any(cell.code != today for cell in same) else "o", "none" if is_late(same) else "full"
    axes.plot([min(scores), max(scores)], [line - offset] * 2, color=colour, linewidth=1.6, alpha=0.45)
    axes.plot([statistics.median(scores)], [line - offset], marker, color=colour, markersize=5.5, fillstyle=fill)
    if is_unequal(same):
        axes.annotate(OTHER_ROLLOUTS, (statistics.median(scores), line - offset), (4.0, -6.0), textcoords="offset points", color=colour,
                      fontsize=7)
