"""What a benchmark returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

Cell = str | float | int | None


@dataclass(frozen=True)
class Bar:
    """A measured figure beside what it should be."""

    quantity: str
    measured: float
    bar: float
    at_least: bool
    """True where more is better."""
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure reaches its bar; NaN does not."""
        return self.measured >= self.bar if self.at_least else self.measured <= self.bar

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.quantity} {self.measured:.4g}{unit} (bar {'>=' if self.at_least else '<='} {self.bar:g}{unit})"


@dataclass(frozen=True)
class BenchResult:
    """A table, and the figures that count."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    bars: list[Bar]
    machine: str
    """Processor and number of threads."""

    @property
    def met(self) -> bool:
        """Whether every bar is met."""
        return all(bar.met for bar in self.bars)

    def table(self) -> Table:
        """Return the rows for a terminal."""
        table = Table(title=f"{self.name} on {self.machine}")
        for column in self.columns:
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(*("-" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
        return table

    def last_line(self) -> str:
        """Return the figures beside their bars, and the verdict; without a bar there is none to give."""
        if not self.bars:
            return f"{self.name}: no bar to judge by"
        return f"{self.name}: {'; '.join(map(str, self.bars))}: {'MET' if self.met else 'MISSED'}"

    def to_json(self) -> dict:
        """Return everything as plain JSON values."""
        return dataclasses.asdict(self) | {"met": self.met}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark by name."""

    summary: str
    run: Callable[[Console, int, int | None], BenchResult]
    """run(console, seeds, threads)"""


def machine(threads: int | None) -> str:
    """Return the processor's name and the threads in use."""
    name = "unknown processor"
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {'all' if threads is None else threads} threads"
