"""Steady memory of a long run."""

from __future__ import annotations

import resource
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from experiments.bench.result import Bar, BenchResult, machine
from experiments.config import settings_for
from experiments.learn import learn, new_run
from planners.icem import ICEMConfig

MEBIBYTES_BAR = 2048.0
"""A run of 100 trials stays below this."""
TRIALS = 100


def bench_memory(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Learn the cart-pole for 100 trials, with few samples a plan so that it takes minutes, and return the peak memory."""
    settings = settings_for("cartpole", 200)
    config = replace(settings, learning=replace(settings.learning, trials=TRIALS),
                     ensemble=replace(settings.ensemble, fit=replace(settings.ensemble.fit, largest_updates=100)),
                     search=ICEMConfig(horizon=10, population=20, iterations=1, elites=5, beta=1.0))
    rows = []
    before = _peak_mebibytes()
    with tempfile.TemporaryDirectory() as folder:
        records = learn(new_run(config, Path(folder), "memory"), console, threads)
    rows.append((len(records), sum(record.steps for record in records), before, _peak_mebibytes()))
    return BenchResult("memory", ("trials", "control periods", "before [MiB]", "peak [MiB]"), rows,
                       [Bar("peak resident memory", rows[0][3], MEBIBYTES_BAR, at_least=False, unit="MiB")], machine(threads))


def _peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
