"""The Feetech driver through Feetech's own SDK on the SO-101's twin: it follows, survives a bad wire, and refuses in words."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from hw_bridge.calibration import Calibration
from hw_bridge.drivers.driver import VendorState
from hw_bridge.drivers.feetech import FeetechDriver
from hw_bridge.drivers.servo_port import Tags
from hw_bridge.twins.twin import TwinProcess
from robots.arms.so101 import so101
from robots.command import CommandMode
from robots.errors import HardwareError, NonFiniteError, UnknownNameError

pytest.importorskip("scservo_sdk")
ARM = so101()
STEP = 2 * np.pi / 4096


@pytest.fixture(scope="module")
def process():
    with TwinProcess("so101") as twin:
        yield twin


@pytest.fixture
def twin(process):
    process.fault("reset")
    return process


@pytest.fixture
def driver(twin):
    driver = FeetechDriver(ARM, twin.ready["device"], calibration(twin))
    yield driver
    driver.close()


@pytest.fixture
def servoing(driver):
    driver.connect()
    driver.begin(CommandMode.JOINT_POSITION)
    return driver


def calibration(twin) -> Calibration:
    return Calibration(**twin.fault("calibration"))


def periods(driver, count, target=None):
    """Read and write for `count` periods and return the measurements; `target` is from the period's number to angles (n,)."""
    found, start = [], time.monotonic()
    for k in range(count):
        found.append(driver.read())
        if target is not None:
            driver.write(target(k))
        time.sleep(max(0.0, start + (k + 1) * ARM.spec.control_dt - time.monotonic()))
    return found


