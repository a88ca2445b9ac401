"""How a calibration is found: from a pose that a person holds as angle 0, and from the two ends of every joint."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robots.arms.arm import Arm

TURN = 4096
"""Steps of a turn."""
STEP = 2.0 * math.pi / TURN
"""[rad]"""
MOVED_MIN = 0.35
"""A joint must be moved at least so far, from end to end, to tell which way its servo counts [rad]."""
SPAN_TOLERANCE = 0.1
"""Ends as far apart as the arm's description says, within this, are its stops [rad]."""
SHORT_MAX = 0.15
"""No joint may stop this far before an end that the arm's description gives it [rad]."""
POSE_MAX = 0.26
"""Furthest that the pose may have been from angle 0, as the ends tell it [rad]: 15 degrees."""


class Sweep:
    """Follows servos, in steps from where they stood in the pose held as angle 0, while every joint in turn is moved to its + end and then
    to its other one. Readings must come so often that no joint turns half a turn between two."""

    def __init__(self, readings: list[int]) -> None:
        """`readings` (n,): in the pose [steps]."""
        self.start = tuple(readings)
        n = len(readings)
        self._seen = np.array(readings)
        self.now, self.low, self.high = np.zeros(n, int), np.zeros(n, int), np.zeros(n, int)
        """(n,) where each joint is and the ends that it showed in its turn [steps from the pose]."""
        self.direction = [0] * n
        """1 where the servo counts up towards the + end, -1 where down, 0 where that is not known."""
        self._turn, self._plus = -1, 0

    def see(self, readings: list[int]) -> None:
        """Take the newest readings (n,) [steps]."""
        new = np.array(readings)
        self.now += (new - self._seen + TURN // 2) % TURN - TURN // 2
        self._seen = new
        if self._turn >= 0:
            i = self._turn
            self.low[i], self.high[i] = min(self.low[i], self.now[i]), max(self.high[i], self.now[i])

    def begin(self, joint: int) -> None:
        """It is `joint`'s turn."""
        self._turn = joint
        self.low[joint] = self.high[joint] = self.now[joint]

    def at_plus_end(self) -> None:
        """The joint stands at its + end."""
        i = self._turn
        self._plus = int(self.now[i])
        self.direction[i] = int(np.sign(self._plus))

    def at_other_end(self) -> None:
        """The joint stands at its other end: its turn is over."""
        i = self._turn
        across = self._plus - int(self.now[i])
        self.direction[i] = int(np.sign(across)) if abs(across) * STEP > MOVED_MIN else 0
        self._turn = -1


@dataclass(frozen=True)
class JointFit:
    """What was found out about one joint."""

    name: str
    direction: int
    zero: int
    """Reading at angle 0 [steps]."""
    low: float
    """Lowest angle that was reached [rad]."""
    high: float
    """Highest [rad]."""
    pose_error: float | None
    """How far the pose was from angle 0 [rad], told by the joint's stops; None where its ends are not its description's stops, and angle 0
    is the pose itself."""
    range: tuple[float, float]
    """What is allowed from now on: reached, and within the arm's description [rad]."""
    fault: str
    """What is wrong, for people; empty where nothing is."""

    def range_steps(self, zero: int) -> tuple[int, int]:
        """Return the readings at the ends of the range of a servo that reads `zero` at angle 0 [steps]."""
        ends = sorted(zero + self.direction * angle / STEP for angle in self.range)
        return math.floor(ends[0]), math.ceil(ends[1])


def fit_joints(arm: Arm, sweep: Sweep) -> list[JointFit]:
    """Return what a finished sweep says of every joint, and what is not plausible about it."""
    return [_fit(arm, sweep, i) for i in range(arm.spec.nv)]


def _fit(arm: Arm, sweep: Sweep, i: int) -> JointFit:
    name, limits, direction = arm.spec.joint_names[i], arm.spec.limits, sweep.direction[i]
    lowest, highest = float(limits.position_min[i]), float(limits.position_max[i])
    low, high = sorted((direction * int(sweep.low[i]) * STEP, direction * int(sweep.high[i]) * STEP))
    if direction == 0:
        moved = int(sweep.high[i] - sweep.low[i]) * STEP
        return JointFit(name, 0, sweep.start[i], 0.0, moved, None, (0.0, moved), f"{name}: both its ends were given at the same place, it "
                        f"was moved by {_degrees(moved)} in all: move it to its + end, Enter, and to its other end, Enter")
    error = None
    if abs((high - low) - (highest - lowest)) <= SPAN_TOLERANCE:
        error = 0.5 * (lowest + highest) - 0.5 * (low + high)
        low, high = low + error, high + error
    zero = sweep.start[i] - direction * round((error or 0.0) / STEP)
    return JointFit(name, direction, zero, low, high, error, (max(low, lowest), min(high, highest)),
                    _fault(name, (low, high), (lowest, highest), error))


def _fault(name: str, reached: tuple[float, float], stated: tuple[float, float], error: float | None) -> str:
    """Return what is not plausible about a joint that `reached` two ends, where the arm's description `stated` its own [rad]."""
    if error is not None and abs(error) > POSE_MAX:
        return (f"{name}: the pose held as angle 0 was {_degrees(abs(error))} off, told by its ends (at most {_degrees(POSE_MAX)}): was "
                "the + end the first? Is it the pose that was asked for? Does its horn sit as the maker shows it?")
    short = [(end, by) for end, by in (("-", reached[0] - stated[0]), ("+", stated[1] - reached[1])) if by > SHORT_MAX]
    if short:
        ends = " and ".join(f"{_degrees(by)} before its {end} end" for end, by in short)
        return (f"{name}: it stopped {ends} (reached {_degrees(reached[0])} to {_degrees(reached[1])}, the arm's description says "
                f"{_degrees(stated[0])} to {_degrees(stated[1])}): move it as far as it goes; if something is in its way, take that away; "
                "if the pose held as angle 0 was another, hold it again")
    return ""


def _degrees(angle: float) -> str:
    return f"{math.degrees(angle):.0f} degrees"
