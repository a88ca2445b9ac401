"""A run that is stopped or killed goes on to the result it would have had, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from episodes.store import EpisodeStore

ROOT = Path(__file__).parents[2]
TINY = ["--name", "run", "--no-report", "--steps", "25", "--trials", "5", "--members", "2", "--hidden", "8", "--epochs", "2",
        "--horizon", "4", "--population", "8", "--elites", "2", "--iterations", "1"]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the program as a terminal would: where the tests run in the background, they were told to ignore Ctrl-C."""
    command = [sys.executable, "-c", "from experiments.cli import main; main()", *arguments]
    return subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def finished_trials(run: Path) -> int:
    file = run / "checkpoints" / "latest.json"
    return len(json.loads(file.read_bytes())["records"]) if file.exists() else 0


def same_result(one: Path, other: Path) -> None:
    """Fail unless two runs lived the same and learned the same, bit for bit."""
    episodes, others = EpisodeStore(one / "episodes"), EpisodeStore(other / "episodes")
    assert len(episodes) == len(others) > 0
    for a, b in zip(episodes, others, strict=True):
        for field in ("time", "x", "commanded", "applied", "cost"):
            assert np.array_equal(getattr(a, field), getattr(b, field)), field
    weights, other_weights = (safetensors.torch.load(next((run / "checkpoints").glob("trial-*.safetensors")).read_bytes())
                              for run in (one, other))
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped, on two threads."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder, "learn", "pendulum", "--seed", "3", *TINY)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return folder / "runs" / "run"


def test_killed_three_times_at_any_moment(tmp_path, whole):
    chance = random.Random(7)
    process = start(tmp_path, "learn", "pendulum", "--seed", "3", *TINY)
    run = tmp_path / "runs" / "run"
    for kill in range(3):
        while process.poll() is None and finished_trials(run) < 1 + kill:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.wait()
        before = finished_trials(run)
        assert before >= 1 + kill or process.returncode == 0
        process = start(tmp_path, "resume", "runs/run", "--no-report")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    same_result(run, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_with_ctrl_c_or_told_to_end(tmp_path, whole, number, code):
    process = start(tmp_path, "learn", "pendulum", "--seed", "3", *TINY)
    run = tmp_path / "runs" / "run"
    while process.poll() is None and finished_trials(run) < 2:
        time.sleep(0.005)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "reflexarc resume" in output and "Traceback" not in output
    process = start(tmp_path, "resume", "runs/run", "--no-report", "--threads", "1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    same_result(run, whole)


def test_one_thread_gives_what_two_give(tmp_path, whole):
    process = start(tmp_path, "learn", "pendulum", "--seed", "3", "--threads", "1", *TINY)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    same_result(tmp_path / "runs" / "run", whole)


def test_another_seed_gives_another_result(tmp_path, whole):
    process = start(tmp_path, "learn", "pendulum", "--seed", "4", *TINY)
    process.communicate(timeout=120)
    with pytest.raises(AssertionError):
        same_result(tmp_path / "runs" / "run", whole)
