"""The command line teaches, refuses the user's mistakes in words with exit code 2, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from episodes.store import EpisodeStore
from experiments.cli import main
from sim.catalog import make_task

ROOT = Path(__file__).parents[2]
TINY = ["--steps", "15", "--trials", "3", "--members", "2", "--hidden", "8", "--epochs", "2", "--horizon", "4", "--population", "8",
        "--elites", "2", "--iterations", "1", "--no-report"]


def reflexarc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", "from experiments.cli import main; main()", *arguments], cwd=folder, timeout=180,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A folder in which runs/small was learned."""
    folder = tmp_path_factory.mktemp("learned")
    done = reflexarc(folder, "learn", "pendulum", "--name", "small", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr + done.stdout


@pytest.mark.parametrize("command", [[], ["learn"], ["list"], ["evaluate"], ["resume"], ["report"], ["bench"], ["demo"]])
def test_help_explains_every_command(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "Example" in capsys.readouterr().out


def test_a_run_leaves_everything_behind(learned):
    run = learned / "runs" / "small"
    content = json.loads((run / "config.json").read_bytes())
    assert content["config"]["task"] == "pendulum" and content["packages"]["torch"] and content["commit"]
    assert len(EpisodeStore(run / "episodes")) == 3
    assert list((run / "metrics").glob("events*")) and list((run / "checkpoints").glob("*.safetensors"))


def test_metrics_are_tensorboard_scalars(learned):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(learned / "runs" / "small" / "metrics"))
    events.Reload()
    earned = [event.value for event in events.Scalars("return/trial")]
    assert earned == pytest.approx([episode.total_return for episode in EpisodeStore(learned / "runs" / "small" / "episodes")], rel=1e-6)


def test_evaluate_a_run_and_a_random_policy(learned):
    done = reflexarc(learned, "evaluate", "pendulum", "--policy", "runs/small", "--episodes", "2", "--json", "out.json", "--keep", "kept")
    assert done.returncode == 0, done.stderr
    assert "median" in done.stdout
    result = json.loads((learned / "out.json").read_bytes())
    assert result["returns"] == [episode.total_return for episode in EpisodeStore(learned / "kept")]
    done = reflexarc(learned, "evaluate", "gym:InvertedPendulum-v5", "--episodes", "2")
    assert done.returncode == 0 and "under random" in done.stdout


@pytest.mark.parametrize(("arguments", "words"), [
    (["learn", "cartpoel"], ["unknown task", "cartpole"]),
    (["learn", "dmc:reacher-esay"], ["dmc:reacher-easy"]),
    (["learn", "cartpole", "--planner", "cme"], ["unknown planner", "cem"]),
    (["learn", "cartpole", "--model", "ensemble"], ["unknown dynamics model", "probabilistic-ensemble"]),
    (["learn", "cartpole", "--mode", "torque"], ["mode"]),
    (["learn", "cartpole", "--name", "../x"], ["--name"]),
    (["learn", "cartpole", "--threads", "4096"], ["threads"]),
    (["learn", "cartpole", "--seed", "x"], ["seed"]),
    (["evaluate", "cartpole", "--policy", "nowhere"], ["nowhere", "random"]),
    (["evaluate", "cartpole", "--episodes", "0"], ["--episodes"]),
    (["resume", "nowhere"], ["no run there"]),
    (["report", "nowhere"], ["no run there"]),
    (["evaluate", "cartpole", "--steps", "0"], ["--steps"]),
    (["bench", "learn-cart"], ["learn-cartpole"]),
    (["bench", "learn-cartpole", "--seeds", "0"], ["--seeds"]),
    (["list", "robtos"], ["robots", "tasks"]),
])
def test_mistakes_are_refused_in_words(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    for word in words:
        assert word in said.out + said.err
    assert not any(tmp_path.iterdir())  # nothing was begun


def test_the_best_episode_is_filmed_in_its_mode_once_the_figures_are_told(tmp_path, monkeypatch, capsys):
    asked = []
    with make_task("bullet:panda-reach").robot() as robot:
        mode = str(robot.spec.commands[1].mode)  # not the default one

    def film(task, episode, path, *, mode):
        asked.append((task.name, path.name, str(mode), "median" in capsys.readouterr().out))
        return path

    monkeypatch.setattr("experiments.commands.replay_video", film)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "bullet:panda-reach", "--mode", mode, "--episodes", "1", "--steps", "3",
              "--video", str(tmp_path / "x.mp4")])
    assert stopped.value.code == 0 and asked == [("bullet:panda-reach", "x.mp4", mode, True)]


def test_a_demonstration_of_another_version_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.json").write_text('{"format": 99}')
    monkeypatch.setattr("experiments.commands._learn_and_report", lambda run, threads, report: print(run.path) or 0)
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "cartpole", "--runs", str(tmp_path)])
    assert stopped.value.code == 0 and str(tmp_path / "demo-2") in capsys.readouterr().out.replace("\n", "")


def test_a_name_that_is_taken_is_refused_and_the_run_stays(learned):
    before = (learned / "runs" / "small" / "config.json").read_bytes()
    refused(reflexarc(learned, "learn", "cartpole", "--name", "small", *TINY), "already holds a run", "resume")
    assert (learned / "runs" / "small" / "config.json").read_bytes() == before


def test_a_run_of_another_task_is_refused(learned):
    refused(reflexarc(learned, "evaluate", "cartpole", "--policy", "runs/small"), "pendulum")


@pytest.mark.parametrize(("damage", "words"), [
    (lambda run: (run / "config.json").write_text("{"), ["config.json"]),
    (lambda run: (run / "config.json").write_text('{"format": 99, "config": {}}'), ["format 99"]),
    (lambda run: next((run / "checkpoints").glob("*.safetensors")).write_bytes(b"short"), ["safetensors"]),
    (lambda run: (run / "episodes" / "episode-000001.parquet").write_bytes(b"PAR1"), ["episode-000001.parquet"]),
    (lambda run: (run / "episodes" / "episode-000001.parquet").unlink(), ["episode"]),
])
def test_damaged_runs_are_refused_and_left_alone(learned, tmp_path, damage, words):
    run = tmp_path / "runs" / "small"
    shutil.copytree(learned / "runs" / "small", run)
    damage(run)
    (run / "checkpoints" / "latest.json").touch()
    before = sorted(path.name for path in run.rglob("*") if "tmp" not in path.name)
    refused(reflexarc(tmp_path, "evaluate", "pendulum", "--policy", "runs/small", "--episodes", "1"), *words)
    assert [name for name in before if name not in {path.name for path in run.rglob("*")}] == []


def test_a_finished_run_resumes_to_nothing_new(learned):
    before = [episode.x.tobytes() for episode in EpisodeStore(learned / "runs" / "small" / "episodes")]
    done = reflexarc(learned, "resume", "runs/small", "--no-report")
    assert done.returncode == 0, done.stderr
    assert [episode.x.tobytes() for episode in EpisodeStore(learned / "runs" / "small" / "episodes")] == before
