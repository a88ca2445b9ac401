"""Benchmarks by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from experiments.bench.faults.matrix import bench_faults
from experiments.bench.fit_ensemble import bench_fit_ensemble
from experiments.bench.ilqr import bench_ilqr
from experiments.bench.ladder_result import print_ladder
from experiments.bench.ladder_run import bench_ladder
from experiments.bench.learn_cartpole import bench_learn_cartpole
from experiments.bench.loop import bench_loop
from experiments.bench.memory import bench_memory
from experiments.bench.options import BenchOptions
from experiments.bench.plan_ensemble import bench_plan_ensemble
from experiments.bench.plan_sim import bench_plan_sim
from experiments.bench.planners_run import bench_planners
from experiments.bench.ranking import bench_ranking
from experiments.bench.reach_circle import bench_reach_circle
from experiments.bench.render import bench_render
from experiments.bench.result import Benchmark
from experiments.progress import make_console
from experiments.run_directory import replace_file
from robots.errors import ConfigurationError, UnknownNameError

BENCHMARKS: dict[str, Benchmark] = {
    "fit-ensemble": Benchmark("an epoch of fitting an ensemble: seconds and held-out likelihood beside mbrl-lib's", bench_fit_ensemble),
    "ilqr": Benchmark("iLQR: parking a car, the Riccati sweep beside NumPy's, an iteration beside crocoddyl's", bench_ilqr),
    "learn-cartpole": Benchmark("cart-pole swing-up from nothing: return after 12 trials, and seconds a seed", bench_learn_cartpole),
    "loop": Benchmark("the bridge's loop beside a busy planner: lateness beside cyclictest's, and what a period's pieces cost", bench_loop),
    "memory": Benchmark("a run of 100 trials: largest resident memory", bench_memory),
    "plan-ensemble": Benchmark("a PETS plan: seconds beside mbrl-lib's, and share of the processor's peak", bench_plan_ensemble),
    "plan-sim": Benchmark("a plan by sampling through MuJoCo: time beside judo's, and share of the raw steps a second", bench_plan_sim),
    "ranking": Benchmark("how well few particles with common random numbers rank plans, and what the plans so found cost", bench_ranking),
    "reach-circle": Benchmark("an arm's twin learns to reach, is loaded, and is retrained: final errors on unseen goals",
                              bench_reach_circle),
    "render": Benchmark("pictures a second of the half-cheetah: 64x64 for training, beside MuJoCo's own renderer", bench_render),
}


DEFAULT_SEEDS = 3
"""Seeds of a learning benchmark, and of a fault."""
LADDER_NAME = "learn"
"""The learning ladder."""
FAULTS_NAME = "faults"
"""The fault matrix."""
PLANNERS_NAME = "planners"
"""Every planner on a ladder of tasks."""
TAKES = {LADDER_NAME: ("--task", "--seed-list", "--steps", "--runs", "--out"), FAULTS_NAME: ("--twin", "--runs"),
         PLANNERS_NAME: ("--tasks", "--planners", "--seed-list", "--steps", "--budget-ms", "--skip-longer", "--renew", "--runs",
                            "--out")}
"""The benchmarks that are told more than their seeds."""


def summaries() -> dict[str, str]:
    """Return what every benchmark measures, by name."""
    return {FAULTS_NAME: "every kind of fault strikes every twin: limits broken, time until the arm rests, causes told",
            LADDER_NAME: "the learning ladder: --task NAME learns a task from nothing with several seeds, beside published curves",
            PLANNERS_NAME: "every planner on a ladder of tasks through the simulator, at equal time and at equal rollouts a plan",
            **{name: benchmark.summary for name, benchmark in BENCHMARKS.items()}}


def bench_command(name: str, seeds: int | None, json_file: Path | None, threads: int | None,
                  options: BenchOptions = BenchOptions()) -> int:  # noqa: B008 (frozen)
    """Run a benchmark, print its table and its last line, and return the exit code: 0 where the bar is met, else 1.

    `learn` lists its tasks where none is named. ConfigurationError for an option that belongs to another benchmark.
    """
    if name not in summaries():
        raise UnknownNameError("benchmark", name, summaries())
    if seeds is not None and seeds < 1:
        raise ConfigurationError(f"--seeds: expected at least 1, got {seeds}")
    stray = [option for option in options.given() if option not in TAKES.get(name, ())]
    if stray:
        raise ConfigurationError(f"benchmark {name!r} does not take {', '.join(stray)}: "
                                 + "; ".join(f"`reflexarc bench {other}` takes {', '.join(takes)}" for other, takes in TAKES.items()))
    console = make_console()
    if name == LADDER_NAME and options.task is None:
        print_ladder(console)
        return 0
    if name == LADDER_NAME:
        result = bench_ladder(console, replace(options, seeds=seeds), threads)
    elif name == PLANNERS_NAME:
        result = bench_planners(console, replace(options, seeds=seeds), threads)
    elif name == FAULTS_NAME:
        result = bench_faults(console, replace(options, seeds=seeds or DEFAULT_SEEDS), threads)
    else:
        result = BENCHMARKS[name].run(console, DEFAULT_SEEDS if seeds is None else seeds, threads)
    console.print(result.table())
    console.print(result.last_line(), highlight=False)
    if json_file is not None:
        replace_file(json_file, json.dumps(result.to_json(), indent=1).encode())
    return 0 if result.met else 1