def until(driver, holds, seconds=3.0):
    """Read until `holds(measurement)`, and return that measurement."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        measured = driver.read()
        if holds(measured):
            return measured
        time.sleep(0.01)
    raise AssertionError(f"in vain: {measured}")


def test_it_knows_the_arm_and_moves_nothing(driver, twin):
    twin.fault("reset", hold=False)
    identity = driver.connect()
    assert "STS3215" in identity.model and identity.firmware == "3.10"
    assert np.isnan(until(driver, lambda m: m.state is VendorState.NOT_READY).device_s)
    assert not any(twin.fault("state")["mode"]["torque_on"])


def test_beginning_holds_the_arm_where_it_stands(driver, twin):
    twin.fault("reset", hold=False)
    driver.connect()
    driver.begin(CommandMode.JOINT_POSITION)
    before = np.array(twin.fault("state")["q"])
    time.sleep(0.4)
    state = twin.fault("state")
    assert all(state["mode"]["torque_on"])
    assert np.abs(np.array(state["q"]) - before).max() < 0.06
    until(driver, lambda m: m.state is VendorState.READY)


def test_it_follows_and_says_where_the_arm_is(servoing, twin):
    start = servoing.read().q
    swing = np.array([0.3, 0.25, -0.25, 0.2, -0.3, 0.2])
    found = periods(servoing, 100, lambda k: start + swing * 0.5 * (1 - np.cos(np.pi * k / 100)))
    state = twin.fault("state")
    assert np.abs(found[-1].q - (start + swing)).max() < 0.08
    assert np.abs(servoing.read().q - np.array(twin.fault("state")["q"])).max() < 0.03
    assert state["limit_violations"] == [] and state["command_violations"] == []
    assert found[-1].received_ns > found[0].received_ns


def test_readings_are_whole_steps(servoing):
    steps = servoing.calibration.steps(servoing.read().q)
    assert steps == pytest.approx(np.round(steps), abs=1e-9)


def test_the_current_shows_the_weight(servoing, twin):
    time.sleep(0.5)
    tau = np.mean([m.tau for m in periods(servoing, 10)], axis=0)
    assert tau == pytest.approx(np.array(twin.fault("state")["tau"]), abs=0.08)
    assert tau[1] < -0.2


def test_a_bad_wire_is_counted_and_survived(servoing, twin):
    start = servoing.read().q
    for fault in ("loss", "corrupt", "duplicate", "reorder"):
        twin.fault(fault, share=0.1)
    found = periods(servoing, 60, lambda k: start)
    twin.fault("heal")
    truth = np.array(twin.fault("state")["q"])
    assert found[-1].bus_errors > found[0].bus_errors
    assert len({m.received_ns for m in found}) > 10
    assert all(np.abs(m.q - truth).max() < 0.1 for m in found), "a spoiled packet became an angle"
    until(servoing, lambda m: m.state is VendorState.READY)


def test_late_answers_are_known_to_be_old(servoing, twin):
    twin.fault("delay", ms=25)
    time.sleep(0.05)
    ages = []
    for _ in range(20):
        ages.append((-servoing.read().received_ns + time.monotonic_ns()) / 1e6)
        time.sleep(0.01)
    assert np.median(ages[6:]) >= 15  # a busy machine delays more, and answers older than eight periods are taken for new ones


def test_a_late_answer_is_not_taken_for_another_registers(servoing, twin):
    port, number = servoing._port, servoing._ids[0]
    twin.fault("delay", ms=25)
    servoing.read()  # its answers come when the next request is under way, and begin with another register
    assert port.octets(number, 3, 2) == [777 & 0xFF, 777 >> 8]
    servoing.read()
    assert port.models([number]) == {number: 777}


def test_silence_is_said_and_ends(servoing, twin):
    twin.fault("half_open")
    measured = until(servoing, lambda m: m.state is VendorState.LOST)
    assert "nothing is heard of" in measured.fault
    assert len({m.received_ns for m in periods(servoing, 3)}) == 1
    twin.fault("heal")
    until(servoing, lambda m: m.state is VendorState.READY)


def test_a_pause_of_our_own_is_no_silence_of_the_arms():
    tags = Tags(2, 10)
    tags.ask()
    time.sleep(0.15)
    assert tags.silence() < 0.02 and tags.age() > 0.1
    for _ in range(15):
        tags.ask()
        time.sleep(0.01)
    assert tags.silence() > 0.1


def test_a_stop_moves_no_arm_to_where_it_was_seen_long_ago(servoing, twin):
    goal = servoing.read().q + 0.1
    servoing.write(goal)
    time.sleep(0.6)  # the arm goes on to its goal; nobody looks
    there = np.array(twin.fault("state")["q"])
    servoing.stop()
    periods(servoing, 20)
    assert np.abs(np.array(twin.fault("state")["q"]) - there).max() < 0.02
    assert np.abs(there - goal).max() < 0.05


def test_an_overload_is_named_held_and_cleared(servoing, twin):
    twin.fault("overload", joint=1)
    measured = until(servoing, lambda m: m.state is VendorState.PROTECTIVE_STOP)
    assert measured.fault == "shoulder_lift: overload, torque reduced"
    time.sleep(0.2)
    assert all(m.state in (VendorState.PROTECTIVE_STOP, VendorState.LOST) for m in periods(servoing, 5))
    with pytest.raises(HardwareError, match="shoulder_lift: overload"):
        servoing.begin(CommandMode.JOINT_POSITION)
    servoing.clear_fault()
    assert until(servoing, lambda m: m.state is VendorState.READY).fault == ""


def test_a_hot_servo_is_named_and_not_cleared(servoing, twin):
    twin.fault("temperature", joint=3, celsius=85.0)
    assert "wrist_flex: too hot" in until(servoing, lambda m: m.state is VendorState.FAULT).fault
    with pytest.raises(HardwareError, match="refuse: wrist_flex: too hot"):
        servoing.clear_fault()


def test_a_servo_that_restarted_is_noticed(servoing, twin):
    twin.fault("power_cycle")
    assert "restarted" in until(servoing, lambda m: m.state is VendorState.NOT_READY).fault


def test_stop_leaves_the_arm_held(servoing, twin):
    start = servoing.read().q
    periods(servoing, 30, lambda k: start + 0.02 * k)
    servoing.stop()
    stopped = servoing.read().q
    time.sleep(0.6)
    state = twin.fault("state")
    assert all(state["mode"]["torque_on"]) and np.abs(state["dq"]).max() < 0.1
    assert np.abs(np.array(state["q"]) - stopped).max() < 0.15
    servoing.close()
    servoing.stop()


def test_only_a_person_lets_the_arm_go(servoing, twin):
    servoing.let_go()
    assert not any(twin.fault("state")["mode"]["torque_on"])


def test_closing_leaves_the_torque_on(servoing, twin):
    servoing.close()
    servoing.close()
    assert all(twin.fault("state")["mode"]["torque_on"])


def test_no_number_that_is_none_reaches_the_bus(servoing, twin):
    before = twin.fault("state")["mode"]["goal"]
    with pytest.raises(NonFiniteError, match="never reaches the bus"):
        servoing.write(np.array([0, 0, np.nan, 0, 0, 0]))
    assert twin.fault("state")["mode"]["goal"] == before


def test_it_takes_positions_only(driver):
    driver.connect()
    with pytest.raises(UnknownNameError, match="joint_torque"):
        driver.begin(CommandMode.JOINT_TORQUE)


def test_a_second_client_is_refused(servoing, twin):
    second = FeetechDriver(ARM, twin.ready["device"], calibration(twin))
    with pytest.raises(HardwareError, match=r"another program (may )?hold"):
        second.connect()
    until(servoing, lambda m: m.state is VendorState.READY)
    servoing.close()
    second.connect()
    second.close()


def test_a_stale_calibration_is_refused(driver, twin):
    twin.fault("register", joint=2, address=31, data=[5, 0])
    with pytest.raises(HardwareError, match=r"elbow_flex: servo 3 holds homing 5, calibrated was -402.*Calibrate again"):
        driver.connect()
    twin.fault("reset")
    driver.connect()


@pytest.mark.parametrize(("address", "data", "words"), [
    (3, [4, 5], r"id 1 is SCS0009 \(1284\); expected model 777"), (0, [4], "servo firmware"), (1, [9], "firmware differs"),
    (33, [1], "mode 1"), (18, [28], "several turns"), (5, [77], "no servo answers at id 1")])
def test_what_is_not_this_arm_is_refused(driver, twin, address, data, words):
    twin.fault("register", joint=0, address=address, data=data)
    with pytest.raises(HardwareError, match=words):
        driver.connect()


def test_an_arm_outside_its_limits_is_refused(twin):
    good = calibration(twin)
    driver = FeetechDriver(ARM, twin.ready["device"], replace(good, zero=(3500, *good.zero[1:])))
    with pytest.raises(HardwareError, match=r"shoulder_pan stands at -2\.2"):
        driver.connect()


def test_no_device_and_no_power_are_told_apart(driver, twin, tmp_path):
    with pytest.raises(HardwareError, match="does not exist"):
        FeetechDriver(ARM, str(tmp_path / "ttyACM0"), calibration(twin)).connect()
    twin.fault("emergency_stop")
    with pytest.raises(HardwareError, match="no servo answers"):
        driver.connect()


def test_a_dead_wire_is_an_error():
    with TwinProcess("so101") as own:
        driver = FeetechDriver(ARM, own.ready["device"], calibration(own))
        driver.connect()
        own.process.kill()
        own.process.wait()
        with pytest.raises(HardwareError, match="wire"):
            for _ in range(10):
                driver.read()
        driver.close()
