"""Every task of dm_control's suite and manipulation collection as a `Robot`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from robots.command import Command, CommandMode, CommandSpec
from robots.errors import NumericalError, UnknownNameError
from robots.spec import RobotSpec, TorqueConvention
from sim.dm_control_compatibility import prepare_dm_control
from sim.engine_robot import EngineRobot, Reading, requested_cameras
from sim.mujoco_description import actuator_names, camera_names, camera_number, degree_of_freedom_names, joint_limits, unlimited_hinges
from sim.observed_angles import observation_space
from sim.rendering import Quality, RenderingUnavailableError
from sim.task import CameraRequest, Task

if TYPE_CHECKING:
    import dm_env

PREFIX = "dmc:"
MANIPULATION_SECONDS = 10.0
"""Length of a manipulation episode [s], as in `dm_control.manipulation.load`."""
UNLIMITED_STEPS = 1000
"""Control periods of an episode where the suite states no time limit (lqr)."""
UNLIMITED_INPUT = 10.0
"""Largest actuator input admitted where the model states none (lqr; dm_control itself admits 1e10 there)."""
REMEMBERING = ("reassemble_5_bricks_random_order",)
"""Manipulation tasks that shuffle the last episode's order of bricks; they are built anew for every episode."""


_NO_OPENGL = (RuntimeError, ImportError, mujoco.FatalError)
"""What dm_control raises where OpenGL does not start; 'quadruped-escape' and the vision tasks need it for a mere reset."""


def suite_names() -> list[str]:
    """Return the names of the suite's tasks, 'dmc:cheetah-run' and so on."""
    prepare_dm_control()
    from dm_control import suite

    return [f"{PREFIX}{domain}-{task}" for domain, task in suite.ALL_TASKS]


def manipulation_names() -> list[str]:
    """Return the names of the manipulation tasks, 'dmc:reach_site_features' and so on."""
    prepare_dm_control()
    from dm_control import manipulation

    return [PREFIX + name for name in manipulation.ALL]


def load_environment(name: str) -> tuple[dm_env.Environment, float]:
    """Return dm_control's environment without a time limit, and the limit [s] it would have had (infinite: none).

    The model is always built with seed 0 (lqr draws its springs then), so that `name` alone says which machine it is.
    """
    prepare_dm_control()
    from dm_control import composer, manipulation, suite
    from dm_control.manipulation.shared import registry

    task = name.removeprefix(PREFIX)
    domain, _, rest = task.partition("-")
    if (domain, rest) in suite.ALL_TASKS:
        limit = inspect.signature(getattr(suite, domain).SUITE[rest]).parameters["time_limit"].default
        return suite.load(domain, rest, task_kwargs={"time_limit": math.inf, "random": 0}), limit
    if task in manipulation.ALL and name.startswith(PREFIX):
        try:
            return composer.Environment(registry.get_constructor(task)(), time_limit=math.inf, random_state=0), MANIPULATION_SECONDS
        except _NO_OPENGL as error:
            raise _unavailable(error) from error
    raise UnknownNameError("dm_control task", name, [*suite_names(), *manipulation_names()])


