"""The whole way: a policy's process, boards, the bridge's process, the vendor's client, the wire, the twin, and back; and the log."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from hw_bridge.bridge import BridgeConfig
from hw_bridge.client import BridgeProcess
from hw_bridge.realtime.privileges import RealTimeConfig
from hw_bridge.recorder.read_log import read_log
from hw_bridge.recorder.to_episode import log_episodes
from hw_bridge.robot import BridgeRobot
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.rules import State
from hw_bridge.twins.twin import TwinProcess
from robots.command import Command, CommandMode
from robots.errors import HardwareError

pytest.importorskip("rtde_control")
ADDRESS = "127.0.43.2"
PERIOD = 0.05
# A busy test machine is late now and then; the supervisor's own tests are strict about time.
SAFETY = SafetyConfig(policy_period=PERIOD, observation_age_max=0.2, gap_max=0.2, clock_drift_max=0.5, action_age_max=0.5,
                      tracking_error_max=0.4)


@pytest.fixture(scope="module")
def twin():
    with TwinProcess("ur5e", "--address", ADDRESS) as process:
        yield process


@pytest.fixture
def bridge(twin, tmp_path):
    twin.fault("heal")
    config = BridgeConfig("ur5e", ADDRESS, safety=SAFETY, log=str(tmp_path / "log.mcap"), task="swing",
                          real_time=RealTimeConfig(lock_memory=False))
    with BridgeProcess(config) as process:
        process.log = tmp_path / "log.mcap"
        yield process


def robot_at(bridge) -> BridgeRobot:
    return BridgeRobot(bridge.client, CommandMode.JOINT_POSITION, PERIOD, spread=0.05)


def await_state(bridge, *states: State, seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while bridge.client.state().state not in states or bridge.client.status().state not in states:
        assert time.monotonic() < ends, f"{bridge.client.status()} instead of {states}"
        time.sleep(0.005)


def test_a_policy_drives_the_arm_and_the_log_becomes_an_episode(bridge, twin):
    robot = robot_at(bridge)
    observation = robot.reset(0)
    start = observation.q
    assert np.abs(start - bridge.arm.home).max() < 0.08
    lag = []
    for k in range(40):
        target = start + 0.2 * np.sin(np.pi * PERIOD * (k + 1))
        applied = robot.send(Command(CommandMode.JOINT_POSITION, target))
        assert np.allclose(applied.values, target)
        observation = robot.tick()
        lag.append(np.abs(observation.q - target).max())
    assert np.median(lag) < 0.1
    assert twin.fault("state")["limit_violations"] == [] and twin.fault("state")["command_violations"] == []
    bridge.close()
    log = read_log(bridge.log)
    assert log.complete and log.header.robot_fingerprint == robot.spec.fingerprint()
    episode = max(log_episodes(log), key=lambda e: e.steps)
    assert episode.steps >= 39 and np.median(episode.dt) == pytest.approx(PERIOD, rel=0.2)
    assert np.abs(episode.applied[-5:] - episode.x[-5:, :6]).max() < 0.2


def test_the_stop_button_stops_whatever_the_policy_does_and_latches(bridge):
    robot = robot_at(bridge)
    robot.reset(1)
    bridge.client.press_stop("tested")
    await_state(bridge, State.ESTOP)
    assert "tested" in bridge.client.status().cause
    with pytest.raises(HardwareError, match="ESTOP"):
        robot.send(Command(CommandMode.JOINT_POSITION, bridge.arm.home))
    with pytest.raises(HardwareError, match="ESTOP"):
        bridge.client.wish("arm")
    time.sleep(0.5)
    bridge.client.wish("reset")
    await_state(bridge, State.IDLE)
    robot.reset(2)
    assert bridge.client.state().state is State.ACTIVE


def test_a_policy_that_falls_silent_or_leaves_the_numbers_is_held(bridge):
    robot = robot_at(bridge)
    robot.reset(3)
    await_state(bridge, State.HOLD)
    assert "no action" in bridge.client.status().cause
    robot.reset(3)
    board = bridge.client.channels.action
    board.record["sequence"] += 1
    board.record["values"][:] = np.nan
    board.publish(time.monotonic_ns())
    await_state(bridge, State.HOLD)
    assert "non finite" in bridge.client.status().cause


def test_a_protective_stop_of_the_arm_is_a_fault_in_words_and_cleared_by_a_person(bridge, twin):
    robot = robot_at(bridge)
    robot.reset(4)
    twin.fault("protective_stop")
    await_state(bridge, State.FAULT)
    assert "PROTECTIVE_STOP" in bridge.client.status().cause
    time.sleep(5.5)  # the controller wants five seconds to pass before a person may say that all is well
    bridge.client.wish("reset")
    robot.reset(4)
    assert bridge.client.state().state is State.ACTIVE


def test_an_arm_that_is_not_heard_any_more_is_a_fault(bridge, twin):
    robot = robot_at(bridge)
    robot.reset(5)
    twin.pause()
    try:
        await_state(bridge, State.FAULT)
        assert "heard" in bridge.client.status().cause
    finally:
        twin.go_on()


def test_a_bridge_whose_starter_is_killed_lets_go_of_the_arm(twin, tmp_path):
    config = BridgeConfig("ur5e", ADDRESS, safety=SAFETY, log=str(tmp_path / "log.mcap"), real_time=RealTimeConfig(lock_memory=False))
    twin.fault("heal")
    bridge = BridgeProcess(config)
    robot = robot_at(bridge)
    robot.reset(6)
    bridge.process.stdin.close()  # as the system does for a killed process
    bridge.process.wait(15.0)
    assert read_log(tmp_path / "log.mcap").complete
    assert any(b"the bridge is ending" in event["text"] for event in read_log(tmp_path / "log.mcap").events)
    bridge.process.stdout.close()
    bridge.client.close()
    os.kill(twin.process.pid, signal.SIGCONT)


def test_what_cannot_be_started_is_refused_in_words():
    with pytest.raises(HardwareError, match="bridge did not start"):
        BridgeProcess(BridgeConfig("ur5e", "127.0.43.99"))
    with pytest.raises(HardwareError, match="unknown robot"):
        BridgeProcess(BridgeConfig("ur6e", ADDRESS))


def test_a_bridge_that_only_watches_is_armed_by_nobody(twin):
    twin.fault("heal")
    before = twin.fault("state")["set_points"]
    config = BridgeConfig("ur5e", ADDRESS, safety=SAFETY, watch_only=True, real_time=RealTimeConfig(lock_memory=False))
    with BridgeProcess(config) as bridge:
        with pytest.raises(HardwareError, match="only watches"):
            bridge.client.wish("arm")
        await_state(bridge, State.IDLE)
        bridge.client.wish("stop")
        with pytest.raises(HardwareError, match="only watches"):
            bridge.client.wish("reset")
    assert twin.fault("state")["set_points"] == before
