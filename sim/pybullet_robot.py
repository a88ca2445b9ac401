"""An arm in PyBullet that is to bring its tip to a goal, as a `Robot`."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

import numpy as np

from robots.command import Command, CommandMode, CommandSpec
from robots.errors import ConfigurationError
from robots.spec import RobotSpec, TorqueConvention
from sim.engine_robot import EngineRobot, Reading, requested_cameras
from sim.pybullet_arms import BulletArm
from sim.rendering import Quality
from sim.task import CameraRequest

CONTROL_DT = 0.05
"""Control period [s]."""
PHYSICS_DT = 0.001
"""Physics step [s]: PyBullet damps joints explicitly, and the KUKA's lightest is unstable at the usual 1/240 s."""
START_NOISE = 0.1
"""Largest distance of a joint from home at the start [rad]."""
_SUBSTEPS = round(CONTROL_DT / PHYSICS_DT)
_VIEWS = {"front": (90.0, -20.0), "side": (0.0, -20.0), "top": (90.0, -89.9)}
"""Yaw and pitch [degree] of every camera; all look at the middle of the goals from 1.5 m."""


class PyBulletRobot(EngineRobot):
    """An arm with gravity compensation, commanded by joint torques or joint positions; the first mode is the default.

    JOINT_TORQUE is on top of gravity compensation (`TorqueConvention.GRAVITY_COMPENSATED`), which is computed anew at
    every physics step; JOINT_POSITION goes through PyBullet's joint motors at no more than the joints' largest speeds
    and torques. `tau` is all that the joints' drives exert, gravity compensation included.
    `extra['tip']` and `extra['goal']` (3,) are positions in the base frame [m]; a reset draws the goal and a pose near home.

    Each robot is its own PyBullet server in this process. A reset loads the scene anew: PyBullet's saved states keep
    caches of the solver, and episodes would depend on what happened before.
    """

    def __init__(self, name: str, arm: BulletArm, default: CommandMode, cameras: CameraRequest = CameraRequest()) -> None:  # noqa: B008 (frozen)
        n = len(arm.joint_names)
        modes = {
            CommandMode.JOINT_TORQUE: CommandSpec(CommandMode.JOINT_TORQUE, arm.joint_names, -arm.torque_box, arm.torque_box, "N·m"),
            CommandMode.JOINT_POSITION: CommandSpec(CommandMode.JOINT_POSITION, arm.joint_names, arm.limits.position_min,
                                                    arm.limits.position_max, "rad"),
        }
        if default not in modes:
            raise ConfigurationError(f"robot {name!r}: expected a default mode of {[str(mode) for mode in modes]}, got {default!r}")
        commands = (modes.pop(default), *modes.values())
        super().__init__(RobotSpec(
            name=name, joint_names=arm.joint_names, nq=n, limits=arm.limits, control_dt=CONTROL_DT, commands=commands,
            cameras=requested_cameras(cameras), end_effector_frames=(arm.tip_name,),
            torque_convention=TorqueConvention.GRAVITY_COMPENSATED), tuple(_VIEWS), cameras)
        self._arm = arm
        self._joints = list(range(n))
        self._movable = [*self._joints, *arm.finger_joints]
        with _silence():
            self._bullet = _pybullet()
            self._client = self._bullet.connect(self._bullet.DIRECT)
        self._body = -1
        self._goal = np.zeros(3)
        self._tau = np.zeros(n)

    def neutral_command(self) -> Command:
        """Return zero torques, or the pose it is in."""
        if self.spec.command().mode is CommandMode.JOINT_TORQUE:
            return super().neutral_command()
        return Command(CommandMode.JOINT_POSITION, self.spec.command().clip(self._joint_states()[0]))

    def _start(self, seed: int) -> Reading:
        generator = np.random.Generator(np.random.PCG64(seed))
        arm = self._arm
        self._load()
        start = arm.home + generator.uniform(-START_NOISE, START_NOISE, len(self._joints))
        self._goal = generator.uniform(arm.goal_min, arm.goal_max)
        for joint, position in zip(self._joints, start, strict=True):
            self._bullet.resetJointState(self._body, joint, position, physicsClientId=self._client)
        marker = self._bullet.createVisualShape(self._bullet.GEOM_SPHERE, radius=0.03, rgbaColor=(0.9, 0.2, 0.1, 1.0),
                                                physicsClientId=self._client)
        self._bullet.createMultiBody(0.0, baseVisualShapeIndex=marker, basePosition=self._goal.tolist(), physicsClientId=self._client)
        self._tau = np.zeros(len(self._joints))
        return self._reading()

    def _advance(self, command: Command) -> Reading:
        if command.mode is CommandMode.JOINT_TORQUE:
            self._advance_torques(command.values)
        else:
            self._advance_positions(command.values)
        return self._reading()

    def _advance_torques(self, torques: np.ndarray) -> None:
        bullet, client, body = self._bullet, self._client, self._body
        self._release_motors()
        rest = [0.0] * len(self._movable)
        for _ in range(_SUBSTEPS):
            positions = [state[0] for state in bullet.getJointStates(body, self._movable, physicsClientId=client)]
            gravity = bullet.calculateInverseDynamics(body, positions, rest, rest, physicsClientId=client)
            self._tau = torques + np.array(gravity[:len(torques)])
            bullet.setJointMotorControlArray(body, self._joints, bullet.TORQUE_CONTROL, forces=self._tau.tolist(), physicsClientId=client)
            bullet.stepSimulation(physicsClientId=client)

    def _advance_positions(self, positions: np.ndarray) -> None:
        bullet, limits = self._bullet, self._arm.limits
        for joint in self._joints:
            bullet.setJointMotorControl2(
                self._body, joint, bullet.POSITION_CONTROL, targetPosition=float(positions[joint]), targetVelocity=0.0,
                force=float(limits.torque_max[joint]), maxVelocity=float(limits.velocity_max[joint]), physicsClientId=self._client)
        for _ in range(_SUBSTEPS):
            bullet.stepSimulation(physicsClientId=self._client)
        self._tau = np.array([state[3] for state in bullet.getJointStates(self._body, self._joints, physicsClientId=self._client)])

    def _release_motors(self) -> None:
        """Let go of the joint motors, which PyBullet starts with and which would resist the torques."""
        self._bullet.setJointMotorControlArray(self._body, self._joints, self._bullet.VELOCITY_CONTROL,
                                               forces=[0.0] * len(self._joints), physicsClientId=self._client)

    def _reading(self) -> Reading:
        q, dq = self._joint_states()
        link = self._bullet.getLinkState(self._body, self._arm.tip_link, computeForwardKinematics=True, physicsClientId=self._client)
        tip, (x, y, z, w) = np.array(link[4]), link[5]
        return Reading(q, dq, self._tau, {"tip": tip, "goal": self._goal}, ee_pose=np.array([*tip, w, x, y, z]))

    def _joint_states(self) -> tuple[np.ndarray, np.ndarray]:
        states = self._bullet.getJointStates(self._body, self._joints, physicsClientId=self._client)
        return np.array([state[0] for state in states]), np.array([state[1] for state in states])

    def _load(self) -> None:
        import pybullet_data

        bullet, client, arm = self._bullet, self._client, self._arm
        with _silence():
            bullet.resetSimulation(physicsClientId=client)
            bullet.setAdditionalSearchPath(pybullet_data.getDataPath(), physicsClientId=client)
            bullet.setPhysicsEngineParameter(fixedTimeStep=PHYSICS_DT, deterministicOverlappingPairs=1, physicsClientId=client)
            bullet.setGravity(0.0, 0.0, -9.81, physicsClientId=client)
            bullet.loadURDF("plane.urdf", physicsClientId=client)
            self._body = bullet.loadURDF(arm.urdf, useFixedBase=True, physicsClientId=client)
        for joint in self._joints:
            bullet.changeDynamics(self._body, joint, linearDamping=0.0, angularDamping=0.0, jointDamping=float(arm.damping[joint]),
                                  jointLowerLimit=float(arm.limits.position_min[joint]),
                                  jointUpperLimit=float(arm.limits.position_max[joint]), physicsClientId=client)
        self._release_motors()
        for joint in arm.finger_joints:
            bullet.resetJointState(self._body, joint, 0.02, physicsClientId=client)
            bullet.setJointMotorControl2(self._body, joint, bullet.POSITION_CONTROL, targetPosition=0.02, force=20.0,
                                         physicsClientId=client)

    def _picture(self, width: int, height: int, camera: str, quality: Quality) -> np.ndarray:
        bullet = self._bullet
        yaw, pitch = _VIEWS[camera]
        middle = 0.5 * (self._arm.goal_min + self._arm.goal_max)
        view = bullet.computeViewMatrixFromYawPitchRoll(middle.tolist(), 1.5, yaw, pitch, 0.0, 2)
        projection = bullet.computeProjectionMatrixFOV(50.0, width / height, 0.05, 5.0)
        picture = bullet.getCameraImage(width, height, view, projection, shadow=int(quality is Quality.PRETTY),
                                        renderer=bullet.ER_TINY_RENDERER, physicsClientId=self._client)[2]
        return np.asarray(picture, dtype=np.uint8).reshape(height, width, 4)[:, :, :3]

    def _release(self) -> None:
        self._bullet.disconnect(physicsClientId=self._client)


def _pybullet() -> ModuleType:
    import pybullet

    return pybullet


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what PyBullet's C++ prints (its build time, notes on URDFs) off the process's standard output and error."""
    library = ctypes.CDLL(None)
    sys.stdout.flush()
    sys.stderr.flush()
    library.fflush(None)
    kept = {}
    for descriptor in (1, 2):
        with suppress(OSError):  # a closed one needs no silence
            kept[descriptor] = os.dup(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in kept:
            os.dup2(nowhere, descriptor)
        yield
    finally:
        library.fflush(None)
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)
