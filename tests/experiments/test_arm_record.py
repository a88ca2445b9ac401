"""An arm is watched with its cameras and not commanded; deployments record cameras too; a policy that needs pictures stops without."""

from __future__ import annotations

import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from experiments.arm_cameras import camera_sources
from experiments.arm_log import recorded_episodes
from experiments.arm_record import Watch, rows_in
from experiments.cli import main
from hw_bridge.bridge import BridgeConfig
from hw_bridge.cameras.camera_log import CameraHeader, CameraLog
from hw_bridge.cameras.client import CameraProcess
from hw_bridge.cameras.read_log import read_camera_log, with_pictures
from hw_bridge.cameras.source import CameraSource
from hw_bridge.client import BridgeProcess
from hw_bridge.realtime.privileges import RealTimeConfig
from hw_bridge.recorder.read_log import read_log
from hw_bridge.recorder.to_episode import log_episodes
from hw_bridge.robot import BridgeRobot
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.rules import State
from hw_bridge.twins.twin import TwinProcess
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, StoreError

pytest.importorskip("rtde_control")
ADDRESS = "127.0.46.2"
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
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for k in range(20):
        iio.imwrite(path / f"{k:02d}.png", np.full((48, 64, 3), 12 * k, np.uint8))
    return path


def test_help_explains_it(capsys):
    assert reflexarc("record", "--help") == 0
    assert "Example" in capsys.readouterr().out


def test_what_the_arm_did_and_what_the_cameras_saw_is_recorded_and_nothing_is_written_to_it(twin, folder, tmp_path, capsys, monkeypatch):
    before, log = twin.fault("state"), tmp_path / "guided.mcap"
    guided, lines, look = (np.array(before["q"]) + 0.3).tolist(), [], Watch.look

    def attended(watch: Watch) -> str:
        """Somebody guides the arm, and presses Ctrl-C later."""
        lines.append(look(watch))
        if watch.seconds > 1.5:
            twin.fault("place", q=guided)
        if watch.seconds > 3.0:
            raise KeyboardInterrupt
        return lines[-1]

    monkeypatch.setattr(Watch, "look", attended)
    code = reflexarc("record", *AT, *PATIENT, "--log", str(log), "--camera", f"wrist={folder},loop",
                     "--camera", f"top={folder},rate=10,loop,format=png")
    said, after = capsys.readouterr().out, twin.fault("state")
    assert code == 0 and "Nothing is written to it" in said and "--watch-only --cameras wrist top" in said, said
    assert "rows/s" in lines[-1] and "nothing dropped" in lines[-1] and "  wrist " in lines[-1] and "  top " in lines[-1]
    assert after["set_points"] == before["set_points"] and not after["program_running"]
    recorded = read_log(log)
    rows = recorded.rows
    assert recorded.complete and recorded.header.provenance == "human" and rows_in(log)[0] == len(rows) and f"{len(rows)} rows" in said
    idle = [name.upper() for name in recorded.header.states].index("IDLE")
    assert set(np.unique(rows["state"]).tolist()) <= {idle, idle - 1} and np.isnan(rows["written"]).all() and len(rows) > 500
    assert rows["q"][0] == pytest.approx(before["q"], abs=1e-3) and rows["q"][-1] == pytest.approx(guided, abs=0.02)
    for name, least in (("wrist", 45), ("top", 15)):
        recording = read_camera_log(tmp_path / f"guided.camera-{name}.mcap")
        assert recording.complete and len(recording.index) >= least and f"camera {name}: {len(recording.index)} pictures logged" in said
        newest, age = recording.newest_at(rows["received_ns"])
        assert (np.diff(newest) >= 0).all() and newest[-1] > least // 2 and np.isfinite(age[newest >= 0]).all() and (age >= 0).all()
        assert round(float(recording.image(5).mean()) / 12) == 5


def test_a_camera_that_fails_is_told_and_the_rest_goes_on(twin, folder, tmp_path, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    for path in sorted(folder.iterdir())[:3]:
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / "99.png").write_bytes(b"unreadable")
    assert reflexarc("record", *AT, *PATIENT, "--seconds", "1", "--log", str(tmp_path / "b.mcap"), "--camera", f"good={folder},loop",
                     "--camera", f"bad={bad}") == 1
    said = capsys.readouterr().out
    assert said.count("the rest goes on") == 1 and "99.png: cannot be read" in said, said
    good, failed = (read_camera_log(tmp_path / f"b.camera-{name}.mcap") for name in ("good", "bad"))
    assert read_log(tmp_path / "b.mcap").complete and good.complete and len(good.index) > 10 and len(failed.index) == 3


