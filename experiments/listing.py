"""What `reflexarc list` prints."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Column, Table

from dynamics.catalog import MODELS
from dynamics.propagation import PROPAGATIONS
from experiments.arm_robots import robot_summaries
from experiments.bench.catalog import summaries
from experiments.progress import make_console
from planners.catalog import PLANNERS
from planners.risk import RISKS
from policies.model_based import ALGORITHMS
from sim.catalog import describe, known_names
from sim.simulator.planning_task import PLANNING_TASKS


def print_listing(what: str, engine: str | None) -> None:
    """Print the names of one kind, or of all; of all that one engine has, its tasks."""
    kinds: dict[str, dict[str, str]] = {
        "algorithms": {name: _first_line(loop.__doc__) for name, loop in ALGORITHMS.items()},
        "models": MODELS,
        "planners": {name: _first_line(kind.__doc__) for name, (kind, _) in PLANNERS.items()},
        "planning-tasks": {name: describe(name) for name in PLANNING_TASKS},
        "propagations": {name: _first_line(kind.__doc__) for name, kind in PROPAGATIONS.items()},
        "risks": dict.fromkeys(RISKS, ""),
        "benchmarks": summaries(),
        "robots": robot_summaries(),
    }
    console = make_console()
    if what in ("all", "tasks"):
        names = known_names(engine)
        console.print(_table("task", f"{len(names)} tasks", {name: describe(name) for name in names}))
    for kind, entries in kinds.items():
        if what == kind or (what == "all" and engine is None):
            console.print(_table(kind[:-1], f"\n{kind}", entries))


def _table(kind: str, title: str, entries: Mapping[str, str]) -> Table:
    """Return names and what they are; a name is never cut or broken, whatever the width, since people copy it."""
    width = max(map(len, (kind, *entries)))
    table = Table(Column(kind, no_wrap=True, min_width=width), "what it is", title=title, title_justify="left", box=None)
    for name, summary in entries.items():
        table.add_row(name, summary)
    return table


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ").replace("    ", "")
