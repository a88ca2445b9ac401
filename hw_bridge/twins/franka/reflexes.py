"""What makes a Franka arm stop by itself: set-points that jump, limits that are passed, contacts, silence."""

from __future__ import annotations

import numpy as np

from hw_bridge.twins.franka.wire import PERIOD
from robots.limits import JointLimits, clip_to_box

PACKETS_LOST_MAX = 20
"""Set-points in a row that may be missing; one more stops the arm."""
START_DISTANCE = 0.01
"""How far the first position may lie from where the arm stands [rad]."""
ROUNDING = 1e-6


class Reflexes:
    """The controller's checks of set-points, one motion at a time. A check returns the error's name, or None.

    What is lost is extrapolated with constant acceleration, and the next set-point must fit what was extrapolated. A torque is judged
    over the milliseconds since the last one that was taken.
    """

    def __init__(self, limits: JointLimits) -> None:
        self._limits = limits
        n = len(limits.velocity_max)
        self._value, self._rate, self._acceleration = np.zeros(n), np.zeros(n), np.zeros(n)
        self._first = True

    def begin(self, start: np.ndarray) -> None:
        """A motion begins: `start` (nv,) is the position [rad], velocity [rad/s] or torque [N·m] that holds now."""
        self._value, self._first = start.copy(), True
        self._rate, self._acceleration = np.zeros(len(start)), np.zeros(len(start))

    def position(self, q: np.ndarray) -> str | None:
        """Check a position set-point (nv,) [rad]."""
        limits = self._limits
        if self._first and np.abs(q - self._value).max() > START_DISTANCE:
            return "joint_position_motion_generator_start_pose_invalid"
        if (q < limits.position_min - ROUNDING).any() or (q > limits.position_max + ROUNDING).any():
            return "joint_motion_generator_position_limits_violation"
        velocity = (q - self._value) / PERIOD
        acceleration = (velocity - self._rate) / PERIOD
        jerk = (acceleration - self._acceleration) / PERIOD
        self._value, self._rate, self._acceleration, self._first = q.copy(), velocity, acceleration, False
        return self._smooth(velocity, acceleration, jerk)

    def velocity(self, dq: np.ndarray) -> str | None:
        """Check a velocity set-point (nv,) [rad/s]."""
        acceleration = (dq - self._value) / PERIOD
        jerk = (acceleration - self._acceleration) / PERIOD
        self._value, self._acceleration, self._first = dq.copy(), acceleration, False
        return self._smooth(dq, acceleration, jerk)

    def lost_position(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what stands in for a lost position: (nv,) [rad], and its velocity (nv,) [rad/s]."""
        limits = self._limits
        self._rate = clip_to_box(self._rate + PERIOD * self._acceleration, -limits.velocity_max, limits.velocity_max)
        self._value = clip_to_box(self._value + PERIOD * self._rate, limits.position_min, limits.position_max)
        return self._value, self._rate

    def lost_velocity(self) -> np.ndarray:
        """Return what stands in for a lost velocity (nv,) [rad/s]."""
        limits = self._limits
        self._value = clip_to_box(self._value + PERIOD * self._acceleration, -limits.velocity_max, limits.velocity_max)
        return self._value

    def torque(self, tau: np.ndarray, elapsed: int) -> str | None:
        """Check a torque set-point (nv,) [N·m], `elapsed` ms after the last."""
        step, self._value = np.abs(tau - self._value), tau.copy()
        if (np.abs(tau) > self._limits.torque_max + ROUNDING).any():
            return "tau_J_range_violation"
        if (step > self._limits.torque_rate_max * PERIOD * elapsed * (1 + ROUNDING) + ROUNDING).any():
            return "controller_torque_discontinuity"
        return None

    def standing(self, q: np.ndarray, dq: np.ndarray) -> str | None:
        """Check where the arm is (nv,) [rad] and how fast (nv,) [rad/s]."""
        limits = self._limits
        if (q < limits.position_min).any() or (q > limits.position_max).any():
            return "joint_position_limits_violation"
        return "joint_velocity_violation" if (np.abs(dq) > limits.velocity_max).any() else None

    def _smooth(self, velocity: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray) -> str | None:
        limits = self._limits
        if (np.abs(velocity) > limits.velocity_max + ROUNDING).any():
            return "joint_motion_generator_velocity_limits_violation"
        if (np.abs(acceleration) > limits.acceleration_max + 1e-3).any():
            return "joint_motion_generator_velocity_discontinuity"
        if (np.abs(jerk) > limits.jerk_max + 1.0).any():
            return "joint_motion_generator_acceleration_discontinuity"
        return None


class ContactObserver:
    """Compares the estimated external torques and forces with the client's thresholds: lower is contact, upper is collision."""

    def __init__(self) -> None:
        self.set(np.full(7, 20.0), np.full(7, 20.0), np.full(6, 20.0), np.full(6, 20.0))

    def set(self, torque_low: np.ndarray, torque_high: np.ndarray, force_low: np.ndarray, force_high: np.ndarray) -> None:
        """Set the thresholds: torques (7,) [N·m], forces (3 forces [N], 3 moments [N·m])."""
        self._torque, self._force = (torque_low, torque_high), (force_low, force_high)
        self.joint_contact, self.joint_collision = np.zeros(7, bool), np.zeros(7, bool)
        self.cartesian_contact, self.cartesian_collision = np.zeros(6, bool), np.zeros(6, bool)

    def look(self, torque: np.ndarray, force: np.ndarray) -> str | None:
        """Update the flags with torques (7,) [N·m] and the wrench (6,) at the end effector; return the reflex that fires, or None."""
        torque, force = np.abs(torque), np.abs(force)
        self.joint_contact, self.joint_collision = torque > self._torque[0], torque > self._torque[1]
        self.cartesian_contact, self.cartesian_collision = force > self._force[0], force > self._force[1]
        if self.joint_collision.any():
            return "joint_reflex"
        return "cartesian_reflex" if self.cartesian_collision.any() else None
