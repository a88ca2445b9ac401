"""What a rung of the ladder says of itself: its defaults, and its figures beside the bars."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from experiments.bench.ladder import LADDER, LadderTask
from experiments.bench.ladder_rows import Curve, at, last_three
from experiments.bench.result import Bar, BenchResult, Cell


def print_ladder(console: Console) -> None:
    """Print every rung with its defaults."""
    table = Table(title="The learning ladder: reflexarc bench learn --task NAME", title_justify="left", box=None)
    for column, justify in (("task", "left"), ("seeds", "right"), ("control periods", "right"), ("at most", "right"),
                            ("bars: median raw return @periods", "left"), ("published", "left")):
        table.add_column(column, justify=justify, no_wrap=column == "task")
    for entry in LADDER.values():
        bars = ", ".join(f"{bar:g} @{steps}" for steps, bar in entry.bars.items()) or "none"
        published = ", ".join(f"{point.value:g} @{point.steps}" for point in entry.published)
        sources = ", ".join(dict.fromkeys(point.label for point in entry.published))
        table.add_row(entry.task, str(entry.seeds), str(entry.steps), str(entry.longest), bars,
                      f"{published} ({sources})" if published else "none")
    console.print(table)


def tell_later_marks(console: Console, entry: LadderTask, steps: int) -> None:
    """Print the bars that are not judged and the published figures that lie beyond `steps`."""
    later = [f"{bar:g} @{mark}" for mark, bar in entry.bars.items() if mark > steps]
    if later:
        console.print(f"not judged, because beyond {steps} control periods: the bars {', '.join(later)}", highlight=False)
    for point in entry.published:
        if point.steps > steps:
            console.print(f"published, for later: {point.value:g} @{point.steps} ({point.label})", highlight=False)


def make_result(entry: LadderTask, seeds: Mapping[int, Curve], steps: int, machine_name: str) -> BenchResult:
    """Return the raw returns of every seed, their median, and the median of the running maxima beside what was published."""
    marks = sorted({*(mark for mark in entry.marks if mark <= steps), steps})
    lived = {seed: [row for row in curve if row.steps_total <= steps] for seed, curve in seeds.items()}
    rows: list[tuple[Cell, ...]] = []
    for seed, curve in lived.items():
        found = [at(seeds[seed], mark) for mark in marks]
        rows.append((seed, len(curve), last_three(curve), *(None if row is None else row.raw_return for row in found),
                     curve[-1].running_max, *_upside_down(entry, curve), curve[-1].wall_s_total))
    if len(rows) > 1:
        rows.append(("median", *(_median(row[i] for row in rows) for i in range(1, len(rows[0])))))
    best = [_median(None if (row := at(curve, mark)) is None else row.running_max for curve in seeds.values()) for mark in marks]
    blank = (None,) * (len(rows[0]) - 3 - len(marks))
    rows.append(("running max, median", None, None, *best, *blank))
    for label in dict.fromkeys(point.label for point in entry.published if point.steps <= steps):
        points = {point.steps: point.value for point in entry.published if point.label == label}
        rows.append((label, None, None, *(points.get(mark) for mark in marks), *blank))
    columns = ("seed", "trials", "last 3", *(f"@{mark}" for mark in marks), "running max",
               *(("upside down",) if entry.pitch is not None else ()), "s")
    bars = []
    for mark, bar in entry.bars.items():
        if mark <= steps:
            median = _median(None if (row := at(curve, mark)) is None else row.raw_return for curve in seeds.values())
            bars.append(Bar(f"median raw return @{mark}", float("nan") if median is None else median, bar, at_least=True))
    return BenchResult(f"learn {entry.task}", columns, rows, bars, machine_name)


def _upside_down(entry: LadderTask, curve: Curve) -> tuple[Cell, ...]:
    return () if entry.pitch is None else (_median(row.upside_down for row in curve[-3:]),)


def _median(values: Iterable[Cell]) -> float | None:
    found = [value for value in values if isinstance(value, int | float)]
    return statistics.median(found) if found else None
