"""The UR5e's model against the closed form: Denavit-Hartenberg's product, published masses, limits that the motors can pay for."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from robots.arms.ur5e import DH_A, DH_ALPHA, DH_D, ur5e

ARM = ur5e()


def denavit_hartenberg(q: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    for angle, a, d, alpha in zip(q, DH_A, DH_D, DH_ALPHA, strict=True):
        c, s, ca, sa = np.cos(angle), np.sin(angle), np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])
    return pose


def test_the_flange_is_where_the_closed_form_says():
    kinematics, generator = ARM.kinematics(), np.random.default_rng(0)
    for _ in range(50):
        q = generator.uniform(ARM.spec.limits.position_min, ARM.spec.limits.position_max)
        expected, pose, rotation = denavit_hartenberg(q), kinematics.forward(q), np.empty(9)
        mujoco.mju_quat2Mat(rotation, pose[3:])
        np.testing.assert_allclose(pose[:3], expected[:3, 3], atol=1e-12)
        np.testing.assert_allclose(rotation.reshape(3, 3), expected[:3, :3], atol=1e-12)


def test_joints_are_named_in_order_and_masses_are_the_published_ones():
    model = ARM.model()
    assert tuple(model.joint(i).name for i in range(model.njnt)) == ARM.spec.joint_names
    np.testing.assert_allclose(model.body_mass[1:], [3.761, 8.058, 2.846, 1.37, 1.3, 0.365])


def test_shoulder_torque_of_the_stretched_arm_is_the_sum_of_its_links():
    model = ARM.model()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)  # stretched out along -x
    distance = np.array([0.2125, 0.425 + 0.2422, 0.8172, 0.8172, 0.8172])  # centres of mass from the shoulder's axis
    assert abs(data.qfrc_bias[1]) == pytest.approx(9.81 * distance @ model.body_mass[2:], rel=0.01)


@pytest.mark.parametrize(("q", "touches"), [
    (ARM.home, set()),
    (np.zeros(6), set()),
    (np.array([0.0, 0.3, 0.0, 0.0, 0.0, 0.0]), {"floor"}),
    (np.array([0.0, -np.pi / 2, 3.0, 0.0, 0.0, 0.0]), {"upper_arm_housing", "wrist_1"}),
])
def test_contacts_mean_self_collision_or_floor(q, touches):
    model = ARM.model()
    data = mujoco.MjData(model)
    data.qpos[:] = q
    mujoco.mj_forward(model, data)
    named = {model.geom(geom).name for contact in data.contact for geom in contact.geom}
    assert touches <= named if touches else not named


def test_motors_can_give_the_acceleration_limit_on_top_of_gravity():
    model = ARM.model()
    data = mujoco.MjData(model)
    for joint, top in enumerate(ARM.spec.limits.acceleration_max):
        data.qacc[:] = 0.0
        data.qacc[joint] = top
        mujoco.mj_inverse(model, data)
        assert (np.abs(data.qfrc_inverse) <= ARM.spec.limits.torque_max).all()
