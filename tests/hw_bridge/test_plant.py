"""The plant of the twins, in this process: what motors give, what encoders see, and the UR5e's innermost law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw_bridge.twins.plant import Plant
from hw_bridge.twins.ur.controller import MECHANICS
from hw_bridge.twins.ur.motion import DT, Motion
from robots.arms.ur5e import ur5e
from robots.errors import NumericalError

ARM = ur5e()


def test_a_law_that_leaves_the_numbers_is_refused_before_the_arm_moves():
    plant = Plant(ARM, MECHANICS)
    with pytest.raises(NumericalError, match="asked for torques"):
        plant.advance(0.01, lambda q, dq: np.array([0, 0, np.nan, 0, 0, 0]))
    np.testing.assert_array_equal(plant.q, ARM.home)


def test_motors_give_no_more_than_they_can_and_each_step_keeps_its_own_torques():
    plant, given = Plant(ARM, MECHANICS), []
    for scale in (0.5, 100.0):
        plant.advance(plant.time + DT, lambda q, dq, scale=scale: scale * np.array([1.0, -1.0, 1.0, 1.0, 1.0, -1.0]))
        given.append(plant.tau)
    assert np.abs(given[0]).max() == 0.5
    np.testing.assert_array_equal(np.abs(given[1]), np.minimum(MECHANICS.torque_max, 100.0))
    assert (plant.velocity_peak >= np.abs(plant.dq)).all() and plant.velocity_peak.max() > 0.1


def test_a_blocked_joint_gives_way_to_no_motor_until_it_is_let_go():
    plant = Plant(ARM, MECHANICS)

    def way(joint: int) -> float:
        before = plant.q[joint]
        plant.advance(plant.time + 0.1, lambda q, dq: plant.gravity_torque() + 0.5 * MECHANICS.torque_max[joint] * np.eye(6)[joint])
        return abs(plant.q[joint] - before)

    plant.block(1)
    assert way(1) < 0.01
    plant.block(1, False)
    assert way(1) > 0.1


def test_the_mean_torque_is_that_of_the_whole_advance():
    plant, given = Plant(ARM, MECHANICS), []

    def law(q, dq):
        given.append(np.arange(6.0) * (-1) ** len(given) + len(given))
        return given[-1]

    plant.advance(DT, law)
    assert len(given) == 4 and not np.array_equal(plant.tau, plant.tau_mean)
    np.testing.assert_allclose(plant.tau_mean, np.mean(given, axis=0))
    plant.braked = True
    plant.advance(2 * DT, law)
    assert not plant.tau_mean.any()


@pytest.mark.parametrize("coarse", [np.full(6, 0.01), np.array([0.01, 0, 0, 0, 0, 0.01])])
def test_encoders_round_where_they_are_coarse(coarse):
    q = ARM.home + 0.0037
    plant = Plant(ARM, replace(MECHANICS, encoder_step=coarse), q)
    seen = plant.encoders()
    assert (np.abs(seen - q) <= 0.5 * coarse + 1e-12).all() and (seen == q).sum() == (coarse == 0).sum()


def test_commanded_torques_come_on_top_of_gravity_and_of_the_shares_of_the_friction():
    q, dq = ARM.home + 0.3, np.full(6, 0.2)
    motion = Motion(ARM, MECHANICS, q)
    asked, none, whole = np.arange(6.0), np.zeros(6), np.ones(6)
    gravity = Plant(ARM, MECHANICS).gravity_torque(q)
    for viscous, coulomb in ((none, none), (whole, none), (none, whole), (whole, whole)):
        motion.torque(asked, viscous, coulomb)
        motion.step(q, dq)
        friction = viscous * MECHANICS.viscous * 0.2 + coulomb * MECHANICS.coulomb
        np.testing.assert_allclose(motion.law(q, dq), gravity + asked + friction, atol=1e-9)


def test_a_standing_reference_is_held_by_a_spring_and_a_damper_around_gravity():
    q = ARM.home + 0.3
    motion = Motion(ARM, MECHANICS, q)
    motion.step(q, np.zeros(6))
    gravity = Plant(ARM, MECHANICS).gravity_torque(q)
    np.testing.assert_allclose(motion.law(q, np.zeros(6)), gravity, atol=1e-9)
    off, speed = np.full(6, 0.01), np.full(6, 0.1)
    np.testing.assert_allclose(motion.law(q + off, speed), gravity - motion.STIFFNESS * off - motion.DAMPING * speed, atol=1e-9)
