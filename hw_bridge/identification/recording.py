"""What a log says of the arm's motion: every state that arrived once, evenly in time, in stretches without a gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw_bridge.drivers.driver import VendorState
from hw_bridge.recorder.read_log import Log
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, StoreError

GAP_PERIODS = 5
"""More than this many servo periods without a new state are a gap."""
_ENVELOPE_S = 1.0
"""A device's clock is compared with ours over stretches of this length."""


@dataclass(frozen=True)
class Stretch:
    """States at even times without a gap."""

    time: np.ndarray
    """(n,) [s]"""
    q: np.ndarray
    """(n, nv) [rad]"""
    dq: np.ndarray
    """(n, nv) [rad/s]"""
    tau: np.ndarray
    """(n, nv) measured torques [N·m]."""


def check_arm(log: Log, arm: Arm, where: str) -> None:
    """Raise ConfigurationError where the log is not of `arm`."""
    name, joints = log.header.robot_spec["name"], log.header.joint_names
    if name != arm.spec.name or joints != arm.spec.joint_names:
        raise ConfigurationError(f"{where}: the log is of the arm {name!r} with the joints {', '.join(joints)}; expected "
                                 f"{arm.spec.name!r} with {', '.join(arm.spec.joint_names)}: one identification is of one arm")


def new_states(log: Log, where: str) -> np.ndarray:
    """Return the log's rows in which a new state of the arm was first seen, in order; StoreError where there are none to speak of."""
    rows = log.rows
    ready = [name.lower() for name in log.header.vendor_states].index(VendorState.READY)
    rows = rows[(rows["vendor"] == ready) & np.isfinite(rows["q"]).all(axis=1) & np.isfinite(rows["dq"]).all(axis=1)]
    rows = rows[np.diff(np.maximum.accumulate(rows["received_ns"]), prepend=0) > 0] if len(rows) else rows
    if len(rows) < 100:
        raise StoreError(f"{where}: too short: {len(rows)} states of an arm that was ready, expected 100 or more; record half a "
                         "minute in which the arm moves")
    return rows


def clock(rows: np.ndarray) -> np.ndarray:
    """Return when each of `rows` was measured, (n,) [s] on the host's clock: as the device's own clock says, where it has one, shifted by
    the shortest way that a state took at that time; else when it arrived. What the shortest way itself took is not in it.
    """
    received, device = rows["received_ns"] * 1e-9, rows["device_s"]
    if not np.isfinite(device).all() or (np.diff(device) <= 0).any():
        return received
    late = received - device
    part = ((received - received[0]) / _ENVELOPE_S).astype(int)
    heads = np.flatnonzero(np.diff(part, prepend=-1) != 0)
    least = np.minimum.reduceat(late, heads)
    middle = np.add.reduceat(received, heads) / np.diff(heads, append=len(rows))
    return device + np.minimum(np.interp(received, middle, least), late)


def period(rows: np.ndarray) -> float:
    """Return the usual time between two states [s]."""
    return float(np.median(np.diff(clock(rows))))


def stretches(log: Log, arm: Arm, where: str) -> list[Stretch]:
    """Return the log's states at even times, split at gaps. ConfigurationError where it is another arm's, StoreError where it is too
    short or holds no torques."""
    check_arm(log, arm, where)
    rows = new_states(log, where)
    if not np.isfinite(rows["tau"]).all():
        raise StoreError(f"{where}: holds no measured torques, without which nothing can be said of masses and friction; the arm's "
                         "driver must report them")
    if not rows["tau"].any():
        raise StoreError(f"{where}: every measured torque is 0; the arm's driver must report torques")
    time, step = clock(rows), period(rows)
    parts = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(time) > GAP_PERIODS * step) + 1)
    found = []
    for part in parts:
        if len(part) < 2:
            continue
        even = np.arange(time[part[0]], time[part[-1]], step)
        columns = [np.stack([np.interp(even, time[part], joint) for joint in rows[name][part].T], axis=1) for name in ("q", "dq", "tau")]
        found.append(Stretch(even, *columns))
    return found
