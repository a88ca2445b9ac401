"""A generic desktop arm of six Dynamixel servos: three XM430-W350 and three XL330-M288, as in many arms that people build."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robots.arms.arm import Arm
from robots.command import CommandMode, CommandSpec
from robots.limits import JointLimits
from robots.spec import RobotSpec, TorqueConvention

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")


def dynamixel_arm() -> Arm:
    """Return the arm. It stands for a class of arms: whoever has one measures and replaces lengths, masses and ranges.

    Velocities: two thirds of the XM430-W350's 4.8 rad/s without load at 12 V, and as much for the faster XL330s, whose short links need
    no more. Torques: what the servos keep up for long, some 55 % of stall (4.1 N·m and 0.52 N·m). 15 rad/s^2 costs the shoulder 0.8 N·m
    with the arm stretched (0.05 kg·m^2), beside its 0.9 N·m of weight; the jerk gets there in 50 ms, and torque from nothing to its limit
    too. 100 Hz: reading six servos takes 1.7 ms of a 1 Mbaud wire and a set-point 0.4 ms, on USB a millisecond more each.
    """
    n = len(JOINTS)
    low = np.array([-3.0, -1.8, -1.7, -3.0, -1.7, -3.0])
    high = np.array([3.0, 1.6, 1.6, 3.0, 2.1, 3.0])
    speed = np.full(n, 3.2)
    torque = np.array([2.2, 2.2, 2.2, 0.28, 0.28, 0.28])
    limits = JointLimits(position_min=low, position_max=high, velocity_max=speed, acceleration_max=np.full(n, 15.0),
                         jerk_max=np.full(n, 300.0), torque_max=torque, torque_rate_max=20.0 * torque)
    spec = RobotSpec(name="dynamixel_arm", joint_names=JOINTS, nq=n, limits=limits, control_dt=0.01,
                     commands=(CommandSpec(CommandMode.JOINT_POSITION, JOINTS, low, high, "rad"),
                               CommandSpec(CommandMode.JOINT_VELOCITY, JOINTS, -speed, speed, "rad/s"),
                               CommandSpec(CommandMode.JOINT_TORQUE, JOINTS, -torque, torque, "N·m")),
                     end_effector_frames=("gripper",), torque_convention=TorqueConvention.TOTAL)
    return Arm(spec=spec, model_file=Path(__file__).with_suffix(".xml"), home=np.array([0.0, -0.5, 0.4, 0.0, 0.5, 0.0]), falls=True)
