"""The set-points that leave the supervisor: the only place where numbers for the arm are made, one class a command mode."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hw_bridge.drivers.driver import Measurement
from hw_bridge.safety import jerk_limited
from hw_bridge.safety.config import Compliance, SafetyConfig
from hw_bridge.safety.geometry import Geometry
from hw_bridge.safety.rules import Rule
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.spec import TorqueConvention

_LONG_STOP = 0.03
"""A stop that moves a joint further than this [rad] has its geometry looked at half-way too, beside its first instant and its end."""


class SetPoints(Protocol):
    """Makes one set-point a period. `reference` (nv,) is what targets are compared with: the set-point itself."""

    reference: np.ndarray
    reference_rate: np.ndarray
    """(nv,) the reference's rate; 0 where it is a torque."""

    def anchor(self, measurement: Measurement) -> None:
        """Begin at rest, where the arm stands."""
        ...

    def freeze(self) -> None:
        """Our loop stood still: go on from the last set-point, at rest."""
        ...

    def follow(self, target: np.ndarray, rate: np.ndarray, bend: np.ndarray, dt: float, speed: float,
               measurement: Measurement) -> tuple[np.ndarray, Rule]:
        """Return the set-point (nv,) `dt` seconds after the last that tracks the target, its rate and its
        acceleration (nv,) best, and the rules that fired;
        `speed` is the share of the velocity limits, or of the torques beyond the arm's weight, that may be used.
        """
        ...

    def brake(self, dt: float, measurement: Measurement) -> np.ndarray:
        """Return the set-point of the fastest stop, or of standing still once stopped."""
        ...

    def resting(self, measurement: Measurement) -> bool:
        """Return whether the stop has ended."""
        ...

    def rehearse(self) -> None:
        """Do the work of a period and forget it: what it needs is in the caches when the period begins."""
        ...


class MotionSetPoints:
    """Joint positions or velocities: jerk-limited, always able to stop, the stop's path clear."""

    def __init__(self, arm: Arm, config: SafetyConfig, geometry: Geometry, mode: CommandMode) -> None:
        limits = arm.spec.limits
        self._velocity = mode is CommandMode.JOINT_VELOCITY
        self._speed_limit = config.workspace.tool_speed_max
        self._geometry = geometry
        self._velocity_max = limits.velocity_max * config.speed
        self.limits = np.stack([limits.position_min + config.position_margin, limits.position_max - config.position_margin,
                                self._velocity_max, limits.acceleration_max * config.acceleration, limits.jerk_max])
        n = arm.spec.nv
        self.state = np.zeros((3, n))
        """(3, nv): position, velocity and acceleration of the set-point."""
        self._next, self._probe, self._reasons = np.zeros((3, n)), np.zeros((3, n)), np.zeros(n + 1, np.int64)
        self._peak = np.zeros(n)
        self._row = 1 if self._velocity else 0

    @property
    def reference(self) -> np.ndarray:
        """(nv,) the last set-point."""
        return self.state[self._row]

    @property
    def reference_rate(self) -> np.ndarray:
        """(nv,) the rate of the last set-point."""
        return self.state[self._row + 1]

    def anchor(self, measurement: Measurement) -> None:
        self.state[0] = np.clip(measurement.q, self.limits[0], self.limits[1])
        self.state[1:] = 0.0

    def freeze(self) -> None:
        self.state[1:] = 0.0

    def follow(self, target: np.ndarray, rate: np.ndarray, bend: np.ndarray, dt: float, speed: float,
               measurement: Measurement) -> tuple[np.ndarray, Rule]:
        if self._velocity:
            np.clip(measurement.q, self.limits[0], self.limits[1], out=self.state[0])
            rate = target
        jerk_limited.follow_slower(self.state, self._next, target, rate, bend, dt, self.limits, self._velocity_max, speed,
                                   self._velocity, self._reasons)
        rules = _named(self._reasons[-1])
        obstacle = self._obstacle(self._next)
        if obstacle:
            jerk_limited.brake(self.state, self._next, dt, self.limits)
            rules |= obstacle | Rule.BRAKED
        self._commit()
        return self.reference, rules

    def brake(self, dt: float, measurement: Measurement) -> np.ndarray:
        jerk_limited.brake(self.state, self._next, dt, self.limits)
        self._commit()
        return self.reference

    def resting(self, measurement: Measurement) -> bool:
        return not self.state[1:].any()

    def rehearse(self) -> None:
        q, dq, ddq = self.state
        jerk_limited.follow_slower(self.state, self._next, q, dq, ddq, 0.001, self.limits, self._velocity_max, 1.0, self._velocity,
                                   self._reasons)
        self._obstacle(self._next)

    def _commit(self) -> None:
        self.state, self._next = self._next, self.state

    def _obstacle(self, state: np.ndarray) -> Rule:
        """Return what the stop from `state` (3, nv) would break."""
        rules = self._geometry.violation(state[0])
        if rules:
            return rules
        duration, length = jerk_limited.stop_of(state, self._peak, self._probe, self.limits)
        if self._geometry.tool_speed(self._peak) > self._speed_limit:
            return Rule.TOOL_SPEED
        rules = self._geometry.violation(self._probe[0])
        if not rules and length > _LONG_STOP:
            jerk_limited.brake(state, self._probe, 0.5 * duration, self.limits)
            rules = self._geometry.violation(self._probe[0])
        return rules


