"""A path of lines and rounded corners, each passed in one jerk-limited profile of ruckig (https://github.com/pantor/ruckig)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robots.errors import MissingExtraError
from robots.limits import JointLimits

EXTRA = "motion"


def load_ruckig() -> Any:
    """Return the module; MissingExtraError where it is not installed."""
    try:
        import ruckig
    except ImportError as error:
        raise MissingExtraError("timing joint paths (ruckig)", EXTRA) from error
    return ruckig


@dataclass(frozen=True)
class Line:
    """A straight stretch, begun and ended at given speeds."""

    start: np.ndarray
    """(nv,)"""
    change: np.ndarray
    """(nv,) from start to end."""
    profile: Any
    """Share of the way, over time."""

    @property
    def duration(self) -> float:
        """[s]"""
        return self.profile.duration

    def at(self, seconds: float) -> np.ndarray:
        """Return the position (nv,) `seconds` after the beginning."""
        return self.start + self.profile.at_time(seconds)[0][0] * self.change


@dataclass(frozen=True)
class Corner:
    """A turn of the velocity from `before` to `after` (nv,) along the straight line between the two."""

    start: np.ndarray
    """(nv,)"""
    before: np.ndarray
    after: np.ndarray
    profile: Any
    """Share of the turn done, as the profile's velocity over time."""

    @property
    def duration(self) -> float:
        """[s]"""
        return self.profile.duration

    def at(self, seconds: float) -> np.ndarray:
        """Return the position (nv,) `seconds` after the beginning."""
        return self.start + seconds * self.before + self.profile.at_time(seconds)[0][0] * (self.after - self.before)


@dataclass(frozen=True)
class TimedPath:
    """Lines and corners in turn."""

    pieces: tuple[Line | Corner, ...]
    end: np.ndarray
    """(nv,) where the path comes to rest."""

    @property
    def duration(self) -> float:
        """[s]"""
        return sum(piece.duration for piece in self.pieces)

    def sampled(self, dt: float) -> np.ndarray:
        """Return the positions (T, nv) at 0, dt, 2 dt, ... up to the first time at which the path is at rest at its end."""
        ends = np.cumsum([piece.duration for piece in self.pieces])
        count = int(np.ceil(self.duration / dt - 1e-9)) + 1
        positions = np.tile(self.end, (count, 1))
        for n in range(count - 1):
            piece = min(int(np.searchsorted(ends, n * dt, side="right")), len(self.pieces) - 1)
            positions[n] = self.pieces[piece].at(n * dt - (ends[piece] - self.pieces[piece].duration))
        return positions


class CorneredPath:
    """Waypoints (K, nv), no two in a row alike, and how they can be passed under limits of velocity, acceleration and jerk.

    The speed through a waypoint is a share of the speed limit along the lines before and after it; 0 is a stop. While the velocity
    turns it is on average the mean of the two, so the corner begins and ends as far from the waypoint as half its duration allows.
    """

    def __init__(self, waypoints: np.ndarray, limits: JointLimits) -> None:
        self.waypoints, self.limits = waypoints, limits
        self.changes = np.diff(waypoints, axis=0)
        """(K - 1, nv)"""
        self._ruckig = load_ruckig()

    def corner(self, waypoint: int, share: float) -> Corner | None:
        """Return the corner at a waypoint between the first and the last, None where there is nothing to turn."""
        before, after = (share * _along(self.limits.velocity_max, change) * change for change in self.changes[waypoint - 1:waypoint + 1])
        turn = after - before
        if not turn.any():
            return None
        question = self._question(turn)
        question.control_interface = self._ruckig.ControlInterface.Velocity
        question.target_velocity = [1.0]
        profile = self._answer(question)
        return Corner(self.waypoints[waypoint] - before * profile.duration / 2, before, after, profile)

    def lacks_room(self, line: int, shares: np.ndarray) -> bool:
        """Return True where the line after waypoint `line` is too short for its corners and for the change of speed between them."""
        change, (begin, end) = self.changes[line], shares[line:line + 2] * _along(self.limits.velocity_max, self.changes[line])
        room = 1.0 - self._taken(line, shares[line], begin) - self._taken(line + 1, shares[line + 1], end)
        difference, acceleration, jerk = abs(end - begin), *(_along(limit, change) for limit in self._dynamic)
        slow = difference < acceleration**2 / jerk  # too small a change to get to the full acceleration
        seconds = 2 * np.sqrt(difference / jerk) if slow else difference / acceleration + acceleration / jerk
        return room < (begin + end) / 2 * seconds

    def timed(self, shares: np.ndarray) -> TimedPath:
        """Return the path passed with `shares` (K,) at the waypoints, 0 at the first and the last; no line may lack room."""
        pieces: list[Line | Corner] = []
        at = self.waypoints[0]
        for line, change in enumerate(self.changes):
            corner = self.corner(line + 1, shares[line + 1]) if line + 1 < len(self.changes) else None
            until = self.waypoints[line + 1] if corner is None else corner.start
            speed = _along(self.limits.velocity_max, change)
            way = float((until - at) @ change / (change @ change))  # share of the line that is straight
            question = self._question(change)
            question.current_velocity, question.target_velocity = [shares[line] * speed], [shares[line + 1] * speed]
            question.target_position, question.max_velocity = [way], [speed]
            pieces.append(Line(at, change, self._answer(question)))
            at = until
            if corner is not None:
                pieces.append(corner)
                at = corner.at(corner.duration)
        return TimedPath(tuple(pieces), self.waypoints[-1])

    @property
    def _dynamic(self) -> tuple[np.ndarray, np.ndarray]:
        return self.limits.acceleration_max, self.limits.jerk_max

    def _taken(self, waypoint: int, share: float, speed: float) -> float:
        """Return the share of a line, passed at `speed` [1/s] there, that the corner at one of its ends takes."""
        if not 0 < waypoint < len(self.changes):
            return 0.0
        corner = self.corner(waypoint, share)
        return 0.0 if corner is None else speed * corner.duration / 2

    def _question(self, direction: np.ndarray) -> Any:
        """Return the limits of one number that moves all joints by `direction` (nv,) a unit, at rest at 0."""
        question = self._ruckig.InputParameter(1)
        question.max_velocity = [1e9]
        question.max_acceleration, question.max_jerk = ([_along(limit, direction)] for limit in self._dynamic)
        return question

    def _answer(self, question: Any) -> Any:
        trajectory = self._ruckig.Trajectory(1)
        result = self._ruckig.Ruckig(1).calculate(question, trajectory)
        assert result == self._ruckig.Result.Working, f"ruckig: {result} for a question of one number within its limits"
        return trajectory


def _along(limit: np.ndarray, direction: np.ndarray) -> float:
    """Return the largest multiple of direction (nv,) within limit (nv,)."""
    moving = direction != 0
    return float((limit[moving] / np.abs(direction[moving])).min())
