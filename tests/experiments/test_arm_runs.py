"""What an arm lived through becomes a model: logs as reaching's episodes, runs on disk, motions compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from experiments.arm_log import reaching_episodes, recorded_episodes
from experiments.arm_policies import arm_policy
from experiments.arm_reaching import ArmReachingConfig, bridge_config
from experiments.arm_replay import Motion, first_motion, largest_difference
from experiments.arm_run import ArmRun, ArmRunConfig
from experiments.cli import main
from hw_bridge.bridge import policy_spec
from hw_bridge.reaching import reaching_state_space
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import EVENT_DTYPE, MODE_CODES, NO_MODE, servo_dtype
from hw_bridge.recorder.mcap_log import McapLog
from hw_bridge.recorder.read_log import Log
from hw_bridge.safety.rules import Rule, State
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import ConfigurationError, StoreError, UnknownNameError

ARM, PERIODS, DT_NS = ur5e(), 50, 2_000_000
CONFIG = ArmReachingConfig(ensemble=EnsembleConfig(members=2, hidden=(8,), weight_decay=(1e-4,), fit=FitConfig(batch_size=32, epochs=3)))
RUN = ArmRunConfig("ur5e", 1.0, bridge_config("ur5e", "", CONFIG).safety.fingerprint(), reaching=CONFIG)


def header(arm=ARM) -> LogHeader:
    spec = policy_spec(arm, CommandMode.JOINT_POSITION, 0.1)
    return LogHeader(spec.to_json(), spec.fingerprint(), "factory", "none", "safety", tuple(state.name for state in State),
                     tuple(rule.name for rule in Rule if rule))


def rows_of(actions: int = 12, idle: int = 30) -> np.ndarray:
    """An arm that is commanded positions and driven by torques, and reaches every target when the next one comes."""
    count = idle + actions * PERIODS
    rows, k = np.zeros(count, servo_dtype(6)), np.arange(count)
    rows["tick"], rows["wake_ns"], rows["received_ns"] = k, 10**9 + DT_NS * k, 10**9 + DT_NS * k + 1000
    rows["action_sequence"] = np.maximum((k - idle) // PERIODS, -1)
    rows["action_stamp_ns"] = rows["wake_ns"][np.maximum(idle + rows["action_sequence"] * PERIODS, 0)] - 1_000_000
    targets = ARM.home + 0.1 * np.random.default_rng(0).uniform(-1, 1, (actions + 1, 6))
    rows["target"], rows["q"] = targets[rows["action_sequence"] + 1], ARM.home
    rows["q"][idle:] = targets[rows["action_sequence"][idle:]]
    rows["dq"], rows["written"], rows["action"] = 0.01, 3.0, rows["target"]
    rows["reference"] = targets[0] + 1e-3 * k[:, None]
    rows["reference_rate"] = 1e-3 / (1e-9 * DT_NS)
    rows["state"], rows["action_mode"] = State.ACTIVE, MODE_CODES[CommandMode.JOINT_POSITION]
    rows["written_mode"] = MODE_CODES[CommandMode.JOINT_TORQUE]
    rows["state"][: idle // 2], rows["written_mode"][: idle // 2] = State.ARMED, NO_MODE
    rows["action_mode"][:idle] = NO_MODE
    return rows


def write_log(path: Path) -> None:
    log = McapLog(path, header())
    log.add_rows(rows_of())
    log.finish()
    log.close()


def test_a_log_of_a_soft_arm_becomes_episodes_as_reaching_has_them():
    rows, space = rows_of(), reaching_state_space(ARM)
    (episode,) = reaching_episodes(Log(header(), rows, np.zeros(0, EVENT_DTYPE), True, ()), ARM)
    assert episode.state_names == space.names and episode.steps == 10
    begins, before = rows[30::PERIODS], rows[29:-1:PERIODS]
    q, targets = begins["q"], begins["target"]
    assert np.allclose(episode.x[:, :6], q[1:]) and np.allclose(episode.applied, (targets - q)[1:-1])
    assert np.allclose(episode.x[:, 9:15], 0.01) and np.allclose(episode.x[:, 15:21], (before["reference"] - q)[1:])
    assert np.allclose(episode.x[:, 21:], 0.5)
    assert np.ptp(episode.x[:, 6:9], axis=0).max() == 0.0
    assert np.allclose(episode.dt, 0.1)


def test_another_arms_log_teaches_nothing():
    spec = header().robot_spec | {"name": "ur10e"}
    with pytest.raises(ConfigurationError, match="'ur10e', expected 'ur5e'"):
        reaching_episodes(Log(replace(header(), robot_spec=spec), rows_of(), np.zeros(0, EVENT_DTYPE), True, ()), ARM)
    with pytest.raises(StoreError, match="nothing there"):
        recorded_episodes(Path("/nowhere.mcap"), ARM)


def test_a_model_is_trained_anew_from_a_log_and_its_run_can_be_deployed(tmp_path, capsys):
    parent = ArmRun.create(tmp_path / "parent", RUN)
    assert ArmRun.open(parent.path).config == RUN
    with pytest.raises(StoreError, match="nothing was learned"):
        parent.policy_hash()
    write_log(tmp_path / "log.mcap")
    hashes = []
    for name, seed in (("again", 0), ("twice", 0), ("other", 1)):
        (tmp_path / f"p{name}").mkdir()
        source = ArmRun.create(tmp_path / f"p{name}" / "run", replace(RUN, reaching=replace(CONFIG, seed=seed), distilled=name == "twice"))
        with pytest.raises(SystemExit) as ended:
            main(["retrain", str(source.path), "--data", str(tmp_path / "log.mcap"), "--runs", str(tmp_path), "--name", name, "--threads",
                  "1"])
        assert ended.value.code == 0
        run = ArmRun.open(tmp_path / name)
        assert run.config.parent == str(source.path) and run.config.data == (str(tmp_path / "log.mcap"),) and len(run.store()) == 1
        assert not run.config.distilled, "it keeps a model, whatever it was trained anew from"
        hashes.append(arm_policy(str(run.path), "ur5e").hash)
    assert hashes[0] == hashes[1] != hashes[2], "the hash is of what acts, not of names"
    assert "anew from" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="another arm"):
        arm_policy(str(tmp_path / "again"), "so101")


def test_a_policy_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="swing"):
        arm_policy("swingg", "ur5e")
    with pytest.raises(StoreError, match="no run there"):
        arm_policy(str(tmp_path), "ur5e")
    ArmRun.create(tmp_path / "old", replace(RUN, safety="other"))
    with pytest.raises(ConfigurationError, match="other safety rules"):
        arm_policy(str(tmp_path / "old"), "ur5e")
    for arguments in (["reach", "--robot", "so101", "--address", "/dev/pts/99", "--runs", str(tmp_path / "none")],
                      ["retrain", str(tmp_path / "old"), "--data", str(tmp_path / "none")],
                      ["replay", str(tmp_path / "none.mcap")], ["replay", str(tmp_path / "none.mcap"), "--address", "192.168.0.10"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert not (tmp_path / "none").exists()


def test_the_first_motion_of_a_log_is_from_its_activation_to_its_end():
    rows = rows_of()
    motion = first_motion(Log(header(), rows, np.zeros(0, EVENT_DTYPE), True, ()), Path("log"))
    assert len(motion.target) == 12 and len(motion.time) == len(rows) - 15 and motion.time[0] == 0.0
    assert motion.action_time[0] == pytest.approx(15 * 0.002 - 0.001) and np.allclose(np.diff(motion.action_time), 0.1)
    held = rows.copy()
    held["state"][30 + 3 * PERIODS : 30 + 4 * PERIODS] = State.HOLD
    assert len(first_motion(Log(header(), held, np.zeros(0, EVENT_DTYPE), True, ()), Path("log")).target) == 3
    with pytest.raises(StoreError, match="nothing to replay"):
        first_motion(Log(header(), rows[:30], np.zeros(0, EVENT_DTYPE), True, ()), Path("log"))


def test_motions_are_compared_from_their_first_actions_on():
    time = np.arange(0.0, 2.0, 0.002)

    def motion(shift: float, bend: float) -> Motion:
        q = np.stack([np.sin(time - shift), np.full_like(time, 0.3)], axis=1)
        q[:, 1] += bend * (time - shift > 1.0)
        return Motion(np.array([0.1, 1.6]) + shift, np.zeros((2, 2)), time, q)

    assert largest_difference(motion(0.0, 0.0), motion(0.05, 0.0)).max() < 1e-5
    assert largest_difference(motion(0.0, 0.0), motion(0.0, 0.07)) == pytest.approx([0.0, 0.07], abs=1e-9)
