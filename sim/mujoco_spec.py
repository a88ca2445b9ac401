"""The limits and the command of a machine that is driven through the actuators of a MuJoCo model."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError
from robots.limits import JointLimits
from sim.mujoco_description import actuator_names, joint_limits


def actuated_joint_limits(model: mujoco.MjModel) -> JointLimits:
    """Return the limits of the model's nv degrees of freedom, torques from the actuators that pull on a joint.

    A torque limit is gear times the largest force, added up over the actuators, and at most the joint's own cap. A degree
    of freedom without an actuator is unlimited: nothing that the machine could do is forbidden there.
    """
    limits = joint_limits(model)
    return replace(limits, torque_max=np.minimum(limits.torque_max, _actuator_torques(model)))


def actuator_command(model: mujoco.MjModel, unit: str) -> CommandSpec:
    """Return the ACTUATOR command of the model: nu entries in `unit`, within the actuators' control ranges.

    Raises ConfigurationError where the model has no actuator or one without a range.
    """
    names = actuator_names(model)
    if not names:
        raise ConfigurationError("the MuJoCo model has no actuator, so it cannot be commanded; add an <actuator> to the scene")
    free = [name for name, limited in zip(names, model.actuator_ctrllimited, strict=True) if not limited]
    if free:
        raise ConfigurationError(f"actuators {free} have no control range; add ctrlrange=\"lowest highest\" to them in the scene")
    return CommandSpec(CommandMode.ACTUATOR, names, model.actuator_ctrlrange[:, 0], model.actuator_ctrlrange[:, 1], unit)


def _actuator_torques(model: mujoco.MjModel) -> np.ndarray:
    """Return the largest torque [N·m] or force [N] (nv,) of the actuators at each degree of freedom; infinity where unknown."""
    torque = np.zeros(model.nv)
    for actuator in range(model.nu):
        if mujoco.mjtTrn(model.actuator_trntype[actuator]) not in (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT):
            return np.full(model.nv, np.inf)  # a tendon or a site may pull on any joint
        dof = model.jnt_dofadr[model.actuator_trnid[actuator, 0]]
        torque[dof] += abs(model.actuator_gear[actuator, 0]) * _largest_force(model, actuator)
    return np.where(torque > 0, torque, np.inf)


def _largest_force(model: mujoco.MjModel, actuator: int) -> float:
    """Return the largest magnitude of an actuator's own force, before its gear; infinity where it depends on the state."""
    force = np.inf
    fixed_gain = model.actuator_gaintype[actuator] == mujoco.mjtGain.mjGAIN_FIXED
    unbiased = model.actuator_biastype[actuator] == mujoco.mjtBias.mjBIAS_NONE
    if fixed_gain and unbiased and model.actuator_dyntype[actuator] == mujoco.mjtDyn.mjDYN_NONE:
        force = np.abs(model.actuator_gainprm[actuator, 0] * model.actuator_ctrlrange[actuator]).max()
    if model.actuator_forcelimited[actuator]:
        force = min(force, np.abs(model.actuator_forcerange[actuator]).max())
    return float(force)
