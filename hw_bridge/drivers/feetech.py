"""Arms of Feetech STS3215 servos (SO-100, SO-101) through `scservo_sdk`.

What can be commanded: positions. The servos take no torques, and have no watchdog: they hold the last goal for as long as they have power,
and so does an arm whose bridge has died. Nobody compensates gravity; the servos' own proportional loops sag under it. `tau` is an
estimate: current times a torque constant, with the sign of the load; friction of some 0.1 N·m is in it. There is no device clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw_bridge.calibration import Calibration
from hw_bridge.drivers.driver import ArmIdentity, Measurement, VendorState
from hw_bridge.drivers.servo_driver import ServoDriver
from hw_bridge.drivers.servo_port import Packet, ServoPort, Tags, way_back
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, MissingExtraError, NonFiniteError

MODELS = {777: "STS3215", 2825: "STS3250", 11272: "SM8512BL", 1284: "SCS0009"}
FIRMWARE_MAJOR = 3

_PHASE, _HOMING, _MODE, _TORQUE, _ACCELERATION, _GOAL = 18, 31, 33, 40, 41, 42
_LIMIT, _PRESENT, _SPEED, _LOAD, _VOLTAGE, _STATUS, _CURRENT = 48, 56, 58, 60, 62, 65, 69
_EEPROM = 40
"""Registers below are settings."""
_WINDOW = 23
"""Bytes read every period: torque limit (48) to current (70)."""
_MARK = 999
"""Torque limit [0.1 %] that `begin` sets. A servo that lost power comes back with 1000: it is known by that."""
_CURRENT_UNIT = 0.0065
_OVERLOAD, _OVERCURRENT = 32, 8
_WORDS = {1: "supply voltage out of range", 2: "encoder fault", 4: "too hot", 8: "current too high for too long, torque reduced",
          32: "overload, torque reduced"}


@dataclass(frozen=True)
class FeetechConfig:
    """How the servos are set up when servoing begins."""

    baud: int = 1_000_000
    """Bits a second on the wire."""
    speed_headroom: float = 1.25
    """The servos themselves go no faster than the arm's velocity limit times this."""
    acceleration: int = 254
    """The servos' own ramp [100 steps/s^2]; 254, the steepest, leaves the shape of the motion to the set-points."""
    lost_after_s: float = 0.1
    """Silence after which the arm counts as lost [s]."""

    def __post_init__(self) -> None:
        if not 1.0 <= self.speed_headroom <= 4.0:
            raise ConfigurationError(f"FeetechConfig.speed_headroom: expected 1 to 4, got {self.speed_headroom}")
        if not 1 <= self.acceleration <= 254:
            raise ConfigurationError(f"FeetechConfig.acceleration: expected 1 to 254, got {self.acceleration}")
        if not self.lost_after_s > 0:
            raise ConfigurationError(f"FeetechConfig.lost_after_s: expected a positive time, got {self.lost_after_s}")


def signed(value: int, sign_bit: int) -> int:
    """Return the number that a servo writes as size and sign bit."""
    size = value & ((1 << sign_bit) - 1)
    return -size if value >> sign_bit & 1 else size


def _firmware(tables: dict[int, list[int]]) -> str:
    """Return the one version that all servos run, from their registers; HardwareError where it is none that this driver knows."""
    versions = {number: tuple(table[:2]) for number, table in tables.items()}
    if any(major != FIRMWARE_MAJOR for major, _ in versions.values()):
        raise HardwareError(f"servo firmware {versions}: this driver knows {FIRMWARE_MAJOR}.x; update them with Feetech's own program")
    if len(set(versions.values())) > 1:
        raise HardwareError(f"the servos' firmware differs ({versions}): update all of them to one version with Feetech's own program")
    return "{}.{}".format(*next(iter(versions.values())))


