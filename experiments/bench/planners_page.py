"""The planners' page: tables made from the cells, between two markers of a Markdown file that people may write around."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.bench.marked_page import replace_tables
from experiments.bench.planners_cells import Cell
from experiments.bench.planners_field import BUDGET_MS, ENTRANTS, TASKS, UNBOUNDED
from experiments.bench.planners_marks import legend, marks, why
from experiments.report.numbers import count, duration

START, END = "<!-- planners -->", "<!-- planners end -->"
_EFFORT = ("What a plan was given and made of it, median: candidates a round x rounds; for planners that do not draw whole plans rounds "
           "(simulations of trees) of those that it was given.")
_NEW_PAGE = f"""# The planners compared

Every planner controls the same machines through the same simulator, plans anew in every control period, and is scored by the task:
dm_control's tasks pay 0 to 1 a period, our arms' cost. *Equal time*: a plan may take so many milliseconds, with as many candidates and
iterations as fit. *Equal rollouts*: a plan may simulate so many rollouts over its horizon, what derivatives take included. The text
between the markers is written by `reflexarc bench planners`, which may be stopped and goes on.

{START}
{END}
"""


def write_page(page: Path, cells: Sequence[Cell], picture: str, table: str, here: str, today: str, left_out: int = 0) -> None:
    """Bring the tables of `page` up to date; a missing page is made. StoreError where it has no markers or cannot be read or written.

    `here`, `today`: this computer and its code, as in cells; figures of others are marked. `left_out`: cells that were lived with other
    settings, and are not shown.
    """
    replace_tables(page, _NEW_PAGE, START, END, lambda: make_tables(cells, picture, table, here, today, left_out))


def make_tables(cells: Sequence[Cell], picture: str, table: str, here: str, today: str, left_out: int = 0) -> str:
    """Return Markdown: who scored what at equal time and at equal rollouts, with how much effort and time, and why fields are empty."""
    seeds = sorted({cell.asked.seed for cell in cells})
    page = _Fields(_present(cells, "task", TASKS), _present(cells, "planner", ENTRANTS), len(seeds), here, today)
    timed = [cell for cell in cells if cell.asked.equal == "time"]
    counted = [cell for cell in cells if cell.asked.equal == "rollouts"]
    over = "one seed" if len(seeds) == 1 else f"median over {len(seeds)} seeds, and the range"
    parts = ["", f"![every planner's score on every task]({picture})", ""]
    if timed:
        parts += [f"Reward a control period at equal time, {timed[0].asked.allowance:g} ms a plan: {over}. Last the mean over dm_control's "
                  "tasks, for those that lived them all.", "", *page.matrix(timed, page.score, mean=True), "",
                  "What a plan took in that comparison [ms], median and 95 %, and the share of the plans within the budget. Python's "
                  "garbage collections wait until a plan is made, and are in none of these times.", "",
                  *page.matrix(timed, page.times), "", f"{_EFFORT} The population is what the budget was found to take.", "",
                  *page.matrix(timed, page.effort), ""]
    if counted:
        parts += [f"Reward a control period at equal rollouts, {counted[0].asked.allowance:g} a plan: {over}.", "",
                  *page.matrix(counted, page.score, mean=True), "", "Rollouts that a plan took there, and milliseconds.", "",
                  *page.matrix(counted, page.work), "", _EFFORT, "", *page.matrix(counted, page.effort), ""]
    for line in legend(cells, here, today):
        parts += [line, ""]
    if left_out:
        parts += [f"Kept but not shown: {count(left_out, 'episode')} with other settings, another budget or another length.", ""]
    if reasons := _reasons(cells):
        parts += ["Not lived, or not to the end:", "", *reasons, ""]
    parts += [f"{_lived(cells)} All figures, with all settings of every planner: [{table}]({table}).", "",
              f"Made by `{_command(cells, seeds)}` on {'; '.join(sorted({cell.machine for cell in cells}))}, in "
              f"{duration(sum(cell.seconds for cell in cells))}."]
    return "\n".join([*parts, ""])


def _lived(cells: Sequence[Cell]) -> str:
    """Return how long episodes are and how far plans look ahead, by task."""
    told = []
    for name in _present(cells, "task", TASKS):
        same = [cell for cell in cells if cell.asked.task == name]
        ahead = ", ".join(dict.fromkeys(value for cell in same if (value := cell.setting("horizon")) is not None))
        told.append(f"{name} {same[0].asked.steps}{f' ({ahead})' if ahead else ''}")
    return f"Control periods lived from the start (and that a plan looks ahead): {', '.join(told)}."


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


@dataclass(frozen=True)
class _Fields:
    """The tables of a page: every task and planner of it in all of them."""

    tasks: list[str]
    planners: list[str]
    seeds: int
    here: str
    today: str

    def matrix(self, cells: Sequence[Cell], show: Callable[[list[Cell]], str], mean: bool = False) -> list[str]:
        """Return a table of planners by tasks; `show` gets the cells of all seeds of one field. With a mean, planners that lived nothing
        have a line too."""
        head = ["planner", *(name.removeprefix("dmc:") for name in self.tasks), *(["mean"] if mean else [])]
        lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
        for planner in self.planners:
            of_tasks = [[c for c in cells if (c.asked.planner, c.asked.task) == (planner, task)] for task in self.tasks]
            fields = [show(same) for same in of_tasks]
            if mean:
                fields.append(self._mean(of_tasks))
            elif not any(fields):
                continue
            lines.append(f"| {' | '.join([planner, *fields])} |")
        return lines

    def score(self, same: list[Cell]) -> str:
        """Return the median, its marks, the range, and of how many seeds it is where some are missing; without a score, why."""
        scores = [cell.score for cell in same if cell.score is not None]
        if not scores:
            return why(same) + self._marks(same)
        spread = f" [{min(scores):.3g}, {max(scores):.3g}]" if len(scores) > 1 else ""
        missing = f" ({len(scores)} of {self.seeds} seeds)" if len(scores) < self.seeds else ""
        return f"{statistics.median(scores):.3g}{self._marks(same)}{spread}{missing}"

    def times(self, same: list[Cell]) -> str:
        median, most, within = (_median(same, name) for name in ("plan_ms", "plan_ms_95", "within"))
        if median is None:
            return ""
        return f"{median:.1f}" if most is None or within is None else f"{median:.1f}, {most:.1f}, {within:.1%}"

    def work(self, same: list[Cell]) -> str:
        rollouts, milliseconds = _median(same, "rollouts"), _median(same, "plan_ms")
        if milliseconds is None:
            return ""
        return f"{milliseconds:.1f} ms" if rollouts is None else f"{rollouts:.0f}, {milliseconds:.1f} ms"

    def effort(self, same: list[Cell]) -> str:
        """Return '48 x 3' for planners that sample, candidates and rounds, and '3 of 5' rounds for others, or '3' where time ended them."""
        rounds, lived = _median(same, "rounds"), [cell for cell in same if cell.rounds is not None]
        if rounds is None:
            return ""
        entrant = ENTRANTS[same[0].asked.planner]
        given = _range(cell.setting("population" if entrant.samples else entrant.effort) for cell in lived)
        if entrant.samples:
            return f"{given or '?'} x {rounds:g}"
        return f"{rounds:g} of {given}" if given and given != str(UNBOUNDED) else f"{rounds:g}"

    def _mean(self, of_tasks: list[list[Cell]]) -> str:
        paid = [_median(same, "score") for task, same in zip(self.tasks, of_tasks, strict=True) if TASKS[task].rewarded]
        if not paid or None in paid:
            return ""
        marked = self._marks([cell for task, same in zip(self.tasks, of_tasks, strict=True) if TASKS[task].rewarded for cell in same])
        return f"**{statistics.mean(paid):.3f}**{marked}"

    def _marks(self, same: Sequence[Cell]) -> str:
        return marks(same, self.here, self.today)


def _range(settings: Iterable[str | None]) -> str:
    """Return '44' or '44 to 52' for whole numbers, '' where none is known."""
    sizes = sorted(int(size) for size in settings if size is not None)
    return "" if not sizes else f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"


def _median(same: Sequence[Cell], name: str) -> float | None:
    known = [value for cell in same if (value := getattr(cell, name)) is not None]
    return statistics.median(known) if known else None
