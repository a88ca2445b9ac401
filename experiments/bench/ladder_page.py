"""The ladder's page: tables made from the CSV files, between two markers of a Markdown file that people may write around."""

from __future__ import annotations

import statistics
from pathlib import Path

from experiments.bench.ladder import LADDER, LadderTask
from experiments.bench.ladder_rows import LadderRow, at, curves, last_three, read_rows, spread
from experiments.bench.marked_page import replace_tables
from experiments.report.numbers import duration

START, END = "<!-- ladder -->", "<!-- ladder end -->"
_NEW_PAGE = f"""# The learning ladder

What robots that know nothing learn in how many control periods, beside what others published. Each rung is one command that may be
stopped and goes on: `reflexarc bench learn --task NAME`. The text between the markers is written by that command.

*Return* at N control periods is that of the last trial that had ended by then, random trials counted; a *running maximum* is the best
return so far and is called so wherever it stands. PETS published the mean over seeds of running maxima, and its code leaves the
first, random trial out of them; ours are medians over seeds, and every trial counts.

{START}
{END}
"""


def write_page(page: Path, folder: Path) -> None:
    """Bring the tables of `page` up to date with the CSV files in `folder`; a missing page is made.

    Raises StoreError where the page has no markers or a file cannot be read or written.
    """
    def tables() -> str:
        return make_tables({name: rows for name, entry in LADDER.items() if (rows := read_rows(folder / f"{entry.slug}.csv"))}, folder.name)

    replace_tables(page, _NEW_PAGE, START, END, tables)


def make_tables(by_task: dict[str, list[LadderRow]], folder: str) -> str:
    """Return Markdown: returns beside published figures, how they were made, and the curves; `folder` holds the pictures."""
    if not by_task:
        return "\nNothing has been run yet.\n"
    parts = ["", "| task | control periods | seeds | raw return, median [lowest, highest] | bar | running maximum, median | published | "
             "wall-clock a seed |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, rows in by_task.items():
        parts += _return_lines(LADDER[name], rows)
    parts += ["", "| task | median of the last 3 trials | settings | machine | command |", "| --- | --- | --- | --- | --- |"]
    parts += [_making_line(LADDER[name], rows) for name, rows in by_task.items()]
    pitched = {name: rows for name, rows in by_task.items() if any(row.upside_down is not None for row in rows)}
    if pitched:
        parts += ["", "| body's pitch in the last 3 trials, over seeds | share of periods upside down, median [lowest, highest] | "
                  "largest pitch as turned [rad] |", "| --- | --- | --- |", *(_pitch_line(name, rows) for name, rows in pitched.items())]
    for name in by_task:
        parts += ["", f"![{name}: returns over control periods]({folder}/{LADDER[name].slug}.png)"]
    return "\n".join([*parts, ""])


def _return_lines(entry: LadderTask, rows: list[LadderRow]) -> list[str]:
    """Return a line for every published step, bar, and the end of the longest curve."""
    seeds = curves(rows)
    end = max(row.steps_total for row in rows)
    lines = []
    for i, steps in enumerate(sorted({*entry.marks, end})):
        found = [row for curve in seeds.values() if (row := at(curve, steps)) is not None]
        returns, best = spread(row.raw_return for row in found), spread(row.running_max for row in found)
        published = "; ".join(f"{_short(p.value)} ({p.label})" for p in entry.published if p.steps == steps)
        cells = [entry.task if i == 0 else "", f"{steps:,}".replace(",", " "), f"{len(found)} of {len(seeds)}",
                 f"**{_short(returns.median)}** [{_short(returns.lowest)}, {_short(returns.highest)}]" if returns else "not reached",
                 f"{_short(entry.bars[steps])}{_verdict(returns and returns.median, entry.bars[steps])}" if steps in entry.bars else "",
                 _short(best.median) if best else "", published,
                 duration(statistics.median(row.wall_s_total for row in found)) if found else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _verdict(median: float | None, bar: float) -> str:
    return "" if median is None else " met" if median >= bar else " missed"


def _making_line(entry: LadderTask, rows: list[LadderRow]) -> str:
    seeds = curves(rows)
    end = max(row.steps_total for row in rows)
    machines = "; ".join(sorted({row.machine for row in rows if row.machine is not None})) or "not noted"
    listed = list(seeds) == list(range(len(seeds)))
    which = f"--seeds {len(seeds)}" if listed else f"--seed-list {' '.join(map(str, seeds))}"
    three = spread(last_three(curve) for curve in seeds.values())
    cells = [entry.task, f"{_short(three.median)} [{_short(three.lowest)}, {_short(three.highest)}]" if three else "",
             rows[-1].settings, machines, f"`reflexarc bench learn --task {entry.task} {which} --steps {end}`"]
    return f"| {' | '.join(cells)} |"


def _pitch_line(name: str, rows: list[LadderRow]) -> str:
    last = [row for curve in curves(rows).values() for row in curve[-3:] if row.upside_down is not None]
    share = spread(row.upside_down for row in last if row.upside_down is not None)
    turned = max((row.pitch_abs_max for row in last if row.pitch_abs_max is not None), default=None)
    shown = f"{share.median:.0%} [{share.lowest:.0%}, {share.highest:.0%}]" if share else ""
    return f"| {name} | {shown} | {_short(turned) if turned is not None else ''} |"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"
