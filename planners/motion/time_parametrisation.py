"""When an arm is where on a joint path: as fast as its limits of velocity, acceleration and jerk allow, sampled at its control period."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from planners.motion.collision import CollisionChecker
from planners.motion.timed_path import CorneredPath, load_ruckig
from robots.errors import ConfigurationError
from robots.validation import checked_array

SLOWER = 0.8
"""Factor on a corner's speed each time that it proves too fast."""
STANDSTILL = 0.02
"""A corner slower than this share of the speed limit is a stop."""


class TimingStatus(StrEnum):
    """How timing ended; all but the first come without a trajectory."""

    TIMED = "timed"
    OUTSIDE_LIMITS = "waypoint outside the joint limits"
    IN_COLLISION = "path in collision"


@dataclass(frozen=True)
class JointTrajectory:
    """A joint path with times."""

    status: TimingStatus
    message: str
    """In words: the joint, or the pair of geoms, that stands in the way."""
    control_dt: float
    """[s]"""
    positions: np.ndarray | None = None
    """(T, nv) set-points [rad or m], one every `control_dt`, from the first waypoint at rest to the last at rest."""
    duration: float = np.inf
    """[s] until the goal is reached."""
    stop_to_stop: float = np.inf
    """[s] that it would take with a stop at every waypoint."""
    corner_speeds: tuple[float, ...] = ()
    """Speed through every waypoint between start and goal, as a share of the speed limit along the path; 0 is a stop."""


class TimeParametrisation:
    """Times paths of the checker's arm; MissingExtraError without ruckig, ConfigurationError for an arm whose limits of velocity,
    acceleration or jerk are not stated.

    Between waypoints the arm stays on the straight line. At a waypoint it does not stop: its velocity turns from one direction into the
    next as fast as acceleration and jerk allow, which rounds the corner off. Lines and corners are profiles of one number each, so that
    all joints keep their limits at all times. A corner is passed at the highest speed, in steps of `SLOWER`, at which its rounding is
    free of collisions and the lines on both sides have room to get to their speeds.
    """

    def __init__(self, checker: CollisionChecker, control_dt: float | None = None) -> None:
        """`control_dt`: sampling period [s]; None: the arm's."""
        load_ruckig()
        spec = checker.arm.spec
        self.checker, self.control_dt = checker, spec.control_dt if control_dt is None else control_dt
        if not (np.isfinite(self.control_dt) and self.control_dt > 0):
            raise ConfigurationError(f"control_dt: expected a positive period [s], got {control_dt}")
        for name in ("velocity_max", "acceleration_max", "jerk_max"):
            unlimited = np.flatnonzero(~np.isfinite(getattr(spec.limits, name)))
            if len(unlimited):
                raise ConfigurationError(f"arm {spec.name!r}: {spec.joint_names[unlimited[0]]} has no {name}, and what has no limit takes "
                                         "no time; state one in its JointLimits")

    def time(self, waypoints: np.ndarray) -> JointTrajectory:
        """Return the trajectory along waypoints (K, nv), at least one; ShapeError or NonFiniteError for what is no path.

        A waypoint outside the limits and a path in collision are statuses.
        """
        spec = self.checker.arm.spec
        waypoints = checked_array("waypoints", waypoints, (None, spec.nv))
        if not len(waypoints):
            raise ConfigurationError("waypoints: expected at least one, got none")
        low, high = spec.limits.position_min, spec.limits.position_max
        outside = np.argwhere((waypoints < low) | (waypoints > high))
        if len(outside):
            k, j = outside[0]
            words = f"waypoint {k}: {spec.joint_names[j]} is at {waypoints[k, j]:.6g}, its limits are {low[j]:.6g} to {high[j]:.6g}"
            return JointTrajectory(TimingStatus.OUTSIDE_LIMITS, words, self.control_dt)
        moved = np.r_[True, (np.diff(waypoints, axis=0) != 0).any(axis=1)]
        path = CorneredPath(waypoints[moved], spec.limits)
        stops = np.zeros(len(path.waypoints))
        shares = self._fastest(path)
        timed, stopping = path.timed(shares), path.timed(stops)
        if stopping.duration < timed.duration:
            timed, shares = stopping, stops
        positions = timed.sampled(self.control_dt)
        # what kept the margin at every look keeps this much in between
        kept = max(self.checker.config.margin - self.checker.config.resolution / 2, 0.0)
        pair = self.checker.first_path_collision(positions, kept)
        if pair is not None:
            return JointTrajectory(TimingStatus.IN_COLLISION, f"{pair[0]} and {pair[1]} come closer than {kept:g} m", self.control_dt)
        return JointTrajectory(TimingStatus.TIMED, f"{len(positions)} set-points", self.control_dt, positions, timed.duration,
                               stopping.duration, tuple(shares[1:-1].tolist()))

    def _fastest(self, path: CorneredPath) -> np.ndarray:
        """Return the shares (K,) of the speed limit at the waypoints."""
        shares = np.ones(len(path.waypoints))
        shares[[0, -1]] = 0.0
        for corner in range(1, len(shares) - 1):
            while not self._rounding_is_free(path, corner, shares[corner]):
                shares[corner] = _slower(shares[corner])
        while (short := [line for line in range(len(path.changes)) if path.lacks_room(line, shares)]):
            faster = max(short[0], short[0] + 1, key=lambda waypoint: shares[waypoint])
            shares[faster] = _slower(shares[faster])
            while not self._rounding_is_free(path, faster, shares[faster]):
                shares[faster] = _slower(shares[faster])
        return shares

    def _rounding_is_free(self, path: CorneredPath, waypoint: int, share: float) -> bool:
        corner = path.corner(waypoint, share)
        if corner is None:
            return True
        times = np.linspace(0.0, corner.duration, int(np.ceil(corner.duration / self.control_dt)) + 1)
        return self.checker.first_path_collision(np.array([corner.at(t) for t in times])) is None


def _slower(share: float) -> float:
    return share * SLOWER if share * SLOWER >= STANDSTILL else 0.0
