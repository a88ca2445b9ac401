"""Every simulated task by name: our own, dm_control's, Gymnasium's and PyBullet's."""

from __future__ import annotations

from robots.errors import UnknownNameError
from sim import dm_control_robot, gymnasium_robot, pybullet_tasks
from sim.task import Task
from sim.tasks import OWN_TASKS

ENGINES = ("mujoco", "dm_control", "gymnasium", "pybullet")
"""As in `Task.engine`."""


def known_names(engine: str | None = None) -> list[str]:
    """Return the names of all tasks, or of one engine's; nothing is built.

    Gymnasium environments that others registered can be made too, though they are not listed.
    """
    if engine is not None and engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    names: list[str] = []
    if engine in (None, "mujoco"):
        names += OWN_TASKS
    if engine in (None, "dm_control"):
        names += dm_control_robot.suite_names() + dm_control_robot.manipulation_names()
    if engine in (None, "gymnasium"):
        names += gymnasium_robot.gymnasium_names()
    if engine in (None, "pybullet"):
        names += pybullet_tasks.pybullet_names()
    return names


def make_task(name: str) -> Task:
    """Return the task of `name`.

    A dm_control or Gymnasium environment is built once to learn its sizes, and closed. Raises UnknownNameError, which
    names the nearest known names, and UserError for an environment that cannot be a robot.
    """
    _check_known(name)
    if name in OWN_TASKS:
        return OWN_TASKS[name]()
    if name.startswith(dm_control_robot.PREFIX):
        return dm_control_robot.make_dm_control_task(name)
    if name.startswith(gymnasium_robot.PREFIX):
        return gymnasium_robot.make_gymnasium_task(name)
    return pybullet_tasks.make_pybullet_task(name)


def describe(name: str) -> str:
    """Return one line on a task without building it; UnknownNameError as in `make_task`."""
    _check_known(name)
    if name in OWN_TASKS:
        return OWN_TASKS[name]().summary
    if name.startswith(dm_control_robot.PREFIX):
        return dm_control_robot.describe_dm_control(name)
    if name.startswith(gymnasium_robot.PREFIX):
        return gymnasium_robot.describe_gymnasium(name)
    return pybullet_tasks.describe_pybullet(name)


def _check_known(name: str) -> None:
    """Refuse a name that no engine knows; asks only the engine that the name's prefix points to, unless it must list all."""
    if name in OWN_TASKS or name in pybullet_tasks.pybullet_names():
        return
    if name.startswith(dm_control_robot.PREFIX) and name in known_names("dm_control"):
        return
    if name.startswith(gymnasium_robot.PREFIX) and gymnasium_robot.is_registered(name):
        return
    raise UnknownNameError("task", name, known_names())
