"""What is kept of the ladder's runs: one line a trial, in one CSV file a task, and the arithmetic on learning curves."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import statistics
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from episodes.episode import Episode
from experiments.config import RunConfig, to_json
from experiments.run_directory import replace_file
from policies.trial import TrialRecord
from robots.errors import StoreError


@dataclass(frozen=True)
class LadderRow:
    """One trial of one seed; the fields are the columns of the file."""

    task: str
    seed: int
    trial: int
    steps_total: int
    """Control periods lived when the trial had ended, random ones included."""
    raw_return: float
    running_max: float
    """Best return of this and all earlier trials."""
    acted_by: str
    plan_ms_median: float | None
    fit_s: float
    trial_s: float
    """Wall-clock time of the trial, fits included [s]."""
    wall_s_total: float
    """Sum of `trial_s` so far [s]."""
    machine: str | None
    """Processor and threads that the trial was lived on; None where nobody noted it."""
    settings: str
    """Fingerprint of the run's settings without its seed: rows of one file share it."""
    pitch_abs_median: float | None = None
    """[rad] of |pitch| within [-pi, pi]."""
    pitch_abs_max: float | None = None
    """[rad] of |pitch| as turned, not wrapped: above pi the body rolled over."""
    pitch_final: float | None = None
    """[rad] at the trial's end, within [-pi, pi]."""
    upside_down: float | None = None
    """Share of control periods that ended with |pitch| within [-pi, pi] above pi/2."""


Curve = Sequence[LadderRow]
"""The trials of one seed in order."""
_COLUMNS = typing.get_type_hints(LadderRow)
_PITCH = ("pitch_abs_median", "pitch_abs_max", "pitch_final", "upside_down")


@dataclass(frozen=True)
class Spread:
    """A figure over seeds."""

    median: float
    lowest: float
    highest: float
    seeds: int


def fingerprint(config: RunConfig) -> str:
    """Return eight digits that differ wherever settings other than the seed and the number of trials do."""
    same = replace(config, seed=0, learning=replace(config.learning, trials=1))
    return hashlib.sha256(json.dumps(to_json(same), sort_keys=True).encode()).hexdigest()[:8]


def make_rows(config: RunConfig, records: Sequence[TrialRecord], machines: Sequence[str | None],
              pitches: Sequence[dict[str, float]] | None = None) -> list[LadderRow]:
    """Return a row for every trial of a run; `machines` and `pitches` (of `pitch_figures`) hold an entry a trial."""
    rows: list[LadderRow] = []
    steps, best, wall = 0, -float("inf"), 0.0
    for i, record in enumerate(records):
        steps, best, wall = steps + record.steps, max(best, record.total_return), wall + record.seconds
        plan = record.plan_milliseconds_median
        rows.append(LadderRow(config.task, config.seed, record.trial, steps, round(record.total_return, 6), round(best, 6),
                              record.provenance, None if plan is None else round(plan, 3), round(record.fit_seconds, 3),
                              round(record.seconds, 3), round(wall, 3), machines[i], fingerprint(config),
                              **(pitches[i] if pitches is not None else {})))
    return rows


def pitch_figures(episode: Episode, state: str) -> dict[str, float]:
    """Return the pitch columns of a trial; `state` names the pitch among the episode's states."""
    turned = episode.x[1:, episode.state_names.index(state)]
    wrapped = np.abs(_wrapped(turned))
    return {"pitch_abs_median": round(float(np.median(wrapped)), 4), "pitch_abs_max": round(float(np.abs(turned).max()), 4),
            "pitch_final": round(float(_wrapped(turned[-1:])[0]), 4),
            "upside_down": round(float((wrapped > np.pi / 2).mean()), 4)}


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """Return angles [rad] turned by full turns into [-pi, pi]."""
    return np.arctan2(np.sin(angle), np.cos(angle))


def merge(known: Iterable[LadderRow], new: Sequence[LadderRow]) -> tuple[list[LadderRow], list[int]]:
    """Return the rows of all seeds, those of `new` in place of older ones, and the seeds that were left out.

    A known seed that was run with other settings than `new` is left out: its curve is another experiment.
    """
    settings, seeds = {row.settings for row in new}, {row.seed for row in new}
    others = [row for row in known if row.seed not in seeds]
    kept = [row for row in others if not settings or row.settings in settings]
    left_out = {row.seed for row in others} - {row.seed for row in kept}
    return sorted([*kept, *new], key=lambda row: (row.seed, row.trial)), sorted(left_out)


def curves(rows: Iterable[LadderRow]) -> dict[int, list[LadderRow]]:
    """Return every seed's trials in order."""
    found: dict[int, list[LadderRow]] = {}
    for row in sorted(rows, key=lambda row: (row.seed, row.trial)):
        found.setdefault(row.seed, []).append(row)
    return found


def at(curve: Curve, steps: int) -> LadderRow | None:
    """Return the last trial finished at or before `steps` control periods, or None where the curve does not reach so far.

    It reaches as far as its next trial, of the length of its longest, would have taken it.
    """
    finished = [row for row in curve if row.steps_total <= steps]
    starts = [0, *(row.steps_total for row in curve[:-1])]
    longest = max((row.steps_total - start for row, start in zip(curve, starts, strict=True)), default=0)
    return finished[-1] if finished and curve[-1].steps_total + longest > steps else None


def last_three(curve: Curve) -> float:
    """Return the median raw return of the last three trials (of fewer, where there are no three)."""
    return statistics.median(row.raw_return for row in curve[-3:])


def spread(values: Iterable[float]) -> Spread | None:
    """Return the median and the range of one value a seed, or None without any."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found), len(found)) if found else None


def write_rows(path: Path, rows: Sequence[LadderRow]) -> None:
    """Write the rows, atomically; the pitch has columns only where it was measured. StoreError where it cannot be written."""
    columns = [name for name in _COLUMNS if name not in _PITCH or any(getattr(row, name) is not None for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(row, name) for name in columns] for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be made ({error.strerror or error}); choose another place with --out DIR") from error
    replace_file(path, text.getvalue().encode())


def read_rows(path: Path) -> list[LadderRow]:
    """Return what `write_rows` wrote, nothing where there is no file; StoreError names the line that cannot be read."""
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
    header = lines[0] if lines else []
    required = {name for name in _COLUMNS if name not in _PITCH}
    if set(header) - set(_COLUMNS) or required - set(header):
        raise StoreError(f"{path}: expected the columns {', '.join(_COLUMNS)} (the last four may be missing), got {', '.join(header)}; "
                         "it was written by another version or edited: remove it, and finished runs are read again")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            values = {name: _value(_COLUMNS[name], text) for name, text in zip(header, line, strict=True)}
        except ValueError as error:
            raise StoreError(f"{path}, line {number}: cannot be read ({error})") from error
        rows.append(LadderRow(**values))
    return rows


def _value(kind: object, text: str) -> str | int | float | None:
    kinds = typing.get_args(kind) or (kind,)
    if not text and type(None) in kinds:
        return None
    return next(k for k in kinds if k is not type(None))(text)


def without_machine(row: LadderRow) -> LadderRow:
    """Return what a row tells of its trial, to see whether two tell of the same one."""
    return replace(row, machine=None)
