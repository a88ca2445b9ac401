"""A MuJoCo scene behind the `Robot` protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import mujoco
import numpy as np

from robots.command import Command, admit
from robots.errors import ConfigurationError, NumericalError, UnknownNameError, UserError
from robots.observation import NO_POSE, CameraFrame, Observation
from robots.spec import CameraSpec, RobotSpec
from robots.validation import checked_array
from sim.mujoco_description import degree_of_freedom_names
from sim.mujoco_spec import actuated_joint_limits, actuator_command
from sim.rendering import Quality, SceneRenderer
from sim.task import CameraRequest

_DIVERGENCE = {
    "position": mujoco.mjtWarning.mjWARN_BADQPOS,
    "velocity": mujoco.mjtWarning.mjWARN_BADQVEL,
    "acceleration": mujoco.mjtWarning.mjWARN_BADQACC,
}


@dataclass(frozen=True)
class Start:
    """Where an episode starts."""

    q: np.ndarray
    """(nq,) generalised positions [rad, m; quaternions wxyz]."""
    dq: np.ndarray
    """(nv,) generalised velocities [rad/s, m/s]."""
    goals: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Positions (3,) [m] of mocap bodies by name: goals that stay where they are put and are no part of the physics."""


@dataclass(frozen=True)
class Moment:
    """What a readout may look at, after a control period or a reset; read it, do not write to it."""

    model: mujoco.MjModel
    data: mujoco.MjData
    q_before: np.ndarray
    """(nq,) positions when the period began; after a reset, the start."""
    control_dt: float
    """[s]"""


StartDistribution = Callable[[mujoco.MjModel, np.random.Generator], Start]
Readout = Callable[[Moment], Mapping[str, np.ndarray]]


def rest_start(model: mujoco.MjModel, generator: np.random.Generator) -> Start:
    """Start in the model's own reference position at rest; draws nothing."""
    return Start(model.qpos0, np.zeros(model.nv))


def no_readout(moment: Moment) -> Mapping[str, np.ndarray]:
    """Report nothing beyond what every robot reports."""
    return {}


@dataclass(frozen=True)
class MujocoScene:
    """A scene and how it is run as a robot."""

    name: str
    """The robot's name."""
    path: Path
    """The MJCF file."""
    substeps: int
    """Physics steps in one control period; the period is this many times the model's timestep."""
    command_unit: str
    """Unit of the actuator inputs, for people."""
    draw_start: StartDistribution = rest_start
    """Draws the start of an episode."""
    readout: Readout = no_readout
    """What goes into `Observation.extra`."""
    end_effector: str | None = None
    """Site whose pose is `Observation.ee_pose`; the world frame is the base frame."""

    def __post_init__(self) -> None:
        if self.substeps < 1:
            raise ConfigurationError(f"scene {self.name!r}: substeps must be at least 1, got {self.substeps}")

    def load(self) -> mujoco.MjModel:
        """Return the compiled model."""
        return mujoco.MjModel.from_xml_path(str(self.path))


class _State(StrEnum):
    """What may be done with a robot; the text ends the sentence "robot 'name' ..." of a refusal."""

    NEW = "was not reset yet; call reset(seed) first"
    READY = "is ready"
    DIVERGED = "holds diverged physics; call reset(seed) first"
    CLOSED = "is closed; make a new one"


