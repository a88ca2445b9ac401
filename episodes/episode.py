"""An episode: what a robot lived through between one reset and the end, with who acted and on which machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from episodes.metadata import EpisodeMetadata
from robots.errors import ConfigurationError, ShapeError
from robots.validation import checked_array


class Transitions(NamedTuple):
    """An episode's T periods, ready to fit a model."""

    x: np.ndarray
    """(T, nx) states before."""
    u: np.ndarray
    """(T, nu) commands as truly applied."""
    x_next: np.ndarray
    """(T, nx) states after."""
    dt: np.ndarray
    """(T,) measured time steps [s]."""


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """Which pictures of one camera belong to an episode; the pictures themselves are stored beside it."""

    sequence: np.ndarray
    """(n,) int64 sequence numbers, increasing; a gap is a lost picture."""
    captured_ns: np.ndarray
    """(n,) int64 when the light fell [ns], on the episode's clock."""

    def __post_init__(self) -> None:
        for name in ("sequence", "captured_ns"):
            array = np.array(getattr(self, name))
            if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
                raise ShapeError(f"FrameTimes.{name}: expected integers of shape (any,), got {array.shape} {array.dtype}")
            array = array.astype(np.int64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.sequence.shape != self.captured_ns.shape:
            raise ShapeError(f"FrameTimes: expected one capture time a picture, got {len(self.sequence)} sequence numbers "
                             f"and {len(self.captured_ns)} times")
        if (np.diff(self.sequence) <= 0).any():
            raise ConfigurationError("FrameTimes.sequence: expected increasing numbers; sort the pictures and drop repeated ones")


@dataclass(frozen=True, eq=False)
class Episode:
    """T control periods between T+1 measured time stamps; arrays are read-only float64; validates itself.

    In period t the robot was in `x[t]`, was asked for `commanded[t]`, did `applied[t]`, and `time[t + 1]` found it in `x[t + 1]`.
    Raises ShapeError, NonFiniteError or ConfigurationError, each naming the field.
    """

    time: np.ndarray
    """(T+1,) measured time stamps [s], strictly increasing, on the clock that `metadata.clock` names."""
    x: np.ndarray
    """(T+1, nx) states."""
    commanded: np.ndarray
    """(T, nu) what was asked for, in the command's own units."""
    applied: np.ndarray
    """(T, nu) what the robot reported to have done; models learn from this."""
    cost: np.ndarray
    """(T,) cost charged for each period; lower is better."""
    terminated: bool
    """True where the task ended the episode (fell over, reached an absorbing state)."""
    truncated: bool
    """True where time ran out; both are False for an episode that was interrupted."""
    state_names: tuple[str, ...]
    """nx names, as `StateSpace.names`."""
    command_names: tuple[str, ...]
    """nu names, as `CommandSpec.names`."""
    metadata: EpisodeMetadata
    cost_terms: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Named parts (T,) of the cost, for reports."""
    plan_seconds: np.ndarray | None = None
    """(T,) time spent planning [s], NaN where nothing was planned; None where nobody measured."""
    frames: Mapping[str, FrameTimes] = field(default_factory=dict)
    """Which pictures of every camera belong to the episode."""

    def __post_init__(self) -> None:
        for name in ("terminated", "truncated"):
            object.__setattr__(self, name, bool(getattr(self, name)))
        for name in ("state_names", "command_names"):
            object.__setattr__(self, name, _checked_names(name, getattr(self, name)))
        self._freeze("time", (None,))
        steps, nx, nu = len(self.time) - 1, len(self.state_names), len(self.command_names)
        if steps < 1:
            raise ShapeError(f"Episode.time: expected at least two time stamps (one control period), got {len(self.time)}; "
                             "do not keep an episode in which nothing was done")
        backwards = np.flatnonzero(np.diff(self.time) <= 0)
        if len(backwards):
            t = int(backwards[0])
            raise ConfigurationError(f"Episode.time: expected strictly increasing stamps [s], got {self.time[t]} then {self.time[t + 1]} "
                                     f"at index {t + 1}; the clock stood still or a stamp was recorded twice")
        self._freeze("x", (steps + 1, nx))
        self._freeze("commanded", (steps, nu))
        self._freeze("applied", (steps, nu))
        self._freeze("cost", (steps,))
        terms = {name: checked_array(f"Episode.cost_terms[{name!r}]", value, (steps,)) for name, value in self.cost_terms.items()}
        _checked_names("cost_terms", tuple(terms), at_least_one=False)
        object.__setattr__(self, "cost_terms", MappingProxyType(terms))
        if self.plan_seconds is not None:
            seconds = checked_array("Episode.plan_seconds", self.plan_seconds, (steps,), finite=False)
            wrong = seconds[np.isinf(seconds) | (seconds < 0)]
            if len(wrong):
                raise ConfigurationError(f"Episode.plan_seconds: expected seconds or NaN, got {wrong[0]}")
            object.__setattr__(self, "plan_seconds", seconds)
        object.__setattr__(self, "frames", MappingProxyType(dict(self.frames)))

    def _freeze(self, name: str, shape: tuple[int | None, ...]) -> None:
        object.__setattr__(self, name, checked_array(f"Episode.{name}", getattr(self, name), shape))

    @property
    def steps(self) -> int:
        """T, the number of control periods."""
        return len(self.cost)

    @property
    def total_return(self) -> float:
        """Minus the sum of the cost."""
        return -float(self.cost.sum())

    @property
    def dt(self) -> np.ndarray:
        """(T,) measured length of each period [s]."""
        return np.diff(self.time)

    @property
    def planned_seconds(self) -> np.ndarray:
        """(n,) time of every period in which something was planned [s]; empty where nothing was."""
        return self.plan_seconds[np.isfinite(self.plan_seconds)] if self.plan_seconds is not None else np.zeros(0)

    def transitions(self) -> Transitions:
        """Return the T transitions (x, u, x_next, dt), where u is what was applied."""
        return Transitions(self.x[:-1], self.applied, self.x[1:], self.dt)


def _checked_names(field_name: str, names: tuple[str, ...], *, at_least_one: bool = True) -> tuple[str, ...]:
    names = tuple(names)
    if at_least_one and not names:
        raise ConfigurationError(f"Episode.{field_name}: expected at least one name, got none")
    if any(not isinstance(name, str) or not name for name in names) or len(set(names)) != len(names):
        raise ConfigurationError(f"Episode.{field_name}: expected different, non-empty names, got {names}")
    try:
        json.dumps(names, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"Episode.{field_name}: expected names that are valid Unicode, got {names!r}") from error
    return names
