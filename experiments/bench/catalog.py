"""Benchmarks by name."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.bench.learn_cartpole import bench_learn_cartpole
from experiments.bench.memory import bench_memory
from experiments.bench.result import Benchmark
from experiments.progress import make_console
from experiments.run_directory import replace_file
from robots.errors import ConfigurationError, UnknownNameError

BENCHMARKS: dict[str, Benchmark] = {
    "learn-cartpole": Benchmark("cart-pole swing-up from nothing: return after 12 trials, and seconds a seed", bench_learn_cartpole),
    "memory": Benchmark("a run of 100 trials: largest resident memory", bench_memory),
}


def bench_command(name: str, seeds: int, json_file: Path | None, threads: int | None) -> int:
    """Run a benchmark, print its table and its last line, and return the exit code: 0 where the bar is met, else 1."""
    if name not in BENCHMARKS:
        raise UnknownNameError("benchmark", name, BENCHMARKS)
    if seeds < 1:
        raise ConfigurationError(f"--seeds: expected at least 1, got {seeds}")
    console = make_console()
    result = BENCHMARKS[name].run(console, seeds, threads)
    console.print(result.table())
    console.print(result.last_line(), highlight=False)
    if json_file is not None:
        replace_file(json_file, json.dumps(result.to_json(), indent=1).encode())
    return 0 if result.met else 1