class TorqueSetPoints:
    """Joint torques, limited in size and rate; an arm that leaves its limits of position or velocity is damped, then held.

    The hold is gravity-compensated: by the arm's own controller, or here where a commanded torque is the whole torque.
    """

    def __init__(self, arm: Arm, config: SafetyConfig, geometry: Geometry) -> None:
        limits = arm.spec.limits
        self._geometry, self._limits, self._rest_speed = geometry, limits, config.rest_speed
        self._damping = config.damping * limits.torque_max / limits.velocity_max
        self._stiffness = self._damping * 5.0
        self._velocity_max = limits.velocity_max * config.speed
        self._low, self._high = limits.position_min + config.position_margin, limits.position_max - config.position_margin
        self._whole = arm.spec.torque_convention is TorqueConvention.TOTAL
        self.reference, self.reference_rate = np.zeros(arm.spec.nv), np.zeros(arm.spec.nv)
        self._held: np.ndarray | None = None

    def anchor(self, measurement: Measurement) -> None:
        self.reference = self._weight(measurement)
        self._held = np.array(measurement.q)

    def freeze(self) -> None:
        self._held = None

    def follow(self, target: np.ndarray, rate: np.ndarray, bend: np.ndarray, dt: float, speed: float,
               measurement: Measurement) -> tuple[np.ndarray, Rule]:
        self._held = None
        rules = self.outside(measurement)
        if rules:
            return self.brake(dt, measurement), rules | Rule.BRAKED
        weight, top = self._weight(measurement), self._limits.torque_max
        wanted = weight + speed * (target - weight)
        given = self._limit(wanted, dt)
        if (given != wanted).any():
            rules = Rule.TORQUE if (np.abs(wanted) > top).any() else Rule.TORQUE_RATE
        return given, rules

    def brake(self, dt: float, measurement: Measurement) -> np.ndarray:
        if self._held is None and self._slow(measurement):
            self._held = np.array(measurement.q)
        torque = self._weight(measurement) - self._damping * measurement.dq
        if self._held is not None:
            torque = torque + self._stiffness * (self._held - measurement.q)
        self._limit(torque, dt)
        return self.reference

    def resting(self, measurement: Measurement) -> bool:
        return self._held is not None and self._slow(measurement)

    def rehearse(self) -> None:
        self._geometry.gravity(self._low)

    def outside(self, measurement: Measurement) -> Rule:
        """Return POSITION, VELOCITY, WORKSPACE or COLLISION where the arm is, or cannot but come, outside its limits."""
        q, dq, limits = measurement.q, measurement.dq, self._limits
        if (np.abs(dq) > self._velocity_max).any():
            return Rule.VELOCITY
        end = q + dq * np.abs(dq) / (2.0 * limits.acceleration_max)
        if ((end > self._high) & (dq > 0)).any() or ((end < self._low) & (dq < 0)).any():
            return Rule.POSITION
        rules = self._geometry.violation(q)
        if not rules and self._geometry.tool_speed(dq) > self._geometry.workspace.tool_speed_max:
            return Rule.TOOL_SPEED
        return rules or self._geometry.violation(end)

    def give(self, torque: np.ndarray, dt: float, measurement: Measurement) -> np.ndarray:
        """Return `torque` (nv,) on top of the arm's weight, limited."""
        return self._limit(self._weight(measurement) + torque, dt)

    def _slow(self, measurement: Measurement) -> bool:
        return bool((np.abs(measurement.dq) < self._rest_speed).all())

    def _weight(self, measurement: Measurement) -> np.ndarray:
        top = self._limits.torque_max
        return np.clip(self._geometry.gravity(measurement.q), -top, top) if self._whole else np.zeros_like(top)

    def _limit(self, torque: np.ndarray, dt: float) -> np.ndarray:
        step = self._limits.torque_rate_max * dt
        torque = np.clip(torque, -self._limits.torque_max, self._limits.torque_max)
        self.reference = np.clip(torque, self.reference - step, self.reference + step)
        return self.reference


