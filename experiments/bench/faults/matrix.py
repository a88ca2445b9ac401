"""`reflexarc bench faults`: twins times kinds of fault times seeds."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.bench.faults.kinds import KINDS, FaultKind
from experiments.bench.faults.rows import FaultRun, append_runs, code_fingerprint, in_time, read_runs
from experiments.bench.faults.run import Outcome, run_fault
from experiments.bench.faults.stage import Stage
from experiments.bench.faults.twins import TWINS, TwinSetup
from experiments.bench.options import BenchOptions
from experiments.bench.result import Bar, BenchResult, Cell, machine
from experiments.termination import sigterm_raises
from hw_bridge.recorder.read_log import read_log
from robots.errors import StoreError, UnknownNameError

COLUMNS = ("twin", "fault", "runs", "rode it out", "violations", "worst time to rest [s]", "bound [s]", "in time", "cause read")


def bench_faults(console: Console, options: BenchOptions, threads: int | None) -> BenchResult:
    """Return the matrix of `options.seeds` seeds; it is lived in real time, and goes on where an earlier call in `options.runs` stopped.

    A run that is not clean leaves its log there.
    """
    if options.twin is not None and options.twin not in TWINS:
        raise UnknownNameError("twin", options.twin, TWINS)
    folder = options.runs / "faults"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror or error}); choose another place with --runs DIR") from error
    file, seeds = folder / "runs.jsonl", range(options.seeds)
    twins = [setup for name, setup in TWINS.items() if options.twin in (None, name)]
    asked = {(setup.robot, kind.name, seed) for setup in twins for kind in KINDS if kind.name not in setup.lacks for seed in seeds}
    left = asked - {(run.twin, run.kind, run.seed) for run in read_runs(file)}
    if done := len(asked) - len(left):
        console.print(f"{done} of {len(asked)} runs were lived before, in {file}", highlight=False)
    with sigterm_raises():
        for setup in twins:
            missing = {kind: [seed for seed in seeds if (setup.robot, kind.name, seed) in left] for kind in KINDS}
            live_faults(setup, {kind: numbers for kind, numbers in missing.items() if numbers}, folder, console)
    runs = [run for run in read_runs(file) if (run.twin, run.kind, run.seed) in asked]
    if versions := {run.code for run in runs} - {code_fingerprint()}:
        console.print(f"{sum(run.code in versions for run in runs)} of {len(runs)} runs are of other code than today's; to live them anew, "
                      f"remove {file}", highlight=False)
    rows = [_row(setup.robot, kind.name, [run for run in runs if (run.twin, run.kind) == (setup.robot, kind.name)])
            for setup in twins for kind in KINDS]
    told = [run.cause_read for run in runs if run.cause_read is not None]
    bars = [Bar("violations", float(sum(len(run.violations) for run in runs)), 0.0, at_least=False),
            Bar("share of runs in time", float(np.mean([run.within for run in runs])), 1.0, at_least=True),
            Bar("share of stops whose cause the log tells", float(np.mean(told)) if told else 1.0, 1.0, at_least=True)]
    return BenchResult("faults", COLUMNS, rows, bars, machine(threads))


def live_faults(setup: TwinSetup, missing: dict[FaultKind, Sequence[int]], folder: Path, console: Console) -> list[FaultRun]:
    """Live the kinds with their seeds on one twin, add every run to `folder`/runs.jsonl, and return the runs."""
    lived: list[FaultRun] = []
    code = code_fingerprint()
    with tempfile.TemporaryDirectory() as logs, contextlib.closing(Stage(setup, Path(logs))) as stage:
        for kind, seeds in missing.items():
            outcomes: dict[int, Outcome] = {}
            try:
                for seed in seeds:
                    outcomes[seed] = run_fault(stage, kind, seed)
                    console.print(_line(setup.robot, kind.name, seed, outcomes[seed]), highlight=False, markup=False)
            finally:  # a log is read when its bridge has ended, and nothing that was lived is lost
                stage.end_bridge()
                runs = [_judged(setup.robot, kind, seed, outcome, code, folder, console) for seed, outcome in outcomes.items()]
                append_runs(folder / "runs.jsonl", runs)
                lived += runs
    return lived


def _judged(twin: str, kind: FaultKind, seed: int, outcome: Outcome, code: str, folder: Path, console: Console) -> FaultRun:
    """Return the run, its log read; one that is not clean leaves its log in `folder`."""
    read = None
    if outcome.stopped:
        told = events_between(outcome.log, *outcome.window_ns)
        read = bool(re.search(kind.cause, told, re.IGNORECASE))
        if not read:
            console.print(f"{twin}, {kind.name}, seed {seed}: the log says only: {told!r}", highlight=False, markup=False)
    run = FaultRun(twin, kind.name, seed, outcome.stopped, outcome.seconds, outcome.bound, outcome.violations, outcome.words, read, code)
    if not run.clean:
        kept = folder / f"{twin}-{kind.name.replace(' ', '-')}-{seed}.mcap"
        kept.write_bytes(outcome.log.read_bytes())
        console.print(f"its log is {kept}", highlight=False, markup=False)
    return run


def events_between(log: Path, begin_ns: int, end_ns: int) -> str:
    """Return the words of a log's events between two times on the host's monotonic clock [ns], a line each."""
    events = read_log(log).events
    chosen = events[(events["stamp_ns"] >= begin_ns) & (events["stamp_ns"] <= end_ns)]
    return "\n".join(f"{e['kind'].decode()}: {e['text'].decode(errors='replace')}" for e in chosen)


def _line(twin: str, kind: str, seed: int, outcome: Outcome) -> str:
    came = f"at rest after {outcome.seconds:.3f} s, promised {outcome.bound:.3f} s" if outcome.stopped else "ridden out"
    late = not in_time(outcome.stopped, outcome.seconds, outcome.bound)
    against = ["late"] * late + list(outcome.violations[:3])
    return f"{twin}, {kind}, seed {seed}: {came}: {outcome.words}" + ("  <-- " + "; ".join(against) if against else "")


def _row(twin: str, kind: str, runs: list[FaultRun]) -> tuple[Cell, ...]:
    if not runs:
        return (twin, kind, *[None] * (len(COLUMNS) - 2))
    stops = [run for run in runs if run.stopped]
    told = [run.cause_read for run in stops]
    worst = max(stops, key=lambda run: run.seconds - run.bound, default=None)
    return (twin, kind, len(runs), len(runs) - len(stops), sum(len(run.violations) for run in runs),
            None if worst is None else worst.seconds, None if worst is None else worst.bound,
            f"{sum(run.within for run in runs)}/{len(runs)}", f"{sum(told)}/{len(told)}" if told else None)
