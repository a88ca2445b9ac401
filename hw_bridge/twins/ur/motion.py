"""How the controller moves the arm: a reference from set-points, and the torques that make the joints follow it."""

from __future__ import annotations

from enum import StrEnum

import mujoco
import numpy as np

from hw_bridge.twins.plant import Mechanics, Plant
from robots.arms.arm import Arm

DT = 0.002
"""The controller's period [s]."""


class Mode(StrEnum):
    """What the reference is made from."""

    HOLD = "hold"
    STOP = "stop"
    SERVO = "servo"
    SPEED = "speed"
    MOVE = "move"
    TORQUE = "torque"


class Motion:
    """The reference (q_ref, v_ref, a_ref) and the law that follows it.

    servoj is UR's own description in words: the position is projected `lookahead` ahead with the present speed and the gain acts on
    what is then missing: a_ref = gain (target - q_ref - lookahead v_ref), so a ramp is followed `lookahead` late. References keep the
    joints' top speeds. The joints follow the reference with inverse dynamics of the known arm and payload and a stiff spring and
    damper: what the model leaves out (an untold payload, the rest of the friction) stays as an error.
    """

    STIFFNESS = np.array([8000.0, 8000.0, 5000.0, 900.0, 900.0, 900.0])
    """[N·m/rad]"""
    DAMPING = np.array([350.0, 350.0, 160.0, 22.0, 20.0, 20.0])
    """[N·m·s/rad]"""
    ACCELERATION_MAX = 40.0
    """UR's highest parameter [rad/s^2]."""
    VISCOUS_SHARE, COULOMB_SHARE = 0.9, 0.8
    """How much of the friction the controller's own model compensates."""

    def __init__(self, arm: Arm, mechanics: Mechanics, q: np.ndarray) -> None:
        self._limits, self._mechanics = arm.spec.limits, mechanics
        self._viscous, self._coulomb = self.VISCOUS_SHARE * mechanics.viscous, self.COULOMB_SHARE * mechanics.coulomb
        self._belief = Plant(arm, mechanics)
        belief = self._belief.data
        self._fed = belief.qpos, belief.qvel, belief.qacc, belief.qfrc_inverse
        self.payload = (0.0, (0.0, 0.0, 0.0))
        """Mass [kg] and centre [m] that the client told."""
        self.feedforward = np.zeros(6)
        """(6,) torques [N·m] that the model asks for."""
        self._explained = np.zeros(6)
        """(6,) torques [N·m] that do not depend on where the arm is within a period."""
        self._compensates = False
        """Whether torques come on top of a share of the friction."""
        self.target, self._gain, self._lookahead = q.copy(), 300.0, 0.1
        self._acceleration = 1.4
        self._viscous_share = self._coulomb_share = np.zeros(6)
        self.hold(q)

    def set_payload(self, mass: float, centre: tuple[float, float, float]) -> None:
        """Tell the controller what hangs on the flange; ConfigurationError for what cannot hang there."""
        self._belief.set_payload(mass, centre)
        self.payload = (mass, centre)

    def hold(self, q: np.ndarray) -> None:
        """Stand at `q` (6,) [rad]."""
        self.mode = Mode.HOLD
        self.q_ref, self.v_ref, self.a_ref = q.copy(), np.zeros(6), np.zeros(6)

    def servo(self, target: np.ndarray, lookahead: float, gain: float) -> None:
        """Follow `target` (6,) [rad]."""
        self.mode, self.target, self._lookahead, self._gain = Mode.SERVO, target, lookahead, gain

    def speed(self, target: np.ndarray, acceleration: float) -> None:
        """Go to the joint speeds `target` (6,) [rad/s] and keep them."""
        self.mode, self.target, self._acceleration = Mode.SPEED, target, acceleration

    def torque(self, target: np.ndarray, viscous_share: np.ndarray, coulomb_share: np.ndarray) -> None:
        """Apply `target` (6,) [N·m] on top of gravity and of these shares (6,) of the friction."""
        self.mode, self.target, self._viscous_share, self._coulomb_share = Mode.TORQUE, target, viscous_share, coulomb_share
        self._compensates = bool(viscous_share.any() or coulomb_share.any())

    def move(self, target: np.ndarray, speed: float, acceleration: float) -> None:
        """Go to `target` (6,) [rad] on a straight line in joint space; the joint with the longest way has `speed` and `acceleration`."""
        way = target - self.q_ref
        self.mode, self.target, self._start, self._way = Mode.MOVE, target, self.q_ref.copy(), float(np.abs(way).max())
        self._direction = way / max(self._way, 1e-12)
        self._speed, self._acceleration = min(speed, np.sqrt(acceleration * self._way)), acceleration
        self._elapsed = 0.0

    def stop(self, deceleration: float, q: np.ndarray, dq: np.ndarray) -> None:
        """Slow the fastest joint down at `deceleration` [rad/s^2], from where the arm is (6,) if it was led by torques."""
        if self.mode is Mode.TORQUE:
            self.q_ref, self.v_ref = q.copy(), dq.copy()
        self.mode, self._acceleration = Mode.STOP, deceleration

    def within_limits(self, q: np.ndarray) -> bool:
        """Return whether positions (6,) [rad] lie inside the joint limits."""
        return bool((q >= self._limits.position_min).all() and (q <= self._limits.position_max).all())

    @property
    def at_rest(self) -> bool:
        """True where the reference stands and nothing leads it."""
        return self.mode is Mode.HOLD

    def step(self, q: np.ndarray, dq: np.ndarray) -> None:
        """Advance the reference by one period; `q`, `dq` (6,) are what the encoders say."""
        if self.mode is Mode.TORQUE:
            self.q_ref, self.v_ref, self.a_ref = q.copy(), dq.copy(), np.zeros(6)
        elif self.mode is Mode.MOVE:
            self._step_move()
        elif self.mode is not Mode.HOLD:
            if self.mode is Mode.SERVO:
                wanted = self._gain * (self.target - self.q_ref - self._lookahead * self.v_ref)
                acceleration = np.minimum(np.maximum(wanted, -self.ACCELERATION_MAX), self.ACCELERATION_MAX)
            else:
                missing = (self.target if self.mode is Mode.SPEED else 0.0) - self.v_ref
                acceleration = missing / max(float(np.abs(missing).max()) / self._acceleration, DT)
            top = self._limits.velocity_max
            before, self.v_ref = self.v_ref, np.minimum(np.maximum(self.v_ref + DT * acceleration, -top), top)
            self.a_ref = (self.v_ref - before) / DT
            self.q_ref = self.q_ref + DT * self.v_ref
            if self.mode is Mode.STOP and not self.v_ref.any():
                self.hold(self.q_ref)
        self._feed(q)

    def _step_move(self) -> None:
        self._elapsed += DT
        v, a, t = self._speed, self._acceleration, self._elapsed
        ramp = v / a if a else 0.0
        whole = ramp + (self._way / v if v else 0.0)
        if t >= whole:
            self.hold(self.target)
            return
        if t < ramp:
            s, ds, dds = 0.5 * a * t * t, a * t, a
        elif t > whole - ramp:
            left = whole - t
            s, ds, dds = self._way - 0.5 * a * left * left, a * left, -a
        else:
            s, ds, dds = v * (t - 0.5 * ramp), v, 0.0
        self.q_ref, self.v_ref, self.a_ref = self._start + s * self._direction, ds * self._direction, dds * self._direction

    def _feed(self, q: np.ndarray) -> None:
        model, data, (qpos, qvel, qacc, inverse) = self._belief.model, self._belief.data, self._fed
        torque_led = self.mode is Mode.TORQUE
        qpos[:] = q
        qvel[:] = 0.0 if torque_led else self.v_ref
        qacc[:] = self.a_ref
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        mujoco.mj_rne(model, data, 1, inverse)
        self.feedforward = inverse + self._mechanics.armature * self.a_ref
        if torque_led:
            self._explained = self.feedforward = self.feedforward + self.target
        else:
            friction = self._viscous * self.v_ref + self._coulomb * np.tanh(self.v_ref / 0.01)
            self._explained = self.feedforward + friction

    def law(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        """Return the motors' torques (6,) [N·m] at positions and velocities (6,): the innermost loop."""
        if self.mode is Mode.TORQUE and not self._compensates:
            return self._explained
        if self.mode is Mode.TORQUE:
            return self.feedforward + self._viscous_share * self._mechanics.viscous * dq \
                + self._coulomb_share * self._mechanics.coulomb * np.tanh(dq / 0.01)
        return self._explained + self.STIFFNESS * (self.q_ref - q) + self.DAMPING * (self.v_ref - dq)