def test_what_cannot_be_recorded_is_refused(twin, folder, tmp_path, capsys):
    log = ["--log", str(tmp_path / "log.mcap")]
    for wrong, words in ((["--seconds", "0"], "--seconds"), (["--camera", "/dev/video0"], "NAME=SOURCE"),
                         (["--camera", "a=/dev/video4711"], "there is no device"), (["--camera", "a=no/film"], "there is nothing at"),
                         (["--camera", f"a={folder}", "--camera", f"a={folder}"], "different names"), (["--patience", "9"], "--patience")):
        assert reflexarc("record", *AT, *log, *wrong) == 2, wrong
        assert words in capsys.readouterr().err
    assert reflexarc("record", "--robot", "ur7e", "--address", ADDRESS, *log) == 2
    (tmp_path / "log.camera-a.mcap").touch()
    assert reflexarc("record", *AT, *log, "--camera", f"a={folder}") == 2
    assert "log.camera-a.mcap exists already" in capsys.readouterr().err
    (tmp_path / "log.camera-a.mcap").rename(tmp_path / "log.mcap")
    assert reflexarc("record", *AT, *log) == 2
    assert "never written over" in capsys.readouterr().err
    (tmp_path / "log.mcap").unlink()
    (tmp_path / "empty").mkdir()
    assert reflexarc("record", *AT, *PATIENT, *log, "--camera", f"a={folder}", "--camera", f"b={tmp_path / 'empty'}") == 1
    assert "camera b did not start" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mcap")), "what was refused leaves nothing behind"
    with pytest.raises(ConfigurationError, match="a name of letters"):
        camera_sources(["a b=x"], tmp_path / "log.mcap")


def test_a_folder_of_logs_may_hold_those_of_cameras(tmp_path):
    log = CameraLog(tmp_path / "a.camera-wrist.mcap", CameraHeader("wrist", "wrist=x", 64, 48, 30.0, "c", "png"))
    log.finish()
    log.close()
    with pytest.raises(StoreError, match="nobody moved the arm"):  # rather than that it is no arm's log
        recorded_episodes(tmp_path, ur5e())


def test_a_deployment_records_its_cameras(twin, folder, tmp_path, capsys):
    certificate, log = tmp_path / "c.json", tmp_path / "log.mcap"
    twin.fault("heal")
    assert reflexarc("check", *AT, *PATIENT, "--policy", "hold", "--seconds", "0.5", "--out", str(certificate)) == 0
    assert reflexarc("deploy", "hold", *AT, "--certificate", str(certificate), "--yes", "--steps", "10", "--log", str(log),
                     "--camera", f"wrist={folder},loop") == 0
    recording = read_camera_log(tmp_path / "log.camera-wrist.mcap")
    assert recording.complete and f"camera wrist: {len(recording.index)} pictures logged" in capsys.readouterr().out
    rows = read_log(log).rows
    acting = rows["received_ns"][rows["action_sequence"] >= 0]
    pictures, age = recording.images_at(acting[:: len(acting) // 5])
    assert all(picture is not None for picture in pictures) and (age < 5.0).all()
    episode = with_pictures(log_episodes(read_log(log))[0], [recording])
    frames, sequences = episode.frames["wrist"], recording.index["sequence"].tolist()
    assert len(frames.sequence) >= 2 and frames.captured_ns[-1] * 1e-9 <= episode.time[-1]
    first = sequences.index(frames.sequence[0])
    assert recording.index["received_ns"][first] * 1e-9 <= episode.time[0] < recording.index["received_ns"][first + 1] * 1e-9


def test_a_robot_sees_pictures_and_is_held_where_it_cannot_do_without_them(twin, folder):
    twin.fault("heal")
    safety = SafetyConfig(policy_period=0.05, observation_age_max=0.5, gap_max=0.5, clock_drift_max=2.0, action_age_max=1.0,
                          tracking_error_max=0.4)
    with BridgeProcess(BridgeConfig("ur5e", ADDRESS, safety=safety, real_time=RealTimeConfig(lock_memory=False))) as bridge, \
            CameraProcess(CameraSource.parse(f"wrist={folder},loop"), bridge.ready["name"]) as camera:
        here = bridge.client.state().q
        calm = BridgeRobot(bridge.client, CommandMode.JOINT_POSITION, 0.05, here, cameras=[camera.view])
        assert [(c.name, c.width, c.height) for c in calm.spec.cameras] == [("wrist", 64, 48)]
        first = calm.reset(0).frames["wrist"]
        assert first.image.shape == (48, 64, 3) and 0 <= time.monotonic_ns() - first.captured_ns < 10e9
        strict = BridgeRobot(bridge.client, CommandMode.JOINT_POSITION, 0.05, here, cameras=[camera.view], picture_age_max=2.0)
        assert strict.reset(0).frames["wrist"].sequence > first.sequence
        camera.process.kill()
        camera.process.wait()
        calm.reset(0)  # the arm goes on for whoever does not need pictures
        ends = time.monotonic() + 10.0
        with pytest.raises(HardwareError, match="camera wrist: its newest picture is"):
            while time.monotonic() < ends:
                strict.reset(0)
        while bridge.client.state().state is not State.HOLD and time.monotonic() < ends:
            time.sleep(0.01)
        assert bridge.client.state().state is State.HOLD and "no action" in bridge.client.status().cause
