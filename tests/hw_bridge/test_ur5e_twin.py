"""The UR5e's twin with the genuine ur_rtde client: it moves as told, stops as Universal Robots' controller stops, and tells the truth."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hw_bridge.twins.twin import TwinProcess
from hw_bridge.twins.ur.setpoints import SLACK_S, SetPointAudit
from hw_bridge.twins.ur.wire import Pipe, WireFaults
from hw_bridge.twins.ur5e import Options, UR5eTwin
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, HardwareError

rtde_control = pytest.importorskip("rtde_control")
rtde_receive = pytest.importorskip("rtde_receive")
dashboard_client = pytest.importorskip("dashboard_client")

ADDRESS = "127.0.41.2"
HOME = ur5e().home.tolist()


@pytest.fixture(scope="module")
def twin():
    with TwinProcess("ur5e", "--address", ADDRESS, "--unlock-after", "0.2") as process:
        yield process


@pytest.fixture(scope="module")
def control(twin):
    client = rtde_control.RTDEControlInterface(ADDRESS)
    yield client
    client.disconnect()


@pytest.fixture(scope="module")
def receive(twin):
    client = rtde_receive.RTDEReceiveInterface(ADDRESS)
    yield client
    client.disconnect()


@pytest.fixture(scope="module")
def dashboard(twin):
    client = dashboard_client.DashboardClient(ADDRESS)
    client.connect(2000)
    yield client
    client.disconnect()


def until(condition, timeout=5.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)


@pytest.fixture
def running(twin, control, receive, dashboard):
    """The client's program runs, the arm stands at home, nothing hangs on it and no fault is on."""
    twin.fault("heal")
    twin.fault("payload", mass=0.0)
    dashboard.stop()
    until(lambda: twin.fault("state")["mode"] == "hold")
    if twin.fault("state")["safety_mode"] == "PROTECTIVE_STOP":
        until(lambda: twin.fault("state")["time"] - float(twin.fault("state")["stops"][-1].split()[0]) > 0.25)
        dashboard.unlockProtectiveStop()
    elif twin.fault("state")["safety_mode"] != "NORMAL":
        dashboard.restartSafety()
    if twin.fault("state")["robot_mode"] != "RUNNING":
        dashboard.powerOn()
        dashboard.brakeRelease()
    twin.fault("place", q=HOME)
    until(lambda: not control.isProgramRunning())
    control.kickWatchdog()  # while no program runs it clears the command that the last one left in its register
    control.reuploadScript()
    until(control.isProgramRunning)
    return twin


def test_dashboard_and_getters_say_who_it_is_and_where_it_stands(running, receive, dashboard):
    assert dashboard.polyscopeVersion() == "5.26.0.129" and dashboard.getRobotModel() == "UR5" and dashboard.getSerialNumber().isdigit()
    assert dashboard.isInRemoteControl() and dashboard.running()
    assert "NORMAL" in dashboard.safetystatus() and "RUNNING" in dashboard.robotmode()
    assert receive.getSafetyStatusBits() == 1 and receive.getRobotStatus() == 3 and receive.getRobotMode() == 7
    np.testing.assert_allclose(receive.getActualQ(), HOME, atol=1e-3)
    np.testing.assert_allclose(receive.getActualTCPPose()[:3], ur5e().kinematics().forward(np.array(HOME))[:3], atol=2e-3)
    until(lambda: abs(receive.getTargetMoment()[1]) > 5.0)  # gravity


def test_five_hundred_states_a_second_of_its_own_clock(running, receive):
    begin, host = receive.getTimestamp(), time.monotonic()
    skipped = running.fault("state")["skipped_s"]
    time.sleep(0.5)
    passed, host = receive.getTimestamp() - begin, time.monotonic() - host
    assert passed == pytest.approx(host - (running.fault("state")["skipped_s"] - skipped), abs=0.06)
    assert passed / 0.002 == pytest.approx(round(passed / 0.002), abs=1e-6)


def test_move_joints_arrives(running, control, receive):
    target = np.add(HOME, [0.2, -0.1, 0.1, 0.0, 0.3, -0.2])
    assert control.moveJ(target.tolist(), 2.0, 6.0)
    until(lambda: np.abs(receive.getActualQ() - target).max() < 2e-3)


