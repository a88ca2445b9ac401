"""ROS 2 without ROS: the wire's bytes are rosbags', and the genuine cyclonedds drives a twin."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("cyclonedds")
pytest.importorskip("rosbags")

from rosbags.typesys import Stores, get_typestore

from hw_bridge.drivers import ros2_messages as messages
from hw_bridge.drivers.driver import VendorState
from hw_bridge.drivers.ros2 import Ros2Arm, Ros2Config
from hw_bridge.drivers.ros2_camera import Ros2Camera
from hw_bridge.drivers.ros2_cdr import JointStateParser, SetPointTemplate
from hw_bridge.drivers.ros2_wire import Node
from hw_bridge.twins.twin import TwinProcess
from robots.arms.panda import fr3, panda
from robots.command import CommandMode
from robots.errors import HardwareError, MissingExtraError, ShapeError

DOMAIN = 100 + os.getpid() % 100
STORE = get_typestore(Stores.ROS2_HUMBLE)
NAMES = ["wrist", "a", "elbow_joint"]


def rosbags_cdr(kind: str, *fields: object) -> bytes:
    return bytes(STORE.serialize_cdr(STORE.types[kind](*fields), kind))


def part(kind: str, *fields: object) -> object:
    return STORE.types[kind](*fields)


def joint_state(names: list[str], q: list[float], dq: list[float], tau: list[float]) -> messages.JointState:
    return messages.JointState(messages.Header(messages.Time(7, 8), "base"), names, q, dq, tau)


@pytest.mark.parametrize("frame", ["", "base", "base_link"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_bytes_are_those_of_rosbags(frame: str, count: int) -> None:
    numbers = [0.5 * i - 1.0 for i in range(count)]
    array, names = np.array(numbers), NAMES[:count]
    header = part("std_msgs/msg/Header", part("builtin_interfaces/msg/Time", 7, 8), frame)
    ours = messages.Header(messages.Time(7, 8), frame)
    assert messages.JointState(ours, names, numbers, [], numbers).serialize() == rosbags_cdr(
        "sensor_msgs/msg/JointState", header, names, array, np.array([]), array)
    point = part("trajectory_msgs/msg/JointTrajectoryPoint", array, np.array([]), np.array([]), np.array([]),
                 part("builtin_interfaces/msg/Duration", 1, 2))
    our_point = messages.JointTrajectoryPoint(numbers, [], [], [], messages.Duration(1, 2))
    assert messages.JointTrajectory(ours, names, [our_point]).serialize() == rosbags_cdr(
        "trajectory_msgs/msg/JointTrajectory", header, names, [point])
    layout = part("std_msgs/msg/MultiArrayLayout", [], 0)
    assert messages.Float64MultiArray(messages.MultiArrayLayout([], 0), numbers).serialize() == rosbags_cdr(
        "std_msgs/msg/Float64MultiArray", layout, array)


def test_the_template_sends_what_the_fields_would() -> None:
    values = np.array([0.25, -3.0, 1e9])
    array = messages.Float64MultiArray(messages.MultiArrayLayout([], 0), [])
    plain = messages.Float64MultiArray(messages.MultiArrayLayout([], 0), values.tolist()).serialize()
    assert SetPointTemplate(array, 3).fill(values).serialize() == plain
    header, duration = messages.Header(messages.Time(0, 0), ""), messages.Duration(0, 5)
    trajectory = messages.JointTrajectory(header, NAMES, [messages.JointTrajectoryPoint([], [], [], [], duration)])
    plain = messages.JointTrajectory(header, NAMES, [messages.JointTrajectoryPoint(values.tolist(), [], [], [], duration)]).serialize()
    assert SetPointTemplate(trajectory, 3).fill(values).serialize() == plain
    with pytest.raises(ShapeError, match="expected 3 numbers, got 2"):
        SetPointTemplate(array, 3).fill(values[:2])


def test_joints_are_found_by_name_the_first_time_and_the_second() -> None:
    parser = JointStateParser(("a", "elbow_joint", "wrist"))
    for offset in (0.0, 10.0, 20.0):
        cdr = joint_state(NAMES, [3.0 + offset, 1.0 + offset, 2.0 + offset], [6.0, 4.0, 5.0], [9.0, 7.0, 8.0]).serialize()
        stamp, q, dq, tau = parser.parse(cdr)
        assert stamp == pytest.approx(7 + 8e-9)
        np.testing.assert_array_equal([q, dq, tau], [[1 + offset, 2 + offset, 3 + offset], [4, 5, 6], [7, 8, 9]])
    swapped = joint_state(["a", "wrist", "elbow_joint"], [1.0, 3.0, 2.0], [4.0, 6.0, 5.0], [7.0, 9.0, 8.0]).serialize()
    np.testing.assert_array_equal(parser.parse(swapped)[1], [1, 2, 3])
    _, q, dq, tau = parser.parse(joint_state(NAMES, [3.0, 1.0, 2.0], [], []).serialize())
    np.testing.assert_array_equal(q, [1, 2, 3])
    assert np.isnan(dq).all() and np.isnan(tau).all()


@pytest.mark.parametrize(("broken", "words"), [
    (joint_state(["a", "wrist"], [1.0, 2.0], [], []), "lacks .'elbow_joint'."),
    (joint_state(NAMES, [1.0, 2.0], [], []), "2 numbers for 3 joints"),
    (joint_state(NAMES, [1.0, 2.0, 3.0], [1.0], []), "1 numbers for 3 joints"),
])
def test_a_state_that_does_not_fit_is_refused(broken: messages.JointState, words: str) -> None:
    parser = JointStateParser(("a", "elbow_joint", "wrist"))
    parser.parse(joint_state(NAMES, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).serialize())
    with pytest.raises(ShapeError, match=words):
        parser.parse(broken.serialize())


@pytest.fixture(scope="module")
def twin() -> Iterator[TwinProcess]:
    with TwinProcess("ros2_arm", "--domain", str(DOMAIN)) as process:
        yield process


@pytest.fixture
def driver(twin: TwinProcess) -> Iterator[Ros2Arm]:
    twin.fault("heal")
    driver = Ros2Arm(panda(), Ros2Config(domain=DOMAIN))
    driver.connect()
    yield driver
    driver.close()


def wait_until(law, timeout: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout
    while not law():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_twin_reaches_what_a_trajectory_asks_in_the_arms_own_order(twin: TwinProcess, driver: Ros2Arm) -> None:
    goal = driver.read().q + np.array([0.05, -0.04, 0.03, 0.06, -0.02, 0.05, 0.04])
    driver.begin(CommandMode.JOINT_POSITION)
    start = driver.read().q
    for share in np.linspace(0.0, 1.0, 60):
        driver.read()
        driver.write(start + share * (goal - start))
        time.sleep(0.004)
    assert wait_until(lambda: np.abs(driver.read().q - goal).max() < 2e-3)
    truth = twin.fault("state")
    np.testing.assert_allclose(truth["q"], goal, atol=3e-3)
    assert truth["limit_violations"] == [] and truth["rejected"] == 0


@pytest.mark.parametrize("mode", [CommandMode.JOINT_VELOCITY, CommandMode.JOINT_TORQUE])
def test_forward_controllers_move_the_joint_that_is_named_and_stop_when_told(
        twin: TwinProcess, driver: Ros2Arm, mode: CommandMode) -> None:
    driver.begin(mode)
    before = driver.read().q
    values = np.zeros(7)
    values[5] = 0.3 if mode is CommandMode.JOINT_VELOCITY else 1.0
    driver.write(values)
    assert wait_until(lambda: driver.read().q[5] > before[5] + 0.02)
    driver.end()
    assert np.abs(driver.read().q - before)[:5].max() < 0.05
    if mode is CommandMode.JOINT_VELOCITY:
        assert wait_until(lambda: np.abs(twin.fault("state")["dq"]).max() < 0.01)


def test_nobody_watches_a_forward_controller_but_the_driver_watches_the_state(twin: TwinProcess, driver: Ros2Arm) -> None:
    driver.begin(CommandMode.JOINT_VELOCITY)
    driver.write(np.array([0.1, 0, 0, 0, 0, 0, 0]))
    assert wait_until(lambda: twin.fault("state")["dq"][0] > 0.09)
    time.sleep(0.3)
    assert twin.fault("state")["dq"][0] > 0.09, "ROS 2 has no watchdog: the last command goes on"
    twin.fault("half_open")
    assert wait_until(lambda: driver.read().state is VendorState.LOST)
    assert "no JointState for" in driver.read().fault
    with pytest.raises(HardwareError, match="no set-point is sent"):
        driver.write(np.zeros(7))
    with pytest.raises(HardwareError, match="silent"):
        driver.clear_fault()
    twin.fault("heal")
    assert wait_until(lambda: driver.read().state is VendorState.READY)
    driver.write(np.zeros(7))
    assert wait_until(lambda: abs(twin.fault("state")["dq"][0]) < 0.01)


def test_broken_states_are_counted_and_a_frozen_clock_shows(twin: TwinProcess, driver: Ros2Arm) -> None:
    twin.fault("corrupt", share=0.5)
    assert wait_until(lambda: driver.read().bus_errors > 5)
    assert driver.read().state is VendorState.READY
    twin.fault("heal")
    twin.fault("frozen_timestamp")
    time.sleep(0.1)
    driver.read()
    first = driver.read().device_s
    received = driver.read().received_ns
    assert wait_until(lambda: driver.read().received_ns > received + 50_000_000)
    assert driver.read().device_s == first


def test_what_comes_twice_or_too_late_is_dropped_as_dds_does(twin: TwinProcess, driver: Ros2Arm) -> None:
    before = twin.fault("state")
    driver.begin(CommandMode.JOINT_POSITION)
    twin.fault("duplicate", share=0.5)
    twin.fault("reorder", share=0.3)
    start = driver.read().q
    for k in range(100):
        driver.read()
        driver.write(start + 5e-4 * k * np.eye(7)[0])
        time.sleep(0.004)
    after = twin.fault("state")
    assert after["overtaken"] >= before["overtaken"] + 20
    assert after["command_violation_count"] == before["command_violation_count"], "an old set-point never acts"
    twin.fault("heal")


def test_the_audit_sees_a_jump_and_a_target_beyond_the_limits(twin: TwinProcess, driver: Ros2Arm) -> None:
    before = twin.fault("state")["command_violation_count"]
    driver.begin(CommandMode.JOINT_POSITION)
    q = driver.read().q
    driver.write(q)
    time.sleep(0.004)
    driver.write(q + np.array([0, 0, 0, 0, 0, 0.1, 0]))
    driver.write(np.where(np.arange(7) == 3, 0.5, q))
    driver.write(np.where(np.arange(7) == 3, np.nan, q))
    assert wait_until(lambda: twin.fault("state")["command_violation_count"] >= before + 3)
    words = " ".join(twin.fault("state")["command_violations"])
    assert "panda_joint6 jumped" in words and "panda_joint4 0.5000 outside" in words and "non-finite" in words


def test_another_arm_and_a_second_client_are_refused(twin: TwinProcess, driver: Ros2Arm) -> None:
    with pytest.raises(HardwareError, match="lack this arm's joints"):
        Ros2Arm(fr3(), Ros2Config(domain=DOMAIN, timeout_s=0.5)).connect()
    with pytest.raises(HardwareError, match="other client"):
        Ros2Arm(panda(), Ros2Config(domain=DOMAIN)).connect()


def test_nobody_there_is_said_in_words() -> None:
    with pytest.raises(HardwareError, match=r"no usable JointState .* none came"):
        Ros2Arm(panda(), Ros2Config(domain=DOMAIN + 1, timeout_s=0.3)).connect()


def test_a_missing_client_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("hw_bridge.drivers.ros2_wire")
    monkeypatch.delitem(sys.modules, "hw_bridge.drivers.ros2_wire")
    monkeypatch.setitem(sys.modules, "cyclonedds.builtin", None)
    with pytest.raises(MissingExtraError, match="ros2"):
        Ros2Arm(panda())


@pytest.mark.parametrize(("encoding", "channels"), [("rgb8", 3), ("bgr8", 3), ("mono8", 1)])
def test_a_picture_arrives_as_it_was_sent(encoding: str, channels: int) -> None:
    topic = f"/camera/{encoding}"
    writer = Node(DOMAIN + 1).writer(topic, messages.Image, best_effort=True)
    camera = Ros2Camera(topic, DOMAIN + 1)
    assert camera.read() is None
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, channels), dtype=np.uint8)
    step = 4 * channels + 3
    rows = np.zeros((5, step), np.uint8)
    rows[:, : 4 * channels] = pixels.reshape(5, -1)
    now = time.time_ns() - 20_000_000
    header = part("std_msgs/msg/Header", part("builtin_interfaces/msg/Time", now // 10**9, now % 10**9), "lens")
    cdr = rosbags_cdr("sensor_msgs/msg/Image", header, 5, 4, encoding, 0, step, rows.reshape(-1))
    frames = []
    for _ in range(200):
        writer.write(messages.Image.of_cdr(cdr))
        time.sleep(0.01)
        if (frame := camera.read()) is not None:
            frames.append(frame)
            break
    assert frames, "no picture came"
    np.testing.assert_array_equal(frames[0].image, pixels[:, :, ::-1] if encoding == "bgr8" else pixels)
    assert frames[0].received_ns - frames[0].captured_ns >= 20_000_000
    camera.close()
