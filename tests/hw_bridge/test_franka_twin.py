"""The genuine franky (libfranka) on the twin's true protocol, and the driver that uses it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

franky = pytest.importorskip("franky")

from hw_bridge.drivers.driver import VendorState  # noqa: E402
from hw_bridge.drivers.franka import FrankaArm, FrankaConfig  # noqa: E402
from hw_bridge.twins.franka.mechanics import franka_mechanics  # noqa: E402
from hw_bridge.twins.plant import Plant  # noqa: E402
from hw_bridge.twins.twin import TwinProcess  # noqa: E402
from robots.arms.panda import fr3, panda  # noqa: E402
from robots.command import CommandMode  # noqa: E402
from robots.errors import ConfigurationError, HardwareError, MissingExtraError  # noqa: E402

ADDRESS = f"127.{20 + os.getpid() % 200}.1.4"
PATIENT = ("--lost-max", "300", "--late-max", "200")
"""A test machine may be too busy for the arm's own 20 lost packets; what 20 packets do is a law of test_franka_reflexes.py."""
SOFT = {"stiffness": (150.0,) * 4 + (60.0, 60.0, 30.0), "damping": (25.0,) * 4 + (8.0, 8.0, 4.0), "watchdog_s": 0.2}


@pytest.fixture(scope="module")
def twin() -> Iterator[TwinProcess]:
    with TwinProcess("panda", "--address", ADDRESS, *PATIENT) as process:
        yield process


@pytest.fixture
def driver(twin: TwinProcess) -> Iterator[FrankaArm]:
    twin.fault("heal")
    driver = FrankaArm(panda(), FrankaConfig(ADDRESS, **SOFT))
    assert wait_until(lambda: not twin.fault("state")["connected"])
    assert driver.connect().model == "panda"
    driver.clear_fault()
    yield driver
    driver.close()


