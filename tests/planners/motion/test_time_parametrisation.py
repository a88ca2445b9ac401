"""Timed paths keep every limit, stay free, and are as fast as closed forms say."""

from __future__ import annotations

import sys
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planners.motion.collision import CollisionChecker
from planners.motion.joint_path import JointPathConfig, JointPathPlanner
from planners.motion.scene import Cylinder, Scene, Sphere
from planners.motion.time_parametrisation import TimeParametrisation, TimingStatus
from robots.arms.arm import Arm
from robots.arms.panda import panda
from robots.arms.so101 import so101
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, MissingExtraError, NonFiniteError, ShapeError

pytest.importorskip("ruckig")
ARMS = {make.__name__: make() for make in (ur5e, so101, panda)}
CHECKERS = {name: CollisionChecker(arm) for name, arm in ARMS.items()}


def largest_shares(positions: np.ndarray, dt: float, arm: Arm) -> list[float]:
    """Return by how much velocity, acceleration and jerk are used, by differences of the samples, at rest before and after."""
    padded = np.vstack([np.tile(positions[:1], (3, 1)), positions, np.tile(positions[-1:], (3, 1))])
    limits = arm.spec.limits
    return [float((np.abs(np.diff(padded, order, axis=0)) / dt**order / limit).max())
            for order, limit in ((1, limits.velocity_max), (2, limits.acceleration_max), (3, limits.jerk_max))]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(name=st.sampled_from(sorted(ARMS)), seed=st.integers(0, 10**9), count=st.integers(1, 7), scale=st.sampled_from([1e-5, 0.1, 0.3]))
def test_samples_keep_every_limit_from_rest_to_rest(name, seed, count, scale):
    arm = ARMS[name]
    waypoints = np.clip(arm.home + np.random.default_rng(seed).uniform(-scale, scale, (count, arm.spec.nv)), arm.spec.limits.position_min,
                        arm.spec.limits.position_max)
    trajectory = TimeParametrisation(CHECKERS[name]).time(waypoints)
    if trajectory.status is TimingStatus.IN_COLLISION:  # with itself
        assert trajectory.positions is None and trajectory.duration == np.inf
        return
    positions, dt = trajectory.positions, trajectory.control_dt
    assert (positions[0] == waypoints[0]).all() and (positions[-1] == waypoints[-1]).all() and dt == arm.spec.control_dt
    # 1e-6 and more for jerk: differences of third order magnify rounding
    rounding = 64 * np.finfo(float).eps / (dt**3 * arm.spec.limits.jerk_max.min())
    assert max(largest_shares(positions, dt, arm)) <= 1 + 1e-6 + rounding
    assert trajectory.duration <= trajectory.stop_to_stop * (1 + 1e-9)
    assert (len(positions) - 2) * dt < trajectory.duration + dt * 1e-6 and (len(positions) - 1) * dt >= trajectory.duration - dt * 1e-6
    assert len(trajectory.corner_speeds) == max(count - 2, 0)


def test_a_single_line_takes_the_time_of_the_closed_form(arm):
    timing = TimeParametrisation(CollisionChecker(arm))
    speed, acceleration, jerk = (getattr(arm.spec.limits, name)[0] for name in ("velocity_max", "acceleration_max", "jerk_max"))
    for way in (1.5, 0.9):  # long enough for full speed and full acceleration
        there = arm.home + np.eye(6)[0] * way
        trajectory = timing.time(np.array([arm.home, there]))
        assert trajectory.duration == pytest.approx(way / speed + speed / acceleration + acceleration / jerk, rel=1e-9)
        assert max(largest_shares(trajectory.positions, trajectory.control_dt, arm)) > 0.99
    tiny = 1e-5  # neither is reached
    trajectory = timing.time(np.array([arm.home, arm.home + np.eye(6)[0] * tiny]))
    assert trajectory.duration == pytest.approx(4 * np.cbrt(tiny / (2 * jerk)), rel=1e-9)


def test_a_right_angle_is_passed_as_fast_as_each_joint_could_go_alone(arm):
    """Two joints in turn: while the first brakes the second gets going, which saves one such time against a stop."""
    there = arm.home + 0.8 * np.eye(6)[3]
    trajectory = TimeParametrisation(CollisionChecker(arm)).time(np.array([arm.home, there, there + 0.8 * np.eye(6)[4]]))
    speed, acceleration, jerk = (getattr(arm.spec.limits, name)[3] for name in ("velocity_max", "acceleration_max", "jerk_max"))
    change = speed / acceleration + acceleration / jerk
    assert trajectory.corner_speeds == (1.0,)
    assert trajectory.stop_to_stop == pytest.approx(2 * (0.8 / speed + change), rel=1e-9)
    assert trajectory.duration == pytest.approx(trajectory.stop_to_stop - change, rel=1e-9)


