"""Making a calibration: what a pose and every joint's ends tell, and the servos of the twins, whose driver is satisfied with the result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_bridge.drivers.dynamixel import DynamixelDriver
from hw_bridge.drivers.feetech import FeetechDriver
from hw_bridge.drivers.servo_bench import DynamixelBench, FeetechBench
from hw_bridge.drivers.servo_calibration import STEP, TURN, Sweep, fit_joints
from hw_bridge.twins.twin import TwinProcess
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.so101 import so101
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError

IDS = (1, 2, 3, 4, 5, 6)
ARM = so101()
LOW, HIGH = ARM.spec.limits.position_min, ARM.spec.limits.position_max


def swept(readings, ends=(LOW, HIGH), pose=0.0, first_plus=True) -> Sweep:
    """A sweep by hands that hold every joint `pose` [rad] beside angle 0 and bring it to its `ends`; `readings`: of joint angles (n,)."""
    sweep = Sweep(readings(np.full(6, pose)))
    for joint in range(6):
        sweep.begin(joint)
        q = np.zeros(6)
        way = [0.0, 0.5 * ends[1][joint], ends[1][joint], 0.0, 0.5 * ends[0][joint], ends[0][joint], 0.0]
        for k, angle in enumerate(way if first_plus else [way[i] for i in (0, 4, 5, 3, 1, 2, 6)]):
            q[joint] = angle
            sweep.see(readings(q))
            if k == 2:
                sweep.at_plus_end()
            elif k == 5:
                sweep.at_other_end()
    return sweep


def encoders(zero: tuple[int, ...], direction: tuple[int, ...]):
    return lambda q: ((np.array(direction) * q / STEP + np.array(zero)).round().astype(int) % TURN).tolist()


@settings(max_examples=60, deadline=None)
@given(zero=st.tuples(*[st.integers(0, TURN - 1)] * 6), direction=st.tuples(*[st.sampled_from([1, -1])] * 6),
       pose=st.floats(-0.25, 0.25))
def test_the_stops_tell_angle_0_whatever_the_servos_count_and_however_the_pose_was_held(zero, direction, pose):
    fits = fit_joints(ARM, swept(encoders(zero, direction), pose=pose))
    for i, fit in enumerate(fits):
        assert fit.fault == "" and fit.direction == direction[i]
        assert abs((fit.zero - zero[i] + TURN // 2) % TURN - TURN // 2) <= 2
        assert fit.pose_error == pytest.approx(pose, abs=3 * STEP)
        assert fit.range == pytest.approx((LOW[i], HIGH[i]), abs=3 * STEP)
        low, high = fit.range_steps(2048)
        assert 0 <= low < high < TURN


def test_a_joint_without_the_stops_of_its_description_takes_angle_0_from_the_pose():
    readings = encoders((2048,) * 6, (1, -1, 1, 1, -1, 1))
    short, wide = HIGH.copy(), HIGH.copy()
    short[1], wide[2] = HIGH[1] - 0.14, HIGH[2] + 0.5
    fits = fit_joints(ARM, swept(readings, (LOW, np.minimum(short, wide))))
    assert fits[1].pose_error is None and fits[1].zero == 2048 and fits[1].fault == ""
    assert fits[1].range == pytest.approx((LOW[1], short[1]), abs=2 * STEP), "it is not sent beyond what it reached"
    fits = fit_joints(ARM, swept(readings, (LOW, wide)))
    assert fits[2].pose_error is None and fits[2].fault == ""
    assert fits[2].range == pytest.approx((LOW[2], HIGH[2]), abs=2 * STEP), "nor beyond its description"


def test_what_is_not_plausible_is_said_joint_by_joint():
    readings = encoders((100, 4000, 2048, 1, 7, 3000), (1,) * 6)

    def faults(**changes) -> list[str]:
        return [fit.fault for fit in fit_joints(ARM, swept(readings, **changes))]

    short = HIGH.copy()
    short[3] -= 0.5
    said = faults(ends=(LOW, short))
    assert [bool(words) for words in said] == [False, False, False, True, False, False]
    assert "wrist_flex" in said[3] and "29 degrees before its + end" in said[3]
    assert all("17 degrees off" in words for words in faults(pose=0.3))
    assert "was the + end the first" in faults(first_plus=False)[5], "the gripper's range is not even: its other end came first"
    still = Sweep(readings(np.zeros(6)))
    for joint in range(6):
        still.begin(joint)
        still.see(readings(np.full(6, 0.01)))
        still.at_plus_end()
        still.at_other_end()
    assert all("same place" in fit.fault for fit in fit_joints(ARM, still))


KINDS = {"so101": (so101, FeetechBench, FeetechDriver, "scservo_sdk", (31, [9, 0])),
         "dynamixel_arm": (dynamixel_arm, DynamixelBench, DynamixelDriver, "dynamixel_sdk", (20, [9, 0, 0, 0]))}


@pytest.mark.parametrize("name", KINDS)
def test_an_arm_in_the_hand_is_calibrated_and_its_driver_knows_where_it_stands(name):
    make_arm, bench_type, driver_type, sdk, (homing, other) = KINDS[name]
    pytest.importorskip(sdk)
    arm = make_arm()
    with TwinProcess(name) as twin:
        device, limits = twin.ready["device"], arm.spec.limits
        twin.fault("register", joint=3, address=homing, data=other)  # somebody homed one before
        with pytest.raises(HardwareError, match=r"no servo answers at ids \[8\]"):
            bench_type(arm, device, (1, 2, 3, 4, 5, 8))
        with pytest.raises(ConfigurationError, match="expected 6 different addresses"):
            bench_type(arm, device, (1, 2))
        with bench_type(arm, device, IDS) as bench:
            assert bench.driven() == list(arm.spec.joint_names)
            with pytest.raises(HardwareError, match="nobody moves it by hand"):
                twin.fault("place", q=[0.0] * 6)
            bench.let_go()

            def readings(q: np.ndarray) -> list[int]:
                twin.fault("place", q=q.tolist())
                return bench.readings()

            sweep = swept(readings, (limits.position_min - 1.0, limits.position_max + 1.0), pose=0.1)  # hands push until it stops
            fits = fit_joints(arm, sweep)
            assert [fit.fault for fit in fits] == [""] * 6
            made = bench.keep(fits)
        assert made.direction == tuple(twin.fault("calibration")["direction"])
        driver = driver_type(arm, device, made)
        for q in (arm.home, 0.5 * limits.position_min, 0.5 * limits.position_max):
            twin.fault("place", q=q.tolist())
            driver.connect()
            assert driver.read().q == pytest.approx(q, abs=0.01)
            driver.close()
        driver.connect()
        driver.begin(CommandMode.JOINT_POSITION)
        twin.fault("by_hand", on=False)
        for _ in range(20):
            driver.write(0.5 * limits.position_max)
            driver.read()
        assert np.abs(np.array(twin.fault("state")["q"]) - 0.5 * limits.position_max).max() < 0.1, "goals mean what readings mean"
        driver.close()
        twin.fault("register", joint=3, address=homing, data=[3, *other[1:]])
        with pytest.raises(HardwareError, match=r"(wrist_flex|forearm_roll): servo 4 holds"):
            driver_type(arm, device, made).connect()


def test_a_range_that_a_servo_cannot_count_is_refused_before_anything_is_written():
    pytest.importorskip("dynamixel_sdk")
    arm = dynamixel_arm()
    with TwinProcess("dynamixel_arm", "--no-hold") as twin, DynamixelBench(arm, twin.ready["device"], IDS) as bench:
        shifted = encoders((2048, 2048, 3900, 2048, 2048, 2048), (1,) * 6)
        fits = fit_joints(arm, swept(shifted, (arm.spec.limits.position_min, arm.spec.limits.position_max)))
        assert math.isclose(fits[2].zero, 3900, abs_tol=2)
        with pytest.raises(HardwareError, match="elbow: its range would be steps"):
            bench.keep(fits)