def wait_until(law: Callable[[], bool], timeout: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout
    while not law():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def serve(driver: FrankaArm, set_point: Callable[[float], np.ndarray], seconds: float) -> None:
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        driver.read()
        driver.write(set_point(elapsed))
        time.sleep(0.004)


def serve_until(driver: FrankaArm, mode: CommandMode, set_point: Callable[[float], np.ndarray], law: Callable[[], bool]) -> None:
    """Serve from `begin` until `law` holds; where this machine is too busy for the watchdog, begin again."""
    driver.begin(mode)
    start = time.monotonic()
    while not law():
        elapsed = time.monotonic() - start
        assert elapsed < 10.0, f"never came true; last state {driver.read()}"
        try:
            driver.write(set_point(elapsed))
        except HardwareError as error:
            if "did not receive a new torque" not in str(error):
                raise
            driver.begin(mode)
        time.sleep(0.003)


def test_positions_are_reached_and_the_state_is_the_truth(twin: TwinProcess, driver: FrankaArm) -> None:
    start = driver.read().q
    goal = start + np.array([0.05, 0.04, -0.05, 0.06, -0.05, 0.05, 0.06])
    serve_until(driver, CommandMode.JOINT_POSITION, lambda t: start + min(1.0, t / 0.4) * (goal - start),
                lambda: np.abs(driver.read().q - goal).max() < 0.015)  # friction against a soft loop
    driver.end()
    assert wait_until(lambda: twin.fault("state")["mode"] == "idle" and np.abs(driver.read().dq).max() < 0.01)
    measured, truth = driver.read(), twin.fault("state")
    np.testing.assert_allclose(measured.q, truth["q"], atol=5e-3)
    assert measured.state is VendorState.READY and measured.fault == ""
    assert truth["limit_violations"] == [] and truth["command_violations"] == []


def test_velocities_are_kept_and_a_stop_holds_the_arm(twin: TwinProcess, driver: FrankaArm) -> None:
    velocity = np.array([0.2, 0, 0, 0, 0, 0, -0.3])
    serve_until(driver, CommandMode.JOINT_VELOCITY, lambda t: min(1.0, t / 0.2) * velocity,
                lambda: np.abs(driver.read().dq - velocity).max() < 0.06)
    driver.stop()
    assert wait_until(lambda: np.abs(twin.fault("state")["dq"]).max() < 0.01)
    assert twin.fault("state")["mode"] == "idle"
    with pytest.raises(HardwareError, match="no set-points"):
        driver.write(velocity)


def test_torque_moves_the_joint_and_silence_ends_it(twin: TwinProcess, driver: FrankaArm) -> None:
    before, torque = driver.read().q, 0.5 * np.eye(7)[6]
    serve_until(driver, CommandMode.JOINT_TORQUE, lambda t: torque, lambda: driver.read().q[6] > before[6] + 0.01)
    assert np.abs(driver.read().q - before)[:6].max() < 0.01, "gravity is not in the command"
    assert wait_until(lambda: driver.read().state is VendorState.NOT_READY)
    assert "did not receive a new torque" in driver.read().fault
    assert wait_until(lambda: twin.fault("state")["mode"] == "idle")
    with pytest.raises(HardwareError, match="did not receive a new torque"):
        driver.write(torque)


def test_a_reflex_is_surfaced_in_words_and_recovered_from(twin: TwinProcess, driver: FrankaArm) -> None:
    driver.begin(CommandMode.JOINT_POSITION)
    twin.fault("push", force=[0.0, 0.0, -120.0], s=0.3)
    assert wait_until(lambda: driver.read().state is VendorState.PROTECTIVE_STOP)
    assert "reflex" in driver.read().fault
    with pytest.raises(HardwareError, match="reflex"):
        driver.write(driver.read().q)
    assert wait_until(lambda: np.abs(twin.fault("state")["dq"]).max() < 0.01)
    time.sleep(0.4)
    driver.clear_fault()
    assert driver.read().state is VendorState.READY and driver.read().fault == ""
    driver.begin(CommandMode.JOINT_POSITION)
    driver.write(driver.read().q)


def test_the_user_stop_is_an_emergency_stop_that_a_program_cannot_clear(twin: TwinProcess, driver: FrankaArm) -> None:
    driver.begin(CommandMode.JOINT_POSITION)
    twin.fault("emergency_stop")
    assert wait_until(lambda: driver.read().state is VendorState.EMERGENCY_STOP)
    with pytest.raises(HardwareError, match="User Stop"):
        driver.clear_fault()
    twin.fault("emergency_stop", on=False)
    assert wait_until(lambda: driver.read().state is VendorState.READY)


def test_what_is_no_number_is_refused_before_the_wire(driver: FrankaArm) -> None:
    driver.begin(CommandMode.JOINT_TORQUE)
    with pytest.raises(HardwareError, match="no such set-point"):
        driver.write(np.full(7, np.nan))
    driver.stop()


def test_a_second_client_is_refused(twin: TwinProcess, driver: FrankaArm) -> None:
    with pytest.raises(HardwareError, match="no other client connected"):
        FrankaArm(panda(), FrankaConfig(ADDRESS)).connect()
    assert driver.read().state is VendorState.READY


def test_a_frozen_clock_is_a_lost_arm_and_the_driver_finds_its_way_back(twin: TwinProcess, driver: FrankaArm) -> None:
    driver.begin(CommandMode.JOINT_POSITION)
    twin.pause()
    assert wait_until(lambda: driver.read().state is VendorState.LOST)
    received = driver.read().received_ns
    started = time.monotonic()
    driver.stop()
    assert time.monotonic() - started < 1.0, "a stop never waits for an arm that hangs"
    assert driver.read().received_ns == received
    twin.go_on()
    assert wait_until(lambda: twin.fault("state")["time"] > 0)
    driver.clear_fault()
    assert driver.read().state is VendorState.READY


@pytest.mark.parametrize(("fault", "fields", "words"), [
    ("loss", {"share": 1.0}, "no state|communication"), ("half_open", {}, "no state|Timeout|communication"),
    ("delay", {"ms": 600.0}, "no state|communication"), ("corrupt", {"share": 1.0}, "incorrect object size"),
    ("frozen_timestamp", {}, "no state|communication"),
])
def test_a_broken_wire_stops_the_arm_is_said_and_is_overcome(
        twin: TwinProcess, driver: FrankaArm, fault: str, fields: dict, words: str) -> None:
    driver.begin(CommandMode.JOINT_POSITION)
    start = driver.read().q
    serve(driver, lambda t: start + 0.1 * t * np.eye(7)[0], 0.2)
    twin.fault(fault, **fields)
    assert wait_until(lambda: driver.read().state is not VendorState.READY)
    assert re.search(words, driver.read().fault), driver.read().fault
    driver.stop()
    assert wait_until(lambda: not twin.fault("state")["moving"])
    assert twin.fault("state")["limit_violations"] == [] and twin.fault("state")["command_violations"] == []
    twin.fault("heal")
    driver.clear_fault()
    assert driver.read().state is VendorState.READY


@pytest.mark.parametrize(("fault", "fields"), [("duplicate", {"share": 0.5}), ("reorder", {"share": 0.2}), ("clock_step", {"s": 3.0})])
def test_what_the_protocol_bears_disturbs_nothing(twin: TwinProcess, driver: FrankaArm, fault: str, fields: dict) -> None:
    driver.begin(CommandMode.JOINT_POSITION)
    start = driver.read().q
    twin.fault(fault, **fields)
    serve(driver, lambda t: start + 0.1 * t * np.eye(7)[0], 0.3)
    assert driver.read().state is VendorState.READY and twin.fault("state")["moving"]
    assert twin.fault("state")["command_violations"] == []


CLIENT = """
import sys, time, numpy as np
from hw_bridge.drivers.franka import FrankaArm, FrankaConfig
from robots.arms.panda import panda
from robots.command import CommandMode
driver = FrankaArm(panda(), FrankaConfig(sys.argv[1], watchdog_s=0.2))
driver.connect()
driver.clear_fault()
driver.begin(CommandMode.JOINT_VELOCITY)
start, told = time.monotonic(), False
while time.monotonic() - start < float(sys.argv[2]):
    driver.read()
    driver.write(np.array([0.1, 0, 0, 0, 0, 0, 0]))
    if not told and time.monotonic() - start > 0.3:
        told = True
        print("moving", flush=True)
    time.sleep(0.004)
"""


@pytest.mark.parametrize("end", ["exit", "SIGKILL", "SIGSTOP"])
def test_the_arm_stops_when_its_client_ends(twin: TwinProcess, end: str) -> None:
    twin.fault("heal")
    assert wait_until(lambda: not twin.fault("state")["connected"])
    seconds = "0.4" if end == "exit" else "60"
    client = subprocess.Popen([sys.executable, "-c", CLIENT, ADDRESS, seconds], stdout=subprocess.PIPE, env={
        **os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])})
    try:
        assert client.stdout.readline() == b"moving\n"
        if end == "exit":
            assert client.wait(10.0) == 0, "a driver that nobody closed must not abort its process"
        else:
            assert wait_until(lambda: twin.fault("state")["dq"][0] > 0.03)
            client.send_signal(getattr(signal, end))
        assert wait_until(lambda: not twin.fault("state")["moving"])
        assert wait_until(lambda: np.abs(twin.fault("state")["dq"]).max() < 0.01)
        expected = ["communication_constraints_violation"] if end == "SIGSTOP" else []
        assert twin.fault("state")["errors"] == expected
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def test_another_arm_is_refused(twin: TwinProcess) -> None:
    assert wait_until(lambda: not twin.fault("state")["connected"])
    with pytest.raises(HardwareError, match="says it is 'panda', expected 'fr3'"):
        FrankaArm(fr3(), FrankaConfig(ADDRESS)).connect()