def sine(control, amplitude, seconds, gain=2000.0, lookahead=0.03):
    """Servo shoulder and wrist along a sine and return commanded and sent times; by the time that truly passed."""
    begin = time.monotonic()
    while (t := time.monotonic() - begin) < seconds:
        q = np.array(HOME)
        q[[1, 4]] += amplitude * (1 - np.cos(2 * np.pi * t / seconds)) / 2
        assert control.servoJ(q.tolist(), 0.0, 0.0, 0.002, lookahead, gain)
        time.sleep(0.002)


def test_servo_follows_a_sine_and_nobody_broke_a_limit(running, control):
    before = running.fault("state")
    sine(control, -0.3, 1.0)
    control.servoJ(HOME, 0.0, 0.0, 0.002, 0.03, 2000.0)
    until(lambda: np.abs(np.array(running.fault("state")["q"]) - HOME).max() < 3e-3)
    after = running.fault("state")
    assert after["set_points"] > before["set_points"] + 50
    assert after["command_violation_count"] == before["command_violation_count"] and not after["limit_violations"]
    assert control.servoStop(15.0) and running.fault("state")["mode"] == "hold"


def test_lookahead_is_how_late_a_ramp_is_followed(running, control):
    begin, errors = time.monotonic(), []
    while (t := time.monotonic() - begin) < 0.8:
        control.servoJ([0.5 * t, *HOME[1:]], 0.0, 0.0, 0.002, 0.1, 1000.0)
        if t > 0.4:
            errors.append(0.5 * (time.monotonic() - begin) - running.fault("state")["q"][0])
        time.sleep(0.002)
    assert np.median(errors) == pytest.approx(0.05, abs=0.01)


def test_speed_is_reached_and_stopped(running, control, receive):
    control.speedJ([0.4, 0.0, 0.0, 0.0, 0.0, 0.0], 8.0, 0.0)
    until(lambda: abs(receive.getActualQd()[0] - 0.4) < 0.02)
    assert control.speedStop(10.0)
    until(lambda: abs(receive.getActualQd()[0]) < 1e-3)


def test_direct_torque_is_on_top_of_gravity_and_friction_holds_a_small_one(running, control, receive):
    zero = [0.0] * 6
    for _ in range(50):
        assert control.directTorque(zero, zero, zero)
        time.sleep(0.002)
    assert np.abs(np.array(running.fault("state")["q"]) - HOME).max() < 1e-3  # it does not fall
    for _ in range(200):
        control.directTorque([2.0, *zero[1:]], zero, zero)  # below the Coulomb friction of 4 N·m
        time.sleep(0.001)
    assert abs(running.fault("state")["q"][0]) < 2e-3
    end = time.monotonic() + 3.0
    while receive.getActualQd()[0] < 0.05 and time.monotonic() < end:
        control.directTorque([12.0, *zero[1:]], zero, zero)
        time.sleep(0.002)
    assert receive.getActualQd()[0] >= 0.05
    control.stopJ(10.0)


CLIENT = """
import sys, time
from rtde_control import RTDEControlInterface
control = RTDEControlInterface(sys.argv[1])
if sys.argv[2] == 'watched':
    control.setWatchdog(20.0)
print('moving', flush=True)
while True:
    control.speedJ([0.1, 0.0, 0.0, 0.0, 0.0, 0.0], 5.0, 0.0)
    time.sleep(0.002)
"""