class FeetechDriver(ServoDriver):
    """An arm of STS3215 servos on one serial device."""

    def __init__(self, arm: Arm, device: str, calibration: Calibration, config: FeetechConfig | None = None) -> None:
        try:
            import scservo_sdk
        except ImportError as error:
            raise MissingExtraError("the Feetech driver", "feetech") from error
        if calibration.joints != arm.spec.joint_names:
            raise ConfigurationError(f"calibration is for joints {list(calibration.joints)}, {arm.spec.name} has "
                                     f"{list(arm.spec.joint_names)}: give the calibration of this arm")
        self._sdk = scservo_sdk
        self.arm, self.device, self.calibration, self.config = arm, device, calibration, config or FeetechConfig()
        self.calibration_hash = calibration.fingerprint()
        n = arm.spec.nv
        self._ids = list(calibration.ids)
        self._place = {number: i for i, number in enumerate(self._ids)}
        self._zero, self._scale = np.array(calibration.zero, dtype=float), np.array(calibration.direction) * calibration.step
        self._goals = [byte for number in self._ids for byte in (number, 0, 0)]
        self._port: ServoPort | None = None
        self._begun = False
        self._q, self._dq, self._tau = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
        self._goal = self._q.copy()
        """(n,) what the servos were last told [rad]."""
        self._back: Iterator[np.ndarray] = iter(())
        self._status, self._limit = [0] * n, [_MARK] * n
        self._tags = Tags(n, _WINDOW)

    def connect(self) -> ArmIdentity:
        self._port = ServoPort(self._sdk, self.device, self.config.baud, 0, no_fast=False)
        try:
            return self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> ArmIdentity:
        models = self._models()
        tables = {number: self._port.octets(number, 0, _EEPROM) for number in models}
        homing = {number: signed(table[_HOMING] | table[_HOMING + 1] << 8, 11) for number, table in tables.items()}
        stale = self.calibration.stale(models, homing)
        if stale:
            raise HardwareError(f"the calibration does not fit the arm on {self.device}: {'; '.join(stale)}. Calibrate again, or give the "
                                "calibration of this arm")
        firmware = _firmware(tables)
        self._check_settings(tables)
        supply = self._port.octets(self._ids[0], _VOLTAGE, 1)[0] / 10.0
        self._torque_constant = 1.08 if supply > 9.0 else 0.79
        self._refresh()
        self._check_pose()
        return ArmIdentity(model=f"{self.arm.spec.name} ({len(models)} x {MODELS[self.calibration.models[0]]}, {supply:.1f} V)",
                           serial=f"homing {'/'.join(str(homing[number]) for number in self._ids)}", firmware=firmware)

    def _models(self) -> dict[int, int]:
        found = self._port.models(self._ids)
        if not found:
            raise HardwareError(f"no servo answers on {self.device} at ids {self._ids}: check that the arm has power, that the device is "
                                f"the arm's adapter, and that the servos speak {self.config.baud} baud")
        wrong = [f"id {number} is {MODELS.get(model, 'of an unknown model')} ({model})" for number, model in found.items() if model != 777]
        if wrong:
            raise HardwareError(f"this is no arm of STS3215 servos: {', '.join(wrong)}; expected model 777. Is it another arm's adapter?")
        return found

    def _check_settings(self, tables: dict[int, list[int]]) -> None:
        for number, table in tables.items():
            if table[_MODE] != 0:
                raise HardwareError(f"servo {number} is in mode {table[_MODE]}, expected 0 (position): set register {_MODE} to 0")
            if table[_PHASE] & 16:
                raise HardwareError(f"servo {number} counts several turns (phase {table[_PHASE]}), its position means nothing after a "
                                    f"restart: clear bit 16 of register {_PHASE}")
        unit = np.array([1.0 if tables[number][_PHASE] & 4 else 50.0 for number in self._ids])
        self._speed_scale = unit * self._scale
        top = self.arm.spec.limits.velocity_max * self.config.speed_headroom / np.abs(self._speed_scale)
        self._speed_top = [int(value) for value in np.minimum(np.ceil(top), 32767)]

    def _check_pose(self) -> None:
        limits = self.arm.spec.limits
        for i, name in enumerate(self.arm.spec.joint_names):
            if not limits.position_min[i] - 0.02 <= self._q[i] <= limits.position_max[i] + 0.02:
                raise HardwareError(f"{name} stands at {self._q[i]:.3f} rad, outside its limits {limits.position_min[i]:.3f} to "
                                    f"{limits.position_max[i]:.3f}: move it back by hand with its torque off, or calibrate again")

    def begin(self, mode: CommandMode) -> None:
        self.arm.spec.command(mode)
        self._back = iter(())
        self._refresh()
        if any(self._status):
            raise HardwareError(f"servoing cannot begin: {self._fault()}; see to it and clear the fault first")
        entries = []
        for i, number in enumerate(self._ids):
            goal, speed = self._encoded(self._q[i], i), self._speed_top[i]
            entries += [number, self.config.acceleration, goal & 0xFF, goal >> 8, 0, 0, speed & 0xFF, speed >> 8, _MARK & 0xFF, _MARK >> 8]
        self._port.sync_write(_ACCELERATION, 9, entries)
        for number in self._ids:
            self._port.write(number, _TORQUE, 1)
        self._refresh()
        unset = [name for name, limit in zip(self.arm.spec.joint_names, self._limit, strict=True) if limit != _MARK]
        if unset:
            raise HardwareError(f"{', '.join(unset)}: did not take the settings for servoing; check the wire and try again")
        self._begun, self._goal = True, self._q.copy()

    def read(self) -> Measurement:
        self._lead_back()
        size = self._tags.ask()
        self._wire().sync_read(_LIMIT, size, self._ids, 0.4 * self.arm.spec.control_dt, self._take)
        return self._measurement()

    def _take(self, packet: Packet) -> bool:
        """Note one servo's answer, to this request or to an earlier one; True when all have answered."""
        i, size = self._place.get(packet[2]), packet[3] - 2
        if i is None or not self._tags.place(size) or not self._tags.take(i, size):
            return False
        at = 5 - _LIMIT
        steps = signed(packet[at + _PRESENT] | packet[at + _PRESENT + 1] << 8, 15)
        self._q[i] = (steps - self._zero[i]) * self._scale[i]
        self._dq[i] = signed(packet[at + _SPEED] | packet[at + _SPEED + 1] << 8, 15) * self._speed_scale[i]
        current = (packet[at + _CURRENT] | packet[at + _CURRENT + 1] << 8) & 0x7FFF
        pushes = -1.0 if packet[at + _LOAD + 1] & 4 else 1.0
        self._tau[i] = pushes * self.calibration.direction[i] * current * _CURRENT_UNIT * self._torque_constant
        self._status[i] = packet[at + _STATUS]
        self._limit[i] = packet[5] | packet[6] << 8
        return self._tags.complete

    def _measurement(self) -> Measurement:
        heard = min(self._tags.heard)
        state, fault = VendorState.READY if self._begun else VendorState.NOT_READY, ""
        if any(self._status):
            latched = any(bits & (_OVERLOAD | _OVERCURRENT) for bits in self._status)
            state, fault = VendorState.PROTECTIVE_STOP if latched else VendorState.FAULT, self._fault()
        elif self._begun and any(limit != _MARK for limit in self._limit):
            state, fault = VendorState.NOT_READY, self._fault()
        if self._tags.silence() > self.config.lost_after_s:
            silent = [name for name, stamp in zip(self.arm.spec.joint_names, self._tags.heard, strict=True) if stamp == heard]
            state, fault = VendorState.LOST, f"nothing is heard of {', '.join(silent)}"
        return Measurement(received_ns=heard, device_s=float("nan"), q=self._q.copy(), dq=self._dq.copy(), tau=self._tau.copy(),
                           state=state, fault=fault, bus_errors=self._tags.missing)

    def _fault(self) -> str:
        words = []
        for name, bits, limit in zip(self.arm.spec.joint_names, self._status, self._limit, strict=True):
            words += [f"{name}: {text}" for bit, text in _WORDS.items() if bits & bit]
            if self._begun and limit != _MARK:
                words.append(f"{name}: the servo restarted (supply too weak?)")
        return "; ".join(words)

    def write(self, values: np.ndarray) -> None:
        goals = self._goals
        steps = np.rint(values / self._scale + self._zero)
        if not np.isfinite(steps).all():
            raise NonFiniteError(f"set-point {values} never reaches the bus: expected finite angles [rad]")
        for i, step in enumerate(steps.tolist()):
            goal = self._magnitude(int(step))
            goals[3 * i + 1], goals[3 * i + 2] = goal & 0xFF, goal >> 8
        self._wire().sync_write(_GOAL, 2, goals)
        self._goal = values.copy()

    @staticmethod
    def _magnitude(steps: int) -> int:
        return min(steps, 32767) if steps >= 0 else min(-steps, 32767) | 0x8000

    def _encoded(self, angle: float, i: int) -> int:
        return self._magnitude(round(angle / self._scale[i] + self._zero[i]))

    def end(self) -> None:
        """Stop servoing; the servos hold the last goal."""
        self._begun, self._back = False, iter(())

    def stop(self) -> None:
        """Lead every servo's goal back to where it was last seen, slowly and a step with every `read`. Nothing is sent where servoing has
        not begun: a goal would switch torque on; nor where what is known of the arm is old: it rests at its goals, and would be moved.
        """
        if self._begun and self._port is not None and np.isfinite(self._q).all() and self._tags.age() < self.config.lost_after_s:
            self._back = way_back(self._goal, self._q.copy(), self.arm.spec.limits.velocity_max * self.arm.spec.control_dt)
            with contextlib.suppress(Exception):  # whatever it is, the supervisor's fault state has it already
                self._lead_back()

    def _lead_back(self) -> None:
        goal = next(self._back, None)
        if goal is not None:
            self.write(goal)

    def clear_fault(self) -> None:
        """Release latched overloads without letting the arm drop: the goal becomes where it stands, then torque is enabled anew."""
        self._back = iter(())
        self._refresh()
        for i, number in enumerate(self._ids):
            if self._status[i] & (_OVERLOAD | _OVERCURRENT):
                goal = self._encoded(self._q[i], i)
                self._port.write(number, _GOAL, goal & 0xFF, goal >> 8)
                self._goal[i] = self._q[i]
                self._port.write(number, _TORQUE, 1)
        if self._begun and any(limit != _MARK for limit in self._limit):
            self._begun = False
        self._refresh()
        if any(self._status):
            raise HardwareError(f"the servos refuse: {self._fault()}; take the load off, let them cool, check the supply, then try again")

    def let_go(self) -> None:
        """Switch torque off: for a person who holds the arm, it falls."""
        self.end()
        for number in self._ids:
            self._wire().write(number, _TORQUE, 0)

    def close(self) -> None:
        self.end()
        if self._port is not None:
            self._port.close()
            self._port = None
