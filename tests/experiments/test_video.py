"""An episode is filmed afterwards: in real time, whole or not at all, and only if it replays bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from dynamics.state_space import StateSpace
from episodes.episode import Episode
from experiments import video
from experiments.video import ReplayError, first_and_best, replay_video
from policies.episode_loop import EpisodeSource, run_episode
from policies.simple import RandomPolicy
from policies.trial import TrialRecord
from robots.errors import ConfigurationError, StoreError
from sim.catalog import make_task
from sim.mujoco_robot import MujocoRobot
from sim.rendering import RenderingUnavailableError
from sim.task import Task

TASK = make_task("cartpole")


def live(task: Task, steps: int) -> Episode:
    with task.robot() as robot:
        command = robot.spec.command()
        source = EpisodeSource(robot, task.state_space, command, task.cost, task.name)
        return run_episode(source, RandomPolicy(command), steps, seed=3, trial=0, provenance="random")


@pytest.fixture(scope="module")
def episode() -> Episode:
    return live(TASK, 40)


@pytest.fixture
def drawn_by_hand(monkeypatch):
    """Pictures that take no OpenGL: their brightness is the number of control periods lived."""
    def render(self: MujocoRobot, width: int, height: int, camera: str | None = None) -> np.ndarray:
        return np.full((height, width, 3), self._ticks * 4, dtype=np.uint8)

    monkeypatch.setattr(MujocoRobot, "render", render)


def decoded(path: Path) -> tuple[list[float], list[float], av.VideoStream]:
    """Return the times [s] and brightnesses of a video's pictures, and its stream."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(video=0))
        return [float(f.pts * f.time_base) for f in frames], [float(f.to_ndarray(format="gray").mean()) for f in frames], stream


def test_a_video_is_real_time_and_shows_first_and_last_state(tmp_path, episode, drawn_by_hand):
    path = replay_video(TASK, episode, tmp_path / "v.mp4", width=64, height=48, fps=25, caption="a & <b>")
    times, brightness, stream = decoded(path)
    assert len(times) == 40 and stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    assert float(stream.duration * stream.time_base) == pytest.approx(40 * 0.04, rel=1e-3)
    assert (np.diff(brightness) > 0).all() and brightness[-1] - brightness[0] == pytest.approx(160, abs=8)
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat"), "a browser shows it before all of it has arrived"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("fps", "largest", "expected"), [(10, 200, 16), (1000, 200, 40), (25, 8, 8), (0.1, 200, 1)])
def test_fewer_pictures_do_not_change_the_speed(tmp_path, episode, drawn_by_hand, monkeypatch, fps, largest, expected):
    monkeypatch.setattr(video, "LARGEST_FRAMES", largest)
    times, _, stream = decoded(replay_video(TASK, episode, tmp_path / "v.mp4", width=64, height=48, fps=fps))
    assert len(times) == expected
    assert float(stream.duration * stream.time_base) == pytest.approx(1.6, rel=0.02)


def test_a_real_picture(tmp_path):
    try:
        path = replay_video(TASK, live(TASK, 3), tmp_path / "v.mp4", width=160, height=120)
    except RenderingUnavailableError as error:
        pytest.skip(str(error))
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (120, 160, 3) and picture.std() > 10


@pytest.mark.parametrize("name", ["x", "applied"])
def test_one_wrong_bit_is_refused(tmp_path, episode, drawn_by_hand, name):
    changed = getattr(episode, name).copy()
    changed[20, 0] = np.nextafter(changed[20, 0], 100) if name == "x" else -changed[20, 0]
    with pytest.raises(ReplayError, match=r"does not replay: after 2[01] control periods"):
        replay_video(TASK, replace(episode, **{name: changed}), tmp_path / "v.mp4", width=64, height=48)
    assert not list(tmp_path.iterdir())


def test_another_task_is_refused(tmp_path, episode, drawn_by_hand):
    with pytest.raises(ReplayError, match="commands slider"):
        replay_video(make_task("pendulum"), episode, tmp_path / "v.mp4")
    short = replace(TASK, state_space=StateSpace(TASK.state_space.channels[:1]))
    with pytest.raises(ReplayError, match="state entries"):
        replay_video(short, episode, tmp_path / "v.mp4")


def test_without_opengl_the_old_video_stands_and_nothing_is_left(tmp_path, episode, monkeypatch):
    def refuse(*_: object) -> None:
        raise RenderingUnavailableError("no OpenGL here")

    monkeypatch.setattr(MujocoRobot, "render", refuse)
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(RenderingUnavailableError, match="no OpenGL here"):
        replay_video(TASK, episode, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path, episode, drawn_by_hand):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        replay_video(TASK, episode, tmp_path / "file" / "v.mp4")


@pytest.mark.parametrize("wrong", [{"width": 63}, {"height": 0}, {"fps": 0.0}, {"fps": float("nan")}])
def test_bad_sizes_are_refused(tmp_path, episode, wrong):
    with pytest.raises(ConfigurationError):
        replay_video(TASK, episode, tmp_path / "v.mp4", **wrong)


def test_the_nicest_camera_films(tmp_path, episode, monkeypatch):
    asked = []

    def render(self: MujocoRobot, width: int, height: int, camera: str | None = None) -> np.ndarray:
        asked.append(camera)
        return np.zeros((height, width, 3), dtype=np.uint8)

    monkeypatch.setattr(MujocoRobot, "render", render)
    replay_video(TASK, episode, tmp_path / "v.mp4", width=64, height=48)
    assert set(asked) == {"tracking"}


def record(trial: int, total_return: float, model_version: int | None) -> TrialRecord:
    return TrialRecord(trial, "random" if model_version is None else "icem", model_version, total_return, 10, False, 0)


def test_first_and_best():
    assert first_and_best([record(0, 1, None), record(1, -5, None)]) == (0, 0)
    assert first_and_best([record(0, -9, None), record(1, -5, 1), record(2, 7, 2), record(3, 7, 3)]) == (1, 2)
    with pytest.raises(ConfigurationError):
        first_and_best([])
