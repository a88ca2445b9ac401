"""The arms that come with PyBullet: their limits, where they start, and where they can reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robots.limits import JointLimits

_QUARTER = np.pi / 4


@dataclass(frozen=True)
class BulletArm:
    """An arm on a fixed base, its n joints the first n of its URDF."""

    name: str
    urdf: str
    """Path under `pybullet_data`."""
    joint_names: tuple[str, ...]
    limits: JointLimits
    home: np.ndarray
    """(n,) joint positions that an episode starts near [rad]."""
    torque_box: np.ndarray
    """(n,) largest torque commanded on top of gravity compensation [N·m]. Far inside the machine's limits: with more, random
    commands of one control period drive the joints past their speeds."""
    damping: np.ndarray
    """(n,) viscous friction of the joints [N·m·s/rad]."""
    tip_link: int
    """PyBullet's number of the link whose frame is the end effector."""
    tip_name: str
    goal_min: np.ndarray
    """(3,) corner of the box that goals are drawn from [m]; all of it is within reach."""
    goal_max: np.ndarray
    """(3,) opposite corner [m]."""
    finger_joints: tuple[int, ...] = ()
    """Joints that are held half open."""


def panda() -> BulletArm:
    """Return the Franka Panda; limits are Franka's (FCI documentation), narrower than those of PyBullet's URDF.

    The URDF states no friction, and without any the arm never comes to rest: 0.5 N·m·s/rad, as the KUKA's URDF has.
    """
    limits = JointLimits(
        position_min=np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]),
        position_max=np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]),
        velocity_max=np.array([2.175] * 4 + [2.61] * 3),
        acceleration_max=np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0]),
        jerk_max=np.array([7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0]),
        torque_max=np.array([87.0] * 4 + [12.0] * 3),
        torque_rate_max=np.full(7, 1000.0))
    return BulletArm(
        name="panda", urdf="franka_panda/panda.urdf", joint_names=tuple(f"panda_joint{i}" for i in range(1, 8)), limits=limits,
        home=np.array([0.0, -_QUARTER, 0.0, -3 * _QUARTER, 0.0, 2 * _QUARTER, _QUARTER]),
        torque_box=np.array([10.0] * 4 + [2.0] * 3), damping=np.full(7, 0.5), tip_link=11, tip_name="panda_grasptarget",
        goal_min=np.array([0.35, -0.3, 0.15]), goal_max=np.array([0.6, 0.3, 0.6]), finger_joints=(9, 10))


def kuka() -> BulletArm:
    """Return the KUKA LBR iiwa 14 R820; speeds and torques are of KUKA's data sheet, friction and ranges of PyBullet's URDF."""
    range_ = np.radians([170.0, 120.0, 170.0, 120.0, 170.0, 120.0, 175.0])
    unstated = np.full(7, np.inf)
    limits = JointLimits(
        position_min=-range_, position_max=range_, velocity_max=np.radians([85.0, 85.0, 100.0, 75.0, 130.0, 135.0, 135.0]),
        acceleration_max=unstated, jerk_max=unstated, torque_max=np.array([320.0, 320.0, 176.0, 176.0, 110.0, 40.0, 40.0]),
        torque_rate_max=unstated)
    return BulletArm(
        name="kuka", urdf="kuka_iiwa/model.urdf", joint_names=tuple(f"lbr_iiwa_joint_{i}" for i in range(1, 8)), limits=limits,
        home=np.array([0.0, 0.6, 0.0, -1.2, 0.0, 1.3, 0.0]), torque_box=np.array([10.0] * 4 + [2.0, 1.0, 1.0]),
        damping=np.full(7, 0.5), tip_link=6, tip_name="lbr_iiwa_link_7",
        goal_min=np.array([0.4, -0.35, 0.2]), goal_max=np.array([0.7, 0.35, 0.7]))
