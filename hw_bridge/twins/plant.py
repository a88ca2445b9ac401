"""The plant of a twin: MuJoCo's arm with what real joints have, friction, backlash, weak motors, coarse encoders, payload."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from robots.arms.arm import Arm
from robots.errors import ConfigurationError, NumericalError
from robots.validation import checked_array

OBSTACLE = 1e4
"""Viscosity that no motor moves a joint through [N·m·s/rad]."""
TorqueLaw = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From joint positions and velocities (nv,) to motor torques (nv,): what the controller's innermost loop does."""


@dataclass(frozen=True)
class Mechanics:
    """What the joints of one arm have beside inertia; every entry (nv,)."""

    viscous: np.ndarray
    """[N·m·s/rad]"""
    coulomb: np.ndarray
    """[N·m]"""
    armature: np.ndarray
    """Inertia of rotor and gear, seen at the joint [kg·m^2]."""
    torque_max: np.ndarray
    """What the motor can give [N·m]."""
    backlash: np.ndarray
    """Whole width of the gear's play [rad]: inside it a position servo feels no error."""
    encoder_step: np.ndarray
    """Resolution of the encoder [rad]; 0: none."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            array = checked_array(f"Mechanics.{name}", value, (None,))
            if (array < 0).any() or len(array) != len(self.torque_max):
                raise ConfigurationError(f"Mechanics.{name}: expected {len(self.torque_max)} numbers of 0 or more, got {array.tolist()}")
            object.__setattr__(self, name, array)


class Plant:
    """The arm itself, advanced in small steps of simulated time. Not for use from two threads at once.

    Gravity acts and nobody compensates it: that is the controller's part (`gravity_torque`).
    """

    def __init__(self, arm: Arm, mechanics: Mechanics, q: np.ndarray | None = None, timestep: float = 0.0005) -> None:
        self.arm, self.mechanics = arm, mechanics
        n = arm.spec.nv
        if len(mechanics.torque_max) != n:
            raise ConfigurationError(f"Plant: mechanics are for {len(mechanics.torque_max)} joints, {arm.spec.name} has {n}")
        spec = mujoco.MjSpec.from_file(str(arm.model_file))
        site = spec.site(arm.spec.end_effector_frames[0])
        payload = site.parent.add_body(name="payload", pos=site.pos, quat=site.quat)
        payload.mass, payload.inertia, payload.explicitinertial = 1e-6, np.full(3, 1e-9), True
        self.model = spec.compile()
        if self.model.nv != n:
            raise ConfigurationError(f"Plant: the model of {arm.spec.name} has {self.model.nv} degrees of freedom, expected {n}")
        self.model.opt.timestep = timestep
        self.model.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        self.model.dof_damping[:] = mechanics.viscous
        self.model.dof_frictionloss[:] = mechanics.coulomb
        self.model.dof_armature[:] = mechanics.armature
        self._payload = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, "payload")
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:] = arm.home if q is None else checked_array("Plant.q", q, (n,))
        mujoco.mj_forward(self.model, self.data)
        self._qpos, self._qvel, self._applied = self.data.qpos, self.data.qvel, self.data.qfrc_applied  # looked up once: it costs
        self._rounded = bool((mechanics.encoder_step > 0).all())
        self._scratch = mujoco.MjData(self.model)
        self.braked = False
        """True: brakes hold every joint where it is; the torque law is not asked."""
        self.tau = np.zeros(n)
        """(nv,) torque that the motors gave in the last step [N·m]."""
        self.tau_mean = np.zeros(n)
        """(nv,) its mean over the last `advance` [N·m]: what a current sensor shows once a period."""
        self.velocity_peak = np.zeros(n)
        """(nv,) highest speed so far [rad/s]."""

    @property
    def time(self) -> float:
        """Simulated time [s]."""
        return float(self.data.time)

    @property
    def q(self) -> np.ndarray:
        """(nv,) true joint positions [rad], a copy."""
        return self._qpos.copy()

    @property
    def dq(self) -> np.ndarray:
        """(nv,) true joint velocities [rad/s], a copy."""
        return self._qvel.copy()

    def encoders(self) -> np.ndarray:
        """Return (nv,) joint positions [rad] as the encoders see them."""
        q, step = self.q, self.mechanics.encoder_step
        if self._rounded:
            return np.round(q / step) * step
        return np.where(step > 0, np.round(q / np.where(step > 0, step, 1.0)) * step, q)

    def advance(self, until: float, law: TorqueLaw) -> None:
        """Step to simulated time `until` [s], asking `law` for the motors' torques before every step; torques are cut to what
        the motors can give. NumericalError where the physics or the law's torques leave the numbers.
        """
        model, data, qpos, qvel, peak = self.model, self.data, self._qpos, self._qvel, self.velocity_peak
        top, step = self.mechanics.torque_max, self.model.opt.timestep
        bottom, total, steps = -top, np.zeros_like(top), 0
        while data.time + 0.5 * step < until:
            if self.braked:
                qvel[:] = 0.0
                self.tau = np.zeros_like(top)
                data.time += step
                steps += 1
                continue
            torque = np.minimum(np.maximum(law(qpos, qvel), bottom), top)
            if not math.isfinite(torque.dot(torque)):
                raise NumericalError(f"the twin's controller asked for torques {torque.tolist()}")
            self.tau = torque
            total += torque
            steps += 1
            self._applied[:] = torque
            mujoco.mj_step(model, data)
            np.maximum(peak, np.abs(qvel), out=peak)
        if steps:
            self.tau_mean = total / steps
        if not np.isfinite(qpos).all():
            raise NumericalError(f"the physics of {self.arm.spec.name} diverged at {self.time:.3f} s")

    def gravity_torque(self, q: np.ndarray | None = None, payload: bool = False) -> np.ndarray:
        """Return (nv,) torques [N·m] that hold the arm still at `q` (None: where it is). A controller knows the payload only if it
        was told: `payload` False leaves its weight out.
        """
        scratch = self._scratch
        scratch.qpos[:] = self.data.qpos if q is None else q
        scratch.qvel[:] = 0.0
        mass = float(self.model.body_mass[self._payload])
        if not payload:
            self.model.body_mass[self._payload] = 1e-6
        mujoco.mj_fwdPosition(self.model, scratch)
        mujoco.mj_rne(self.model, scratch, 0, scratch.qfrc_bias)
        self.model.body_mass[self._payload] = mass
        return scratch.qfrc_bias.copy()

    def set_payload(self, mass: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        """Hang `mass` [kg] on the end effector, its centre at `centre` [m] in the end effector's frame; 0 takes it off."""
        if not (np.isfinite(mass) and mass >= 0 and np.isfinite(centre).all()):
            raise ConfigurationError(f"payload: expected a mass of 0 kg or more at a finite place, got {mass} kg at {centre}")
        self.model.body_mass[self._payload] = max(mass, 1e-6)
        self.model.body_inertia[self._payload] = max(mass * 1e-3, 1e-9)
        self.model.body_ipos[self._payload] = centre
        mujoco.mj_setConst(self.model, self._scratch)

    def block(self, joint: int, on: bool = True) -> None:
        """Have something hold `joint` that no motor moves, or (`on` False) let go of it."""
        self.model.dof_damping[joint] = self.mechanics.viscous[joint] + (OBSTACLE if on else 0.0)

    def limit_violations(self, margin: float = 0.02) -> list[str]:
        """Return a line for every joint that is beyond its position limit [rad] or was faster than its velocity limit, by more
        than `margin` (a share of the limit for speeds). Empty is what the supervisor is there for.
        """
        limits, found = self.arm.spec.limits, []
        for i, name in enumerate(self.arm.spec.joint_names):
            q = float(self.data.qpos[i])
            if not limits.position_min[i] - margin <= q <= limits.position_max[i] + margin:
                found.append(f"{name} at {q:.3f} rad, limits {limits.position_min[i]:.3f} to {limits.position_max[i]:.3f}")
            if self.velocity_peak[i] > limits.velocity_max[i] * (1 + margin):
                found.append(f"{name} at {self.velocity_peak[i]:.3f} rad/s, limit {limits.velocity_max[i]:.3f}")
        return found


def through_backlash(error: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the position error (nv,) [rad] that a servo feels through gears with a play of `width` (nv,) [rad]."""
    return np.sign(error) * np.maximum(np.abs(error) - 0.5 * width, 0.0)
