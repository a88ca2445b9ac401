"""Short stretches of a log's motion from which a model is judged: from the measured state on, driven by the measured torques."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import savgol_filter

from hw_bridge.identification.recording import Stretch
from robots.arms.arm import Arm
from robots.errors import StoreError

WINDOW_S = 0.2
"""Long enough for a wrong torque to show, short enough for errors to stay small [s]."""
MOVING = 0.02
"""A joint that is faster than this share of its top speed moves."""
LEAST_WINDOWS = 20
"""Of motion; fewer say too little."""
_SMOOTH_S, _LEAST_SMOOTH = 0.02, 5
"""What the first state of a window is smoothed over [s], and the fewest states."""
_STEP_S = 0.002
"""The models' steps are no longer than this [s]."""


@dataclass(frozen=True)
class Windows:
    """k windows of m states each, in the order in which they were lived."""

    period: float
    """Between two states [s]."""
    substeps: int
    """Of a model between two states."""
    q: np.ndarray
    """(k, m, nv) [rad]"""
    dq: np.ndarray
    """(k, m, nv) [rad/s]"""
    ddq: np.ndarray
    """(k, m, nv) smoothed [rad/s^2]"""
    tau: np.ndarray
    """(k, m, nv) measured torques [N·m]"""
    start: np.ndarray
    """(k, 2 nv) the first position and velocity, smoothed."""
    torque: np.ndarray
    """(k, (m - 1) substeps, nv) the same between the states, for a model's steps."""

    def __len__(self) -> int:
        return len(self.q)

    def take(self, index: np.ndarray) -> Windows:
        """Return the windows at `index`."""
        arrays = {name: getattr(self, name)[index] for name in ("q", "dq", "ddq", "tau", "start", "torque")}
        return replace(self, **arrays)

    def later(self, seconds: float) -> Windows:
        """Return the windows as they were had the torques been measured `seconds` later than the log says."""
        slope = np.gradient(self.torque, self.period / self.substeps, axis=1)
        return replace(self, torque=self.torque + seconds * slope)


def moving_windows(stretches: Sequence[Stretch], arm: Arm) -> Windows:
    """Return the windows in which a joint moves; StoreError where they are too few."""
    if not stretches:
        raise StoreError("the logs hold no stretch without gaps; record half a minute in which all joints move")
    period = float(np.median([stretch.time[1] - stretch.time[0] for stretch in stretches]))
    length = max(round(WINDOW_S / period) + 1, 8)
    substeps = int(np.ceil(period / _STEP_S - 0.25))
    speed = MOVING * arm.spec.limits.velocity_max
    cut = [_cut(stretch, length, substeps, speed) for stretch in stretches if len(stretch.time) > length + 2 * _smoothed_over(period)]
    count = sum(len(part[0]) for part in cut)
    if count < LEAST_WINDOWS:
        seconds = sum(float(stretch.time[-1] - stretch.time[0]) for stretch in stretches)
        raise StoreError(f"too little motion: {count * WINDOW_S:.1f} s of {seconds:.1f} s in which a joint is faster than {MOVING:.0%} of "
                         f"its top speed, expected {LEAST_WINDOWS * WINDOW_S:g} s or more; record half a minute in which all joints move")
    return Windows(period, substeps, *(np.concatenate([part[i] for part in cut]) for i in range(6)))


def _cut(stretch: Stretch, length: int, substeps: int, speed: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the arrays of `Windows` of the moving windows of one stretch; they share their first and last states."""
    step = float(stretch.time[1] - stretch.time[0])
    over = _smoothed_over(step)
    ddq = savgol_filter(stretch.dq, over, 2, deriv=1, delta=step, axis=0)
    smooth = [savgol_filter(values, over, 2, axis=0) for values in (stretch.q, stretch.dq)]
    heads = np.arange(over, len(stretch.time) - length - over, length - 1)
    at = heads[:, None] + np.arange(length)  # (k, m)
    at = at[(np.abs(smooth[1][at]) > speed).any(axis=2).mean(axis=1) > 0.5]
    start = np.concatenate([values[at[:, 0]] if len(at) else np.zeros((0, len(speed))) for values in smooth], axis=1)
    middle = (np.arange((length - 1) * substeps) + 0.5) / substeps
    low = middle.astype(int)
    share = (middle - low)[None, :, None]
    torque = (1 - share) * stretch.tau[at[:, low]] + share * stretch.tau[at[:, low + 1]]
    return stretch.q[at], stretch.dq[at], ddq[at], stretch.tau[at], start, torque


def _smoothed_over(period: float) -> int:
    return max(2 * round(0.5 * _SMOOTH_S / period) + 1, _LEAST_SMOOTH)


def spaced(count: int, most: int) -> np.ndarray:
    """Return at most `most` indices below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