def test_nobody_there_another_protocol_and_a_pose_outside_are_refused() -> None:
    address = ADDRESS[:-1] + "5"
    with pytest.raises(HardwareError, match="cannot connect"):
        FrankaArm(panda(), FrankaConfig(address)).connect()
    with TwinProcess("panda", "--address", address, "--version", "5"), pytest.raises(HardwareError, match=r"needs franky's wheel"):
        FrankaArm(panda(), FrankaConfig(address)).connect()
    outside = ["0", "-0.8", "0", "-0.05", "0", "1.5", "0"]
    with TwinProcess("panda", "--address", address, "--q", *outside) as twin:
        with pytest.raises(HardwareError, match=r"panda_joint4 stands at -0\.050 rad, outside"):
            FrankaArm(panda(), FrankaConfig(address)).connect()
        assert twin.fault("state")["set_points"] == 0


def test_the_arm_has_the_reflexes_that_others_leave_out() -> None:
    """franky alone, its rate limit raised: ten N·m in a millisecond on joint 6; and a set of packets that is lost."""
    address = ADDRESS[:-1] + "6"
    with TwinProcess("panda", "--address", address, "--arm", "fr3") as twin:
        robot = franky.Robot(address, realtime_config=franky.RealtimeConfig.Ignore)
        arm = fr3()
        q = np.array(robot.state.q)
        np.testing.assert_allclose(robot.model.gravity(robot.state), Plant(arm, franka_mechanics()).gravity_torque(q), atol=1e-3)
        motion = franky.SimpleTorqueMotion(max_delta_tau=50.0, signal_timeout=None)
        robot.move(motion, asynchronous=True, cutoff_frequency=1000.0)
        motion.set_torque(10.0 * np.eye(7)[5])
        with pytest.raises(franky.ControlException, match="controller_torque_discontinuity"):
            robot.join_motion(timeout=20.0)
        assert robot.recover_from_errors() or not robot.has_errors
        motion = franky.SimpleTorqueMotion(signal_timeout=None)
        robot.move(motion, asynchronous=True, cutoff_frequency=1000.0)
        assert wait_until(lambda: twin.fault("state")["set_points"] > 20)
        twin.fault("loss", share=1.0)
        assert wait_until(lambda: twin.fault("state")["mode"] == "reflex")
        assert twin.fault("state")["last_motion_errors"] == ["communication_constraints_violation"]
        assert twin.fault("state")["limit_violations"] == []


def test_a_missing_client_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "franky", None)
    with pytest.raises(MissingExtraError, match="franka"):
        FrankaArm(panda(), FrankaConfig(ADDRESS))


def test_a_twin_off_loopback_is_refused() -> None:
    with pytest.raises(HardwareError, match=r"192\.0\.2\.1:1337: the twin listens on loopback only"):
        TwinProcess("panda", "--address", "192.0.2.1")


@pytest.mark.parametrize("fields", [{"watchdog_s": 1.0}, {"stiffness": (1.0, 2.0)}, {"damping": (-1.0,) * 7}, {"loop_priority": 100}])
def test_a_configuration_that_cannot_be_is_refused(fields: dict) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        FrankaConfig(ADDRESS, **fields)