def test_without_its_watchdog_the_arm_goes_on_for_ever_when_the_client_is_killed():
    with TwinProcess("ur5e", "--address", "127.0.41.3") as twin:
        for watched in (False, True):
            command = [sys.executable, "-c", CLIENT, "127.0.41.3", "watched" if watched else "free"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout.readline().strip() == "moving"
                until(lambda: twin.fault("state")["dq"][0] > 0.08)
                client.send_signal(signal.SIGKILL)
                client.wait()
            time.sleep(0.5)
            state = twin.fault("state")
            assert (state["watchdog_trips"], state["program_running"]) == ((1, False) if watched else (0, True))
            assert abs(state["dq"][0]) < 1e-3 if watched else state["dq"][0] == pytest.approx(0.1, abs=0.01)


def test_protective_stop_ends_the_program_and_is_not_unlocked_at_once(running, control, receive, dashboard):
    control.speedJ([0.5, 0.0, 0.0, 0.0, 0.0, 0.0], 8.0, 0.0)
    until(lambda: receive.getActualQd()[0] > 0.4)
    control.triggerProtectiveStop()
    until(receive.isProtectiveStopped)
    with pytest.raises((RuntimeError, ValueError), match="Cannot unlock"):
        dashboard.unlockProtectiveStop()
    until(lambda: abs(receive.getActualQd()[0]) < 1e-3)
    assert not control.servoJ(HOME, 0.0, 0.0, 0.002, 0.03, 300.0) and not dashboard.running()
    assert "PROTECTIVE_STOP" in dashboard.safetystatus()


def test_a_target_that_is_no_number_stops_the_arm_and_is_noted(running, control):
    control.servoJ([float("nan"), *HOME[1:]], 0.0, 0.0, 0.002, 0.03, 300.0)
    until(lambda: running.fault("state")["safety_mode"] == "PROTECTIVE_STOP")
    state = running.fault("state")
    assert "not a number" in state["words"] and "shoulder_pan_joint: non-finite position" in state["command_violations"][-1]
    assert np.isfinite(state["q"]).all() and not state["limit_violations"]


def test_a_jump_and_a_position_out_of_range_are_noted(running, control):
    count = running.fault("state")["command_violation_count"]
    control.servoJ(HOME, 0.0, 0.0, 0.002, 0.03, 300.0)
    control.servoJ([0.5, *HOME[1:]], 0.0, 0.0, 0.002, 0.03, 300.0)
    control.servoJ([0.5, HOME[1], 3.5, *HOME[3:]], 0.0, 0.0, 0.002, 0.03, 300.0)
    until(lambda: running.fault("state")["command_violation_count"] >= count + 3)
    words = " ".join(running.fault("state")["command_violations"])
    assert "shoulder_pan_joint: target jumped by 0.5" in words and "elbow_joint: position 3.5" in words


def test_the_arm_stops_itself_at_a_joint_limit(running, control):
    running.fault("place", q=[*HOME[:5], 6.0])
    control.speedJ([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 8.0, 0.0)
    until(lambda: running.fault("state")["safety_mode"] == "PROTECTIVE_STOP")
    until(lambda: running.fault("state")["mode"] == "hold")
    state = running.fault("state")
    assert "position limit" in state["words"] and 6.2 < state["q"][5] < 2 * np.pi + 0.05


def test_the_arm_stops_itself_when_it_hits_the_floor(running, control):
    control.speedJ([0.0, 0.8, 0.0, 0.0, 0.0, 0.0], 8.0, 0.0)
    until(lambda: running.fault("state")["safety_mode"] == "PROTECTIVE_STOP", 8.0)
    state = running.fault("state")
    assert state["contacts"] and ("collision" in state["words"] or "deviates" in state["words"])


def test_emergency_stop_brakes_and_takes_the_power_until_it_is_turned_out(running, control, receive, dashboard):
    control.speedJ([0.5, 0.0, 0.0, 0.0, 0.0, 0.0], 8.0, 0.0)
    until(lambda: receive.getActualQd()[0] > 0.4)
    running.fault("emergency_stop")
    until(lambda: running.fault("state")["braked"])
    until(receive.isEmergencyStopped)
    dashboard.powerOn()
    assert running.fault("state")["robot_mode"] == "POWER_OFF"
    running.fault("emergency_stop", pressed=False)
    dashboard.powerOn()
    dashboard.brakeRelease()
    assert running.fault("state")["robot_mode"] == "RUNNING"


def test_a_stuck_encoder_is_a_fault_before_the_joint_is_far(running, control):
    running.fault("stuck_encoder", joint=0)
    control.speedJ([0.5, 0.0, 0.0, 0.0, 0.0, 0.0], 8.0, 0.0)
    until(lambda: running.fault("state")["safety_mode"] == "FAULT")
    state = running.fault("state")
    assert state["braked"] and "encoders disagree" in state["words"] and abs(state["q"][0]) < 0.05


def test_an_untold_payload_makes_the_servo_error_grow_and_telling_it_takes_it_away(running, control):
    def error():
        for _ in range(150):
            control.servoJ(HOME, 0.0, 0.0, 0.002, 0.03, 2000.0)
            time.sleep(0.002)
        return np.abs(np.array(running.fault("state")["q"]) - HOME).max()

    nominal = error()
    running.fault("payload", mass=3.0)
    loaded = error()
    control.servoStop(10.0)
    assert control.setPayload(3.0, [0.0, 0.0, 0.0])
    told = error()
    control.servoStop(10.0)
    control.setPayload(0.0, [0.0, 0.0, 0.0])
    assert loaded > 1e-3 and loaded > 2 * nominal and told < 0.7 * loaded


def test_inputs_have_one_writer(running):
    with pytest.raises(RuntimeError, match="already in use"):
        rtde_control.RTDEControlInterface(ADDRESS)


def test_a_clock_step_and_a_frozen_clock(running, receive):
    before = receive.getTimestamp()
    running.fault("clock_step", s=100.0)
    until(lambda: receive.getTimestamp() > before + 99.0)
    running.fault("frozen_timestamp")
    time.sleep(0.05)
    frozen = receive.getTimestamp()
    time.sleep(0.05)
    assert receive.getTimestamp() == frozen
    running.fault("heal")


def test_simulated_time_is_not_made_up_after_a_pause(running):
    before = running.fault("state")
    running.pause()
    time.sleep(0.4)
    running.go_on()
    woke = time.monotonic()
    until(lambda: running.fault("state")["skipped_s"] - before["skipped_s"] > 0.25)  # its fault port may wake up first
    lived = running.fault("state")["time"] - before["time"]
    assert lived < 0.2 + time.monotonic() - woke


def test_a_client_outlives_messages_that_are_late_lost_twice_and_out_of_order(running, control):
    for fault in ("loss", "duplicate", "reorder"):
        running.fault(fault, share=0.1)
    running.fault("delay", ms=5.0)
    running.fault("jitter", ms=3.0)
    sine(control, -0.1, 0.5)
    running.fault("heal")
    control.servoJ(HOME, 0.0, 0.0, 0.002, 0.03, 2000.0)
    until(lambda: np.abs(np.array(running.fault("state")["q"]) - HOME).max() < 3e-3)
    assert running.fault("state")["safety_mode"] == "NORMAL"


def test_the_fault_port_refuses_nonsense(running):
    with pytest.raises(HardwareError, match="share from 0 to 1"):
        running.fault("loss", share=2.0)
    with pytest.raises(HardwareError, match="joint from 0 to 5"):
        running.fault("stuck_encoder", joint=6)


def test_an_address_off_loopback_or_taken_and_a_firmware_of_three_numbers_are_refused(running):
    for fields, words in (({"address": "0.0.0.0"}, "loopback"), ({"firmware": "5.26.0"}, "four numbers")):
        with pytest.raises(ConfigurationError, match=words):
            Options(**fields)
    with pytest.raises(ConfigurationError, match="another twin"):
        UR5eTwin(Options(address=ADDRESS))


def test_nothing_is_lost_late_or_doubled_on_a_sound_wire():
    pipe = Pipe(WireFaults(0), corruptible=True)
    for i in range(10):
        pipe.put(bytes([0, 3, i]), 1.0)
    assert [m[2] for m in pipe.take(1.0)] == list(range(10)) and not pipe.take(9.0)


def test_faults_of_the_wire_have_their_shares_and_their_seed():
    def through(seed, **on):
        faults = WireFaults(seed)
        for name, value in on.items():
            faults.set(name, value)
        pipe = Pipe(faults, corruptible=True)
        for i in range(2000):
            pipe.put(bytes([i >> 8, i & 255, 85]), 0.002 * i)
        return pipe.take(99.0)

    assert len(through(1, loss=0.2)) == pytest.approx(1600, abs=80)
    assert len(through(1, duplicate=0.2)) == pytest.approx(2400, abs=80)
    assert sum(m[2] != 85 for m in through(1, corrupt=0.2)) == pytest.approx(400, abs=80)
    assert through(3, reorder=0.1) == through(3, reorder=0.1) != through(4, reorder=0.1)
    assert through(5, jitter_s=0.02) == sorted(through(5, jitter_s=0.02)), "a stream stays in order, however late"
    assert through(5, reorder=0.1) != sorted(through(5, reorder=0.1))
    with pytest.raises(ConfigurationError):
        WireFaults(0).set("loss", 1.5)


def test_the_audit_forgives_bunches_that_kept_the_speed_and_nothing_else():
    arm = ur5e()
    top = arm.spec.limits.velocity_max[0]

    def judge(arrivals, step):
        audit = SetPointAudit(arm.spec.limits, arm.spec.joint_names)
        for i, now in enumerate(arrivals):
            audit.position(np.array([step * i, 0, 0, 0, 0, 0]), now)
        return audit.count

    regular = 0.002 * np.arange(100)
    held_up = np.where((regular > 0.05) & (regular < 0.11), 0.11, regular)
    assert judge(regular, 0.002 * top) == judge(held_up, 0.002 * top) == 0
    assert judge(regular[: int(0.9 * SLACK_S / 0.0002)], 0.0022 * top) == 0  # a tenth too fast uses up the slack in 50 periods
    assert judge(regular, 0.0022 * top) > 0 and judge(regular, 0.003 * top) > 50
