"""How late a bridge sees and acts, from its log: the age of what it sees, and the time from a written set-point to the arm's answer.

What a log tells: when a state reached us and when it was used (both on the host's clock); by how much the device's clock says that states
came later than the quickest ones; and after what time the arm answers what is written. What the quickest way takes each way cannot be told
apart: it is in the last of these, which ends where the quickest state would have been seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw_bridge.answer import LONGEST_S, SETTLING_S, Answer, Motion, find_answer, unknown
from hw_bridge.identification.recording import GAP_PERIODS, check_arm, clock, new_states
from hw_bridge.recorder.read_log import Log
from robots.arms.arm import Arm
from robots.command import CommandMode


@dataclass(frozen=True)
class Span:
    """Where most of a measured time lies [s]."""

    median: float
    low: float
    """Of 20, one is lower."""
    high: float
    """Of 20, one is higher."""


@dataclass(frozen=True)
class Delays:
    """Of one log."""

    period: float
    """Servo period [s]."""
    control_period: float
    """The policy's [s]."""
    arrival_age: Span
    """Of a state as the loop uses it, since it reached us."""
    age: Span
    """The same since it was measured, but for the quickest way; equal to the former where the device has no clock."""
    device_clock: bool
    """Whether it has one."""
    action_age: Span | None
    """Of an action as the loop first uses it, since the policy gave it; None where no policy acted."""
    answer: Answer
    mode: str
    """What was written."""

    @property
    def ahead(self) -> float:
        """What a planner must look ahead [s]: from the state that it sees to the answer to what it asks for; NaN where not known."""
        return self.age.median + self.answer.delay + (self.action_age.median if self.action_age else 0.0)


def estimate_delays(log: Log, arm: Arm, where: str = "the log") -> Delays:
    """Return the delays of a log. ConfigurationError where it is of another arm, StoreError where it is too short."""
    check_arm(log, arm, where)
    states = new_states(log, where)
    rows = log.rows[np.isfinite(log.rows["q"]).all(axis=1)]
    measured = clock(states)
    period = float(np.median(np.diff(measured)))
    used = _used(rows)
    newest = np.searchsorted(states["received_ns"], rows["received_ns"], side="right") - 1
    known = newest >= 0
    age = used[known] - measured[newest[known]]
    actions = _first_uses(rows)
    action_age = _span(_used(actions) - actions["action_stamp_ns"] * 1e-9) if len(actions) else None
    writing = rows[np.isfinite(rows["written"]).all(axis=1) & (rows["written_mode"] < len(log.header.modes))]
    mode, answer = "", unknown("nothing was written")
    if len(writing):
        code = int(np.bincount(writing["written_mode"]).argmax())
        mode = log.header.modes[code]
        answer = find_answer(_motions(writing[writing["written_mode"] == code], states, measured, period), CommandMode(mode), arm)
    device = bool((measured != states["received_ns"] * 1e-9).any())
    return Delays(period, float(log.header.robot_spec["control_dt"]), _span(rows["observation_age_ns"] * 1e-9), _span(age), device,
                  action_age, answer, mode)


def _motions(rows: np.ndarray, states: np.ndarray, measured: np.ndarray, period: float) -> list[Motion]:
    """Return the stretches in which `rows` were written and `states` measured without a gap."""
    found = []
    for part in _unbroken(_used(rows), GAP_PERIODS * period):
        at = _used(rows[part])
        inside = np.flatnonzero((measured >= at[0]) & (measured <= at[-1]))
        for run in _unbroken(measured[inside], GAP_PERIODS * period):
            index = inside[run]
            time = measured[index]
            even = np.arange(time[0], time[-1], period)
            if len(even) * period < SETTLING_S + LONGEST_S:
                continue
            values = [np.stack([np.interp(even, time, joint) for joint in states[name][index].T], axis=1) for name in ("q", "dq", "tau")]
            found.append(Motion(period, at - even[0], rows["written"][part], *values))
    return found


def _unbroken(time: np.ndarray, gap: float) -> list[np.ndarray]:
    """Return the indices of `time` in parts without a gap."""
    return [part for part in np.split(np.arange(len(time)), np.flatnonzero(np.diff(time) > gap) + 1) if len(part) > 1]


def _used(rows: np.ndarray) -> np.ndarray:
    """Return when the loop used what it had read, and wrote, (n,) [s] on the host's clock."""
    return (rows["received_ns"] + rows["observation_age_ns"]) * 1e-9


def _first_uses(rows: np.ndarray) -> np.ndarray:
    """Return the rows in which an action was first heard."""
    return rows[(rows["action_sequence"] >= 0) & (np.diff(rows["action_sequence"], prepend=-1) > 0)]


def _span(values: np.ndarray) -> Span:
    return Span(*(float(value) for value in np.percentile(values, (50, 5, 95))))
