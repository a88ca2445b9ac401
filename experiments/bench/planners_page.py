"""The planners' page: tables made from the cells, between two markers of a Markdown file that people may write around."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.bench.marked_page import replace_tables
from experiments.bench.planners_cells import Cell
from experiments.bench.planners_field import BUDGET_MS, ENTRANTS, TASKS
from experiments.report.numbers import duration

START, END = "<!-- planners -->", "<!-- planners end -->"
_NEW_PAGE = f"""# The planners compared

Every planner controls the same machines through the same simulator, plans anew in every control period, and is scored by the task:
dm_control's tasks pay 0 to 1 a period, our arms' cost. *Equal time*: a plan may take so many milliseconds, with as many candidates and
iterations as fit. *Equal rollouts*: a plan may simulate so many rollouts over its horizon, what derivatives take included. The text
between the markers is written by `reflexarc bench planners`, which may be stopped and goes on.

{START}
{END}
"""


def write_page(page: Path, cells: Sequence[Cell], picture: str, table: str) -> None:
    """Bring the tables of `page` up to date; a missing page is made. StoreError where it has no markers or cannot be read or written."""
    replace_tables(page, _NEW_PAGE, START, END, lambda: make_tables(cells, picture, table))


def make_tables(cells: Sequence[Cell], picture: str, table: str) -> str:
    """Return Markdown: who scored what at equal time and at equal rollouts, how long plans took, and why fields are empty."""
    timed = [cell for cell in cells if cell.asked.equal == "time"]
    counted = [cell for cell in cells if cell.asked.equal == "rollouts"]
    seeds = sorted({cell.asked.seed for cell in cells})
    parts = ["", f"![every planner's score on every task]({picture})", ""]
    if timed:
        parts += [f"Reward a control period at equal time, {timed[0].asked.allowance:g} ms a plan: median over {len(seeds)} seed(s), and "
                  "the range. An asterisk: more than one plan in a hundred took longer. Last the mean over dm_control's tasks, for those "
                  "that lived them all.", "", *_matrix(timed, _score, mean=True), "",
                  "What a plan took in that comparison [ms], median and 95 %, and the share of the plans within the budget.", "",
                  *_matrix(timed, _times), ""]
    if counted:
        parts += [f"Reward a control period at equal rollouts, {counted[0].asked.allowance:g} a plan.", "",
                  *_matrix(counted, _score, mean=True), "", "Rollouts that a plan took there, and milliseconds.", "",
                  *_matrix(counted, _work), ""]
    if reasons := _reasons(cells):
        parts += ["Not lived, or not to the end:", "", *reasons, ""]
    lived = ", ".join(f"{name} {next(c.asked.steps for c in cells if c.asked.task == name)}" for name in _present(cells, "task", TASKS))
    machines = "; ".join(sorted({cell.machine for cell in cells}))
    parts += [f"Control periods lived, from the start: {lived}. All figures, with the settings: [{table}]({table}).", "",
              f"Made by `{_command(cells, seeds)}` on {machines}, in {duration(sum(cell.seconds for cell in cells))}."]
    return "\n".join([*parts, ""])


def _command(cells: Sequence[Cell], seeds: list[int]) -> str:
    words = ["reflexarc bench planners"]
    words.append(f"--seeds {len(seeds)}" if seeds == list(range(len(seeds))) else f"--seed-list {' '.join(map(str, seeds))}")
    words += [f"--budget-ms {other:g}" for other in {c.asked.allowance for c in cells if c.asked.equal == "time"} - {BUDGET_MS}]
    words += [f"--steps {other}" for other in {c.asked.steps for c in cells if c.asked.steps != TASKS[c.asked.task].steps}]
    return " ".join(words)


def _reasons(cells: Sequence[Cell]) -> list[str]:
    """Return a line for every planner and reason, with the tasks that it holds for."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.note:
            found.setdefault((cell.asked.planner, cell.note), []).append(cell)
    lines = []
    for (planner, note), same in found.items():
        equal = sorted({cell.asked.equal for cell in same})
        lines.append(f"- {planner} on {', '.join(_present(same, 'task', TASKS))}{f', equal {equal[0]}' if len(equal) == 1 else ''}: {note}")
    return lines


def _present(cells: Sequence[Cell], field: str, table: dict) -> list[str]:
    found = {getattr(cell.asked, field) for cell in cells}
    return [name for name in table if name in found]


def _matrix(cells: Sequence[Cell], show: Callable[[list[Cell]], str], mean: bool = False) -> list[str]:
    """Return a table of planners by tasks; `show` gets the cells of all seeds of one field."""
    tasks = _present(cells, "task", TASKS)
    head = ["planner", *(name.removeprefix("dmc:") for name in tasks), *(["mean"] if mean else [])]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for planner in _present(cells, "planner", ENTRANTS):
        of_tasks = [[c for c in cells if (c.asked.planner, c.asked.task) == (planner, task)] for task in tasks]
        fields = [show(same) if same else "" for same in of_tasks]
        if mean:
            paid = [_median(same, "score") for task, same in zip(tasks, of_tasks, strict=True) if TASKS[task].rewarded]
            late = _late([cell for same in of_tasks for cell in same])
            fields.append(f"**{statistics.mean(paid):.3f}**{late}" if paid and None not in paid else "")
        lines.append(f"| {' | '.join([planner, *fields])} |")
    return lines


def _median(same: Sequence[Cell], name: str) -> float | None:
    known = [value for cell in same if (value := getattr(cell, name)) is not None]
    return statistics.median(known) if known else None


def _score(same: list[Cell]) -> str:
    scores = [cell.score for cell in same if cell.score is not None]
    if not scores:
        return ""
    spread = f" [{min(scores):.3g}, {max(scores):.3g}]" if len(scores) > 1 else ""
    return f"{statistics.median(scores):.3g}{_late(same)}{spread}"


def _late(same: Sequence[Cell]) -> str:
    return "*" if any(cell.within is not None and cell.within < 0.99 for cell in same) else ""


def _times(same: list[Cell]) -> str:
    median, most, within = (_median(same, name) for name in ("plan_ms", "plan_ms_95", "within"))
    if median is None:
        return ""
    return f"{median:.1f}" if most is None or within is None else f"{median:.1f}, {most:.1f}, {within:.1%}"


def _work(same: list[Cell]) -> str:
    rollouts, milliseconds = _median(same, "rollouts"), _median(same, "plan_ms")
    return "" if rollouts is None or milliseconds is None else f"{rollouts:.0f}, {milliseconds:.1f} ms"
