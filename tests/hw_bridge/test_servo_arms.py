"""The descriptions of the servo arms: model, limits and home agree, and every joint can hold the stretched arm."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.so101 import so101


@pytest.fixture(params=[so101, dynamixel_arm], ids=["so101", "dynamixel_arm"])
def arm(request):
    return request.param()


def test_the_model_has_the_joints_and_ranges_of_the_spec(arm):
    model, limits = arm.model(), arm.spec.limits
    assert [model.joint(i).name for i in range(model.njnt)] == list(arm.spec.joint_names)
    assert model.jnt_range[:, 0] == pytest.approx(limits.position_min) and model.jnt_range[:, 1] == pytest.approx(limits.position_max)
    assert arm.falls


def test_home_is_free_and_every_joint_can_move_both_ways(arm):
    model, limits = arm.model(), arm.spec.limits
    data = mujoco.MjData(model)
    for joint in range(model.nv):
        for step in (-0.15, 0.15):
            data.qpos[:] = arm.home
            data.qpos[joint] += step
            mujoco.mj_forward(model, data)
            assert data.ncon == 0
            assert limits.position_min[joint] <= data.qpos[joint] <= limits.position_max[joint]


def test_the_motors_hold_the_arm_wherever_it_is(arm):
    model, limits = arm.model(), arm.spec.limits
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    for _ in range(300):
        data.qpos[:] = random.uniform(limits.position_min, limits.position_max)
        mujoco.mj_forward(model, data)
        assert (np.abs(data.qfrc_bias) < 0.6 * limits.torque_max).all()


def test_the_gripper_is_where_the_lengths_say(arm):
    reach = {"so101": (0.391, 0.0, 0.227), "dynamixel_arm": (0.31, 0.0, 0.265)}[arm.spec.name]
    assert arm.kinematics().forward(np.zeros(arm.spec.nv))[:3] == pytest.approx(reach, abs=0.002)