class MujocoRobot:
    """A MuJoCo scene that is commanded through its actuators. `tick` without a new `send` holds the last command.

    `model` is another model of the same machine (masses, friction changed) where physics are randomised.
    Raises NumericalError from `tick` when the physics diverge; `reset` makes the robot usable again.
    """

    def __init__(self, scene: MujocoScene, cameras: CameraRequest | None = None, model: mujoco.MjModel | None = None) -> None:
        self.scene = scene
        self.model = scene.load() if model is None else model
        self.camera_names = tuple(self.model.camera(i).name for i in range(self.model.ncam))
        self._cameras = cameras or CameraRequest()
        camera_specs = tuple(CameraSpec(name, self._cameras.width, self._cameras.height) for name in self._cameras.names)
        for name in self._cameras.names:
            self._camera_number(name)
        if scene.end_effector is not None:
            sites = [self.model.site(i).name for i in range(self.model.nsite)]
            if scene.end_effector not in sites:
                raise UnknownNameError("end-effector site", scene.end_effector, sites)
        self.spec = RobotSpec(
            name=scene.name, joint_names=degree_of_freedom_names(self.model), nq=self.model.nq, limits=actuated_joint_limits(self.model),
            control_dt=scene.substeps * self.model.opt.timestep, commands=(actuator_command(self.model, scene.command_unit),),
            cameras=camera_specs, end_effector_frames=() if scene.end_effector is None else (scene.end_effector,))
        self._data = mujoco.MjData(self.model)
        self._renderers: dict[Quality, SceneRenderer] = {}
        self._ticks = 0
        self._state = _State.NEW

    def reset(self, seed: int) -> Observation:
        if self._state is _State.CLOSED:
            self._refuse()
        if seed < 0:
            raise ConfigurationError(f"robot {self.scene.name!r}: a seed must not be negative, got {seed}")
        start = self.scene.draw_start(self.model, np.random.Generator(np.random.PCG64(seed)))
        mujoco.mj_resetData(self.model, self._data)
        self._data.qpos[:] = checked_array("Start.q", start.q, (self.model.nq,))
        self._data.qvel[:] = checked_array("Start.dq", start.dq, (self.model.nv,))
        for body, position in start.goals.items():
            self._data.mocap_pos[self.model.body(body).mocapid[0]] = checked_array(f"Start.goals[{body!r}]", position, (3,))
        mujoco.mj_forward(self.model, self._data)
        self._ticks, self._state = 0, _State.READY
        return self._observe(self._data.qpos.copy())

    def send(self, command: Command) -> Command:
        self._require_usable()
        applied = admit(command, self.spec.commands)
        self._data.ctrl[:] = applied.values
        return applied

    def tick(self) -> Observation:
        self._require_usable()
        q_before = self._data.qpos.copy()
        mujoco.mj_step(self.model, self._data, self.scene.substeps)
        self._ticks += 1
        self._require_convergence()
        # mj_step leaves poses one physics step behind; an observation is of one instant.
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        return self._observe(q_before)

    def render(self, width: int, height: int, camera: str | None = None) -> np.ndarray:
        """Return a picture (height, width, 3) uint8 RGB for people, from `camera` (None: the scene's first)."""
        self._require_usable()
        number = (0 if self.camera_names else -1) if camera is None else self._camera_number(camera)
        return self._renderer(Quality.PRETTY).picture(self._data, number, width, height)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self._state = _State.CLOSED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _observe(self, q_before: np.ndarray) -> Observation:
        data = self._data
        stamp_ns = round(self._ticks * self.spec.control_dt * 1e9)  # counted from ticks: one rounding, no drift
        frames = {}
        for name in self._cameras.names:
            image = self._renderer(Quality.TRAINING).picture(data, self._camera_number(name), self._cameras.width, self._cameras.height)
            frames[name] = CameraFrame(image, captured_ns=stamp_ns, received_ns=stamp_ns, sequence=self._ticks)
        extra = dict(self.scene.readout(Moment(self.model, data, q_before, self.spec.control_dt)))
        if self.model.na:  # actuators with a state of their own: a planner has to know it
            extra["act"] = data.act
        return Observation(stamp_ns, data.qpos, data.qvel, data.qfrc_actuator, self._end_effector_pose(), frames, extra)

    def _end_effector_pose(self) -> np.ndarray:
        if self.scene.end_effector is None:
            return NO_POSE
        site, quaternion = self._data.site(self.scene.end_effector), np.empty(4)
        mujoco.mju_mat2Quat(quaternion, site.xmat)
        return np.concatenate([site.xpos, quaternion])

    def _camera_number(self, name: str) -> int:
        if name not in self.camera_names:
            raise UnknownNameError(f"camera of robot {self.scene.name!r}", name, self.camera_names)
        return self.camera_names.index(name)

    def _renderer(self, quality: Quality) -> SceneRenderer:
        if quality not in self._renderers:
            self._renderers[quality] = SceneRenderer(self.model, quality)
        return self._renderers[quality]

    def _require_usable(self) -> None:
        if self._state is not _State.READY:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(f"robot {self.scene.name!r} {self._state.value}")

    def _require_convergence(self) -> None:
        for what, warning in _DIVERGENCE.items():
            if self._data.warning[warning].number > 0:
                self._state = _State.DIVERGED
                raise NumericalError(
                    f"robot {self.scene.name!r}: the physics diverged in control period {self._ticks} ({what} of degree of freedom "
                    f"{self._data.warning[warning].lastinfo} is not finite or huge); lower the scene's timestep or the commands")
