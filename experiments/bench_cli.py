"""The subcommand that measures: bench."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Bench:
    """Measure, and compare with the bar: prints a table, the figure beside its bar on the last line; exits 1 if it falls short.

    The benchmark `learn` is the learning ladder. Without --task it lists its tasks. With one, every seed learns from nothing
    as with `reflexarc learn`, in a run of its own, RUNS/ladder/TASK-seedN. Stop it whenever you like: the same command goes on,
    and one with more --steps or --seeds builds on what was lived. The bar is for the median over seeds of the raw return: that
    of the last trial finished by then. OUT/TASK.csv, OUT/TASK.png and the tables of OUT.md are written after every seed.
    The benchmark `faults` is lived in real time, about six seconds a fault; what was lived stays in RUNS/faults, and the same command
    goes on there. It wants a quiet machine.
    The benchmark `planners` lets every planner control every machine of its ladder through the simulator, 20 ms a plan and then 64
    rollouts a plan; every episode stays in RUNS/planners, and the same command goes on, at most one episode poorer. Parts (--tasks,
    --planners, --seed-list) may be run one by one: OUT/planners.md, its table and its picture are made of all that is there, after every
    task, and mark what was lived with other code or elsewhere. It wants a quiet machine too, and takes about an hour a seed on two
    cores, half of that with --skip-longer 1: trees and gradients through the simulator are slow.

    Examples: `reflexarc bench learn-cartpole`, `reflexarc bench memory --json memory.json`, `reflexarc bench learn`,
    `reflexarc bench learn --task reacher7 --steps 2700`, `reflexarc bench learn --task half-cheetah --seed-list 1 2`,
    `reflexarc bench planners --seeds 1 --planners icem mppi ilqr --tasks dmc:walker-walk`,
    `reflexarc bench planners --seed-list 1 2 --skip-longer 1 --out docs`, `reflexarc bench planners --planners ilqr fddp --renew`.
    """

    name: tyro.conf.Positional[str]
    """Benchmark by name (`reflexarc list benchmarks`)."""
    seeds: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 3, or the ladder task's own)")] = None
    """Seeds 0, 1, ... of a learning benchmark, of every fault, and of every planner."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")] = None
    """Write all figures here."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all cores)")] = None
    """Cores to use."""
    task: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: list them)")] = None
    """learn: task of the ladder."""
    seed_list: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]", help_behavior_hint="(optional)")] = None
    """learn, planners: these seeds, instead of --seeds."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the ladder task's own)")] = None
    """learn: control periods that every seed lives, random ones included; no trial begins that would pass them. planners: of every
    episode, from the start."""
    runs: Path = Path("runs")
    """learn, faults, planners: folder that runs are kept in."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: docs/ladder in a checkout, else ladder)")] = None
    """learn: folder of the curves, one CSV and one PNG a task, with the page DIR.md beside it. planners: folder of the page (default:
    docs in a checkout where all is asked for, else planners)."""
    twin: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: all)")] = None
    """faults: this twin alone: ur5e, so101, dynamixel-arm or panda."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: all)")] = ()
    """planners: these tasks of the ladder alone."""
    planners: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: all)")] = ()
    """planners: these alone."""
    budget_ms: Annotated[float | None, tyro.conf.arg(metavar="MS", help_behavior_hint="(default: 20)")] = None
    """planners: time of a plan [ms] where time is equal."""
    skip_longer: Annotated[float | None, tyro.conf.arg(metavar="MIN", help_behavior_hint="(default: live them all)")] = None
    """planners: where rollouts are equal, skip episodes that would take longer [min]; the page says which. Asked for again without it
    they are lived."""
    renew: bool = False
    """planners: live anew what was lived with other code than today's."""

    def run(self) -> int:
        from experiments.bench.catalog import bench_command
        from experiments.bench.options import BenchOptions

        options = BenchOptions(task=self.task, seed_list=self.seed_list, steps=self.steps, runs=self.runs, out=self.out, twin=self.twin,
                               tasks=self.tasks, planners=self.planners, budget_ms=self.budget_ms,
                               skip_longer=self.skip_longer, renew=self.renew)
        return bench_command(self.name, self.seeds, self.json, self.threads, options)
