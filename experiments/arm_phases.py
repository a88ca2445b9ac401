"""The phases of a demonstration on an arm, and what the log tells of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hw_bridge.recorder.log_row import EVENT_DTYPE, servo_dtype
from hw_bridge.recorder.read_log import Log, read_log
from hw_bridge.recorder.summary import LogSummary, summarise
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, ReflexarcError, ShapeError
from robots.kinematics import Kinematics

_GOAL_RATE = 50.0
"""Distances from the goal are worked out so often [1/s]."""


@dataclass(frozen=True, eq=False)
class Phase:
    """One part of the demonstration. Raises ShapeError or ConfigurationError, each naming the field."""

    name: str
    """In a few words: 'reach with MPC'."""
    words: str
    """A sentence for a newcomer."""
    began_ns: int
    """On the host's monotonic clock, as the log's rows."""
    ended_ns: int
    log: Path
    """The MCAP log that holds it."""
    goals: np.ndarray
    """(n, 3) what was reached for, in the base frame [m]; empty where nothing was judged."""
    errors: np.ndarray
    """(n,) how far from its goal the end effector ended [m]."""
    interventions: int
    """Of the supervisor, as the bridge counted them."""
    payload_kg: float
    """What the arm carried."""
    spans_ns: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """(n, 2) when each goal was given and when it was judged, as `goal_spans` tells; (0, 2) where nobody noted it."""

    def __post_init__(self) -> None:
        goals, errors = np.array(self.goals, float).reshape(-1, 3), np.array(self.errors, float).reshape(-1)
        spans = np.array(self.spans_ns, np.int64).reshape(-1, 2)
        for name, value in (("goals", goals), ("errors", errors), ("spans_ns", spans)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if len(goals) != len(errors) or len(spans) not in (0, len(goals)):
            raise ShapeError(f"Phase {self.name!r}: expected one error and one span (or no spans at all) a goal, got "
                             f"{len(goals)} goals, {len(errors)} errors and {len(spans)} spans")
        if not (np.isfinite(goals).all() and np.isfinite(errors).all()):
            raise ConfigurationError(f"Phase {self.name!r}: expected finite goals and errors [m]; leave out goals that were not tried")
        if not self.began_ns < self.ended_ns or (spans[:, 0] >= spans[:, 1]).any():
            raise ConfigurationError(f"Phase {self.name!r}: expected it and its goals to end after they began, got "
                                     f"{self.began_ns} to {self.ended_ns} ns")

    @property
    def judged(self) -> bool:
        """Whether it reached for goals."""
        return len(self.errors) > 0

    @property
    def median(self) -> float:
        """Median of the final errors [m]; NaN where none was judged."""
        return float(np.median(self.errors)) if self.judged else float("nan")


@dataclass(frozen=True, eq=False)
class LivedPhase:
    """A phase with what its log tells of it."""

    phase: Phase
    rows: np.ndarray
    """(n,) of `servo_dtype`, those of the phase."""
    events: np.ndarray
    """(m,) of EVENT_DTYPE."""
    summary: LogSummary | None
    """None where the log holds no row of the phase."""
    distances: tuple[tuple[np.ndarray, np.ndarray], ...]
    """A goal: times since it was given (k,) [s], and how far the end effector was from it (k,) [m], by the arm's own encoders."""


@dataclass(frozen=True, eq=False)
class Lived:
    """All that was lived."""

    phases: tuple[LivedPhase, ...]
    events: tuple[tuple[str, np.void], ...]
    """Every event of every log in the order of time, with the name of its phase; '' between phases."""
    began_ns: int
    """When the first phase began."""
    troubles: tuple[str, ...]
    """What could not be read, in words."""


def goal_spans(times: Sequence[np.ndarray]) -> np.ndarray:
    """Return `Phase.spans_ns` (n, 2) of what was measured for each goal at times (k,) [s] of the host's monotonic clock: those of an
    `Episode`, or of a `ServoRun`.
    """
    return np.array([[round(time[0] * 1e9), round(time[-1] * 1e9)] for time in times], np.int64).reshape(-1, 2)


def live_again(phases: Sequence[Phase], arm: Arm) -> Lived:
    """Return what the logs of `phases` tell; a log that cannot be read is a trouble, not an error."""
    if not phases:
        raise ConfigurationError("live_again: expected at least one phase, got none")
    logs: dict[Path, Log] = {}
    troubles: list[str] = []
    for path in dict.fromkeys(phase.log for phase in phases):
        try:
            logs[path] = read_log(path)
            troubles += [f"{path}: {damage}" for damage in logs[path].damage]
        except ReflexarcError as error:
            troubles.append(str(error))
    kinematics = arm.kinematics()
    lived = [_live_phase(phase, logs.get(phase.log), arm, kinematics) for phase in phases]
    troubles += [f"{one.phase.log}: holds no row of the phase {one.phase.name!r}" for one in lived
                 if one.summary is None and one.phase.log in logs]
    events = sorted(((_phase_at(phases, path, event), event) for path, log in logs.items() for event in log.events),
                    key=lambda named: int(named[1]["stamp_ns"]))
    return Lived(tuple(lived), tuple(events), min(phase.began_ns for phase in phases), tuple(troubles))


def tip_distances(rows: np.ndarray, goal: np.ndarray, kinematics: Kinematics) -> np.ndarray:
    """Return how far the end effector was from `goal` (3,) [m] in servo rows (n,): (n,) [m]."""
    return np.array([float(np.linalg.norm(kinematics.forward(q)[:3] - goal)) for q in rows["q"]])


def rows_between(rows: np.ndarray, began_ns: int, ended_ns: int) -> np.ndarray:
    """Return the servo rows that woke within [began_ns, ended_ns)."""
    first, last = np.searchsorted(rows["wake_ns"], (began_ns, ended_ns))
    return rows[first:last]


def _live_phase(phase: Phase, log: Log | None, arm: Arm, kinematics: Kinematics) -> LivedPhase:
    if log is None:
        return LivedPhase(phase, np.zeros(0, servo_dtype(arm.spec.nv)), np.zeros(0, EVENT_DTYPE), None, ())
    if log.header.nv != arm.spec.nv:
        raise ConfigurationError(f"{phase.log}: expected a log of {arm.spec.name}, with {arm.spec.nv} joints, got one with "
                                 f"{log.header.nv}")
    rows = rows_between(log.rows, phase.began_ns, phase.ended_ns)
    stamps = log.events["stamp_ns"]
    events = log.events[(stamps >= phase.began_ns) & (stamps < phase.ended_ns)]
    summary = summarise(replace(log, rows=rows, events=events)) if len(rows) else None
    stride = max(1, round(1.0 / (_GOAL_RATE * arm.spec.control_dt)))
    distances = []
    for goal, (begin, end) in zip(phase.goals, phase.spans_ns, strict=False):
        seen = rows_between(log.rows, begin, end)[::stride]
        seen = seen[np.isfinite(seen["q"]).all(axis=1)]
        distances.append(((seen["wake_ns"] - begin) * 1e-9, tip_distances(seen, goal, kinematics)))
    return LivedPhase(phase, rows, events, summary, tuple(distances))


def _phase_at(phases: Sequence[Phase], path: Path, event: np.void) -> str:
    """Return the name of the phase of the log at `path` in which `event` fell, '' where it fell in none."""
    return next((phase.name for phase in phases if phase.log == path and phase.began_ns <= event["stamp_ns"] < phase.ended_ns), "")
