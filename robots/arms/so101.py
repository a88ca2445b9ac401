"""The SO-101 (and SO-100): five joints and a gripper, six Feetech STS3215 servos on one wire."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robots.arms.arm import Arm
from robots.command import CommandMode, CommandSpec
from robots.limits import JointLimits
from robots.spec import RobotSpec, TorqueConvention

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


def so101() -> Arm:
    """Return the SO-101 with the limits of its weaker version (7.4 V), which hold for the 12 V one too.

    Positions are the maker's ranges. 3 rad/s is what a servo keeps when it also lifts the stretched arm (no-load 4.7 rad/s or more, torque
    falls linearly to it). The stretched arm has 0.05 kg·m^2 with rotors at the shoulder and weighs 0.86 N·m there, which leaves 0.6 N·m
    of the continuous share for 12 rad/s^2; a jerk of 240 rad/s^3 takes 50 ms, five periods, to get there.

    100 Hz: reading what six servos report occupies the wire for 2.1 ms and a set-point for 0.26 ms at 1 Mbaud, and an adapter on USB adds
    1 ms a turn: half a period (5 ms) holds that with room for a late host. The servos' own loops, play and friction let nothing
    above some 5 Hz through anyway.
    """
    n = len(JOINTS)
    low = np.array([-1.920, -1.745, -1.690, -1.658, -2.744, -0.175])
    high = np.array([1.920, 1.745, 1.690, 1.658, 2.841, 1.745])
    limits = JointLimits(position_min=low, position_max=high, velocity_max=np.full(n, 3.0), acceleration_max=np.full(n, 12.0),
                         jerk_max=np.full(n, 240.0), torque_max=np.full(n, 1.9), torque_rate_max=np.full(n, np.inf))
    spec = RobotSpec(name="so101", joint_names=JOINTS, nq=n, limits=limits, control_dt=0.01,
                     commands=(CommandSpec(CommandMode.JOINT_POSITION, JOINTS, low, high, "rad"),),
                     end_effector_frames=("gripper",), torque_convention=TorqueConvention.NONE)
    return Arm(spec=spec, model_file=Path(__file__).with_suffix(".xml"), home=np.array([0.0, -0.4, 0.4, 0.6, 0.0, 0.4]), falls=True)
