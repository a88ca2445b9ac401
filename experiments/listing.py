"""What `reflexarc list` prints."""

from __future__ import annotations

from rich.table import Table

from dynamics.catalog import MODELS
from dynamics.propagation import PROPAGATIONS
from experiments.bench.catalog import BENCHMARKS
from experiments.progress import make_console
from planners.catalog import PLANNERS
from planners.risk import RISKS
from policies.model_based import ALGORITHMS
from sim.catalog import describe, known_names


def print_listing(what: str, engine: str | None) -> None:
    """Print the names of one kind, or of all."""
    kinds: dict[str, dict[str, str]] = {
        "algorithms": {name: _first_line(loop.__doc__) for name, loop in ALGORITHMS.items()},
        "models": MODELS,
        "planners": {name: _first_line(kind.__doc__) for name, (kind, _) in PLANNERS.items()},
        "propagations": {name: _first_line(kind.__doc__) for name, kind in PROPAGATIONS.items()},
        "risks": dict.fromkeys(RISKS, ""),
        "benchmarks": {name: benchmark.summary for name, benchmark in BENCHMARKS.items()},
    }
    console = make_console()
    if what in ("all", "tasks") or engine is not None:
        names = known_names(engine)
        table = Table("task", "what it is", title=f"{len(names)} tasks", title_justify="left", box=None)
        for name in names:
            table.add_row(name, describe(name))
        console.print(table)
    for kind, entries in kinds.items():
        if what in ("all", kind) and engine is None:
            table = Table(kind[:-1], "what it is", title=f"\n{kind}", title_justify="left", box=None)
            for name, summary in entries.items():
                table.add_row(name, summary)
            console.print(table)


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ").replace("    ", "")
