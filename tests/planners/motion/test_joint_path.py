"""Paths that are found are free, within the limits and the same again; where there is none it is said why."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from planners.motion.collision import CollisionChecker
from planners.motion.joint_path import JointPathConfig, JointPathPlanner, JointPathStatus
from planners.motion.scene import Scene, Sphere
from robots.arms.so101 import so101
from robots.errors import ConfigurationError, MissingExtraError, NonFiniteError, ShapeError, UnknownNameError

pytest.importorskip("ompl")
QUICK = {"rrt-connect": JointPathConfig("rrt-connect", seconds=60.0), "prm*": JointPathConfig("prm*", seconds=60.0, milestones=24)}


@pytest.fixture(scope="module")
def checker(arm, wall):
    return CollisionChecker(arm, wall)


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("seed", range(2))
def test_paths_lead_from_start_to_goal_through_free_space(method, seed, checker, arm, wall, around_the_wall, path_touches):
    start, goal, half_way = around_the_wall
    assert not checker.edge_is_free(start, goal) and checker.first_collision(half_way) is not None
    path = JointPathPlanner(checker, QUICK[method]).plan(start, goal, seed)
    assert path.status is JointPathStatus.FOUND and path.repeatable and path.checks > 0
    assert (path.waypoints[0] == start).all() and (path.waypoints[-1] == goal).all() and len(path.waypoints) > 2
    limits = arm.spec.limits
    assert (path.waypoints >= limits.position_min).all() and (path.waypoints <= limits.position_max).all()
    assert np.linalg.norm(goal - start) < path.length < 10.0
    assert not path_touches(arm, wall, path.waypoints)


@pytest.mark.parametrize("method", QUICK)
def test_one_seed_gives_one_path_whatever_was_planned_before(method, checker, around_the_wall):
    start, goal, _ = around_the_wall
    config = replace(QUICK[method], simplifications=1)
    planner = JointPathPlanner(checker, config)
    first = planner.plan(start, goal, 3)
    other = planner.plan(start, goal, 4)
    again = JointPathPlanner(CollisionChecker(checker.arm, checker.scene), config).plan(start, goal, 3)
    assert first.waypoints.tobytes() == again.waypoints.tobytes() and first.checks == again.checks
    assert first.waypoints.tobytes() != other.waypoints.tobytes()


def test_the_seed_zero_is_a_seed_too(checker, around_the_wall):
    """ompl itself ignores it."""
    planner = JointPathPlanner(checker, replace(QUICK["rrt-connect"], simplifications=0))
    paths = [planner.plan(*around_the_wall[:2], seed).waypoints.tobytes() for seed in (0, 1, 0)]
    assert paths[0] == paths[2] != paths[1]


def test_short_cuts_make_paths_shorter(checker, around_the_wall):
    start, goal, _ = around_the_wall
    lengths = [[JointPathPlanner(checker, replace(QUICK["rrt-connect"], simplifications=rounds)).plan(start, goal, seed).length
                for rounds in (0, 8)] for seed in range(4)]
    assert all(short <= raw for raw, short in lengths) and any(short < 0.9 * raw for raw, short in lengths)


def test_a_servo_arm_finds_its_way_too(path_touches):
    arm = so101()
    ball = Sphere("ball", np.array([0.25, 0.0, 0.12, 1, 0, 0, 0]), 0.06)
    scene = Scene((ball,))
    start, goal = arm.home.copy(), arm.home.copy()
    start[:4], goal[:4] = [-0.8, 0.3, 0.3, 0.3], [0.8, 0.3, 0.3, 0.3]
    path = JointPathPlanner(CollisionChecker(arm, scene), QUICK["rrt-connect"]).plan(start, goal, 0)
    assert path.status is JointPathStatus.FOUND and not path_touches(arm, scene, path.waypoints)


def test_starts_and_goals_that_cannot_be_are_named(checker, around_the_wall):
    start, goal, half_way = around_the_wall
    planner = JointPathPlanner(checker, QUICK["rrt-connect"])
    beyond = start.copy()
    beyond[2] = 3.2
    for ends, status, words in (((half_way, goal), JointPathStatus.START_IN_COLLISION, ("start", "wall")),
                                ((start, half_way), JointPathStatus.GOAL_IN_COLLISION, ("goal", "wall")),
                                ((beyond, goal), JointPathStatus.START_OUTSIDE_LIMITS, ("start", "elbow_joint", "3.2")),
                                ((start, beyond), JointPathStatus.GOAL_OUTSIDE_LIMITS, ("goal", "elbow_joint", "3.14159"))):
        answer = planner.plan(*ends, 0)
        assert answer.status is status and answer.waypoints is None and answer.length == np.inf and answer.repeatable
        assert all(word in answer.message for word in words), answer.message


@pytest.mark.parametrize("method", QUICK)
def test_no_time_is_told_as_such(method, checker, around_the_wall):
    start, goal, _ = around_the_wall
    answer = JointPathPlanner(checker, replace(QUICK[method], seconds=1e-9)).plan(start, goal, 0)
    assert answer.status is JointPathStatus.NOT_FOUND_IN_TIME and answer.waypoints is None and not answer.repeatable


def test_staying_where_one_is_is_a_path(checker, around_the_wall):
    path = JointPathPlanner(checker, QUICK["rrt-connect"]).plan(around_the_wall[0], around_the_wall[0], 0)
    assert path.status is JointPathStatus.FOUND and path.length == 0.0


def test_bad_questions_are_refused(checker, around_the_wall, monkeypatch):
    start, goal, _ = around_the_wall
    planner = JointPathPlanner(checker)
    with pytest.raises(ShapeError, match="goal"):
        planner.plan(start, goal[:5], 0)
    with pytest.raises(NonFiniteError, match="start"):
        planner.plan(start * np.nan, goal, 0)
    with pytest.raises(UnknownNameError, match="rrt-connect"):
        JointPathConfig(method="rrt")
    for change in ({"seconds": 0.0}, {"reach": -1.0}, {"milestones": 1}, {"simplifications": -1}, {"seconds": np.nan}):
        with pytest.raises(ConfigurationError):
            JointPathConfig(**change)
    monkeypatch.setitem(sys.modules, "ompl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'reflexarc\[motion\]'"):
        JointPathPlanner(checker)
