"""Tasks that can be planned through the simulator, by name: the machine's model, what a plan pays, and how the model is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mujoco

from dynamics.state_space import Channel, Target
from planners.cost import Cost
from robots.errors import ConfigurationError, UnknownNameError
from robots.robot import Robot
from sim.dm_control_robot import DmControlRobot
from sim.mujoco_robot import MujocoRobot
from sim.simulator import dm_costs
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.planning_copy import PlanningCopy
from sim.simulator.randomisation import Randomisation
from sim.simulator.reading import Reading
from sim.simulator.simulator_model import SimulatorModel
from sim.simulator.task_cost import TaskCost
from sim.tasks import OWN_TASKS


@dataclass(frozen=True)
class PlanningTask:
    """How one task is planned."""

    cost: Callable[[PhysicsSpace, mujoco.MjModel], Cost]
    readings: tuple[Reading, ...] = ()
    """What the cost looks at beside the state."""
    constants: tuple[Channel, ...] = ()
    """What the observation says of an episode: its goal."""
    copy: PlanningCopy = PlanningCopy()
    horizon: float = 0.5
    """How far plans look ahead by default [s]."""


_SPEED = Reading("torso_velocity", "sensordata", "torso_subtreelinvel", (0, 1, 2))
_TORSO = Reading("torso_height", "xpos", "torso", (2,))
_UPRIGHT = Reading("torso_upright", "xmat", "torso", (8,))
_HEAD = Reading("head_height", "xpos", "head", (2,))
_TIP = Reading("tip", "site_xpos", "tip", (0, 2))
_TORSO_CENTRE = Reading("torso_centre", "xipos", "torso", (0, 2))
_FOOT_CENTRE = Reading("foot_centre", "xipos", "foot", (0, 2))
_TORSO_PLACE = Reading("torso_place", "xpos", "torso", (0, 1))
_FEET = (Reading("right_foot", "xpos", "right_foot", (0, 1)), Reading("left_foot", "xpos", "left_foot", (0, 1)))
_TARGET = Reading("target", "geom_xpos", "target", (0, 1))
_FINGER = Reading("finger", "geom_xpos", "finger", (0, 1))


def _reacher(space: PhysicsSpace, model: mujoco.MjModel) -> Cost:
    return dm_costs.ReacherCost(space, float(model.geom("target").size[0] + model.geom("finger").size[0]))


def _walker(speed: float) -> PlanningTask:
    return PlanningTask(lambda space, model: dm_costs.WalkerCost(space, speed), (_SPEED, _TORSO, _UPRIGHT),
                        copy=PlanningCopy(substeps=5, cold_starts=True), horizon=0.75)


def _hopper(hop: bool) -> PlanningTask:
    return PlanningTask(lambda space, model: dm_costs.HopperCost(space, hop), (_SPEED, _UPRIGHT, _TORSO_CENTRE, _FOOT_CENTRE),
                        copy=PlanningCopy(substeps=2, cold_starts=True), horizon=0.8)


def _humanoid(speed: float) -> PlanningTask:
    return PlanningTask(lambda space, model: dm_costs.HumanoidCost(space, speed),
                        (_SPEED, _HEAD, _UPRIGHT, _TORSO_PLACE, *_FEET), copy=PlanningCopy(substeps=2, cold_starts=True), horizon=0.4)


def _dm_cartpole(horizon: float) -> PlanningTask:
    return PlanningTask(lambda space, model: dm_costs.CartPoleCost(space), copy=PlanningCopy(integrator="implicitfast"), horizon=horizon)


def _own(name: str, horizon: float, readings: tuple[Reading, ...] = (), goal: bool = False,
         stands_for: Mapping[tuple[str, int], str] | None = None, planning_copy: PlanningCopy | None = None) -> PlanningTask:
    def cost(space: PhysicsSpace, model: mujoco.MjModel) -> Cost:
        task = OWN_TASKS[name]()
        return TaskCost(task.cost, task.state_space, space, stands_for or {})

    constants = (Channel("goal", ("goal_x", "goal_y", "goal_z"), (0, 1, 2), target=Target.CONSTANT, model_input=False),) if goal else ()
    return PlanningTask(cost, readings, constants, planning_copy or PlanningCopy(), horizon)


_ARM_TIP = Reading("tip", "site_xpos", "tip", (0, 1, 2))
_OBJECT = Reading("object", "xpos", "object", (0, 1, 2))
_ONE_STEP = PlanningCopy(substeps=1, integrator="implicitfast")
"""reacher7's own two Runge-Kutta steps cost eight times as much, pusher7's two explicit ones twice: in the same time, many rollouts that
are nearly right beat few that are exact."""
_PUSHED = {("ee_pose", i): f"tip_{i}" for i in range(3)} | {("object", i): f"object_{i}" for i in range(3)}

PLANNING_TASKS: dict[str, PlanningTask] = {
    "pendulum": _own("pendulum", 1.0),
    "cartpole": _own("cartpole", 1.0),
    "reacher7": _own("reacher7", 0.5, goal=True, planning_copy=_ONE_STEP),
    "pusher7": _own("pusher7", 1.0, (_ARM_TIP, _OBJECT), goal=True, stands_for=_PUSHED, planning_copy=_ONE_STEP),
    "half-cheetah": _own("half-cheetah", 1.0, stands_for={("forward_velocity", 0): "root_x_rate"}),
    "dmc:cartpole-balance": _dm_cartpole(0.5),
    "dmc:cartpole-swingup": _dm_cartpole(1.0),
    "dmc:acrobot-swingup": PlanningTask(lambda space, model: dm_costs.AcrobotCost(space), (_TIP,), horizon=1.5),
    "dmc:reacher-easy": PlanningTask(_reacher, (_TARGET, _FINGER), horizon=0.5),
    "dmc:reacher-hard": PlanningTask(_reacher, (_TARGET, _FINGER), horizon=0.5),
    "dmc:cheetah-run": PlanningTask(lambda space, model: dm_costs.CheetahCost(space), (_SPEED,), copy=PlanningCopy(cold_starts=True),
                                    horizon=0.5),
    "dmc:walker-stand": _walker(0.0),
    "dmc:walker-walk": _walker(1.0),
    "dmc:walker-run": _walker(8.0),
    "dmc:hopper-stand": _hopper(False),
    "dmc:hopper-hop": _hopper(True),
    "dmc:humanoid-stand": _humanoid(0.0),
    "dmc:humanoid-walk": _humanoid(1.0),
    "dmc:humanoid-run": _humanoid(10.0),
}
"""By the names of the tasks."""


@dataclass(frozen=True)
class Problem:
    """A task made ready to be planned, with a robot that was reset."""

    model: SimulatorModel
    cost: Cost
    horizon: int
    """H, control periods."""


def planning_task(name: str) -> PlanningTask:
    """Return how task `name` is planned; UnknownNameError for one that cannot be planned through the simulator."""
    if name not in PLANNING_TASKS:
        raise UnknownNameError("task to plan through the simulator", name, PLANNING_TASKS)
    return PLANNING_TASKS[name]


def make_problem(name: str, robot: Robot, threads: int | None = None, planning_copy: PlanningCopy | None = None,
                 randomisation: Randomisation | None = None) -> Problem:
    """Return the problem of task `name` as `robot`, freshly reset, stands: its goal is where it was put for this episode.

    `planning_copy`: another planning copy than the task's own. `randomisation`: plans are rolled out through variants drawn of it.
    UnknownNameError for a task that cannot be planned so.
    """
    task = planning_task(name)
    model, substeps, differences = (planning_copy or task.copy).of(machine_model(robot), robot.spec.control_dt)
    space = PhysicsSpace(model, task.constants, task.readings)
    variants, drawn = randomisation.of(model) if randomisation is not None else ([], ())
    simulator = SimulatorModel(model, space, substeps, threads, variants, (*differences, *drawn))
    return Problem(simulator, task.cost(space, model), max(1, round(task.horizon / robot.spec.control_dt)))


def machine_model(robot: Robot) -> mujoco.MjModel:
    """Return a copy of the model of a simulated machine, its goal where this episode has put it: all that a planner knows of it."""
    return copy.copy(simulated_model(robot))


def simulated_model(robot: Robot) -> mujoco.MjModel:
    """Return the model itself that a simulated machine steps: to alter the machine, never to plan through."""
    if isinstance(robot, MujocoRobot | DmControlRobot):
        return robot.model
    raise ConfigurationError(f"robot {robot.spec.name!r} is not one of MuJoCo's: there is no model to plan through")
