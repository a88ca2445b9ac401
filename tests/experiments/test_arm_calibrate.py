"""`reflexarc calibrate` on the SO-101's twin, with hands that move the twin and answer what is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from experiments.arm_calibrate import Person, positive_words
from experiments.cli import main
from hw_bridge.calibration import Calibration
from hw_bridge.drivers.feetech import FeetechDriver
from hw_bridge.drivers.servo_calibration import Sweep
from hw_bridge.twins.twin import TwinProcess
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.so101 import so101
from robots.errors import HardwareError

pytest.importorskip("scservo_sdk")
ARM = so101()


def reflexarc(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


class Hands:
    """A person: holds the twin at `pose`, brings every joint to its ends, and types Enter when it is there."""

    def __init__(self, twin: TwinProcess, pose: float, lazy: str = "") -> None:
        """`pose`: how far beside angle 0 [rad]; `lazy`: a joint that is not brought to its ends."""
        self.twin, self.pose, self.lazy = twin, pose, lazy
        self.q = np.array(ARM.home)
        self.asked: list[str] = []

    def bring(self, q: np.ndarray) -> None:
        """Move the arm, by less than half a turn at a time: after each part the servos are asked twice."""
        begin = self.q
        for share in (0.5, 1.0):
            self.twin.fault("place", q=(begin + share * (q - begin)).tolist())
            answers, ends = self.twin.fault("state")["counters"]["answers"], time.monotonic() + 10.0
            while self.twin.fault("state")["counters"]["answers"] < answers + 12:
                assert time.monotonic() < ends, f"nobody asks the servos where they are: {self.asked[-3:]}"
                time.sleep(0.005)
        self.q = np.array(self.twin.fault("state")["q"])

    def obey(self, words: str) -> bool:
        """Do what is asked; True where an Enter is wanted."""
        if "HOLD THE ARM" in words:
            with pytest.raises(HardwareError, match="nobody moves it by hand"):
                self.twin.fault("place", q=[0.0] * 6)
            return True
        if "angle 0:" in words:
            self.bring(np.full(6, self.pose))
            return True
        for joint, name in enumerate(ARM.spec.joint_names):
            if words.startswith(f"{name}: "):
                q, limits = np.full(6, self.pose), ARM.spec.limits
                end = limits.position_max if "+ end" in words else limits.position_min
                q[joint] = (0.5 if name == self.lazy else 1.2) * end[joint]
                self.bring(q)
                return True
        if "middle of its ranges" in words:
            self.q = np.array(self.twin.fault("place", q=ARM.home.tolist()))
            return True
        return words.startswith("Enter keeps this")

    def calibrate(self, *arguments: str) -> tuple[int, str]:
        """Run the command, and return its exit code and what it said."""
        command = [sys.executable, "-c", "from experiments.cli import main; main()", "calibrate", "--robot", "so101", "--address",
                   self.twin.ready["device"], *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   cwd=Path(__file__).resolve().parents[2])
        try:
            for line in process.stdout:
                self.asked.append(line)
                if self.obey(line):
                    process.stdin.write("\n")
                    process.stdin.flush()
            return process.wait(10.0), "".join(self.asked)
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def twin():
    with TwinProcess("so101") as process:
        yield process


def test_a_person_calibrates_an_arm_and_the_servos_hold_it_by_the_new_file(twin, tmp_path, capsys):
    twin.fault("reset")
    path = tmp_path / "arms" / "so101.json"
    code, said = Hands(twin, pose=0.06).calibrate("--out", str(path))
    assert code == 0, said
    made = Calibration.load(path)
    assert made.direction == tuple(twin.fault("calibration")["direction"]) and made.zero == (2048,) * 6
    assert made.fingerprint() in said and "+3.4" in said, "the ends tell how far the pose was off"
    assert "reflexarc check --robot so101" in said and "--calibration" in said
    held = next(line for line in said.splitlines() if "By the new calibration it stands" in line)
    for name, angle in zip(ARM.spec.joint_names, ARM.home, strict=True):
        assert abs(float(held.partition(f"{name} ")[2].split(",")[0].split(".")[0]) - np.degrees(angle)) <= 1.5
    twin.fault("by_hand", on=False)
    assert all(twin.fault("state")["mode"]["torque_on"])
    before = path.read_bytes()
    assert reflexarc("calibrate", "--robot", "so101", "--address", twin.ready["device"], "--out", str(path)) == 2
    assert "--overwrite" in capsys.readouterr().err and path.read_bytes() == before


def test_what_is_not_plausible_is_told_and_nothing_is_written(twin, tmp_path):
    twin.fault("reset")
    path = tmp_path / "so101.json"
    code, said = Hands(twin, pose=0.0, lazy="elbow_flex").calibrate("--out", str(path))
    assert code == 2 and not path.exists()
    assert "elbow_flex: it stopped" in said and "wrist_flex: it" not in said and "Enter keeps" not in said
    driver = FeetechDriver(ARM, twin.ready["device"], Calibration(**twin.fault("calibration")))
    twin.fault("place", q=ARM.home.tolist())
    driver.connect()  # it would refuse servos that were homed anew
    driver.close()


def test_where_nobody_answers_the_torque_stays_on(twin, tmp_path, capsys, monkeypatch):
    twin.fault("reset")
    with open("/dev/null") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert reflexarc("calibrate", "--robot", "so101", "--address", twin.ready["device"], "--out", str(tmp_path / "so101.json")) == 2
    heard = capsys.readouterr()
    assert "nobody answers" in heard.err and "HOLD THE ARM" in heard.out
    assert all(twin.fault("state")["mode"]["torque_on"])


def test_what_cannot_be_calibrated_is_refused_in_words(tmp_path, capsys):
    at = ["--address", "/dev/null-servo", "--out", str(tmp_path / "a.json")]
    for robot, code, words in (("ur5e", 2, "its controller keeps its own"), ("so102", 2, "so101"), ("so101", 1, "does not exist")):
        assert reflexarc("calibrate", "--robot", robot, *at) == code
        assert words in capsys.readouterr().err
    assert reflexarc("calibrate", "--help") == 0
    assert "Example" in capsys.readouterr().out


def test_the_plus_end_is_told_by_where_the_gripper_goes():
    words = {name: positive_words(ARM, i) for i, name in enumerate(ARM.spec.joint_names)}
    forward, zero = ARM.kinematics().forward, np.zeros(6)
    ways = {"ahead": (0, 1), "back": (0, -1), "left": (1, 1), "right": (1, -1), "up": (2, 1), "down": (2, -1)}
    for i, name in enumerate(ARM.spec.joint_names[:4]):
        axis, sign = ways[words[name].rsplit(" ", 1)[1]]
        moved = forward(zero + 0.2 * np.eye(6)[i])[:3] - forward(zero)[:3]
        assert moved[axis] * sign > 0.01 and np.argmax(np.abs(moved)) == axis
    assert words["wrist_roll"] == "the gripper turns, its top to the left" and words["gripper"] == "the moving jaw goes up"
    assert "left" in positive_words(dynamixel_arm(), 0)


def test_whoever_moves_a_joint_sees_where_it_is(monkeypatch, capsys):
    mine, typed = os.pipe()
    bench = SimpleNamespace(arm=ARM, count=0)

    def readings() -> list[int]:
        bench.count += 1
        if bench.count == 3:
            os.write(typed, b"yes\n")
        return [2048, 2048 - 512 * (bench.count > 1), 2048, 2048, 2048, 2048]

    bench.readings = readings
    with os.fdopen(mine) as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        person = Person(Console(file=sys.stdout, force_terminal=True, width=100), bench)
        sweep = Sweep(readings())
        sweep.begin(1)
        person.watch(sweep)
        assert person.ask("move it") == "yes"
    os.close(typed)
    shown = capsys.readouterr().out
    assert "move it" in shown and "-45" in shown and "shoulder_lift" in shown
    assert sweep.low[1] == -512 and bench.count >= 4, "looked at once more after Enter"