class DmControlRobot(EngineRobot):
    """A dm_control task, stepped at its own control period.

    `extra['observation']` (n,) is the task's observation, its entries concatenated in dm_control's order, scalars as one
    entry; `extra['act']` what state its actuators have, if any; pictures that the task takes go to `frames`. Commands are in
    the box of `action_spec`. dm_control's end of an
    episode (`StepType.LAST` without a time limit) is `terminated`. The seed is the one dm_control itself would be given
    (`task_kwargs={'random': seed}`, `random_state=seed`), so episodes equal its own (save lqr's, whose springs do not change
    here). The brick that a random-order task fixes to the table changes with the episode, and with it which bricks `q` and
    `dq` describe; the observation is not touched.
    """

    def __init__(self, name: str, cameras: CameraRequest = CameraRequest()) -> None:  # noqa: B008 (frozen)
        self._environment, limit = load_environment(name)
        if not name.removeprefix(PREFIX).count("-"):
            self._environment.reset()  # only now is a manipulation model compiled with the joints that an episode has
        dt = float(self._environment.control_timestep())
        self.episode_steps = UNLIMITED_STEPS if math.isinf(limit) else math.ceil(limit / dt - 1e-6)
        """Control periods of an episode."""
        layout = {key: spec.shape for key, spec in self._environment.observation_spec().items()}
        self._pictures = {key: shape[-3:] for key, shape in layout.items() if _is_picture(shape)}
        self.observation_sizes = {key: math.prod(shape) for key, shape in layout.items() if key not in self._pictures}
        """Number of entries of each part of `extra['observation']`, in order."""
        model = self._environment.physics.model.ptr
        self.unlimited_hinges = unlimited_hinges(model)
        """Entries of q that turn without a stop."""
        action = self._environment.action_spec()
        names = actuator_names(model) if model.nu == action.shape[0] else tuple(f"action_{i}" for i in range(action.shape[0]))
        stated = (np.broadcast_to(side, action.shape) for side in (action.minimum, action.maximum))
        low, high = (np.where(np.abs(side) < 1e9, side, np.sign(side) * UNLIMITED_INPUT) for side in stated)
        own = {key: (width, height) for key, (height, width, _) in self._pictures.items()}
        spec = RobotSpec(
            name=name, joint_names=degree_of_freedom_names(model), nq=model.nq, limits=joint_limits(model), control_dt=dt,
            commands=(CommandSpec(CommandMode.ACTUATOR, names, low, high, "actuator input"),),
            cameras=requested_cameras(cameras, own), torque_convention=TorqueConvention.TOTAL)
        try:
            super().__init__(spec, camera_names(model), cameras)
        except UnknownNameError:
            self._environment.close()
            raise

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model that is simulated, its goal where this episode has put it."""
        return self._environment.physics.model.ptr

    def _start(self, seed: int) -> Reading:
        from dm_control.rl.control import PhysicsError

        if self.spec.name.removeprefix(PREFIX).startswith(REMEMBERING):
            self._release()
            self._environment, _ = load_environment(self.spec.name)
        environment = self._environment
        random = environment.task.random if hasattr(environment.task, "random") else environment.random_state
        random.seed(seed)
        try:
            return self._reading(environment.reset())
        except PhysicsError as error:
            raise NumericalError(f"robot {self.spec.name!r}: the physics diverged at the start of seed {seed} ({error})") from error
        except _NO_OPENGL as error:
            raise _unavailable(error) from error

    def _advance(self, command: Command) -> Reading:
        from dm_control.rl.control import PhysicsError

        try:
            return self._reading(self._environment.step(command.values.copy()))
        except PhysicsError as error:
            raise NumericalError(f"robot {self.spec.name!r}: the physics diverged ({error}); reset, and command less") from error

    def _reading(self, step: dm_env.TimeStep) -> Reading:
        data = self._environment.physics.data
        pictures = {key: np.asarray(step.observation[key]).reshape(shape) for key, shape in self._pictures.items()}
        extra = {"observation": self._flat(step.observation)} | ({"act": data.act} if len(data.act) else {})
        return Reading(data.qpos, data.qvel, data.qfrc_actuator, extra, float(step.reward or 0.0), step.last(), pictures=pictures)

    def _flat(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([np.ravel(observation[key]) for key in self.observation_sizes]).astype(np.float64)

    def _picture(self, width: int, height: int, camera: str, quality: Quality) -> np.ndarray:
        number = camera_number(camera, self.camera_names)
        try:
            return self._environment.physics.render(height=height, width=width, camera_id=number)
        except _NO_OPENGL as error:
            raise _unavailable(error) from error

    def _release(self) -> None:
        self._environment.physics.free()
        self._environment.close()


def _unavailable(error: Exception) -> RenderingUnavailableError:
    return RenderingUnavailableError(
        f"dm_control could not draw ({type(error).__name__}: {error}); set MUJOCO_GL to 'egl' or 'osmesa' before it is first used, and "
        "see that libegl1 and libgl1-mesa-dri are installed. Its vision tasks and quadruped-escape need this, the others do not")


def _is_picture(shape: tuple[int, ...]) -> bool:
    """True for (height, width, channels), with or without composer's leading buffer of one."""
    return len(shape) in (3, 4) and shape[-1] in (1, 3) and min(shape[-3:-1]) > 3


def make_dm_control_task(name: str) -> Task:
    """Return the task 'dmc:...'; the environment is built once to learn its sizes. UnknownNameError names the nearest."""
    with DmControlRobot(name) as robot:
        names = tuple(f"{key}_{i}" for key, size in robot.observation_sizes.items() for i in range(size))
        space, steps = observation_space(robot, names, robot.unlimited_hinges), robot.episode_steps
    return Task(name=name, summary=describe_dm_control(name), engine="dm_control", make=partial(DmControlRobot, name),
                state_space=space, cost=None, episode_steps=steps, tags=frozenset({"vision"} if name.endswith("_vision") else ()))


def describe_dm_control(name: str) -> str:
    """Return one line on a task, read off its name."""
    task = name.removeprefix(PREFIX)
    domain, dash, rest = task.partition("-")
    if dash:
        return f"dm_control suite: {domain.replace('_', ' ')}, {rest.replace('_', ' ')}"
    return f"dm_control manipulation with a Jaco arm: {task.replace('_', ' ')}"
