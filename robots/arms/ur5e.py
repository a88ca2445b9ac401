"""Universal Robots' UR5e: six joints, 5 kg of payload, 0.85 m of reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robots.arms.arm import Arm
from robots.command import CommandMode, CommandSpec
from robots.limits import JointLimits
from robots.spec import RobotSpec, TorqueConvention

JOINTS = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint")
DH_A = np.array([0.0, -0.425, -0.3922, 0.0, 0.0, 0.0])
"""(6,) Denavit-Hartenberg link lengths [m]."""
DH_D = np.array([0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996])
"""(6,) Denavit-Hartenberg offsets [m]."""
DH_ALPHA = np.array([0.5, 0.0, 0.0, 0.5, -0.5, 0.0]) * np.pi
"""(6,) Denavit-Hartenberg twists [rad]."""


def ur5e() -> Arm:
    """Return the UR5e at 500 Hz; its base frame is UR's "base", its end effector the flange `tool0`.

    Position, speed and torque limits are UR's. Acceleration, jerk and torque rate are ours, for a learned controller: 15 rad/s^2 is
    what the shoulder's 150 N·m can still give the stretched arm on top of gravity (about 60 N·m each); 3000 rad/s^3 reaches it within
    5 ms, below what the Panda's gears are allowed (3750 to 10 000); the torque goes from none to all within 0.1 s. Torques are on top of
    the controller's own gravity compensation; friction is left to the commander.
    """
    position = np.full(6, 2 * np.pi)
    position[2] = np.pi
    torque = np.array([150.0, 150.0, 150.0, 28.0, 28.0, 28.0])
    limits = JointLimits(-position, position, velocity_max=np.full(6, np.pi), acceleration_max=np.full(6, 15.0),
                         jerk_max=np.full(6, 3000.0), torque_max=torque, torque_rate_max=10.0 * torque)
    commands = (CommandSpec(CommandMode.JOINT_POSITION, JOINTS, limits.position_min, limits.position_max, "rad"),
                CommandSpec(CommandMode.JOINT_VELOCITY, JOINTS, -limits.velocity_max, limits.velocity_max, "rad/s"),
                CommandSpec(CommandMode.JOINT_TORQUE, JOINTS, -torque, torque, "N·m"))
    spec = RobotSpec("ur5e", JOINTS, nq=6, limits=limits, control_dt=0.002, commands=commands, end_effector_frames=("tool0",),
                     torque_convention=TorqueConvention.GRAVITY_COMPENSATED)
    home = np.array([0.0, -0.5, 0.5, -0.5, -0.5, 0.0]) * np.pi
    return Arm(spec, Path(__file__).with_suffix(".xml"), home, falls=False)
