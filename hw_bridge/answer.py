"""After what time an arm answers what is written to it: the delay with which a simple model of each joint explains the motion best.

Positions are followed as by a mass on a spring and a damper, velocities as by a mass and a damper, both simulated from the written values
alone, so that noise in what was measured does not pull at the delay; torques are compared with the measured ones, beside the arm's weight
and friction, which its controller may add. Every joint is fitted for itself (variable projection: gain and offset are solved for). Pieces
of a second count as independent in a joint's interval; where the joints disagree by more than their intervals, the whole is widened as
much (Birge's ratio). It is never narrower than half a servo period to either side: no log tells a moment better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import mujoco
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import least_squares
from scipy.signal import lfilter, lfilter_zi

from robots.arms.arm import Arm
from robots.command import CommandMode

LONGEST_S = 0.1
"""Longer delays are not looked for."""
SETTLING_S = 1.0
"""What came before a stretch is forgotten after this time."""
_BLOCK_S = 1.0
_LEAST_BLOCKS, _LEAST_EXPLAINED = 5, 0.5
_MOVING = 0.01
"""A joint whose speed's root mean square is below this share of its top speed tells nothing."""
_WIDEST_S = 0.005
"""A delay that is known less well than this, or than one servo period, is not known."""
_STARTS = (0.0, 0.02)
"""Delays that a fit is begun with [s], where its other parameters must be found as well."""
_FITS = 2
"""Fits that are carried to their end, from the beginnings that explain most."""
_FILTER_PERIODS = 2.0
"""Torques are smoothed by so many servo periods (standard deviation): what is written is as rough as what is measured."""
_WORTH = 0.9
"""A lag beside the delay counts where it leaves less than this share of the squares: what cannot be told from a delay is one."""
_HALF_95 = 1.96


@dataclass(frozen=True)
class Motion:
    """A stretch without a gap, at even times."""

    period: float
    """[s]"""
    written_at: np.ndarray
    """(m,) when each set-point was written, counted from the first state [s]."""
    written: np.ndarray
    """(m, nv)"""
    q: np.ndarray
    """(n, nv) [rad]"""
    dq: np.ndarray
    """(n, nv) [rad/s]"""
    tau: np.ndarray
    """(n, nv) measured torques [N·m]"""

    def late(self, delay: float, joint: int) -> np.ndarray:
        """Return (n,) what was written `delay` [s] before each state: held until the next, so on average half a period older."""
        moments = np.arange(len(self.q)) * self.period - delay
        return np.interp(moments, self.written_at + 0.5 * self.period, self.written[:, joint])


@dataclass(frozen=True)
class Answer:
    """From writing to the arm's answer."""

    delay: float
    """[s]; NaN where it is not known."""
    half_width: float
    """Half of the 95 % interval [s]; NaN where nothing is known."""
    explained: float
    """Share of the variance that the model explains, over the joints that moved."""
    why_not: str = ""
    """Why the delay is not known; empty where it is."""


Design = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From the parameters of one joint, the delay [s] first, to what is explained (n,) and by what (n, x)."""


def find_answer(motions: list[Motion], mode: CommandMode, arm: Arm) -> Answer:
    """Return the delay over all joints that moved."""
    seconds = sum(len(motion.q) * motion.period - SETTLING_S for motion in motions)
    if seconds < _LEAST_BLOCKS * _BLOCK_S:
        return unknown(f"set-points were written for {max(seconds, 0.0):.0f} s without a gap, once the arm had settled; expected "
                       f"{_LEAST_BLOCKS * _BLOCK_S:g} s or more")
    moving = np.sqrt(np.mean(np.concatenate([motion.dq for motion in motions]) ** 2, axis=0)) > _MOVING * arm.spec.limits.velocity_max
    if not moving.any():
        return unknown(f"no joint moved at {_MOVING:.0%} of its top speed while set-points were written: too little motion")
    if mode is CommandMode.JOINT_TORQUE and not all(np.isfinite(motion.tau).all() for motion in motions):
        return unknown("torques were written, and none were measured")
    period = motions[0].period
    joints = _joints(motions, mode, arm)
    fits = [joints(int(joint)).fit() for joint in np.flatnonzero(moving)]
    delays, deviations, explained = (np.array(values) for values in zip(*fits, strict=True))
    share = float(explained.mean())
    if not share > _LEAST_EXPLAINED:
        return Answer(float("nan"), float("nan"), share, f"what was written explains {share:.0%} of the motion only: too little motion, or "
                                                         "something else moved the arm")
    weights = deviations**-2 / (deviations**-2).sum()
    delay = float(weights @ delays)
    disagreement = float(np.sqrt((((delays - delay) / deviations) ** 2).sum() / max(len(delays) - 1, 1)))
    half = max(_HALF_95 * float((deviations**-2).sum() ** -0.5) * max(disagreement, 1.0), 0.5 * period)
    if half > max(_WIDEST_S, period):
        return Answer(float("nan"), half, share, f"anything from {max(delay - half, 0.0):.4f} to {delay + half:.4f} s explains the motion: "
                                                 "there is too little of it, or it is too slow")
    if delay > LONGEST_S:
        return Answer(float("nan"), half, share, f"the arm answers more than {LONGEST_S:g} s late, if at all")
    return Answer(max(delay, 0.0), half, share)


def unknown(why: str) -> Answer:
    """Return an answer that says why there is none."""
    return Answer(float("nan"), float("nan"), float("nan"), why)


def _joints(motions: list[Motion], mode: CommandMode, arm: Arm) -> Callable[[int], _Joint]:
    """Return what makes a joint's fit."""
    if mode is CommandMode.JOINT_TORQUE:
        weights = [_weight(arm, motion.q) for motion in motions]
        delays = np.arange(0.0, LONGEST_S, motions[0].period)
        return lambda joint: _Joint(motions, [[_torque(m, weight, joint) for m, weight in zip(motions, weights, strict=True)]],
                                    delays[:, None])
    if mode is CommandMode.JOINT_VELOCITY:
        begins = [[delay] for delay in _STARTS], [[delay, 0.03] for delay in _STARTS]
        return lambda joint: _Joint(motions, [[_velocity(m, joint) for m in motions]] * 2, *begins)
    begins = [[delay, np.log(rate), 0.0] for delay in _STARTS for rate in (15.0, 60.0)]
    return lambda joint: _Joint(motions, [[_position(m, joint) for m in motions]], begins)


