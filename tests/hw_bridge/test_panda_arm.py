"""Franka's arms: the maker's limits, kinematics after the maker's Denavit-Hartenberg table, a body that can be simulated."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from hw_bridge.twins.franka.mechanics import franka_mechanics
from hw_bridge.twins.franka.urdf import urdf
from hw_bridge.twins.plant import Plant
from robots.arms.arm import Arm
from robots.arms.panda import fr3, panda
from robots.command import CommandMode
from robots.spec import TorqueConvention

ARMS = pytest.mark.parametrize("arm", [panda(), fr3()], ids=["panda", "fr3"])

DENAVIT_HARTENBERG = [(0.0, 0.333, 0.0), (0.0, 0.0, -np.pi / 2), (0.0, 0.316, np.pi / 2), (0.0825, 0.0, np.pi / 2),
                      (-0.0825, 0.384, -np.pi / 2), (0.0, 0.0, np.pi / 2), (0.088, 0.0, np.pi / 2), (0.0, 0.107, 0.0)]
"""a [m], d [m], alpha [rad] of the seven joints and the flange, modified (Craig's) convention, as the maker documents them."""


def flange(q: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    for (a, d, alpha), theta in zip(DENAVIT_HARTENBERG, [*q, 0.0], strict=True):
        ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array([[ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca], [0, 0, 0, 1]])
    return pose


@ARMS
def test_kinematics_are_the_makers(arm: Arm) -> None:
    kinematics, generator = arm.kinematics(), np.random.default_rng(0)
    for _ in range(20):
        q = generator.uniform(arm.spec.limits.position_min, arm.spec.limits.position_max)
        expected = flange(q)
        pose = kinematics.forward(q)
        np.testing.assert_allclose(pose[:3], expected[:3, 3], atol=1e-9)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, pose[3:])
        np.testing.assert_allclose(rotation.reshape(3, 3), expected[:3, :3], atol=1e-9)


@ARMS
def test_limits_and_commands(arm: Arm) -> None:
    spec, model = arm.spec, arm.model()
    assert [model.joint(i).name for i in range(7)] == list(spec.joint_names)
    assert spec.torque_convention is TorqueConvention.GRAVITY_COMPENSATED and not arm.falls
    assert [command.mode for command in spec.commands] == [
        CommandMode.JOINT_TORQUE, CommandMode.JOINT_VELOCITY, CommandMode.JOINT_POSITION]
    assert (model.jnt_range[:, 0] <= spec.limits.position_min).all(), "the controller stops the arm before its mechanical stops do"
    assert (model.jnt_range[:, 1] >= spec.limits.position_max).all()
    assert 15.0 < model.body_mass.sum() < 19.0, "the maker says about 18 kg with the base"


def test_the_numbers_of_the_reference() -> None:
    assert panda().spec.limits.position_max[3] == -0.0698 and panda().spec.limits.acceleration_max[1] == 7.5
    assert fr3().spec.limits.position_min[5] == 0.54092 and fr3().spec.limits.velocity_max[4] == 5.26
    for arm in (panda(), fr3()):
        np.testing.assert_array_equal(arm.spec.limits.torque_max, [87, 87, 87, 87, 12, 12, 12])
        np.testing.assert_array_equal(arm.spec.limits.torque_rate_max, np.full(7, 1000.0))


@ARMS
def test_home_is_free_and_a_folded_arm_touches_itself(arm: Arm) -> None:
    model = arm.model()
    data = mujoco.MjData(model)
    for q, touching in ((arm.home, False), (np.zeros(7), False), ([0.0, 1.2, 0.0, -2.9, 0.0, 2.9, 0.0], True)):
        data.qpos[:] = q
        mujoco.mj_forward(model, data)
        assert (data.ncon > 0) == touching, f"{q}"


@ARMS
def test_gravity_is_the_slope_of_the_potential_energy(arm: Arm) -> None:
    plant, model = Plant(arm, franka_mechanics()), arm.model()
    data = mujoco.MjData(model)

    def energy(q: np.ndarray) -> float:
        data.qpos[:] = q
        mujoco.mj_forward(model, data)
        return 9.81 * float(model.body_mass @ data.xipos[:, 2])

    step = 1e-6
    slope = [(energy(arm.home + step * axis) - energy(arm.home - step * axis)) / (2 * step) for axis in np.eye(7)]
    np.testing.assert_allclose(plant.gravity_torque(arm.home), slope, atol=1e-4)


@ARMS
def test_the_urdf_describes_the_same_body(arm: Arm) -> None:
    described, model = mujoco.MjModel.from_xml_string(urdf(arm)), arm.model()
    ours, theirs = mujoco.MjData(model), mujoco.MjData(described)
    for q in (arm.home, arm.home + 0.3):
        ours.qpos[:] = theirs.qpos[:] = q
        mass = [np.zeros((7, 7)), np.zeros((7, 7))]
        for engine, data, matrix in ((model, ours, mass[0]), (described, theirs, mass[1])):
            engine.dof_armature[:] = 0.0
            mujoco.mj_forward(engine, data)
            mujoco.mj_fullM(engine, data, matrix)
        np.testing.assert_allclose(mass[1], mass[0], atol=1e-6)
        np.testing.assert_allclose(theirs.qfrc_bias, ours.qfrc_bias, atol=1e-6)
