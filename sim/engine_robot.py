"""The part of a simulated robot that is the same for every engine: checks, stamps, rewards, pictures and the end of its life."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from robots.command import Command, admit
from robots.errors import ConfigurationError, NonFiniteError, NumericalError, UnknownNameError, UserError
from robots.observation import NO_POSE, CameraFrame, Observation
from robots.spec import CameraSpec, RobotSpec
from sim.rendering import Quality
from sim.task import CameraRequest


@dataclass(frozen=True)
class Reading:
    """What an engine says after one control period; `Observation` copies and checks it."""

    q: np.ndarray
    """(nq,) generalised positions [rad, m]."""
    dq: np.ndarray
    """(nv,) generalised velocities [rad/s, m/s]."""
    tau: np.ndarray
    """(nv,) generalised actuator forces [N·m, N]."""
    extra: Mapping[str, np.ndarray]
    """Named vectors (n,) for `Observation.extra`, reward and end of the task excluded."""
    reward: float | None = None
    """Reward of the period that just passed, 0 after a reset; None where the engine knows of none."""
    terminated: bool = False
    """True where the task ended here; never because time ran out, which is the loop's business."""
    ee_pose: np.ndarray = field(default_factory=lambda: NO_POSE)
    """(7,) position [m] and quaternion wxyz of the end effector, or NaN."""
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(height, width, channels) uint8 pictures that the task itself takes, by camera."""


class EngineRobot(ABC):
    """A `Robot` in a simulator. An engine says how to start, advance, look and stop; this class states the laws.

    - A command is refused or clipped in `send`; `tick` repeats the last one. Before the first `send` of an episode it
      repeats `neutral_command`.
    - Stamps start at 0; after n control periods they are n times `control_dt`, rounded once to whole nanoseconds.
    - After an observation with `terminated`, `tick` raises UserError until `reset`: what an engine does past the end of
      its own task is not worth learning from.
    - Where the physics diverge, `tick` raises NumericalError; the robot wants a `reset` then.
    - Taking pictures does not change the episode.
    - After `close`, everything but `close` raises UserError.
    """

    def __init__(self, spec: RobotSpec, camera_names: tuple[str, ...], cameras: CameraRequest) -> None:
        self.spec = spec
        self.camera_names = camera_names
        self._requested = cameras
        for name in cameras.names:
            self._check_camera(name)
        self._ticks = 0
        self._command: Command | None = None
        self._terminated = False
        self._started = False
        self._closed = False

    @abstractmethod
    def _start(self, seed: int) -> Reading:
        """Start an episode drawn with `seed`, whatever happened before."""

    @abstractmethod
    def _advance(self, command: Command) -> Reading:
        """Let one control period pass under a command that lies in its box; NumericalError where the physics diverge."""

    @abstractmethod
    def _picture(self, width: int, height: int, camera: str, quality: Quality) -> np.ndarray:
        """Return the (height, width, 3) uint8 picture that `camera` takes now; an engine with one quality ignores `quality`."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the engine; called once."""

    def neutral_command(self) -> Command:
        """Return what is done before anything was commanded: zeros, clipped into the default command's box."""
        spec = self.spec.command()
        return Command(spec.mode, spec.clip(np.zeros(spec.nu)))

    def reset(self, seed: int) -> Observation:
        self._check_open()
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise ConfigurationError(f"robot {self.spec.name!r}: expected a seed from 0 to 2**32 - 1, got {seed!r}")
        reading = self._start(int(seed))
        self._ticks, self._command, self._terminated, self._started = 0, None, reading.terminated, True
        return self._observe(reading)

    def send(self, command: Command) -> Command:
        self._check_started()
        self._command = self._representable(admit(command, self.spec.commands))
        return self._command

    def tick(self) -> Observation:
        self._check_started()
        if self._terminated:
            raise UserError(f"robot {self.spec.name!r}: the task ended after {self._ticks} control periods; call reset(seed) first")
        if self._command is None:
            self._command = self._representable(self.neutral_command())
        self._started = False  # until the period went well: after an error only `reset` helps
        reading = self._advance(self._command)
        self._ticks += 1
        self._terminated = reading.terminated
        try:
            observation = self._observe(reading)
        except NonFiniteError as error:
            raise NumericalError(f"robot {self.spec.name!r}: the physics diverged in control period {self._ticks} ({error}); "
                                 "reset, and command less") from error
        self._started = True
        return observation

    def render(self, width: int, height: int, camera: str | None = None) -> np.ndarray:
        """Return a (height, width, 3) uint8 picture; `camera` is one of `camera_names`, None the first of them."""
        self._check_started()
        request = CameraRequest((self.camera_names[0] if camera is None else camera,), width, height)
        self._check_camera(request.names[0])
        return self._picture(request.width, request.height, request.names[0], Quality.PRETTY)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _representable(self, command: Command) -> Command:
        """Return the command as the engine will truly see it (an engine with float32 actions rounds here)."""
        return command

    def _observe(self, reading: Reading) -> Observation:
        stamp = round(self._ticks * self.spec.control_dt * 1e9)
        pictures = dict(reading.pictures)
        for name in self._requested.names:
            pictures[name] = self._picture(self._requested.width, self._requested.height, name, Quality.TRAINING)
        frames = {name: CameraFrame(picture, stamp, stamp, self._ticks) for name, picture in pictures.items()}
        extra = dict(reading.extra)
        if reading.reward is not None:
            extra |= {"reward": np.array([reading.reward]), "terminated": np.array([float(reading.terminated)])}
        return Observation(stamp, reading.q, reading.dq, reading.tau, reading.ee_pose, frames, extra)

    def _check_camera(self, name: str) -> None:
        if name not in self.camera_names:
            raise UnknownNameError(f"camera of {self.spec.name!r}", name, self.camera_names)

    def _check_open(self) -> None:
        if self._closed:
            raise UserError(f"robot {self.spec.name!r} is closed; make a new one")

    def _check_started(self) -> None:
        self._check_open()
        if not self._started:
            raise UserError(f"robot {self.spec.name!r} is not started, or failed; call reset(seed) first")


def requested_cameras(cameras: CameraRequest, own: Mapping[str, tuple[int, int]] | None = None) -> tuple[CameraSpec, ...]:
    """Return the cameras that appear in every observation: those asked for, then the task's `own`, name to (width, height) [pixel]."""
    asked = tuple(CameraSpec(name, cameras.width, cameras.height) for name in cameras.names)
    return asked + tuple(CameraSpec(name, *size) for name, size in (own or {}).items() if name not in cameras.names)
