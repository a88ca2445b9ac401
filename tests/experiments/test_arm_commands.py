"""The commands for people with an arm, on the UR5e's twin: looked at first, moved on a certificate only, stopped gently, all of it told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import arm_policies
from experiments.arm_policies import FIRST_MOTIONS, PERIOD
from experiments.arm_robots import CLIENTS
from experiments.arm_twin import TWINS, fault_names
from experiments.cli import main
from hw_bridge.certificate import Certificate
from hw_bridge.drivers.catalog import DRIVERS
from hw_bridge.recorder.read_log import read_log
from hw_bridge.twins.twin import TwinProcess

pytest.importorskip("rtde_control")
ADDRESS = "127.0.45.2"
AT = ["--robot", "ur5e", "--address", ADDRESS]
PATIENT = ["--patience", "0.5"]  # a busy test machine is late now and then


def reflexarc(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.fixture(scope="module")
def twin():
    with TwinProcess("ur5e", "--address", ADDRESS) as process:
        yield process


@pytest.fixture(scope="module")
def certificate(twin, tmp_path_factory) -> Path:
    """A passed certificate for 'swing', made by the command."""
    path = tmp_path_factory.mktemp("certificates") / "swing.json"
    before = twin.fault("state")
    assert reflexarc("check", *AT, *PATIENT, "--policy", "swing", "--seconds", "0.5", "--out", str(path)) == 0
    after = twin.fault("state")
    assert after["set_points"] == before["set_points"] and not after["program_running"], "a dry run writes nothing"
    return path


@pytest.mark.parametrize("command", ["twin", "check", "deploy", "reach", "retrain", "replay"])
def test_help_explains_every_command(command, capsys):
    assert reflexarc(command, "--help") == 0
    assert "Example" in capsys.readouterr().out


def test_robots_and_twins_are_listed_with_what_they_need(capsys):
    assert reflexarc("list", "robots") == 0
    listed = capsys.readouterr().out
    assert set(DRIVERS) <= set(CLIENTS), "a robot's row lacks its client"
    assert all(name in listed for name in DRIVERS) and "gravity" in listed
    assert reflexarc("twin") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in TWINS)
    assert {entry.twin for entry in DRIVERS.values()} <= set(TWINS)


def test_a_twin_gets_the_options_that_only_it_knows(capsys):
    assert reflexarc("twin", "so101", "--address", "127.0.0.9") == 2
    assert "leave --address out" in capsys.readouterr().err
    assert reflexarc("twin", "ur7e") == 2
    assert "ur5e" in capsys.readouterr().err
    assert reflexarc("twin", "ur5e", "--address", "127.0.45.3", "--firmware", "new") == 1
    assert "expected four numbers" in capsys.readouterr().err
    assert reflexarc("check", *AT, "--payload", "1") == 2, "other commands refuse what they do not know"


def test_a_twin_says_what_can_be_done_to_it(twin):
    assert {"payload", "protective_stop", "state"} <= set(fault_names(twin))


def test_a_dry_run_tells_who_answers_and_what_was_measured(certificate, capsys):
    made = Certificate.load(certificate)
    assert made.passed and made.deployment.serial == "20265500041" and made.deployment.calibration == "factory"
    assert made.speed == 0.25 and made.figures["periods"] > 100


def test_an_arm_that_is_not_there_or_not_as_it_should_be_is_refused(twin, tmp_path, capsys):
    path = tmp_path / "c.json"
    assert reflexarc("check", "--robot", "ur5e", "--address", "127.0.45.99", "--out", str(path)) == 1
    assert "does not answer" in Certificate.load(path).reasons[0] and "REFUSED" in capsys.readouterr().out
    for wrong in (["--robot", "ur7e", "--address", ADDRESS], [*AT, "--speed", "1.5"], [*AT, "--policy", "dance"], [*AT, "--mode", "flying"],
                  [*AT, "--seconds", "0"], ["--robot", "ur5e", "--address", "192.168.0.10", "--patience", "0.2"]):
        assert reflexarc("check", *wrong) == 2


def test_nothing_moves_without_a_certificate_that_fits(certificate, twin, tmp_path, capsys):
    before = twin.fault("state")["set_points"]
    values = json.loads(certificate.read_text())
    changed, old = tmp_path / "changed.json", tmp_path / "old.json"
    changed.write_text(json.dumps(values | {"speed": 1.0}))
    old.write_text(replace(Certificate.load(certificate), created_at="2020-01-01T00:00:00+00:00").to_text())
    for policy, arguments, words in (("swing", [], "reflexarc check"), ("hold", ["--certificate", str(certificate)], "policy's hash"),
                                     ("swing", ["--certificate", str(changed)], "changed after"),
                                     ("swing", ["--certificate", str(old)], "hours old"),
                                     ("swing", ["--certificate", str(certificate), "--steps", "0"], "--steps")):
        assert reflexarc("deploy", policy, *AT, *arguments, "--yes") == 2
        assert words in capsys.readouterr().err
    assert twin.fault("state")["set_points"] == before


def test_another_arm_at_the_address_is_not_moved(certificate, twin, tmp_path, capsys):
    before = twin.fault("state")["set_points"]
    twin.fault("nameplate", serial="20269999999")
    try:
        assert reflexarc("deploy", "swing", *AT, "--certificate", str(certificate), "--yes", "--log", str(tmp_path / "log.mcap")) == 2
    finally:
        twin.fault("nameplate", serial="20265500041")
    assert "'20269999999', certified was '20265500041'" in capsys.readouterr().err
    assert twin.fault("state")["set_points"] == before


def test_a_certified_policy_moves_the_arm_and_ctrl_c_leaves_it_at_rest(certificate, twin, tmp_path, capsys, monkeypatch):
    swing, lived, poses = FIRST_MOTIONS["swing"], [], [twin.fault("state")["q"]]

    class Impatient(type(swing)):
        """As 'swing', with a person who presses Ctrl-C in the second episode."""

        def offset(self, step: int, nv: int) -> np.ndarray:
            lived.append(step)
            if step % 3 == 0:
                poses.append(twin.fault("state")["q"])
            if len(lived) > 35:
                raise KeyboardInterrupt
            return swing.offset(step, nv)

    impatient = Impatient(swing.swing, swing.seconds)
    monkeypatch.setattr(Impatient, "hash", swing.hash)
    monkeypatch.setitem(arm_policies.FIRST_MOTIONS, "swing", impatient)
    log = tmp_path / "log.mcap"
    code = reflexarc("deploy", "swing", *AT, "--certificate", str(certificate), "--yes", "--log", str(log), "--steps", "30",
                     "--episodes", "2", "--json", str(tmp_path / "summary.json"))
    said = capsys.readouterr().out
    assert code == 130 and "emergency stop is in your hand" in said and "episode 0" in said and "brakes" in said, said
    moved = np.abs(np.array(poses) - poses[0]).max(axis=0)
    assert 0.05 < moved[0] < 0.12 and moved[1:].max() < 0.02, "the base swings first, alone"
    truth = twin.fault("state")
    assert np.abs(truth["dq"]).max() < 0.02 and truth["limit_violations"] == [] and not truth["program_running"]
    recorded = read_log(log)
    assert recorded.complete and any(b"asked to hold" in event["text"] for event in recorded.events)
    assert recorded.header.policy_hash == swing.hash and recorded.header.provenance == "swing"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["actions"] >= 35 and summary["log"] == str(log)
    assert reflexarc("replay", str(log), "--address", "127.0.45.4", "--tolerance", "0.05") == 0, capsys.readouterr().out
    assert "again on a twin of ur5e" in capsys.readouterr().out


def test_a_swing_visits_every_joint_in_turn_and_begins_and_ends_where_it_was():
    swing = FIRST_MOTIONS["swing"]
    turn = round(swing.seconds / PERIOD)
    path = np.array([swing.offset(k, 6) for k in range(6 * turn + 1)])
    assert np.abs(path).max() == pytest.approx(0.1, rel=0.01) and np.abs(path[::turn]).max() == 0.0
    assert ((np.abs(path) > 1e-12).sum(axis=1) <= 1).all() and (np.abs(path).max(axis=0) > 0.09).all()
    assert np.abs(np.diff(path, axis=0)).max() / PERIOD < 0.3, "slow [rad/s]"
