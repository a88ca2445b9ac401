"""What `reflexarc bench` can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class BenchOptions:
    """Beyond the name of a benchmark; None: its own. Few benchmarks take more than the seeds."""

    task: str | None = None
    seeds: int | None = None
    seed_list: tuple[int, ...] | None = None
    steps: int | None = None
    runs: Path = Path("runs")
    out: Path | None = None
    twin: str | None = None
    tasks: tuple[str, ...] = ()
    planners: tuple[str, ...] = ()
    budget_ms: float | None = None
    skip_longer: float | None = None
    renew: bool = False

    def given(self) -> list[str]:
        """Return the options that were given, as a command line spells them."""
        return [f"--{field.name.replace('_', '-')}" for field in fields(self) if getattr(self, field.name) != field.default]
