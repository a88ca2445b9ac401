"""What a compiled MuJoCo model says of its joints, actuators and cameras, whoever compiled it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robots.limits import JointLimits

if TYPE_CHECKING:
    import mujoco

_SUFFIXES = (("x", "y", "z", "rx", "ry", "rz"), ("rx", "ry", "rz"), ("",), ("",))
"""Ends of the names of a joint's degrees of freedom, by mjtJoint: free, ball, slide, hinge."""

_HINGE = 3
"""mjtJoint.mjJNT_HINGE."""

FREE_CAMERA = "free"
"""Name given to MuJoCo's free camera (number -1), which looks at the whole scene and which every model has."""


def degree_of_freedom_names(model: mujoco.MjModel) -> tuple[str, ...]:
    """Return nv names: a slide's or hinge's own, a ball's or free joint's with the axis behind it."""
    names = []
    for joint in range(model.njnt):
        name = model.joint(joint).name or f"joint_{joint}"
        names += [f"{name}_{suffix}" if suffix else name for suffix in _SUFFIXES[model.jnt_type[joint]]]
    return tuple(names)


def unlimited_hinges(model: mujoco.MjModel) -> tuple[int, ...]:
    """Return the entries of q that are hinges without a stop."""
    return tuple(int(model.jnt_qposadr[joint]) for joint in range(model.njnt)
                 if model.jnt_type[joint] == _HINGE and not model.jnt_limited[joint])


def joint_limits(model: mujoco.MjModel) -> JointLimits:
    """Return the ranges of limited slides and hinges and the limits of their actuator forces; all else is infinite."""
    limits = JointLimits.unlimited(model.nv)
    low, high, torque = limits.position_min.copy(), limits.position_max.copy(), limits.torque_max.copy()
    for joint in range(model.njnt):
        if len(_SUFFIXES[model.jnt_type[joint]]) > 1:
            continue
        entry = model.jnt_dofadr[joint]
        minimum, maximum = model.jnt_range[joint]
        if model.jnt_limited[joint] and minimum < maximum:
            low[entry], high[entry] = minimum, maximum
        force = np.abs(model.jnt_actfrcrange[joint]).max()
        if model.jnt_actfrclimited[joint] and force > 0:
            torque[entry] = force
    return JointLimits(low, high, limits.velocity_max, limits.acceleration_max, limits.jerk_max, torque, limits.torque_rate_max)


def actuator_names(model: mujoco.MjModel) -> tuple[str, ...]:
    """Return nu names."""
    return tuple(model.actuator(i).name or f"actuator_{i}" for i in range(model.nu))


def camera_names(model: mujoco.MjModel) -> tuple[str, ...]:
    """Return the names of the model's cameras in their order, then `FREE_CAMERA`."""
    return (*(model.camera(i).name or f"camera_{i}" for i in range(model.ncam)), FREE_CAMERA)


def camera_number(name: str, names: tuple[str, ...]) -> int:
    """Return MuJoCo's number of the camera `name` among `names`, as `camera_names` listed them."""
    return -1 if name == FREE_CAMERA else names.index(name)
