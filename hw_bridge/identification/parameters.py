"""What is identified of an arm beside its description: payload and its centre, friction and rotors; and its model with them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Self

import mujoco
import numpy as np

from robots.arms.arm import Arm
from robots.errors import ConfigurationError
from robots.validation import checked_array

PAYLOAD = "payload"
"""Name of the body that the payload is."""
GYRATION = 1e-3
"""A payload's inertia about its centre per mass [m^2]: that of a body of some 3 cm. Logs of reaching motions do not tell it apart."""
_LEAST_MASS = 1e-6
_GRAVITY = 9.81


@dataclass(frozen=True)
class ArmParameters:
    """Beside the links, which are as the arm's model has them. Vectors hold these values in the order in which they stand here."""

    payload_mass: float
    """[kg]"""
    payload_centre: np.ndarray
    """(3,) centre of the payload in the end effector's frame [m]."""
    viscous: np.ndarray
    """(nv,) [N·m·s/rad]"""
    coulomb: np.ndarray
    """(nv,) [N·m]"""
    armature: np.ndarray
    """(nv,) inertia of rotor and gear, seen at the joint [kg·m^2]."""

    def __post_init__(self) -> None:
        for name, shape in (("payload_centre", (3,)), ("viscous", (None,)), ("coulomb", (None,)), ("armature", (None,))):
            object.__setattr__(self, name, checked_array(f"ArmParameters.{name}", getattr(self, name), shape))
        if not (np.isfinite(self.payload_mass) and self.payload_mass >= 0):
            raise ConfigurationError(f"ArmParameters.payload_mass: expected 0 kg or more, got {self.payload_mass}")
        for name in ("viscous", "coulomb", "armature"):
            values = getattr(self, name)
            if (values < 0).any() or len(values) != len(self.viscous):
                raise ConfigurationError(f"ArmParameters.{name}: expected {len(self.viscous)} numbers of 0 or more, got {values.tolist()}")

    @classmethod
    def of(cls, arm: Arm) -> Self:
        """Return what the arm's description says: no payload, friction and rotors as its model has them."""
        model = arm.model()
        return cls(0.0, np.zeros(3), model.dof_damping.copy(), model.dof_frictionloss.copy(), model.dof_armature.copy())

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> Self:
        """Return the parameters that `vector` (4 + 3 nv,) holds."""
        return cls(float(vector[0]), vector[1:4], *np.split(vector[4:], 3))

    def vector(self) -> np.ndarray:
        """Return (4 + 3 nv,) all values in a row."""
        return np.concatenate([[self.payload_mass], self.payload_centre, self.viscous, self.coulomb, self.armature])

    def model(self, arm: Arm) -> mujoco.MjModel:
        """Return the arm's model with these parameters, the payload as a body of its own on the end effector."""
        if len(self.viscous) != arm.spec.nv:
            raise ConfigurationError(f"these parameters are of {len(self.viscous)} joints; {arm.spec.name} has {arm.spec.nv}")
        model = loadable_spec(arm).compile()
        write(model, self)
        return model


def loadable_spec(arm: Arm) -> mujoco.MjSpec:
    """Return the arm's model, to be compiled, with a body for a payload on its end effector."""
    spec = mujoco.MjSpec.from_file(str(arm.model_file))
    site = spec.site(arm.spec.end_effector_frames[0])
    body = site.parent.add_body(name=PAYLOAD, pos=site.pos, quat=site.quat)
    body.mass, body.inertia, body.explicitinertial = _LEAST_MASS, np.full(3, _LEAST_MASS * GYRATION), True
    return spec


def driven_model(arm: Arm, timestep: float) -> mujoco.MjModel:
    """Return the model to predict with: a motor a joint that takes its torque [N·m], no contacts, steps of `timestep` [s]."""
    spec = loadable_spec(arm)
    for joint in arm.spec.joint_names:
        spec.add_actuator(name=f"{joint}_motor", target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    model = spec.compile()
    model.opt.timestep, model.opt.integrator = timestep, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    return model


def write(model: mujoco.MjModel, parameters: ArmParameters) -> None:
    """Write `parameters` into a model that has a body for the payload."""
    body, mass = model.body(PAYLOAD).id, max(parameters.payload_mass, _LEAST_MASS)
    model.dof_damping[:], model.dof_frictionloss[:], model.dof_armature[:] = parameters.viscous, parameters.coulomb, parameters.armature
    model.body_mass[body], model.body_inertia[body], model.body_ipos[body] = mass, mass * GYRATION, parameters.payload_centre
    mujoco.mj_setConst(model, mujoco.MjData(model))


def with_parameters(model: mujoco.MjModel, vector: np.ndarray) -> mujoco.MjModel:
    """Return a copy of `model` with the parameters of `vector` (4 + 3 nv,)."""
    model = copy.copy(model)
    write(model, ArmParameters.from_vector(vector))
    return model


def midpoint(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return `model`, its rotors lighter by half a step's damping: implicit Euler's steps are then those of the trapezoidal rule, and what
    is identified does not depend on the step."""
    model.dof_armature[:] = np.maximum(model.dof_armature - 0.5 * model.opt.timestep * model.dof_damping, 0.0)
    return model


def names(arm: Arm) -> tuple[str, ...]:
    """Return what the entries of a vector are called, in words."""
    joints = [f"{what} {joint}" for what in ("viscous", "coulomb", "armature") for joint in arm.spec.joint_names]
    return ("payload mass", "payload centre x", "payload centre y", "payload centre z", *joints)


def units(arm: Arm) -> tuple[str, ...]:
    """Return the units of a vector's entries."""
    n = arm.spec.nv
    return ("kg", "m", "m", "m", *["N·m·s/rad"] * n, *["N·m"] * n, *["kg·m²"] * n)


def spread(arm: Arm) -> np.ndarray:
    """Return (4 + 3 nv,) how far from the description each entry may well be, one standard deviation, as the arm's limits suggest.

    Viscous friction takes a quarter of a joint's torque at top speed, dry friction a tenth; a rotor needs a tenth of the torque at the
    highest acceleration; a payload's weight a quarter of the strongest joint's torque at the arm's reach; its centre a tenth of it.
    """
    limits = arm.spec.limits
    reach = _reach(arm)
    acceleration = np.where(np.isfinite(limits.acceleration_max), limits.acceleration_max, 10.0)
    mass = 0.25 * float(limits.torque_max.max()) / (_GRAVITY * reach)
    return np.concatenate([[mass], np.full(3, 0.1 * reach), 0.25 * limits.torque_max / limits.velocity_max, 0.1 * limits.torque_max,
                           0.1 * limits.torque_max / acceleration])


def bounds(arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest value of each entry, (4 + 3 nv,) both."""
    prior, width = ArmParameters.of(arm).vector(), spread(arm)
    high = prior + 8.0 * width
    low = np.zeros_like(high)
    low[1:4], high[1:4] = -4.0 * width[1:4], 4.0 * width[1:4]
    return low, high


def _reach(arm: Arm) -> float:
    """Return the length of the arm [m]: from joint to joint and on to the end effector."""
    model = arm.model()
    site = model.site(arm.spec.end_effector_frames[0])
    body, length = int(site.bodyid[0]), float(np.linalg.norm(site.pos))
    while model.body_parentid[body]:
        length += float(np.linalg.norm(model.body_pos[body]))
        body = int(model.body_parentid[body])
    return length
