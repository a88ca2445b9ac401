"""The Dynamixel driver through Robotis' own SDK on the twin: three ways to command, shutdowns, the watchdog, refusals in words."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace

import numpy as np
import pytest

from hw_bridge.calibration import Calibration
from hw_bridge.drivers.driver import VendorState
from hw_bridge.drivers.dynamixel import DynamixelConfig, DynamixelDriver
from hw_bridge.twins.twin import TwinProcess
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, NonFiniteError, UnknownNameError

pytest.importorskip("dynamixel_sdk")
ARM = dynamixel_arm()
PATIENT = DynamixelConfig(watchdog_s=0.5)
"""A busy machine must not trip the watchdog where a test is about something else."""


@pytest.fixture(scope="module")
def process():
    with TwinProcess("dynamixel_arm") as twin:
        yield twin


@pytest.fixture
def twin(process):
    process.fault("reset")
    return process


@pytest.fixture
def build(twin):
    """A maker of drivers that are closed whatever becomes of the test."""
    built = []

    def build(known=None, config=None):
        built.append(DynamixelDriver(ARM, twin.ready["device"], known or calibration(twin), config))
        return built[-1]

    yield build
    for driver in built:
        driver.close()


@pytest.fixture
def driver(build):
    driver = build(config=PATIENT)
    driver.connect()
    return driver


def calibration(twin) -> Calibration:
    return Calibration(**twin.fault("calibration"))


def live(driver, count, command=None):
    """Read and write for `count` periods and return the measurements; `command` is from number and measurement to values (n,)."""
    found, start = [], time.monotonic()
    for k in range(count):
        found.append(driver.read())
        if command is not None:
            driver.write(command(k, found[-1]))
        time.sleep(max(0.0, start + (k + 1) * ARM.spec.control_dt - time.monotonic()))
    return found


def until(driver, holds, seconds=3.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        measured = driver.read()
        if holds(measured):
            return measured
        time.sleep(0.01)
    raise AssertionError(f"in vain: {measured}")


def test_it_knows_the_arm_and_moves_nothing(twin, build):
    twin.fault("reset", hold=False)
    driver = build()
    assert "XM430-W350" in driver.connect().model
    assert np.isnan(until(driver, lambda m: m.state is VendorState.NOT_READY).device_s)
    assert not any(twin.fault("state")["mode"]["torque_on"])
    with pytest.raises(HardwareError, match="begin first"):
        driver.write(ARM.home)


def test_it_follows_positions(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    start = driver.read().q
    live(driver, 60, lambda k, m: start + 0.1 * (1 - np.cos(np.pi * k / 60)))
    time.sleep(0.1)
    found = until(driver, lambda m: np.abs(m.q - (start + 0.2)).max() < 0.05)
    state = twin.fault("state")
    assert np.abs(found.q - np.array(state["q"])).max() < 0.02
    assert state["limit_violations"] == [] and state["command_violations"] == []


def test_it_follows_velocities_in_every_joints_direction(driver, twin):
    wanted = np.array([0.3, 0.2, -0.2, 0.4, -0.3, 0.3])
    for _ in range(5):
        driver.begin(CommandMode.JOINT_VELOCITY)
        found = live(driver, 40, lambda k, m: wanted)
        if 255 not in twin.fault("state")["mode"]["watchdog"]:  # a machine that stalls for half a second trips it, rightly
            break
        twin.fault("reset")
    assert np.array(twin.fault("state")["dq"]) == pytest.approx(wanted, abs=0.1)
    assert np.mean([m.dq for m in found[25:]], axis=0) == pytest.approx(wanted, abs=0.08)
    driver.stop()
    until(driver, lambda m: np.abs(m.dq).max() < 0.05)
    assert twin.fault("state")["command_violations"] == []


def test_torques_hold_the_weight_they_were_told(driver, twin):
    driver.begin(CommandMode.JOINT_TORQUE)
    weight = driver._weight()
    found = live(driver, 30, lambda k, m: weight)
    assert twin.fault("state")["mode"]["mode"] == [0] * 6
    assert np.mean([m.tau for m in found[10:]], axis=0) == pytest.approx(weight, abs=0.03)
    assert np.abs(found[-1].q - found[0].q).max() < 0.05, "friction and the right torque hold the arm still"
    driver.stop()
    state = twin.fault("state")
    assert state["mode"]["mode"] == [3] * 6 and all(state["mode"]["torque_on"])
    assert state["command_violations"] == []


def test_ending_holds_the_arm_without_a_program(driver, twin):
    driver.begin(CommandMode.JOINT_TORQUE)
    driver.close()
    state = twin.fault("state")
    assert state["mode"]["mode"] == [3] * 6 and all(state["mode"]["torque_on"]) and state["mode"]["watchdog"] == [0] * 6
    driver.close()
    driver.stop()


def test_a_bad_wire_is_counted_and_survived(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    start = driver.read().q
    for fault in ("loss", "corrupt", "duplicate", "reorder"):
        twin.fault(fault, share=0.1)
    found = live(driver, 60, lambda k, m: start)
    twin.fault("heal")
    assert found[-1].bus_errors > found[0].bus_errors
    assert len({m.received_ns for m in found}) > 10
    assert all(np.abs(m.q - start).max() < 0.1 for m in found), "a spoiled packet became an angle"
    until(driver, lambda m: m.state is VendorState.READY)


def test_silence_is_said_and_ends(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    twin.fault("half_open")
    assert "nothing is heard of" in until(driver, lambda m: m.state is VendorState.LOST).fault
    twin.fault("heal")
    until(driver, lambda m: m.state is not VendorState.LOST)


def test_an_overload_is_named_and_cleared_by_a_reboot(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    twin.fault("overload", joint=5)
    measured = until(driver, lambda m: m.state is VendorState.PROTECTIVE_STOP)
    assert measured.fault == "wrist_rotate: overload, torque off until it is rebooted"
    with pytest.raises(HardwareError, match="wrist_rotate: overload"):
        driver.begin(CommandMode.JOINT_POSITION)
    driver.clear_fault()
    driver.begin(CommandMode.JOINT_POSITION)
    assert until(driver, lambda m: m.state is VendorState.READY).fault == ""


@pytest.mark.parametrize("mode", [CommandMode.JOINT_VELOCITY, CommandMode.JOINT_POSITION])
def test_a_blocked_joint_is_told_of_and_stopped_before_its_servo_lets_go(driver, twin, mode):
    """The shoulder carries the arm: with its torque off it falls."""
    driver.begin(mode)
    twin.fault("block", joint=1)
    start, found = driver.read().q, []
    for k in range(400):
        far = start + min(0.01 * k, 0.3) * np.eye(6)[1]
        found += live(driver, 1, lambda k, m, far=far: far if mode is CommandMode.JOINT_POSITION else -0.5 * np.eye(6)[1])
        if found[-1].state is VendorState.PROTECTIVE_STOP:
            break
    assert "shoulder: has given all it can" in found[-1].fault
    driver.stop()
    found = live(driver, 150)
    twin.fault("block", joint=1, on=False)
    found += live(driver, 50)
    state = twin.fault("state")
    assert state["mode"]["hardware_error"] == [0] * 6 and all(state["mode"]["torque_on"])
    assert found[-1].state is VendorState.READY and state["limit_violations"] == []
    assert np.abs(found[-1].q - start).max() < 0.1, "held where it was blocked"


def test_a_servo_that_works_hard_for_a_moment_is_not_told_of(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    start = driver.read().q
    jump = start + 0.25 * np.eye(6)[0]
    found = live(driver, 60, lambda k, m: jump)
    assert max(abs(m.tau[0]) for m in found) > 0.5
    assert all(m.state is VendorState.READY for m in found)


def test_a_hot_servo_is_named_and_not_cleared(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    twin.fault("temperature", joint=3, celsius=95.0)
    assert "forearm_roll: too hot" in until(driver, lambda m: m.state is VendorState.FAULT).fault
    with pytest.raises(HardwareError, match="refuse: forearm_roll: too hot"):
        driver.clear_fault()


def test_a_servo_that_restarted_is_noticed(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    twin.fault("power_cycle")
    assert "torque is off" in until(driver, lambda m: m.state is VendorState.NOT_READY).fault


def test_the_watchdog_trips_in_a_pause_and_says_so(build):
    driver = build()
    driver.connect()
    driver.begin(CommandMode.JOINT_POSITION)
    time.sleep(0.4)
    measured = until(driver, lambda m: m.state is VendorState.PROTECTIVE_STOP)
    assert "bus watchdog stopped it after 100 ms" in measured.fault
    driver.clear_fault()
    driver.begin(CommandMode.JOINT_POSITION)


def drive_for_ever(device, known):
    driver = DynamixelDriver(ARM, device, known, PATIENT)
    driver.connect()
    driver.begin(CommandMode.JOINT_VELOCITY)
    while True:
        driver.read()
        driver.write(np.array([0.5, 0, 0, 0, 0, 0]))
        time.sleep(0.005)


def test_the_arm_stops_when_its_writer_dies(twin, build):
    writer = multiprocessing.get_context("fork").Process(target=drive_for_ever, args=(twin.ready["device"], calibration(twin)), daemon=True)
    writer.start()
    try:
        end = time.monotonic() + 20.0
        while twin.fault("state")["dq"][0] < 0.3:
            assert time.monotonic() < end, "it never moved"
            time.sleep(0.02)
    finally:
        writer.kill()
        writer.join()
    end = time.monotonic() + 10.0
    while twin.fault("state")["mode"]["watchdog"] != [255] * 6:
        assert time.monotonic() < end, "the watchdog never tripped"
        time.sleep(0.02)
    time.sleep(0.2)
    state = twin.fault("state")
    assert abs(state["dq"][0]) < 0.02 and all(state["mode"]["torque_on"])
    after = build()
    after.connect()
    after.begin(CommandMode.JOINT_POSITION)


def test_no_number_that_is_none_reaches_the_bus(driver, twin):
    driver.begin(CommandMode.JOINT_POSITION)
    before = twin.fault("state")["mode"]["goal"]
    with pytest.raises(NonFiniteError, match="never reaches the bus"):
        driver.write(np.array([0, 0, np.inf, 0, 0, 0]))
    assert twin.fault("state")["mode"]["goal"] == before
    with pytest.raises(UnknownNameError, match="end_effector_pose"):
        driver.begin(CommandMode.END_EFFECTOR_POSE)


def test_a_second_client_is_refused(driver, build):
    with pytest.raises(HardwareError, match=r"another program (may )?hold"):
        build().connect()
    until(driver, lambda m: m.state is VendorState.NOT_READY)


@pytest.mark.parametrize(("address", "data", "words"), [
    (20, [7, 0, 0, 0], r"waist: servo 1 holds homing 7, calibrated was 120.*Calibrate again"), (6, [30], "firmware 30, expected 38"),
    (0, [0x24, 4], r"waist: servo 1 is XL430-W250 \(1060\), expected XM430-W350 \(1020\)"), (10, [1], "drive mode 1"),
    (7, [77], "no servo answers at id 1")])
def test_what_is_not_this_arm_is_refused(twin, build, address, data, words):
    twin.fault("register", joint=0, address=address, data=data)
    with pytest.raises(HardwareError, match=words):
        build().connect()


def test_an_arm_outside_its_limits_is_refused(twin, build):
    good = calibration(twin)
    with pytest.raises(HardwareError, match="shoulder stands at"):
        build(replace(good, zero=(2048, 300, *good.zero[2:]))).connect()


def test_a_watchdog_cannot_be_switched_off():
    with pytest.raises(ConfigurationError, match="watchdog_s"):
        DynamixelConfig(watchdog_s=0.0)