def _position(motion: Motion, joint: int) -> Design:
    def design(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rate, damping = np.clip(np.exp(x[1:]), (0.5, 0.05), (1.0 / motion.period, 20.0))
        k = 2.0 / (motion.period * rate)  # the bilinear transform of a second-order lag
        poles = [k * k + 2 * damping * k + 1, 2 - 2 * k * k, k * k - 2 * damping * k + 1]
        return motion.q[:, joint], _with_one(_followed([1.0, 2.0, 1.0], poles, motion.late(x[0], joint)))
    return design


def _velocity(motion: Motion, joint: int) -> Design:
    def design(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = motion.late(x[0], joint)
        if len(x) > 1:
            k = 2.0 * max(x[1] / motion.period, 0.5)  # the bilinear transform of a first-order lag
            wanted = _followed([1.0, 1.0], [k + 1, 1 - k], wanted)
        return motion.dq[:, joint], _with_one(wanted)
    return design


def _torque(motion: Motion, weight: np.ndarray, joint: int) -> Design:
    smooth = partial(gaussian_filter1d, sigma=_FILTER_PERIODS, axis=0)
    speed, tau = motion.dq[:, joint], smooth(motion.tau[:, joint])
    beside = smooth(np.stack([weight[:, joint], speed, np.sign(speed)], axis=1))

    def design(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tau, np.column_stack([beside, _with_one(smooth(motion.late(x[0], joint)))])
    return design


def _followed(zeros: list[float], poles: list[float], wanted: np.ndarray) -> np.ndarray:
    """Return how a lag, which had settled before, follows (n,)."""
    zeros, poles = np.array(zeros) / poles[0], np.array(poles) / poles[0]
    return lfilter(zeros, poles, wanted, zi=lfilter_zi(zeros, poles) * wanted[0])[0]


def _with_one(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def _weight(arm: Arm, q: np.ndarray) -> np.ndarray:
    """Return (n, nv) the torques that hold the arm at `q` [N·m]."""
    model = arm.model()
    data, weight = mujoco.MjData(model), np.empty_like(q)
    for k, pose in enumerate(q):
        data.qpos[:] = pose
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_rne(model, data, 0, weight[k])
    return weight


class _Joint:
    """One joint's fit: models from the simplest on, each with what to begin with."""

    def __init__(self, motions: list[Motion], models: list[list[Design]], *begins: Sequence[Sequence[float]]) -> None:
        self._models, self._begins, self._period = models, begins, motions[0].period
        self._settled = round(SETTLING_S / self._period)
        size = round(_BLOCK_S / self._period)
        blocks = [np.arange(len(motion.q) - self._settled) // size for motion in motions]
        self._heads = np.flatnonzero(np.concatenate([np.diff(block, prepend=-1) for block in blocks]))

    def fit(self) -> tuple[float, float, float]:
        """Return the delay [s], its standard deviation [s] and the share of variance that is explained."""
        best = None
        for designs, begins in zip(self._models, self._begins, strict=True):
            left = partial(self._left, designs)
            nearest = sorted(begins, key=lambda begin: float(np.square(left(np.array(begin))).sum()))[:_FITS]
            fits = [least_squares(left, begin, x_scale=[0.01, 1.0, 1.0][: len(begin)], diff_step=1e-3, max_nfev=60) for begin in nearest]
            found = min(fits, key=lambda fit: fit.cost)
            best = found if best is None or found.cost < _WORTH * best.cost else best
        push = np.add.reduceat(best.jac * best.fun[:, None], self._heads)
        inverse = np.linalg.pinv(best.jac.T @ best.jac)
        deviation = max(float(np.sqrt((inverse @ (push.T @ push) @ inverse)[0, 0])), 1e-6)
        y = self._stacked(self._models[0], best.x)[0]
        return float(best.x[0]), deviation, 1.0 - 2.0 * best.cost / max(float(((y - y.mean()) ** 2).sum()), 1e-12)

    def _stacked(self, designs: list[Design], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = [design(x) for design in designs]
        return tuple(np.concatenate([pair[i][self._settled:] for pair in pairs]) for i in range(2))

    def _left(self, designs: list[Design], x: np.ndarray) -> np.ndarray:
        y, by = self._stacked(designs, x)
        return y - by @ np.linalg.lstsq(by, y, rcond=None)[0]