class CompliantSetPoints:
    """Torques of a spring and a damper between the arm and jerk-limited joint positions: an arm that gives way when it is pushed.

    The positions are `MotionSetPoints`'; the torques are limited in size and rate, and carry the arm's weight where its own controller
    does not.
    """

    def __init__(self, arm: Arm, config: SafetyConfig, geometry: Geometry, compliance: Compliance) -> None:
        self._motion = MotionSetPoints(arm, config, geometry, CommandMode.JOINT_POSITION)
        self._torque = TorqueSetPoints(arm, config, geometry)
        self._stiffness, self._damping = np.array(compliance.stiffness), np.array(compliance.damping)

    @property
    def reference(self) -> np.ndarray:
        """(nv,) the position [rad] that the spring pulls to."""
        return self._motion.reference

    @property
    def reference_rate(self) -> np.ndarray:
        """(nv,) the rate of that position [rad/s]."""
        return self._motion.reference_rate

    def anchor(self, measurement: Measurement) -> None:
        self._motion.anchor(measurement)
        self._torque.anchor(measurement)

    def freeze(self) -> None:
        self._motion.freeze()

    def follow(self, target: np.ndarray, rate: np.ndarray, bend: np.ndarray, dt: float, speed: float,
               measurement: Measurement) -> tuple[np.ndarray, Rule]:
        _, rules = self._motion.follow(target, rate, bend, dt, speed, measurement)
        return self._pull(dt, measurement), rules

    def brake(self, dt: float, measurement: Measurement) -> np.ndarray:
        self._motion.brake(dt, measurement)
        return self._pull(dt, measurement)

    def resting(self, measurement: Measurement) -> bool:
        return self._motion.resting(measurement)

    def rehearse(self) -> None:
        self._motion.rehearse()
        self._torque.rehearse()

    def _pull(self, dt: float, m: Measurement) -> np.ndarray:
        q, dq, _ = self._motion.state
        return self._torque.give(self._stiffness * (q - m.q) + self._damping * (dq - m.dq), dt, m)


def _named(bits: int) -> Rule:
    rules = Rule.NONE
    if bits:
        for bit, rule in ((jerk_limited.POSITION_LIMITED, Rule.POSITION), (jerk_limited.VELOCITY_LIMITED, Rule.VELOCITY),
                          (jerk_limited.ACCELERATION_LIMITED, Rule.ACCELERATION), (jerk_limited.BRAKED, Rule.BRAKED)):
            if bits & bit:
                rules |= rule
    return rules
