"""RRT-Connect and PRM* through ompl (https://ompl.kavrakilab.org), with our own check of motions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from planners.motion.collision import CollisionChecker
from robots.errors import MissingExtraError

if TYPE_CHECKING:
    from planners.motion.joint_path import JointPathConfig

EXTRA = "motion"
SEARCHES = ("rrt-connect", "prm*")


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    waypoints: np.ndarray | None
    """(K, nv), None where the time ran out first."""
    repeatable: bool
    """True where the clock had no say."""


class OmplSearch:
    """Searches where a checker says it is free; MissingExtraError where ompl is not installed."""

    def __init__(self, checker: CollisionChecker) -> None:
        try:
            from ompl import base, geometric, util
        except ImportError as error:
            raise MissingExtraError("planning joint paths (ompl)", EXTRA) from error
        self._base, self._geometric, self._util = base, geometric, util
        self._checker = checker

    def solve(self, start: np.ndarray, goal: np.ndarray, box: tuple[np.ndarray, np.ndarray], seed: int, config: JointPathConfig,
              deadline: float) -> Found:
        """Return a path from start to goal (nv,), both free, within the box from box[0] to box[1] (nv,).

        `deadline`: a time of `time.perf_counter`.

        ompl draws the seed of every generator it makes from one sequence a process. It says that re-seeding this sequence is of no
        use once it was drawn from; that holds for generators made before. All objects here are made anew after it, so that each call
        repeats itself bit for bit (tests/planners/test_joint_path.py).
        """
        with self._quiet():
            self._util.RNG.setSeed(seed % 2**32 or 2**32 - 1)  # ompl ignores 0
            problem = _Problem(self._base, self._checker, box, start, goal)
            if config.method == "rrt-connect":
                path = self._rrt_connect(problem, config, deadline)
                repeatable = True
            else:
                path, repeatable = self._prm_star(problem, config, deadline)
            if path is None:
                return Found(None, False)
            in_time = self._simplify(problem, path, config.simplifications, deadline)
            return Found(np.array([problem.read(state) for state in path.getStates()]), repeatable and in_time)

    def _rrt_connect(self, problem: _Problem, config: JointPathConfig, deadline: float) -> Any | None:
        """Return the first path found (Kuffner and LaValle 2000)."""
        planner = self._geometric.RRTConnect(problem.information)
        planner.setRange(config.reach)
        planner.setProblemDefinition(problem.definition)
        planner.setup()
        planner.solve(self._base.PlannerTerminationCondition(lambda: time.perf_counter() > deadline))
        return problem.definition.getSolutionPath() if problem.definition.hasExactSolution() else None

    def _prm_star(self, problem: _Problem, config: JointPathConfig, deadline: float) -> tuple[Any | None, bool]:
        """Return the shortest path through a roadmap (Karaman and Frazzoli 2011), and whether the roadmap became as large as planned.

        ompl's own `solve` looks for paths in a second thread beside the growing roadmap, so that the clock decides which one it finds:
        here ompl grows the roadmap, and the shortest path is looked for when it has grown.
        """
        planner = self._geometric.PRMstar(problem.information)
        planner.setProblemDefinition(problem.definition)
        planner.setup()
        planner.solve(self._base.plannerAlwaysTerminatingCondition())  # only makes milestones of start and goal
        size = config.milestones
        while True:
            planner.growRoadmapPtc(self._base.PlannerTerminationCondition(partial(_is_grown, planner, size, deadline)))
            data = self._base.PlannerData(problem.information)
            planner.getPlannerData(data)
            path = self._shortest(problem, data)
            if path is not None or time.perf_counter() > deadline:
                return path, planner.milestoneCount() >= size
            size *= 2

    def _shortest(self, problem: _Problem, data: Any) -> Any | None:
        count = data.numVertices()
        states = [data.getVertex(i).getState() for i in range(count)]
        places = np.array([problem.read(state) for state in states])
        rows, columns = np.array([(i, j) for i in range(count) for j in data.getEdges(i)], dtype=np.int64).reshape(-1, 2).T
        lengths = np.linalg.norm(places[rows] - places[columns], axis=1)
        start, goal = data.getStartIndex(0), data.getGoalIndex(0)
        distance, before = dijkstra(csr_array((lengths, (rows, columns)), shape=(count, count)), directed=False, indices=start,
                                    return_predecessors=True)
        if not np.isfinite(distance[goal]):
            return None
        order = [goal]
        while order[-1] != start:
            order.append(int(before[order[-1]]))
        path = self._geometric.PathGeometric(problem.information)
        for i in reversed(order):
            path.append(states[i])
        return path

    def _simplify(self, problem: _Problem, path: Any, rounds: int, deadline: float) -> bool:
        """Cut corners of `path` where that is free, in place; return True unless the time ran out."""
        simplifier = self._geometric.PathSimplifier(problem.information)
        for _ in range(rounds):
            if time.perf_counter() > deadline:
                return False
            changes = [simplifier.reduceVertices(path), simplifier.partialShortcutPath(path), simplifier.collapseCloseVertices(path)]
            if not any(changes):
                break
        return True

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep ompl from printing; what it has to say is in the status."""
        level = self._util.getLogLevel()
        self._util.setLogLevel(self._util.LogLevel.LOG_NONE)
        try:
            yield
        finally:
            self._util.setLogLevel(level)


class _Problem:
    """One query in ompl's terms; everything that draws random numbers is made with it."""

    def __init__(self, base: Any, checker: CollisionChecker, box: tuple[np.ndarray, np.ndarray], start: np.ndarray,
                 goal: np.ndarray) -> None:
        self.read = read = _Reader(len(start))
        space = base.RealVectorStateSpace(len(start))
        bounds = base.RealVectorBounds(len(start))
        for i in range(len(start)):
            bounds.setLow(i, box[0][i])
            bounds.setHigh(i, box[1][i])
        space.setBounds(bounds)

        class Motions(base.MotionValidator):
            def checkMotion(self, first: Any, second: Any) -> bool:
                return checker.edge_is_free(read(first), read(second))

        # what ompl holds must not hold this problem: neither Python nor ompl could see such a circle and free it
        self.information = base.SpaceInformation(space)
        self.information.setStateValidityChecker(lambda state: checker.is_free(read(state)))
        self.information.setMotionValidator(Motions(self.information))
        self.information.setup()
        self.definition = base.ProblemDefinition(self.information)
        self.definition.setStartAndGoalStates(_state(space, start), _state(space, goal))


@dataclass(frozen=True)
class _Reader:
    """Reads a state's configuration (nv,)."""

    count: int

    def __call__(self, state: Any) -> np.ndarray:
        return np.array([state[i] for i in range(self.count)])


def _is_grown(planner: Any, size: int, deadline: float) -> bool:
    return planner.milestoneCount() >= size or time.perf_counter() > deadline


def _state(space: Any, q: np.ndarray) -> Any:
    state = space.allocState()
    for i, value in enumerate(q.tolist()):
        state[i] = value
    return state
