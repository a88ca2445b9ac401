"""'tip', the first motion by poses: its path, what it refuses before anything moves, and the SO-101's twin led by it as by its owner."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.arm_policies import FIRST_MOTIONS, PERIOD
from experiments.cli import main
from hw_bridge.calibration import Calibration
from hw_bridge.pose_steps import PoseConfig, PoseSteps
from hw_bridge.recorder.read_log import read_log
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.twins.twin import TwinProcess
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.so101 import so101
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError

TIP = FIRST_MOTIONS["tip"]
STRETCHED = np.array([0.0, -np.pi / 2, 0.0, -np.pi / 2, 0.0, 0.0])
"""The UR5e straight up."""
PATIENT = ["--patience", "0.5"]  # a busy test machine is late now and then


def reflexarc(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def steps_of(arm) -> PoseSteps:
    return PoseSteps(arm, SafetyConfig(speed=TIP.speed), PoseConfig(period=PERIOD))


def test_the_tip_goes_along_one_axis_at_a_time_slowly_and_back():
    turn = TIP.steps(ur5e()) // 3
    path = np.array([TIP.offset(k) for k in range(3 * turn + 1)])
    assert ((path > 1e-12).sum(axis=1) <= 1).all() and path.max(axis=0) == pytest.approx([0.03] * 3) and path.min() == 0.0
    assert np.abs(path[::turn]).max() < 1e-12
    assert np.abs(np.diff(path, axis=0)).max() / PERIOD < 0.03, "slow [m/s]"
    assert "3 cm" in TIP.words(TIP.steps(ur5e())) and len({policy.hash for policy in FIRST_MOTIONS.values()}) == 3


@pytest.mark.parametrize("make_arm", [ur5e, dynamixel_arm, so101])
def test_from_an_arms_home_the_whole_way_is_free(make_arm):
    arm = make_arm()
    TIP.rehearse(steps_of(arm), arm.home)


def test_a_stretched_arm_is_told_to_begin_elsewhere():
    client = SimpleNamespace(arm=ur5e(), state=lambda: SimpleNamespace(q=STRETCHED))
    words = "nothing was moved: from this pose the end effector cannot go 3 cm along x"
    with pytest.raises(ConfigurationError, match=words), TIP.acting(client, SafetyConfig(speed=TIP.speed)):
        pytest.fail("it would have moved")


def test_the_owner_of_an_so101_checks_and_lets_its_tip_move(tmp_path, capsys):
    pytest.importorskip("scservo_sdk")
    with TwinProcess("so101") as twin:
        calibration, certificate, log = (tmp_path / name for name in ("so101.json", "certificate.json", "log.mcap"))
        Calibration(**twin.fault("calibration")).save(calibration)
        at = ["--robot", "so101", "--address", twin.ready["device"], "--calibration", str(calibration)]
        assert reflexarc("check", *at, *PATIENT, "--policy", "tip", "--seconds", "0.5", "--out", str(certificate)) == 0, capsys.readouterr()
        steps = TIP.steps(so101()) // 6  # to the furthest place of the first axis
        assert reflexarc("deploy", "tip", *at, "--certificate", str(certificate), "--yes", "--log", str(log), "--steps", str(steps)) == 0
        truth = twin.fault("state")
        assert truth["limit_violations"] == [] and truth["command_violations"] == [] and all(truth["mode"]["torque_on"])
    assert reflexarc("replay", str(log), "--tolerance", "0.015") == 0, capsys.readouterr().out
    forward, rows = so101().kinematics().forward, read_log(log).rows
    target = rows["target"][np.isfinite(rows["target"]).all(axis=1)]
    asked = np.array([forward(q)[:3] for q in target[::5]])
    went = np.array([forward(q)[:3] for q in rows["q"][::5]])
    assert np.ptp(asked[:, 0]) == pytest.approx(0.03, abs=0.002)
    assert np.ptp(asked[:, 1:], axis=0).max() < 0.001, "along x alone"
    assert 0.015 < np.ptp(went[:, 0]) < 0.04, "servos that sag and have play"
