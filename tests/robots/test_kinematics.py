"""Kinematics: the Jacobian is the derivative of the pose, and inverse kinematics leads back to it."""

from pathlib import Path

import mujoco
import numpy as np
import pytest

from robots.errors import ConfigurationError, NonFiniteError, ShapeError, UnknownNameError
from robots.inverse_kinematics import InverseKinematics, InverseKinematicsConfig, InverseKinematicsStatus
from robots.kinematics import FrameKind, Kinematics

ARM = """
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <worldbody>
    <body name="base" pos="0.1 -0.2 0.3" euler="0.1 0.2 0.3">
      <joint name="turn" axis="0 0 1" range="-2.5 2.5"/><geom size="0.02"/>
      <body name="upper" pos="0 0 0.3">
        <joint name="lift" axis="0 1 0" range="-1.5 1.5"/><geom size="0.02"/>
        <body name="reach" pos="0.3 0 0">
          <joint name="reach" type="slide" axis="1 0 0" range="-0.1 0.2"/><geom size="0.02"/>
          <body name="hand" pos="0.1 0 0">
            <joint name="wrist" type="ball"/><geom size="0.02"/>
            <site name="tip" pos="0.05 0.02 0.1" euler="0.4 0 0.2"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
REACHER = Path(__file__).parents[2] / "sim" / "scenes" / "reacher7.xml"


@pytest.fixture
def arm() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(ARM)


def random_positions(model: mujoco.MjModel, generator: np.random.Generator) -> np.ndarray:
    q = model.qpos0.copy()
    mujoco.mj_integratePos(model, q, generator.uniform(-0.9, 0.9, model.nv) * np.array([2, 1, 0.1, 2, 2, 2]), 1.0)
    return q


@pytest.mark.parametrize(("kind", "frame"), [(FrameKind.SITE, "tip"), (FrameKind.BODY, "hand")])
def test_the_jacobian_is_the_derivative_of_the_pose(arm, kind, frame):
    kinematics, generator, step = Kinematics(arm, frame, kind), np.random.default_rng(0), 1e-6
    for _ in range(5):
        q = random_positions(arm, generator)
        numeric = np.empty((6, arm.nv))
        for i, direction in enumerate(np.eye(arm.nv)):
            ahead, behind = q.copy(), q.copy()
            mujoco.mj_integratePos(arm, ahead, direction, step)
            mujoco.mj_integratePos(arm, behind, direction, -step)
            after, before = kinematics.forward(ahead), kinematics.forward(behind)
            numeric[:3, i] = (after[:3] - before[:3]) / (2 * step)
            body_rate, rate = np.empty(3), np.empty(3)
            mujoco.mju_subQuat(body_rate, after[3:], before[3:])  # a rotation vector along the frame's own axes
            mujoco.mju_rotVecQuat(rate, body_rate / (2 * step), before[3:])
            numeric[3:, i] = rate
        # central differences of a smooth function of size ~1: truncation ~1e-12, rounding ~1e-16 / 1e-6
        np.testing.assert_allclose(kinematics.jacobian(q), numeric, atol=1e-8)


def test_forward_poses_are_unit_quaternions_and_agree_with_the_engine(arm):
    kinematics, data = Kinematics(arm, "tip"), mujoco.MjData(arm)
    generator = np.random.default_rng(1)
    for _ in range(10):
        data.qpos[:] = q = random_positions(arm, generator)
        mujoco.mj_forward(arm, data)
        pose, rotation = kinematics.forward(q), np.empty(9)
        mujoco.mju_quat2Mat(rotation, pose[3:])
        np.testing.assert_allclose(pose[:3], data.site("tip").xpos, atol=1e-14)
        np.testing.assert_allclose(rotation, data.site("tip").xmat, atol=1e-14)
        assert np.linalg.norm(pose[3:]) == pytest.approx(1, abs=1e-14)
        assert pose[3] >= 0


def test_results_do_not_change_with_the_next_call(arm):
    kinematics = Kinematics(arm, "tip")
    pose, jacobian = kinematics.forward(arm.qpos0), kinematics.jacobian(arm.qpos0)
    kept = pose.copy(), jacobian.copy()
    kinematics.forward(random_positions(arm, np.random.default_rng(2)))
    assert np.array_equal(pose, kept[0])
    assert np.array_equal(jacobian, kept[1])


def test_unknown_frames_and_bad_positions_are_refused(arm):
    with pytest.raises(UnknownNameError, match="tip"):
        Kinematics(arm, "tipp")
    with pytest.raises(UnknownNameError, match="hand"):
        Kinematics(arm, "hnd", FrameKind.BODY)
    with pytest.raises(ShapeError, match=r"\(7,\)"):
        Kinematics(arm, "tip").forward(np.zeros(3))
    with pytest.raises(NonFiniteError):
        Kinematics(arm, "tip").jacobian(np.full(7, np.nan))


@pytest.fixture(scope="module")
def solver() -> InverseKinematics:
    return InverseKinematics(Kinematics.from_file(REACHER, "tip"))


def reacher_positions(generator: np.random.Generator) -> np.ndarray:
    low = np.array([-2.2, -0.5, -3.8, -2.2, -3, -2, -3])
    return generator.uniform(low, np.array([1.6, 1.3, 0.7, -0.1, 3, -0.1, 3]))


def test_inverse_kinematics_finds_poses_that_were_reached(solver):
    generator, low, high = np.random.default_rng(3), *solver._scalar_limits()
    for _ in range(20):
        q = reacher_positions(generator)
        target = solver.kinematics.forward(q)
        result = solver.solve(target, np.clip(q + generator.normal(0, 0.2, 7), low, high))
        assert result.status is InverseKinematicsStatus.SOLVED
        assert ((result.q >= low) & (result.q <= high)).all()
        reached = solver.kinematics.forward(result.q)
        assert np.linalg.norm(reached[:3] - target[:3]) == pytest.approx(result.position_error, abs=1e-12)
        assert result.position_error <= solver.config.position_tolerance
        angle = 2 * np.arccos(min(1.0, abs(reached[3:] @ target[3:])))
        assert angle == pytest.approx(result.rotation_error, abs=1e-7)  # arccos near one loses half of the digits
        assert angle <= solver.config.rotation_tolerance + 1e-7


def test_a_quaternion_and_its_negative_are_one_target(solver):
    q = reacher_positions(np.random.default_rng(4))
    start = np.clip(q + 0.1, *solver._scalar_limits())
    target = solver.kinematics.forward(q)
    mirrored = np.concatenate([target[:3], -target[3:]])
    np.testing.assert_allclose(solver.solve(target, start).q, solver.solve(mirrored, start).q, atol=1e-9)


def test_an_unreachable_pose_is_a_status_and_stays_within_the_limits(solver):
    low, high = solver._scalar_limits()
    result = solver.solve(np.array([5.0, 0, 0, 1, 0, 0, 0]), np.array([0, 0, 0, -1.0, 0, -1.0, 0]))
    assert result.status in (InverseKinematicsStatus.STALLED, InverseKinematicsStatus.ITERATION_LIMIT)
    assert result.position_error > 3.5  # the arm is about one metre long
    assert ((result.q >= low) & (result.q <= high)).all()


def test_the_iteration_limit_is_kept(solver):
    brief = InverseKinematics(solver.kinematics, InverseKinematicsConfig(iterations_max=1))
    q = reacher_positions(np.random.default_rng(5))
    result = brief.solve(solver.kinematics.forward(q), np.array([0, 0, 0, -1.0, 0, -1.0, 0]))
    assert (result.status, result.iterations) == (InverseKinematicsStatus.ITERATION_LIMIT, 1)


def test_bad_targets_and_starts_are_refused(solver):
    start, pose = np.array([0, 0, 0, -1.0, 0, -1.0, 0]), np.array([0.5, 0, 0, 1, 0, 0, 0])
    with pytest.raises(NonFiniteError, match="pose_target"):
        solver.solve(np.where(np.arange(7) == 1, np.nan, pose), start)
    with pytest.raises(ConfigurationError, match="unit quaternion"):
        solver.solve(pose * 2, start)
    with pytest.raises(ShapeError, match=r"\(7,\)"):
        solver.solve(pose[:6], start)
    with pytest.raises(ConfigurationError, match="q_start: entry 2"):
        solver.solve(pose, np.ones(7))
    with pytest.raises(ConfigurationError, match="damping"):
        InverseKinematicsConfig(damping=0)