def test_waypoints_on_a_line_cost_next_to_nothing(arm):
    timing = TimeParametrisation(CollisionChecker(arm))
    ends = arm.home, arm.home + np.array([0.6, 0.3, -0.2, 0.1, 0.0, 0.4])
    plain = timing.time(np.array(ends))
    split = timing.time(np.linspace(*ends, 5))
    assert split.duration == pytest.approx(plain.duration, rel=0.05) and split.stop_to_stop > 1.3 * plain.duration


@pytest.mark.parametrize("seed", range(3))
def test_timed_paths_past_obstacles_stay_free_and_keep_limits(seed, arm, wall, around_the_wall, path_touches):
    pytest.importorskip("ompl")
    start, goal, _ = around_the_wall
    checker = CollisionChecker(arm, wall)
    path = JointPathPlanner(checker, JointPathConfig(seconds=60.0, simplifications=seed)).plan(start, goal, seed)
    trajectory = TimeParametrisation(checker).time(path.waypoints)
    assert trajectory.status is TimingStatus.TIMED and trajectory.duration < 0.95 * trajectory.stop_to_stop
    assert max(largest_shares(trajectory.positions, trajectory.control_dt, arm)) <= 1 + 1e-6
    assert not path_touches(arm, wall, trajectory.positions[::8])


def test_a_corner_is_rounded_off_only_as_far_as_it_is_free(arm, path_touches):
    """A bead that the corner's own lines miss with a stick in hand, and the rounding of the fastest corner does not."""
    stick = Cylinder("stick", np.r_[0.0, 0.0, 0.21, 1, 0, 0, 0], 0.005, 0.4)
    waypoints = np.array([arm.home - 0.7 * np.eye(6)[0], arm.home, arm.home + 0.7 * np.eye(6)[3]])
    free = TimeParametrisation(CollisionChecker(arm, Scene(payload=stick))).time(waypoints)
    assert free.corner_speeds == (1.0,)
    kinematics, rng = arm.kinematics(), np.random.default_rng(0)
    for _ in range(200):
        position, quaternion = np.split(kinematics.forward(free.positions[rng.integers(len(free.positions))]), [3])
        mujoco.mju_rotVecQuat(out := np.empty(3), np.array([0.0, 0.0, 0.4]), quaternion)
        scene = Scene((Sphere("bead", np.r_[position + out, 1, 0, 0, 0], 0.005),), stick)
        checker = CollisionChecker(arm, scene)
        if checker.first_path_collision(waypoints) is None and checker.first_path_collision(free.positions) is not None:
            break
    else:
        raise AssertionError("no such bead")
    assert path_touches(arm, scene, free.positions[::8])
    trajectory = TimeParametrisation(checker).time(waypoints)
    assert trajectory.status is TimingStatus.TIMED and 0 < trajectory.corner_speeds[0] < 1
    assert free.duration < trajectory.duration < trajectory.stop_to_stop
    assert not path_touches(arm, scene, trajectory.positions[::8])


def test_paths_in_collision_or_outside_the_limits_are_named(arm, wall, around_the_wall):
    start, goal, _ = around_the_wall
    timing = TimeParametrisation(CollisionChecker(arm, wall))
    through = timing.time(np.array([start, goal]))
    assert through.status is TimingStatus.IN_COLLISION and "wall" in through.message and through.positions is None
    beyond = goal.copy()
    beyond[2] = -3.2
    outside = timing.time(np.array([start, beyond]))
    assert outside.status is TimingStatus.OUTSIDE_LIMITS and "waypoint 1: elbow_joint is at -3.2" in outside.message


def test_paths_of_one_place_take_no_time(arm):
    timing = TimeParametrisation(CollisionChecker(arm))
    for waypoints in (arm.home[None], np.tile(arm.home, (3, 1))):
        trajectory = timing.time(waypoints)
        assert trajectory.duration == 0.0 and (trajectory.positions == arm.home).all() and len(trajectory.positions) == 1


def test_bad_questions_are_refused(arm, monkeypatch):
    checker = CollisionChecker(arm)
    timing = TimeParametrisation(checker)
    with pytest.raises(ShapeError, match="waypoints"):
        timing.time(np.zeros((3, 5)))
    with pytest.raises(NonFiniteError, match="waypoints"):
        timing.time(np.full((2, 6), np.nan))
    with pytest.raises(ConfigurationError, match="at least one"):
        timing.time(np.zeros((0, 6)))
    with pytest.raises(ConfigurationError, match="control_dt"):
        TimeParametrisation(checker, 0.0)
    endless = replace(arm, spec=replace(arm.spec, limits=replace(arm.spec.limits, jerk_max=np.r_[np.full(5, 100.0), np.inf])))
    with pytest.raises(ConfigurationError, match="wrist_3_joint has no jerk_max"):
        TimeParametrisation(CollisionChecker(endless))
    monkeypatch.setitem(sys.modules, "ruckig", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'reflexarc\[motion\]'"):
        TimeParametrisation(checker)
