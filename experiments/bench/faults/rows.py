"""What is kept of the fault matrix: one line of JSON a run, in one file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from robots.errors import StoreError

_ROOT = Path(__file__).resolve().parents[3]
_SOURCES = ("robots", "hw_bridge", "experiments/bench/faults")


@dataclass(frozen=True)
class FaultRun:
    """What came of one fault; the fields are the keys of its line."""

    twin: str
    kind: str
    seed: int
    stopped: bool
    """False: the arm went on following its policy."""
    seconds: float
    """From the fault until the plant stood, where it calls for a stop; else from the supervisor's stop; NaN where it rode the fault out."""
    bound: float
    """Of that, as promised [s]; NaN where it rode the fault out."""
    violations: tuple[str, ...]
    words: str
    """The supervisor's own for why it stopped, as its status tells."""
    cause_read: bool | None
    """Whether the log tells the cause; None where nothing was stopped, and there is nothing to tell."""
    code: str
    """Of `code_fingerprint`, when it was run."""

    @property
    def within(self) -> bool:
        """Whether the arm stood in time, or had no reason to."""
        return in_time(self.stopped, self.seconds, self.bound)

    @property
    def clean(self) -> bool:
        """Whether nothing is to be said against the run."""
        return self.within and not self.violations and self.cause_read is not False


def in_time(stopped: bool, seconds: float, bound: float) -> bool:
    """Return whether an arm that was stopped stood within its bound [s], or one that was not had no reason to."""
    return seconds <= bound if stopped else bool(np.isnan(bound))


def code_fingerprint() -> str:
    """Return eight digits that differ wherever the code or the mechanics of the bridge, its twins or this matrix do."""
    files = sorted(path for folder in _SOURCES for path in (_ROOT / folder).rglob("*") if path.suffix in (".py", ".xml"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(_ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def append_runs(file: Path, runs: Iterable[FaultRun]) -> None:
    """Add a line for every run, in place of one that a kill cut off. StoreError where the file cannot be written."""
    try:
        if file.exists() and not (before := file.read_bytes()).endswith(b"\n"):
            os.truncate(file, before.rfind(b"\n") + 1)
        with file.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(asdict(run)) + "\n" for run in runs)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error.strerror or error}); choose another place with --runs DIR") from error


def read_runs(file: Path) -> list[FaultRun]:
    """Return what `append_runs` wrote, nothing where there is no file. A last line cut off by a kill is left out; StoreError names any
    other line that cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: cannot be read ({error})") from error
    runs, names = [], {field.name for field in fields(FaultRun)}
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            if not isinstance(values, dict) or values.keys() != names:
                raise ValueError(f"expected the keys {', '.join(sorted(names))}")
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise StoreError(f"{file}, line {number}: cannot be read ({error}); remove the file to begin anew") from error
        runs.append(FaultRun(**values | {"violations": tuple(values["violations"])}))
    return runs
