"""A collision-free joint path from one configuration to another: what is asked, what is answered, and why not where there is none."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from planners.motion.collision import CollisionChecker
from planners.motion.ompl_search import SEARCHES, OmplSearch
from robots.errors import ConfigurationError, UnknownNameError
from robots.validation import checked_array


class JointPathStatus(StrEnum):
    """How planning ended; all but the first come without a path."""

    FOUND = "found"
    START_OUTSIDE_LIMITS = "start outside the joint limits"
    GOAL_OUTSIDE_LIMITS = "goal outside the joint limits"
    START_IN_COLLISION = "start in collision"
    GOAL_IN_COLLISION = "goal in collision"
    NOT_FOUND_IN_TIME = "not found in time"
    """There may be a path: neither method can prove that there is none."""


@dataclass(frozen=True)
class JointPath:
    """What planning came to."""

    status: JointPathStatus
    message: str
    """In words: the joint, or the pair of geoms, that stands in the way."""
    waypoints: np.ndarray | None
    """(K, nv) corners of the path [rad or m], start and goal included; straight in between."""
    repeatable: bool
    """True where time played no part: the same seed gives the same path again, bit for bit."""
    seconds: float
    """Planning time [s]."""
    checks: int
    """Distances between geoms that were computed."""

    @property
    def length(self) -> float:
        """Length of the path in joint space, +inf without one."""
        return np.inf if self.waypoints is None else float(np.linalg.norm(np.diff(self.waypoints, axis=0), axis=1).sum())


@dataclass(frozen=True)
class JointPathConfig:
    """How to search."""

    method: str = "rrt-connect"
    """rrt-connect: the first path found, made shorter. prm*: the shortest one through a roadmap, which tends to the optimum."""
    seconds: float = 10.0
    """Time budget."""
    reach: float = 1.0
    """Longest branch of RRT-Connect's trees [rad or m in joint space]."""
    milestones: int = 200
    """Configurations in PRM*'s roadmap; twice as many, and so on, while start and goal are not connected."""
    simplifications: int = 8
    """Rounds of short cuts at most; they stop when the path stays as it is."""

    def __post_init__(self) -> None:
        if self.method not in SEARCHES:
            raise UnknownNameError("method", self.method, SEARCHES)
        for name in ("seconds", "reach"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigurationError(f"JointPathConfig.{name}: expected a positive number, got {getattr(self, name)}")
        if self.milestones < 2 or self.simplifications < 0:
            raise ConfigurationError("JointPathConfig: expected at least 2 milestones and 0 simplifications, "
                                     f"got {self.milestones} and {self.simplifications}")


class JointPathPlanner:
    """Plans within the joint limits of the checker's arm; MissingExtraError where ompl is not installed.

    A joint goes at most half a turn beyond start and goal: that holds every posture, and where joints turn twice as far as they need
    to (UR's) the box to search is far smaller. ompl keeps one seed a process: not for use from two threads at once.
    """

    def __init__(self, checker: CollisionChecker, config: JointPathConfig | None = None) -> None:
        self.checker, self.config = checker, config or JointPathConfig()
        limits = checker.arm.spec.limits
        self.lower, self.upper = limits.position_min, limits.position_max
        if not np.isfinite([self.lower, self.upper]).all():
            raise ConfigurationError(f"arm {checker.arm.spec.name!r}: expected finite position limits, a search needs a box to draw from")
        self._search = OmplSearch(checker)

    def plan(self, start: np.ndarray, goal: np.ndarray, seed: int) -> JointPath:
        """Return a path from start to goal (nv,) [rad or m]; ShapeError or NonFiniteError for what is no configuration."""
        begun, checks = time.perf_counter(), self.checker.checks
        shape = (len(self.lower),)
        start, goal = checked_array("start", start, shape), checked_array("goal", goal, shape)

        def answer(status: JointPathStatus, message: str, waypoints: np.ndarray | None = None, repeatable: bool = True) -> JointPath:
            return JointPath(status, message, waypoints, repeatable, time.perf_counter() - begun, self.checker.checks - checks)

        for q, what, outside, colliding in (
                (start, "start", JointPathStatus.START_OUTSIDE_LIMITS, JointPathStatus.START_IN_COLLISION),
                (goal, "goal", JointPathStatus.GOAL_OUTSIDE_LIMITS, JointPathStatus.GOAL_IN_COLLISION)):
            beyond = np.flatnonzero((q < self.lower) | (q > self.upper))
            if len(beyond):
                j = beyond[0]
                return answer(outside, f"{what}: {self.checker.arm.spec.joint_names[j]} is at {q[j]:.6g}, "
                                       f"its limits are {self.lower[j]:.6g} to {self.upper[j]:.6g}")
            pair = self.checker.first_collision(q)
            if pair is not None:
                return answer(colliding, f"{what}: {pair[0]} and {pair[1]} are closer than {self.checker.config.margin:g} m")
        box = np.maximum(self.lower, np.minimum(start, goal) - np.pi), np.minimum(self.upper, np.maximum(start, goal) + np.pi)
        found = self._search.solve(start, goal, box, seed, self.config, begun + self.config.seconds)
        if found.waypoints is None:
            return answer(JointPathStatus.NOT_FOUND_IN_TIME, f"no path within {self.config.seconds:g} s; allow more time, or a smaller "
                                                             "margin where a gap is narrow", repeatable=False)
        return answer(JointPathStatus.FOUND, f"{len(found.waypoints)} waypoints", found.waypoints, found.repeatable)
