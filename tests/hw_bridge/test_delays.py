"""Delays from a log, against plants that answer after a known time: found within 2 ms, or said not to be known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from hw_bridge.delays import estimate_delays
from hw_bridge.drivers.driver import VendorState
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import MODE_CODES, NO_MODE, VENDOR_CODES, servo_dtype
from hw_bridge.recorder.mcap_log import McapLog
from hw_bridge.recorder.read_log import Log
from hw_bridge.safety.rules import State
from hw_bridge.twins.plant import Plant
from hw_bridge.twins.ur.controller import MECHANICS
from hw_bridge.twins.ur.motion import DT, Motion
from robots.arms.panda import panda
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import ConfigurationError, StoreError

ARM = ur5e()
CONTROL_PERIOD = 0.05
STIFFNESS, DAMPING = np.array([300.0, 300, 200, 50, 50, 30]), np.array([25.0, 25, 18, 4, 4, 2])
"""Of the spring that torques are written for: one that is seen and felt 25 ms late must not shake the arm."""
POSITION, VELOCITY, TORQUE = CommandMode.JOINT_POSITION, CommandMode.JOINT_VELOCITY, CommandMode.JOINT_TORQUE
FASTEST = {POSITION: 12.0, VELOCITY: 4.0, TORQUE: 6.0}
"""Of the sines that are followed [rad/s]; what is slow does not tell a delay from a lag."""


def lived(mode: CommandMode, delay: float, seconds: float = 7.5, size: float = 0.05, noise: float = 1.0) -> Log:
    """Return the log of an arm that carries a kilogram and takes every set-point `delay` [s] after it was written."""
    plant = Plant(ARM, MECHANICS)
    plant.set_payload(1.0, (0.0, 0.0, 0.05))
    motion, generator = Motion(ARM, MECHANICS, plant.q), np.random.default_rng(0)
    rate, phase = generator.uniform(1.5, FASTEST[mode], (3, 6)), generator.uniform(0.0, 6.0, (3, 6))
    rows, under_way = np.zeros(round(seconds / DT), servo_dtype(6)), []
    for k, row in enumerate(rows):
        t = k * DT
        begun = min(t, 1.0) * size
        wanted, speed = ARM.home + (begun * np.sin(rate * t + phase)).sum(axis=0), (begun * rate * np.cos(rate * t + phase)).sum(axis=0)
        row["q"] = plant.encoders() + noise * 1e-5 * generator.standard_normal(6)
        row["dq"] = plant.dq + noise * 2e-3 * generator.standard_normal(6)
        row["tau"] = plant.tau + noise * 0.3 * generator.standard_normal(6)
        row["written"] = {POSITION: wanted, VELOCITY: speed, TORQUE: STIFFNESS * (wanted - row["q"]) + DAMPING * (speed - row["dq"])}[mode]
        under_way.append((t + delay, row["written"].copy()))
        while under_way and under_way[0][0] <= t + 1e-9:
            arrived = under_way.pop(0)[1]
            if mode is POSITION:
                motion.servo(arrived, 0.1, 300.0)
            elif mode is VELOCITY:
                motion.speed(arrived, 15.0)
            else:
                motion.torque(arrived, np.zeros(6), np.zeros(6))
        motion.step(plant.encoders(), plant.dq)
        plant.advance(plant.time + DT, motion.law)
    return Log(header(), seen(rows, mode), np.zeros(0), True, ())


def seen(rows: np.ndarray, mode: CommandMode, age: float = 50e-6) -> np.ndarray:
    """Give the rows the times and codes of a loop that is on time and uses a state `age` [s] after it came."""
    rows["tick"] = np.arange(len(rows))
    rows["device_s"] = 7.0 + rows["tick"] * DT
    rows["received_ns"] = 10**9 + np.round(rows["tick"] * DT * 1e9)
    rows["wake_ns"], rows["observation_age_ns"] = rows["received_ns"], round(age * 1e9)
    rows["state"], rows["vendor"] = State.ACTIVE, VENDOR_CODES[VendorState.READY]
    rows["action_sequence"] = rows["tick"] // 25
    rows["action_stamp_ns"] = rows["received_ns"] - rows["tick"] % 25 * round(DT * 1e9) - 400_000
    rows["action_mode"] = rows["written_mode"] = MODE_CODES[mode]
    return rows


def header(arm=ARM) -> LogHeader:
    spec = arm.spec.to_json() | {"control_dt": CONTROL_PERIOD}
    return LogHeader(spec, "f", "factory", "p", "s", tuple(state.name for state in State), (), "sines")


@pytest.mark.parametrize("mode", [POSITION, VELOCITY, TORQUE])
@pytest.mark.parametrize("delay", [0.0, 0.004, 0.01, 0.025])
def test_a_known_delay_is_found_within_2_ms(mode, delay):
    found = estimate_delays(lived(mode, delay), ARM)
    assert found.mode == mode and found.answer.why_not == ""
    assert found.answer.delay == pytest.approx(delay, abs=0.002)
    assert found.answer.half_width < 0.003 and found.answer.explained > 0.95
    assert found.ahead == pytest.approx(found.answer.delay + 50e-6 + 450e-6, abs=1e-4)


def test_too_little_motion_is_said_not_guessed():
    still = estimate_delays(lived(POSITION, 0.01, size=0.0), ARM)
    assert np.isnan(still.answer.delay) and "too little motion" in still.answer.why_not and np.isnan(still.ahead)
    slow = lived(POSITION, 0.01)
    slow.rows["written"] = np.random.default_rng(0).permutation(slow.rows["written"])  # what was written has nothing to do with the motion
    assert "of the motion only" in estimate_delays(slow, ARM).answer.why_not
    short = estimate_delays(Log(slow.header, slow.rows[:2000], slow.events, True, ()), ARM)
    assert "without a gap" in short.answer.why_not
    slow.rows["written"], slow.rows["written_mode"] = np.nan, NO_MODE
    nothing = estimate_delays(slow, ARM)
    assert nothing.mode == "" and "nothing was written" in nothing.answer.why_not


def quiet(count: int = 3000) -> Log:
    rows = np.zeros(count, servo_dtype(6))
    rows["written"] = np.nan
    return Log(header(), seen(rows, POSITION), np.zeros(0), True, ())


def test_ages_are_told_apart():
    log, generator = quiet(), np.random.default_rng(1)
    late = generator.uniform(0.0, 0.002, len(log.rows))
    late[::50] = 0.0
    log.rows["received_ns"] += np.round(late * 1e9).astype(int)
    log.rows["observation_age_ns"] = 300_000
    found = estimate_delays(log, ARM)
    assert found.arrival_age.median == pytest.approx(0.0003) and found.arrival_age.high == pytest.approx(0.0003)
    assert found.device_clock and found.age.median == pytest.approx(0.0013, abs=1e-4) and found.age.high == pytest.approx(0.0022, abs=1e-4)
    log.rows["device_s"] = np.nan
    found = estimate_delays(log, ARM)
    assert not found.device_clock and found.age.high == pytest.approx(found.arrival_age.high, abs=1e-9)


def test_a_clock_that_drifts_is_no_delay():
    log = quiet(15_000)
    log.rows["device_s"] *= 1.0001  # 3 ms in half a minute
    assert estimate_delays(log, ARM).age.high < 5e-4


def test_a_state_that_is_used_twice_is_older_the_second_time():
    log = quiet()
    for name in ("received_ns", "device_s"):
        log.rows[name][1::2] = log.rows[name][::2]
    log.rows["observation_age_ns"][1::2] += 2_000_000
    found = estimate_delays(log, ARM)
    assert found.period == pytest.approx(2 * DT) and (found.age.low, found.age.high) == pytest.approx((50e-6, 2050e-6), abs=1e-6)


def test_another_arm_and_a_short_log_are_refused():
    log = quiet()
    with pytest.raises(ConfigurationError, match="of the arm 'ur5e'"):
        estimate_delays(log, panda())
    with pytest.raises(StoreError, match="too short"):
        estimate_delays(Log(log.header, log.rows[:50], log.events, True, ()), ARM)


def write_log(path: Path, log: Log) -> str:
    file = McapLog(path, log.header)
    file.add_rows(log.rows)
    file.finish()
    file.close()
    return str(path)


def test_the_command_tells_both_and_advises(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["delays", write_log(tmp_path / "late.mcap", lived(VELOCITY, 0.01)), "--json", str(tmp_path / "delays.json")])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and "must look" in told and "control period" in told
    content = json.loads((tmp_path / "delays.json").read_text())
    assert content["answer"]["delay"] == pytest.approx(0.01, abs=0.002) and content["ahead"] > content["answer"]["delay"]
    with pytest.raises(SystemExit) as ended:
        main(["delays", write_log(tmp_path / "still.mcap", lived(POSITION, 0.01, size=0.0))])
    assert ended.value.code == 1 and "not told by this log" in capsys.readouterr().out
