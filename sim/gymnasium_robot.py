"""Gymnasium environments with continuous actions and vector observations as `Robot`s, MuJoCo's first of all."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from robots.command import Command, CommandMode, CommandSpec
from robots.errors import NumericalError, UnknownNameError, UserError
from robots.limits import JointLimits
from robots.spec import RobotSpec, TorqueConvention
from sim.engine_robot import EngineRobot, Reading, requested_cameras
from sim.mujoco_description import actuator_names, camera_names, camera_number, degree_of_freedom_names, joint_limits, unlimited_hinges
from sim.observed_angles import observation_space
from sim.rendering import Quality, RenderingUnavailableError, SceneRenderer
from sim.task import CameraRequest, Task

if TYPE_CHECKING:
    import gymnasium

logger = logging.getLogger(__name__)

PREFIX = "gym:"
PICTURE = "picture"
"""Name of the one camera of an environment that is not MuJoCo's: whatever its own `render` shows."""
UNLIMITED_STEPS = 1000
"""Control periods of an episode where the environment states no limit."""
_NOT_WITH_THIS_MUJOCO = frozenset({"Pusher-v4"})
"""Environments of Gymnasium that refuse MuJoCo 3 and newer."""
_OTHERS = ("MountainCarContinuous-v0", "Pendulum-v1")
"""Gymnasium's own environments with continuous actions that need nothing else to be installed."""
_DIVERGENCE = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


def gymnasium_names() -> list[str]:
    """Return the names that are listed: Gymnasium's MuJoCo environments that run, and its other continuous ones.

    Any other registered environment may be made too, if its spaces allow it.
    """
    import gymnasium

    runs = [id_ for id_, spec in gymnasium.registry.items()
            if isinstance(spec.entry_point, str) and spec.entry_point.startswith("gymnasium.envs.mujoco.")
            and (spec.version or 0) >= 4 and id_ not in _NOT_WITH_THIS_MUJOCO]
    return [PREFIX + id_ for id_ in (*runs, *_OTHERS)]


def is_registered(name: str) -> bool:
    """Return whether Gymnasium has an environment of the id behind 'gym:', whether or not it fits a robot."""
    import gymnasium

    return name.removeprefix(PREFIX) in gymnasium.registry


def load_environment(name: str) -> gymnasium.Env:
    """Return the bare environment of 'gym:...': no time limit, no checks.

    Raises UnknownNameError for an id that is not registered, UserError where it cannot be made here or its spaces are not
    a finite box of actions and a vector of observations.
    """
    import gymnasium

    id_ = name.removeprefix(PREFIX)
    if not is_registered(name):
        raise UnknownNameError("Gymnasium environment", name, gymnasium_names(), "Other registered continuous environments run too")
    try:
        with warnings.catch_warnings(), _warnings_of_mujoco_logged():
            warnings.simplefilter("ignore")  # 'a newer version exists': the version was asked for by name
            environment = gymnasium.make(id_, disable_env_checker=True).unwrapped
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise UserError(f"Gymnasium environment {name!r} cannot be made here: {error}") from error
    action, observation = environment.action_space, environment.observation_space
    wrong = None
    if not isinstance(action, gymnasium.spaces.Box) or len(action.shape) != 1:
        wrong = f"a one-dimensional Box of actions, got {action}"
    elif not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        wrong = f"actions with finite bounds, got {action}"
    elif not isinstance(observation, gymnasium.spaces.Box) or len(observation.shape) != 1:
        wrong = f"a one-dimensional Box of observations, got {observation}"
    elif _control_dt(environment) is None:
        wrong = "a control period (`dt`, or `render_fps` in its metadata), got neither"
    if wrong:
        environment.close()
        raise UserError(f"Gymnasium environment {name!r} does not fit a robot: expected {wrong}; known to fit: "
                        f"{', '.join(gymnasium_names())}")
    return environment


@contextmanager
def _warnings_of_mujoco_logged() -> Iterator[None]:
    """MuJoCo's warnings go to this module's logger, and not to a MUJOCO_LOG.TXT in the working directory."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(logger.info)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _control_dt(environment: gymnasium.Env) -> float | None:
    """Return the control period [s]; where an environment has no physical time, one picture's length."""
    dt = getattr(environment, "dt", None)
    if isinstance(dt, float | int) and dt > 0:
        return float(dt)
    fps = environment.metadata.get("render_fps")
    return 1.0 / fps if fps else None


