"""How far the planners' comparison is, and how long what is left will take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from experiments.bench.planners_cells import Asked, Cell
from experiments.report.numbers import duration

SHOWN_EVERY = 0.5
"""[s]"""


class Remaining:
    """Learns from every cell what a control period costs in time, and from cells of another seed or of other code what this one may."""

    def __init__(self, kept: Iterable[Cell]) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = {}
        for cell in kept:
            self.learn(cell)

    def learn(self, cell: Cell) -> None:
        """Take account of a cell; the newest of its like counts."""
        for like in _likes(cell.asked):
            self._seconds.setdefault(like, []).append(cell.seconds / cell.asked.steps)

    def seconds(self, left: Sequence[Asked]) -> float | None:
        """Return what these take together [s]; None while nothing is known."""
        expected = [self._of(asked) for asked in left]
        return None if None in expected else sum(expected)

    def words(self, left: Sequence[Asked]) -> str:
        """Return that in words; empty while nothing is known."""
        seconds = self.seconds(left)
        return "" if seconds is None else f"about {duration(seconds) if seconds >= 60 else f'{seconds:.0f} s'} left"

    def _of(self, asked: Asked) -> float | None:
        for like in _likes(asked):
            if like in self._seconds:
                known = self._seconds[like]
                return asked.steps * (known[-1] if len(like) == 3 else sum(known) / len(known))
        return None


class EpisodesProgress:
    """A bar of the control periods of all episodes. It is drawn between plans: drawn by a thread of its own it would make plans late."""

    def __init__(self, episodes: Sequence[Asked], left: str, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal, auto_refresh=False)
        self._bar = self._progress.add_task("control periods", total=sum(asked.steps for asked in episodes), left=left)
        self._episodes, self._drawn = episodes, -math.inf

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, number: int) -> None:
        """Say which of the episodes begins."""
        asked = self._episodes[number]
        self._progress.update(self._bar, description=f"{asked.task} {asked.planner}, equal {asked.equal}, seed {asked.seed}", refresh=True)

    def advance(self) -> None:
        """Count a control period."""
        now = time.perf_counter()
        self._progress.update(self._bar, advance=1, refresh=now - self._drawn > SHOWN_EVERY)
        if now - self._drawn > SHOWN_EVERY:
            self._drawn = now

    def end(self, number: int, left: str) -> None:
        """Count all periods up to the end of an episode, lived or not, and say how long the others will take."""
        self._progress.update(self._bar, completed=sum(asked.steps for asked in self._episodes[:number + 1]), left=left, refresh=True)


def _likes(asked: Asked) -> list[tuple[str, ...]]:
    """Return what an episode is compared by, the closest first."""
    return [(asked.task, asked.planner, asked.equal), (asked.planner, asked.equal), (asked.equal,), ()]
