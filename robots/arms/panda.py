"""Franka's two arms, Panda (FER) and Research 3 (FR3): their limits, their commands and where their models lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robots.arms.arm import Arm
from robots.command import CommandMode, CommandSpec
from robots.limits import JointLimits
from robots.spec import RobotSpec, TorqueConvention

HOME = (0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4)
"""The maker's "ready" pose [rad]."""
TORQUE_MAX = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
"""[N·m]"""


def panda(control_dt: float = 0.002) -> Arm:
    """Return the Panda, commanded every `control_dt` [s]: the client's native loop runs at 1 kHz and is fed with set-points."""
    return _arm("panda", control_dt, JointLimits(
        position_min=[-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973],
        position_max=[2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973],
        velocity_max=[2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61],
        acceleration_max=[15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0],
        jerk_max=[7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0],
        torque_max=TORQUE_MAX,
        torque_rate_max=np.full(7, 1000.0),
    ))


def fr3(control_dt: float = 0.002) -> Arm:
    """Return the Research 3, commanded every `control_dt` [s]. Its controller lowers the velocity limits near the position limits."""
    return _arm("fr3", control_dt, JointLimits(
        position_min=[-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196],
        position_max=[2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196],
        velocity_max=[2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26],
        acceleration_max=np.full(7, 10.0),
        jerk_max=np.full(7, 5000.0),
        torque_max=TORQUE_MAX,
        torque_rate_max=np.full(7, 1000.0),
    ))


def _arm(name: str, control_dt: float, limits: JointLimits) -> Arm:
    joints = tuple(f"{name}_joint{i}" for i in range(1, 8))
    torque, speed = limits.torque_max, limits.velocity_max
    return Arm(
        spec=RobotSpec(
            name=name, joint_names=joints, nq=7, limits=limits, control_dt=control_dt,
            commands=(
                CommandSpec(CommandMode.JOINT_TORQUE, joints, -torque, torque, "N·m"),
                CommandSpec(CommandMode.JOINT_VELOCITY, joints, -speed, speed, "rad/s"),
                CommandSpec(CommandMode.JOINT_POSITION, joints, limits.position_min, limits.position_max, "rad"),
            ),
            end_effector_frames=("flange",), torque_convention=TorqueConvention.GRAVITY_COMPENSATED,
        ),
        model_file=Path(__file__).with_name(f"{name}.xml"), home=np.array(HOME), falls=False,
    )
