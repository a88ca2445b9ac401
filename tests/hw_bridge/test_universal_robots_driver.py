"""The Universal Robots driver on the twin: it refuses what it must not drive, streams, tells faults in words, and outlives the wire."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw_bridge.drivers.driver import VendorState
from hw_bridge.drivers.universal_robots import UniversalRobots
from hw_bridge.drivers.ur_client import ControlClient
from hw_bridge.twins.twin import TwinProcess
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, MissingExtraError

pytest.importorskip("rtde_control")
ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "127.0.41.4"
HOME = ur5e().home
WATCHDOG_S = 0.2
"""A busy machine may well be late by 20 ms."""


@pytest.fixture(scope="module")
def twin():
    with TwinProcess("ur5e", "--address", ADDRESS, "--unlock-after", "0.3") as process:
        yield process


def until(condition, timeout=5.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def arm(twin):
    driver = UniversalRobots(ADDRESS, watchdog_s=WATCHDOG_S)
    yield driver
    driver.close()
    driver.close()


@pytest.fixture
def driver(twin, arm):
    """The driver, connected and idle, the arm at home, no fault on; the connection is kept from test to test while it is sound."""
    twin.fault("heal")
    arm.stop()
    until(lambda: twin.fault("state")["mode"] == "hold" and not twin.fault("state")["program_running"])
    twin.fault("place", q=HOME.tolist())
    if arm._client is None or not arm._client.alive or arm.read().state is not VendorState.READY:
        arm.connect()
    return arm


@pytest.fixture
def nobody(twin, arm):
    """The address is free of clients."""
    arm.close()
    twin.fault("heal")
    until(lambda: twin.fault("state")["mode"] == "hold" and not twin.fault("state")["program_running"])
    twin.fault("place", q=HOME.tolist())


def stream(driver, seconds, target):
    """Read and write every 2 ms; return the last measurement. `target` gives the set-point at a time [s]."""
    begin = time.monotonic()
    while (t := time.monotonic() - begin) < seconds:
        measured = driver.read()
        driver.write(target(t))
        time.sleep(0.002)
    return measured


def test_it_says_who_it_is_and_follows_a_sine_without_breaking_a_limit(twin, driver):
    identity = driver.connect()  # again: a connection that it had is let go
    assert (identity.model, identity.firmware) == ("ur5e", "5.26.0.129") and identity.serial and driver.calibration_hash == "factory"
    before = twin.fault("state")
    assert driver.read().state is VendorState.READY and not before["program_running"]
    driver.begin(CommandMode.JOINT_POSITION)
    assert twin.fault("state")["watchdog_s"] == pytest.approx(WATCHDOG_S)
    stream(driver, 1.0, lambda t: HOME + 0.2 * (1 - np.cos(2 * np.pi * t)) * np.array([1, 0, 0, 0, 1, 0]) / 2)
    measured = stream(driver, 0.3, lambda t: HOME)
    np.testing.assert_allclose(measured.q, HOME, atol=3e-3)
    assert measured.state is VendorState.READY and not measured.fault
    np.testing.assert_allclose(measured.tau[1:3], -20.26, atol=8.0)  # gravity, give or take friction
    driver.end()
    after = twin.fault("state")
    assert not after["program_running"] and after["mode"] == "hold" and not after["limit_violations"]
    assert after["command_violation_count"] == before["command_violation_count"] and after["set_points"] > before["set_points"] + 100


@pytest.mark.parametrize(("mode", "value"), [(CommandMode.JOINT_VELOCITY, 0.3), (CommandMode.JOINT_TORQUE, 12.0)])
def test_velocities_and_torques_move_the_joint_they_name(twin, driver, mode, value):
    driver.begin(mode)
    measured = stream(driver, 0.4, lambda t: np.array([0, 0, 0, 0, 0, value / (10.0 if mode is CommandMode.JOINT_TORQUE else 1.0)]))
    assert measured.dq[5] > 0.05 and np.abs(measured.dq[:4]).max() < 0.05
    driver.end()
    assert np.abs(driver.read().dq).max() < 0.03


@pytest.mark.parametrize(("changes", "words"), [
    ({"model": "UR10"}, "is a 'UR10'; expected ur5e"),
    ({"firmware": [3, 15, 8, 1]}, "runs PolyScope 3.15.8.1; expected 5.6"),
    ({"remote": False}, "local control"),
])
def test_another_arm_or_firmware_or_local_control_is_refused(twin, nobody, changes, words):
    twin.fault("nameplate", **changes)
    try:
        with pytest.raises(HardwareError, match=words):
            UniversalRobots(ADDRESS).connect()
    finally:
        twin.fault("nameplate", model="UR5", firmware=[5, 26, 0, 129], remote=True)


def test_torque_is_refused_on_firmware_that_has_none(twin, nobody):
    twin.fault("nameplate", firmware=[5, 11, 0, 1])
    driver = UniversalRobots(ADDRESS, watchdog_s=WATCHDOG_S)
    try:
        driver.connect()
        with pytest.raises(HardwareError, match=r"needs PolyScope 5\.23"):
            driver.begin(CommandMode.JOINT_TORQUE)
    finally:
        twin.fault("nameplate", firmware=[5, 26, 0, 129])
        driver.close()


def test_a_second_client_is_refused_idle_or_moving(driver):
    with pytest.raises(HardwareError, match="second client"):
        UniversalRobots(ADDRESS).connect()
    driver.begin(CommandMode.JOINT_POSITION)
    with pytest.raises(HardwareError, match="already runs a program"):
        UniversalRobots(ADDRESS).connect()


def test_a_program_that_is_not_ours_is_left_running():
    driver, asked = UniversalRobots(ADDRESS), []
    running = bytes(31 * 8) + struct.pack(">II", 3, 1)
    driver._states = SimpleNamespace(newest=lambda: running, close=lambda: None)
    driver._client = SimpleNamespace(request=lambda *words, **further: asked.append(words), kill=lambda: None)
    driver.close()
    client = object.__new__(ControlClient)
    client._mode, client._control = 0, SimpleNamespace(isConnected=lambda: True, isProgramRunning=lambda: True,
                                                       stopScript=lambda: asked.append("stop"))
    client.end()
    assert asked == []


def test_nothing_at_the_address_is_said_in_words():
    with pytest.raises(HardwareError, match="does not answer"):
        UniversalRobots("127.0.41.250").connect()


def test_an_arm_outside_its_limits_is_refused(twin, driver):
    twin.fault("place", q=[*HOME[:5], 6.31])
    time.sleep(0.05)
    with pytest.raises(HardwareError, match=r"wrist_3_joint stands at 6\.310 rad"):
        driver.begin(CommandMode.JOINT_POSITION)
    driver.close()
    with pytest.raises(HardwareError, match="wrist_3_joint stands at"):
        driver.connect()


@pytest.mark.parametrize("watchdog_s", [0.0, 0.01, 0.5, float("nan")])
def test_the_watchdog_cannot_be_left_out(watchdog_s):
    with pytest.raises(ConfigurationError, match="watchdog"):
        UniversalRobots(ADDRESS, watchdog_s=watchdog_s)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dashboard_client", None)
    with pytest.raises(MissingExtraError, match=r"reflexarc\[ur\]"):
        UniversalRobots(ADDRESS)


def test_the_age_of_a_state_grows_while_the_controllers_clock_stands_still(twin, driver):
    first = driver.read()
    until(lambda: driver.read().received_ns > first.received_ns)
    twin.fault("frozen_timestamp")
    time.sleep(0.05)
    frozen = driver.read()
    time.sleep(0.05)
    again = driver.read()
    assert again.received_ns == frozen.received_ns and again.device_s == frozen.device_s and again.bus_errors > first.bus_errors
    time.sleep(0.1)
    lost = driver.read()
    assert lost.state is VendorState.LOST and "nothing heard" in lost.fault


def test_a_protective_stop_is_told_and_cleared_only_when_the_controller_lets_it(twin, driver):
    driver.begin(CommandMode.JOINT_VELOCITY)
    stream(driver, 0.2, lambda t: np.array([0.3, 0, 0, 0, 0, 0]))
    twin.fault("protective_stop")
    until(lambda: driver.read().state is VendorState.PROTECTIVE_STOP)
    assert "PROTECTIVE_STOP" in driver.read().fault
    with pytest.raises(HardwareError, match=r"no longer takes set-points|begin first"):
        stream(driver, 1.0, lambda t: np.zeros(6))
    with pytest.raises(HardwareError, match="Cannot unlock protective stop until"):
        twin.fault("protective_stop")
        driver.clear_fault()
    time.sleep(0.4)
    driver.clear_fault()
    assert driver.read().state is VendorState.READY
    driver.begin(CommandMode.JOINT_POSITION)
    at = driver.read().q
    assert stream(driver, 0.1, lambda t: at).state is VendorState.READY


def test_an_emergency_stop_needs_a_person_and_then_power(twin, driver):
    twin.fault("emergency_stop")
    until(lambda: driver.read().state is VendorState.EMERGENCY_STOP)
    with pytest.raises(HardwareError, match="turn the emergency stop out"):
        driver.clear_fault()
    twin.fault("emergency_stop", pressed=False)
    until(lambda: driver.read().state is VendorState.NOT_READY)
    with pytest.raises(HardwareError, match="motors are off"):
        driver.begin(CommandMode.JOINT_POSITION)
    driver.clear_fault()
    until(lambda: driver.read().state is VendorState.READY)


def test_silence_trips_the_watchdog_and_a_new_program_does_not_follow_the_old_set_point(twin, driver):
    driver.begin(CommandMode.JOINT_POSITION)
    stream(driver, 0.3, lambda t: HOME + np.array([0.2 * min(t / 0.2, 1.0), 0, 0, 0, 0, 0]))
    trips = twin.fault("state")["watchdog_trips"]
    until(lambda: driver.read().state is VendorState.NOT_READY)
    assert "watchdog" in driver.read().fault and twin.fault("state")["watchdog_trips"] == trips + 1
    until(lambda: twin.fault("state")["mode"] == "hold")
    twin.fault("place", q=HOME.tolist())  # a person moves the arm; the register still holds the last set-point
    until(lambda: abs(driver.read().q[0]) < 1e-6)
    driver.begin(CommandMode.JOINT_POSITION)
    far = max(abs(twin.fault("state")["q"][0]) for _ in range(20) if driver.write(HOME) is None)
    assert far < 2e-3


def test_stop_stops_and_never_raises(twin, driver):
    UniversalRobots(ADDRESS).stop()
    driver.begin(CommandMode.JOINT_VELOCITY)
    stream(driver, 0.3, lambda t: np.array([0.5, 0, 0, 0, 0, 0]))
    driver.stop()
    with pytest.raises(HardwareError, match="begin first"):
        driver.write(np.zeros(6))
    until(lambda: np.abs(driver.read().dq).max() < 1e-3)
    assert not twin.fault("state")["program_running"]


def test_a_wire_that_dies_half_open_is_lost_in_words_and_comes_back(twin, driver):
    driver.begin(CommandMode.JOINT_POSITION)
    stream(driver, 0.1, lambda t: HOME)
    twin.fault("half_open")
    begin = time.monotonic()
    until(lambda: driver.read().state is VendorState.LOST)
    assert time.monotonic() - begin < 0.5
    with pytest.raises(HardwareError):
        driver.write(HOME)
    driver.stop()
    until(lambda: not twin.fault("state")["program_running"])
    assert "watchdog" in twin.fault("state")["program_ended"]
    twin.fault("heal")
    driver.connect()
    driver.begin(CommandMode.JOINT_POSITION)
    assert stream(driver, 0.1, lambda t: HOME).state is VendorState.READY


def test_the_vendors_client_may_die_and_the_driver_says_so(twin, driver):
    driver.begin(CommandMode.JOINT_POSITION)
    os.kill(driver._client.pid, signal.SIGKILL)
    with pytest.raises(HardwareError, match="process died"):
        stream(driver, 1.0, lambda t: HOME)
    until(lambda: not twin.fault("state")["program_running"])


PROGRAM = """
import sys, time, numpy as np
from hw_bridge.drivers.universal_robots import UniversalRobots
from robots.command import CommandMode
driver = UniversalRobots(sys.argv[1], watchdog_s=0.2)
driver.connect()
driver.begin(CommandMode.JOINT_VELOCITY)
print('moving', flush=True)
while True:
    driver.read()
    driver.write(np.array([0.2, 0, 0, 0, 0, 0]))
    time.sleep(0.002)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_arm_stops_when_the_bridge_is_killed_or_frozen(twin, nobody, how):
    with subprocess.Popen([sys.executable, "-c", PROGRAM, ADDRESS], stdout=subprocess.PIPE, text=True, cwd=ROOT) as bridge:
        try:
            assert bridge.stdout.readline().strip() == "moving"
            until(lambda: twin.fault("state")["dq"][0] > 0.15)
            bridge.send_signal(how)
            until(lambda: abs(twin.fault("state")["dq"][0]) < 1e-3 and not twin.fault("state")["program_running"], 1.0)
        finally:
            bridge.kill()
    until(lambda: twin.fault("state")["clients"] == 0)


def test_a_twin_that_is_killed_is_lost_and_nothing_hangs():
    with TwinProcess("ur5e", "--address", "127.0.41.5") as twin:
        driver = UniversalRobots("127.0.41.5", watchdog_s=WATCHDOG_S)
        driver.connect()
        driver.begin(CommandMode.JOINT_POSITION)
        twin.process.kill()
        until(lambda: driver.read().state is VendorState.LOST)
        driver.stop()
        begin = time.monotonic()
        driver.close()
        assert time.monotonic() - begin < 5.0
