"""What a person watches while a run learns."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dynamics.neural_ensemble import FitReport
from episodes.episode import Episode
from policies.episode_loop import Recording
from policies.trial import TrialRecord

_COLUMNS = "trial  acted by          return   best  one-step  10-step    plan ms   fit s   total s"


class ProgressDisplay:
    """A line for every finished trial, and a bar for the one being lived; plain lines where the output is no terminal."""

    def __init__(self, console: Console, trials: int, done: list[TrialRecord]) -> None:
        self._console, self._trials = console, trials
        self._best = max((record.total_return for record in done), default=-float("inf"))
        self._started = time.perf_counter()
        self._before = len(done)
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                                  TextColumn("{task.fields[note]}"), TextColumn("left"), TimeRemainingColumn(), console=console,
                                  transient=True, disable=not console.is_terminal)
        self._bar: TaskID | None = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._console.print(_COLUMNS, style="bold", highlight=False)
        self._progress.start()
        self._bar = self._progress.add_task("starting", total=None, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def trial_started(self, trial: int, provenance: str, steps: int) -> None:
        self._progress.update(self._bar, description=f"trial {trial}/{self._trials - 1} {provenance}", total=self._trials * steps,
                              completed=trial * steps, note="")
        self._steps = steps

    def fitting(self, trial: int) -> None:
        self._progress.update(self._bar, note=f"fitting the model for trial {trial}")

    def fitted(self, trial: int, report: FitReport) -> None:
        self._progress.update(self._bar, note=f"fitted in {report.seconds:.1f} s, loss {report.training_loss:.2f}")

    def stepped(self, trial: int, recording: Recording) -> None:
        now = time.perf_counter()
        if now - self._shown > 0.1 and recording.steps:
            self._shown = now
            self._progress.update(self._bar, completed=trial * self._steps + recording.steps,
                                  note=f"return so far {-sum(recording.cost):.1f}")

    def trial_finished(self, record: TrialRecord, episode: Episode) -> None:
        self._best = max(self._best, record.total_return)
        self._console.print(trial_line(record, self._best, time.perf_counter() - self._started), highlight=False)


def trial_line(record: TrialRecord, best: float, elapsed: float) -> str:
    """Return a finished trial as one line."""
    def number(value: float | None, form: str) -> str:
        return format(value, form) if value is not None else "-".rjust(int(form.split(".")[0]))

    ten = record.k_step_error.get("10")
    return (f"{record.trial:5d}  {record.provenance:<16s} {record.total_return:7.1f} {best:6.1f}  {number(record.one_step_error, '8.3f')} "
            f"{number(ten, '8.3f')} {number(record.plan_milliseconds_median, '10.1f')} {record.fit_seconds:7.1f} {elapsed:9.1f}")


def make_console() -> Console:
    """Return the console of the command line."""
    return Console(file=sys.stdout, soft_wrap=True)
