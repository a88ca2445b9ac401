"""What is kept of the planners' comparison: one JSON file an episode, and one CSV of all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
import typing
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from experiments.run_directory import replace_file
from robots.errors import StoreError

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("planners", "dynamics", "sim", "policies", "robots", "episodes")
_FILES = ("experiments/plan.py", "experiments/plan_budget.py", "experiments/plan_cli.py", "experiments/plan_report.py",
          "experiments/config.py", "experiments/bench/planners_live.py", "experiments/bench/planners_field.py")
_PACKAGES = ("casadi", "cma", "dm_control", "mujoco", "numba", "numpy", "torch")


@dataclass(frozen=True)
class Asked:
    """One episode that is to be lived: whatever of it differs makes another."""

    task: str
    planner: str
    equal: str
    """'time' or 'rollouts'."""
    allowance: float
    """Of a plan: milliseconds, or rollouts over the horizon."""
    steps: int
    """Control periods."""
    settings: tuple[str, ...]
    """Of the planner, 'NAME=VALUE', before its effort is chosen."""
    seed: int

    @property
    def file_name(self) -> str:
        """Says what it is to people, and differs wherever anything that was asked does."""
        digits = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{self.task}-{self.planner}-{self.equal}-seed{self.seed}-{digits}.json")


@dataclass(frozen=True)
class Cell:
    """What came of one episode; the figures are None where it was not lived, and `note` says why."""

    asked: Asked
    score: float | None
    """Reward of a control period, mean."""
    lived: int
    """Control periods."""
    plan_ms: float | None
    """[ms] median of a plan."""
    plan_ms_95: float | None
    """[ms] 95 % of the plans took at most this."""
    plan_ms_longest: float | None
    within: float | None
    """Share of the plans within the budget; None where rollouts are equal."""
    rounds: float | None
    """Iterations of a plan, median."""
    rollouts: float | None
    """Over the horizon, of a plan, derivatives counted by what is simulated for them; mean."""
    note: str
    seconds: float
    """Wall-clock time of it all."""
    machine: str
    code: str
    """Of `code_fingerprint`, when it was lived."""
    failed: bool = False
    """True where an error ended it that another attempt may not meet: a package that was missing."""
    why: str = ""
    """`note` in a few words, where it was not lived."""
    config: tuple[str, ...] = ()
    """All settings that the planner planned with, 'NAME=VALUE', chosen ones included; empty where it was not lived."""

    @property
    def skipped(self) -> bool:
        """Whether it was not lived for the time that it would have taken, where time is not what is equal; lived without such a limit."""
        return self.asked.equal == "rollouts" and not self.lived and self.plan_ms is not None

    def setting(self, name: str) -> str | None:
        """Return the value of a setting that the planner planned with, None where it has none of that name, or it was not kept."""
        told = (entry.partition("=") for entry in (*self.config, *self.asked.settings))
        return next((value for other, _, value in told if other == name), None)


def decisive_files() -> list[Path]:
    """Return the files of code and models that decide what comes of an episode; what only shows or keeps it is not among them."""
    files = sorted(path for folder in _SOURCES for path in (_ROOT / folder).rglob("*") if path.suffix in (".py", ".xml"))
    return files + [_ROOT / name for name in _FILES]


def code_fingerprint() -> str:
    """Return eight digits that differ wherever the code, the models or the packages that are planned with do."""
    digest = hashlib.sha256()
    for file in decisive_files():
        digest.update(str(file.relative_to(_ROOT)).encode() + file.read_bytes())
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()[:8]


def write_cell(folder: Path, cell: Cell) -> None:
    """Write the cell into `folder`, whole or not at all; StoreError where that fails."""
    replace_file(folder / cell.asked.file_name, json.dumps(asdict(cell), indent=1).encode())


def read_cells(folder: Path) -> list[Cell]:
    """Return what `write_cell` wrote into `folder`, now or before cells had all the fields of today; StoreError names the file that cannot
    be read."""
    cells, names = [], {field.name for field in fields(Cell)}
    needed = {field.name for field in fields(Cell) if field.default is MISSING}
    for file in sorted(folder.glob("*.json")):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or not needed <= values.keys() <= names:
                raise ValueError(f"expected the keys {', '.join(sorted(names))}")
            asked, config = values.pop("asked"), tuple(values.pop("config", ()))
            cells.append(Cell(Asked(**asked | {"settings": tuple(asked["settings"])}), **values, config=config))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{file}: cannot be read ({error}); remove it, and its episode is lived again") from error
    return cells


def to_csv(cells: Iterable[Cell]) -> bytes:
    """Return a line for every cell, what was asked first."""
    asked = [field.name for field in fields(Asked)]
    found = [name for name in typing.get_type_hints(Cell) if name != "asked"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*asked, *found])
    for cell in cells:
        writer.writerow([*(_plain(getattr(cell.asked, name)) for name in asked), *(_plain(getattr(cell, name)) for name in found)])
    return text.getvalue().encode()


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return " ".join(value)
    return round(value, 5) if isinstance(value, float) else value
