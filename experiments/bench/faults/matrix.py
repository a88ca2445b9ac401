"""`reflexarc bench faults`: twins times kinds of fault times seeds."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.bench.faults.kinds import KINDS, FaultKind
from experiments.bench.faults.run import FaultRun, run_fault
from experiments.bench.faults.stage import Stage
from experiments.bench.faults.twins import TWINS, TwinSetup
from experiments.bench.result import Bar, BenchResult, Cell, machine
from hw_bridge.recorder.read_log import read_log

COLUMNS = ("twin", "fault", "runs", "rode it out", "violations", "worst time to rest [s]", "bound [s]", "in time", "cause read")


def bench_faults(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Return the whole matrix; it is lived in real time, about five seconds a run. There is no camera to freeze yet."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [run for setup in TWINS.values() for run in fault_runs(setup, KINDS, range(seeds), Path(folder), console)]
    rows = [_row(twin, kind.name, [run for run in runs if (run.twin, run.kind) == (twin, kind.name)]) for twin in TWINS for kind in KINDS]
    told = [run.cause_read for run in runs if run.cause_read is not None]
    bars = [Bar("violations", float(sum(len(run.violations) for run in runs)), 0.0, at_least=False),
            Bar("share of runs in time", float(np.mean([run.within for run in runs])), 1.0, at_least=True),
            Bar("share of stops whose cause the log tells", float(np.mean(told)), 1.0, at_least=True)]
    return BenchResult("faults", COLUMNS, rows, bars, machine(threads))


def fault_runs(setup: TwinSetup, kinds: Iterable[FaultKind], seeds: Sequence[int], folder: Path, console: Console) -> list[FaultRun]:
    """Return a run for every kind that the twin can have and every seed; logs go into `folder`."""
    stage, runs = Stage(setup, folder), []
    try:
        for kind in kinds:
            for seed in seeds if kind.name not in setup.lacks else ():
                runs.append(run_fault(stage, kind, seed))
                console.print(_line(runs[-1]), highlight=False, markup=False)
    finally:
        stage.close()
    patterns = {kind.name: kind.cause for kind in KINDS}
    for run in runs:
        if run.stopped:
            run.cause_read = bool(re.search(patterns[run.kind], events_between(run.log, *run.window_ns), re.IGNORECASE))
            if not run.cause_read:
                console.print(f"{run.twin} {run.kind} {run.seed}: the log says only: {events_between(run.log, *run.window_ns)!r}",
                              highlight=False, markup=False)
    return runs


def events_between(log: Path, begin_ns: int, end_ns: int) -> str:
    """Return the words of a log's events between two times on the host's monotonic clock [ns], a line each."""
    events = read_log(log).events
    chosen = events[(events["stamp_ns"] >= begin_ns) & (events["stamp_ns"] <= end_ns)]
    return "\n".join(f"{e['kind'].decode()}: {e['text'].decode(errors='replace')}" for e in chosen)


def _line(run: FaultRun) -> str:
    came = f"at rest after {run.seconds:.3f} s, promised {run.bound:.3f} s" if run.stopped else "ridden out"
    mark = "" if run.within and not run.violations else "  <-- " + "; ".join(["late"] * (not run.within) + run.violations[:3])
    return f"{run.twin}, {run.kind}, seed {run.seed}: {came}: {run.words}{mark}"


def _row(twin: str, kind: str, runs: list[FaultRun]) -> tuple[Cell, ...]:
    if not runs:
        return (twin, kind, *[None] * (len(COLUMNS) - 2))
    stops = [run for run in runs if run.stopped]
    told = [run.cause_read for run in stops]
    worst = max(stops, key=lambda run: run.seconds - run.bound, default=None)
    return (twin, kind, len(runs), len(runs) - len(stops), sum(len(run.violations) for run in runs),
            None if worst is None else worst.seconds, None if worst is None else worst.bound,
            f"{sum(run.within for run in runs)}/{len(runs)}", f"{sum(told)}/{len(told)}" if told else None)
