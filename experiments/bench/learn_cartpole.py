"""Cart-pole swing-up from nothing, beside the published learning curve."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from experiments.bench.result import Bar, BenchResult, machine
from experiments.config import settings_for
from experiments.learn import learn, new_run

RETURN_BAR = 170.0
"""Median return of the last three of at most 12 trials; the published curves need 8 to 12 trials for about 180 as a running maximum."""
SECONDS_BAR = 180.0
"""Wall-clock a seed on 2 cores."""
PUBLISHED = {800: 75.0, 1200: 168.0, 1600: 177.0, 2400: 180.0}
"""PETS (Chua et al. 2018), running maximum of returns by control periods lived."""


def bench_learn_cartpole(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Learn with seeds 0, 1, ... and return the returns, the running maximum at the published steps, and the time."""
    rows, medians, times = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            run = new_run(replace(settings_for("cartpole", 200), seed=seed), Path(folder), f"seed{seed}")
            console.print(f"seed {seed}")
            started = time.perf_counter()
            records = learn(run, console, threads)
            times.append(time.perf_counter() - started)
            returns = [record.total_return for record in records]
            medians.append(statistics.median(returns[-3:]))
            solved = next((sum(r.steps for r in records[: i + 1]) for i, value in enumerate(returns) if value >= RETURN_BAR), None)
            at = [max(returns[: steps // 200]) for steps in PUBLISHED]
            rows.append((seed, len(records), medians[-1], max(returns), solved, *at, times[-1]))
    if len(rows) > 1:
        rows.append(("median", None, statistics.median(medians), None, None,
                     *(statistics.median(row[i] for row in rows) for i in range(5, 9)), statistics.median(times)))
    rows.append(("PETS", None, None, None, None, *PUBLISHED.values(), None))
    console.print(f"last 3: median return of the last three trials; to {RETURN_BAR:g}: control periods lived until the first such return; "
                  "@N: running maximum after N control periods, as PETS' curve is published")
    columns = ("seed", "trials", "last 3", "best", f"to {RETURN_BAR:g}", *(f"@{steps}" for steps in PUBLISHED), "s")
    bars = [Bar("median return of the last 3 trials, over seeds", statistics.median(medians), RETURN_BAR, at_least=True),
            Bar("slowest seed", max(times), SECONDS_BAR, at_least=False, unit="s")]
    return BenchResult("learn-cartpole", columns, rows, bars, machine(threads))