class GymnasiumRobot(EngineRobot):
    """A Gymnasium environment without its time limit.

    `extra['observation']` (n,) is the environment's observation, `reward` its reward and `terminated` its termination.
    `q`, `dq` and `tau` are MuJoCo's; an environment of another engine tells none, and has no joints. Actions are rounded
    to the environment's own type (float32), and `send` returns them so. The seed is Gymnasium's own.
    """

    def __init__(self, name: str, cameras: CameraRequest = CameraRequest()) -> None:  # noqa: B008 (frozen)
        self._environment = load_environment(name)
        action = self._environment.action_space
        model, data = getattr(self._environment, "model", None), getattr(self._environment, "data", None)
        self._model = model if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData) else None
        self._renderers: dict[Quality, SceneRenderer] = {}
        n = action.shape[0]
        if self._model is not None:
            names = actuator_names(model) if model.nu == n else tuple(f"action_{i}" for i in range(n))
            joints, nq, limits, seen = degree_of_freedom_names(model), model.nq, joint_limits(model), camera_names(model)
        else:
            names = tuple(f"action_{i}" for i in range(n))
            joints, nq, limits, seen = (), 0, JointLimits.unlimited(0), (PICTURE,)
        spec = RobotSpec(
            name=name, joint_names=joints, nq=nq, limits=limits, control_dt=_control_dt(self._environment),
            commands=(CommandSpec(CommandMode.ACTUATOR, names, action.low, action.high, "action"),),
            cameras=requested_cameras(cameras), torque_convention=TorqueConvention.TOTAL if joints else TorqueConvention.NONE)
        try:
            super().__init__(spec, seen, cameras)
        except UnknownNameError:
            self._environment.close()
            raise

    @property
    def unlimited_hinges(self) -> tuple[int, ...]:
        """Entries of q that turn without a stop; none where the physics are not MuJoCo's."""
        return unlimited_hinges(self._model) if self._model is not None else ()

    @property
    def observation_size(self) -> int:
        """Number of entries of `extra['observation']`."""
        return math.prod(self._environment.observation_space.shape)

    def _start(self, seed: int) -> Reading:
        observation, _ = self._environment.reset(seed=seed)
        return self._reading(observation, 0.0, False)

    def _advance(self, command: Command) -> Reading:
        action = command.values.astype(self._environment.action_space.dtype)
        observation, reward, terminated, _, _ = self._environment.step(action)
        if self._model is not None and any(self._environment.data.warning[w].number > 0 for w in _DIVERGENCE):
            raise NumericalError(f"robot {self.spec.name!r}: the physics diverged; reset, and command less")
        return self._reading(observation, float(reward), bool(terminated))

    def _representable(self, command: Command) -> Command:
        dtype = self._environment.action_space.dtype
        return Command(command.mode, command.values.astype(dtype).astype(np.float64))

    def _reading(self, observation: np.ndarray, reward: float, terminated: bool) -> Reading:
        extra = {"observation": observation}
        if self._model is None:
            return Reading(np.empty(0), np.empty(0), np.empty(0), extra, reward, terminated)
        data = self._environment.data
        return Reading(data.qpos, data.qvel, data.qfrc_actuator, extra, reward, terminated)

    def _picture(self, width: int, height: int, camera: str, quality: Quality) -> np.ndarray:
        if self._model is None:
            return _resized(self._own_picture(), width, height)
        if quality not in self._renderers:
            self._renderers[quality] = SceneRenderer(self._model, quality)
        return self._renderers[quality].picture(self._environment.data, camera_number(camera, self.camera_names), width, height)

    def _own_picture(self) -> np.ndarray:
        import gymnasium

        self._environment.render_mode = "rgb_array"
        try:
            picture = self._environment.render()
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise RenderingUnavailableError(f"robot {self.spec.name!r} cannot draw pictures here: {error}") from error
        return np.asarray(picture, dtype=np.uint8)

    def _release(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._environment.close()


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return (height, width, 3) of the nearest pixels of a picture of any size."""
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    return picture[rows[:, None], columns]


def make_gymnasium_task(name: str) -> Task:
    """Return the task 'gym:...'; the environment is built once to learn its sizes."""
    import gymnasium

    with GymnasiumRobot(name) as robot:
        names = tuple(f"observation_{i}" for i in range(robot.observation_size))
        space = observation_space(robot, names, robot.unlimited_hinges)
    steps = gymnasium.registry[name.removeprefix(PREFIX)].max_episode_steps or UNLIMITED_STEPS
    return Task(name=name, summary=describe_gymnasium(name), engine="gymnasium", make=partial(GymnasiumRobot, name),
                state_space=space, cost=None, episode_steps=steps)


def describe_gymnasium(name: str) -> str:
    """Return one line on a task, read off its name."""
    id_, _, version = name.removeprefix(PREFIX).rpartition("-v")
    return f"Gymnasium: {id_}, version {version}"
