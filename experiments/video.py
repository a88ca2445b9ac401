"""Films an episode afterwards: the simulation is driven again by what was applied, and must live through the same states."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from episodes.episode import Episode
from policies.trial import TrialRecord
from robots.command import Command, CommandMode
from robots.errors import ConfigurationError, ReflexarcError, StoreError
from sim.task import Task

LARGEST_FRAMES = 400
"""Pictures a video has at most: software rendering takes 25 ms and more for one, so a long episode is filmed at fewer a second."""
_CAMERAS = ("tracking", "front")
"""Cameras in the order of preference; a robot without them is filmed by its first one."""


class ReplayError(ReflexarcError):
    """An episode does not replay to the states that it recorded: another machine, another version, or an edited file."""


def replay_video(task: Task, episode: Episode, path: Path, *, width: int = 480, height: int = 360, fps: float = 25.0,
                 caption: str | None = None, mode: str | None = None) -> Path:
    """Drive a fresh robot of `task` by what `episode` applied, film it in real time, and return `path`, an MP4 (H.264).

    `width` and `height` [pixel] are even; `fps` [1/s] is the most, a long episode gets fewer (`LARGEST_FRAMES`); `caption`
    becomes the file's title; `mode` is the command mode that the episode was lived in (None: the robot's default).
    The file appears whole or not at all. Raises ReplayError where the replay differs from the recorded states in a single
    bit, RenderingUnavailableError where pictures cannot be drawn, StoreError where the file cannot be written.
    """
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise ConfigurationError(f"replay_video: expected an even width and height [pixel], got {width} x {height}")
    if not fps > 0:
        raise ConfigurationError(f"replay_video: expected a positive number of pictures a second, got {fps}")
    duration = float(episode.time[-1] - episode.time[0])
    count = max(1, min(LARGEST_FRAMES, episode.steps, round(duration * fps)))
    pictures = _pictures(task, episode, _periods_to_film(episode.time, count), width, height, mode)
    return write_video(path, pictures, Fraction(count / duration).limit_denominator(10_000), width, height, caption)


def write_video(path: Path, pictures: Iterator[np.ndarray], rate: Fraction, width: int, height: int, title: str | None,
                preset: str = "medium") -> Path:
    """Write `pictures` (height, width, 3) uint8, `rate` of them a second, and return `path`, an MP4 (H.264).

    `preset` is x264's: how much time goes into a small file. The file appears whole or not at all. StoreError where it cannot be
    written; what drawing the pictures raises is raised on.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(temporary, pictures, rate, width, height, title, preset)
        temporary.replace(path)
    except OSError as error:  # PyAV's errors about files are OSErrors too
        raise StoreError(f"{path}: the video could not be written ({error.strerror or error}); make room or write the report "
                         "without videos") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def first_and_best(records: Sequence[TrialRecord]) -> tuple[int, int]:
    """Return the number of the first trial that a model acted in (0 if none did) and of the one with the highest return."""
    if not records:
        raise ConfigurationError("first_and_best: expected at least one trial, got none")
    first = next((record.trial for record in records if record.model_version is not None), 0)
    return first, max(records, key=lambda record: record.total_return).trial


def _periods_to_film(time: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` indices of `time` (T+1,) nearest to equally spaced moments, the first and the last state included."""
    moments = np.linspace(time[0], time[-1], count) if count > 1 else time[-1:]
    after = np.searchsorted(time, moments).clip(1, len(time) - 1)
    return after - (moments - time[after - 1] < time[after] - moments)


def _pictures(task: Task, episode: Episode, periods: np.ndarray, width: int, height: int, mode: str | None) -> Iterator[np.ndarray]:
    """Yield the pictures (height, width, 3) at indices `periods` of the episode's time, checking every state on the way."""
    wanted = set(periods.tolist())
    with task.robot() as robot:
        command = robot.spec.command(None if mode is None else CommandMode(mode))
        if command.names != episode.command_names:
            raise ReplayError(f"the episode of trial {episode.metadata.trial} commands {', '.join(episode.command_names)}; {task.name!r} "
                              f"takes {', '.join(command.names)}. Name the command mode it was lived in")
        camera = next((name for name in _CAMERAS if name in robot.camera_names), None)
        observation = robot.reset(episode.metadata.seed)
        for period in range(episode.steps + 1):
            if period:
                robot.send(Command(command.mode, episode.applied[period - 1]))
                observation = robot.tick()
            state = task.state_space.state(observation)
            if not np.array_equal(state, episode.x[period]):
                raise ReplayError(_difference(task, episode, period, state))
            if period in wanted:
                yield robot.render(width, height, camera)


def _difference(task: Task, episode: Episode, period: int, state: np.ndarray) -> str:
    if state.shape != episode.x[period].shape:
        return f"the episode of trial {episode.metadata.trial} has {episode.x.shape[1]} state entries; {task.name!r} has {len(state)}"
    entry = int(np.flatnonzero(state != episode.x[period])[0])
    return (f"the episode of trial {episode.metadata.trial} does not replay: after {period} control periods "
            f"{episode.state_names[entry]} is {state[entry]!r}, recorded is {episode.x[period, entry]!r}. It was lived on another "
            "machine or by another version, or the file was edited")


def _encode(path: Path, pictures: Iterator[np.ndarray], rate: Fraction, width: int, height: int, title: str | None,
            preset: str) -> None:
    options = {"movflags": "faststart"}  # a browser shows it before all of it has arrived
    with av.open(str(path), "w", format="mp4", options=options) as container:
        if title is not None:
            container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": preset, "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
