"""Arms of Dynamixel X servos (XM430, XL330, ...) through `dynamixel_sdk`, protocol 2.0.

What can be commanded: positions, velocities, and torques as current times a torque constant (stall torque by stall current of each model;
gear friction, some 10 % of the torque, is in it). A torque is the whole torque at the joint: nobody compensates gravity. The servos' bus
watchdog is always set: without a word from this program they stop by themselves, holding their place in position and velocity mode; in
torque mode they go limp. `tau` is the measured current times the same constant. There is no device clock in what is read.

A servo that is overloaded for long switches its motor off, and a joint that carries weight falls: nothing here changes that protection
(register 63). A servo that gives all it can is told of before, as a protective stop, while it still holds its joint.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from hw_bridge.calibration import Calibration
from hw_bridge.drivers.driver import ArmIdentity, Measurement, VendorState
from hw_bridge.drivers.servo_driver import ServoDriver
from hw_bridge.drivers.servo_port import Packet, ServoPort, Tags, way_back
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, MissingExtraError, NonFiniteError

FIRMWARE_MIN = 38
"""The first firmware with a bus watchdog."""
VELOCITY_UNIT = 0.229 * 2.0 * math.pi / 60.0
"""[rad/s]"""

_MODE, _HOMING, _DRIVE_MODE, _DUTY_MAX, _CURRENT_MAX, _TORQUE, _WATCHDOG = 11, 20, 10, 36, 38, 64, 98
_GOAL = {CommandMode.JOINT_TORQUE: (102, 2), CommandMode.JOINT_VELOCITY: (104, 4), CommandMode.JOINT_POSITION: (116, 4)}
_OPERATING = {CommandMode.JOINT_TORQUE: 0, CommandMode.JOINT_VELOCITY: 1, CommandMode.JOINT_POSITION: 3}
_PROFILE = 108
_STATE, _STATE_SIZE, _SETTINGS = 124, 12, 64
"""One read of 12 bytes at 124 gives duty, current, velocity and position."""
_ALL = 0.95
"""Share of the duty limit from which on a servo gives all it can."""
_CHECK, _CHECK_SIZE = 64, 7
"""One read of 7 bytes at 64 gives torque enable (64) and hardware error (70)."""
_CHECK_EVERY = 10
_WATCHDOG_UNIT_S = 0.02
_TRIPPED = 0xFF
_REBOOT_S = 0.4
_SWITCH_S = 0.2
_LATCHED = 4 | 8 | 16 | 32
_OVERLOAD = 32
_WORDS = {1: "supply voltage out of range", 4: "too hot", 8: "encoder fault", 16: "electrical shock or weak supply", 32: "overload"}


@dataclass(frozen=True)
class ServoKind:
    """What a model number means."""

    name: str
    torque_constant: float
    """Stall torque by stall current [N·m/A]."""
    current_unit: float
    """[A]"""


KINDS = {1020: ServoKind("XM430-W350", 4.1 / 2.3, 0.00269), 1030: ServoKind("XM430-W210", 3.0 / 2.3, 0.00269),
         1200: ServoKind("XL330-M288", 0.52 / 1.47, 0.001), 1190: ServoKind("XL330-M077", 0.215 / 1.47, 0.001),
         1060: ServoKind("XL430-W250", math.nan, math.nan)}
"""Models that are known; the XL430 measures no current and takes no torque."""


@dataclass(frozen=True)
class DynamixelConfig:
    """How the servos are set up when servoing begins."""

    baud: int = 1_000_000
    """Bits a second on the wire."""
    watchdog_s: float = 0.1
    """The servos stop by themselves after this silence [s], in steps of 20 ms."""
    lost_after_s: float = 0.1
    """Silence after which the arm counts as lost [s]."""
    strain_s: float = 0.3
    """A servo that gives all it can for so long [s] is told of: it is blocked or carries too much. The maker's shutdown comes later."""

    def __post_init__(self) -> None:
        if not 0.02 <= self.watchdog_s <= 0.5:
            raise ConfigurationError(f"DynamixelConfig.watchdog_s: expected 0.02 to 0.5 s, got {self.watchdog_s}; it is never off")
        if not self.lost_after_s > 0:
            raise ConfigurationError(f"DynamixelConfig.lost_after_s: expected a positive time, got {self.lost_after_s}")
        if not 0.05 <= self.strain_s <= 0.5:
            raise ConfigurationError(f"DynamixelConfig.strain_s: expected 0.05 to 0.5 s, got {self.strain_s}: servos shut down soon after")


class DynamixelDriver(ServoDriver):
    """An arm of Dynamixel X servos on one serial device."""

    def __init__(self, arm: Arm, device: str, calibration: Calibration, config: DynamixelConfig | None = None) -> None:
        try:
            import dynamixel_sdk
        except ImportError as error:
            raise MissingExtraError("the Dynamixel driver", "dynamixel") from error
        if calibration.joints != arm.spec.joint_names:
            raise ConfigurationError(f"calibration is for joints {list(calibration.joints)}, {arm.spec.name} has "
                                     f"{list(arm.spec.joint_names)}: give the calibration of this arm")
        unknown = sorted(set(calibration.models) - set(KINDS))
        if unknown:
            raise ConfigurationError(f"calibration names servos of model {unknown}; known are "
                                     f"{', '.join(f'{number} ({kind.name})' for number, kind in KINDS.items())}")
        self._sdk = dynamixel_sdk
        self.arm, self.device, self.calibration, self.config = arm, device, calibration, config or DynamixelConfig()
        self.calibration_hash = calibration.fingerprint()
        n = arm.spec.nv
        self._ids = list(calibration.ids)
        self._place = {number: i for i, number in enumerate(self._ids)}
        direction = np.array(calibration.direction)
        kinds = [KINDS[model] for model in calibration.models]
        self._zero = np.array(calibration.zero, dtype=float)
        self._scale = direction * calibration.step
        self._torque_scale = direction * np.array([kind.torque_constant * kind.current_unit for kind in kinds])
        self._velocity_scale = direction * VELOCITY_UNIT
        self._watchdog = max(1, round(self.config.watchdog_s / _WATCHDOG_UNIT_S))
        self._port: ServoPort | None = None
        self._mode: CommandMode | None = None
        self._q, self._dq, self._tau = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
        self._goal = self._q.copy()
        """(n,) the positions that the servos were last told [rad]."""
        self._back: Iterator[np.ndarray] = iter(())
        self._alert, self._torque_on, self._errors, self._dog = [False] * n, [True] * n, [0] * n, [0] * n
        self._eased = [0.0] * n
        """When each servo was last seen to give less than all it can, on the monotonic clock [s]."""
        self._tags = Tags(n, _STATE_SIZE)
        self._reads = 0
        self._model, self._data = arm.model(), None

    def connect(self) -> ArmIdentity:
        self._port = ServoPort(self._sdk, self.device, self.config.baud, 2.0, no_fast=True)
        try:
            return self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> ArmIdentity:
        models = self._port.models(self._ids)
        if not models:
            raise HardwareError(f"no servo answers on {self.device} at ids {self._ids}: check that the arm has power, that the device is "
                                f"the arm's adapter, and that the servos speak {self.config.baud} baud, protocol 2.0")
        for i, (number, model) in enumerate(zip(self._ids, self.calibration.models, strict=True)):
            if number in models and models[number] != model:
                name = self.arm.spec.joint_names[i]
                raise HardwareError(f"{name}: servo {number} is {_named(models[number])}, expected {_named(model)}: is it "
                                    " another arm's adapter?")
        tables = {number: self._port.octets(number, 0, _SETTINGS) for number in models}
        homing = {number: _number(table, _HOMING, 4) for number, table in tables.items()}
        stale = self.calibration.stale(models, homing)
        if stale:
            raise HardwareError(f"the calibration does not fit the arm on {self.device}: {'; '.join(stale)}. Calibrate again, or give the "
                                "calibration of this arm")
        for number, table in tables.items():
            if table[6] < FIRMWARE_MIN:
                raise HardwareError(f"servo {number} has firmware {table[6]}, expected {FIRMWARE_MIN} or newer (before, there was no bus "
                                    "watchdog): update it with Dynamixel Wizard")
            if table[_DRIVE_MODE] & 5:
                raise HardwareError(f"servo {number} has drive mode {table[_DRIVE_MODE]}, expected 0 (not reversed, profiles by velocity)")
        self._duty_max = [_ALL * _number(tables[number], _DUTY_MAX, 2) for number in self._ids]
        self._current_max = np.array([_number(tables[number], _CURRENT_MAX, 2) for number in self._ids])
        self._refresh()
        self._check_pose()
        return ArmIdentity(model=f"{self.arm.spec.name} ({', '.join(KINDS[model].name for model in self.calibration.models)})",
                           serial=f"homing {'/'.join(str(homing[number]) for number in self._ids)}",
                           firmware="/".join(str(tables[number][6]) for number in self._ids))

    def _check_pose(self) -> None:
        limits = self.arm.spec.limits
        for i, name in enumerate(self.arm.spec.joint_names):
            if not limits.position_min[i] - 0.02 <= self._q[i] <= limits.position_max[i] + 0.02:
                raise HardwareError(f"{name} stands at {self._q[i]:.3f} rad, outside its limits {limits.position_min[i]:.3f} to "
                                    f"{limits.position_max[i]:.3f}: move it back by hand with its torque off, or calibrate again")

    def begin(self, mode: CommandMode) -> None:
        """Switch the servos to `mode`, holding the arm: still in position and velocity mode, and by the weight of its model (without a
        payload) in torque mode. A change of the servos' mode needs torque off for less than a millisecond.
        """
        mode = self.arm.spec.command(mode).mode
        if mode is CommandMode.JOINT_TORQUE and not np.isfinite(self._torque_scale).all():
            raise HardwareError("a servo of this arm measures no current (XL430): it takes no torques; use positions or velocities")
        self._back = iter(())
        self._refresh()
        self._inspect()
        if any(self._errors):
            raise HardwareError(f"servoing cannot begin: {self._fault()}; see to it and clear the fault first")
        self._mode = None
        self._switch(mode)
        self._mode, self._eased = mode, [time.monotonic()] * len(self._ids)

    def _switch(self, mode: CommandMode, at_once: bool = False) -> None:
        """Bring all servos into `mode` with torque on, goals at rest and the watchdog set; HardwareError where one does not follow.
        `at_once`: without asking first which mode they are in.
        """
        port, ids = self._wire(), self._ids
        operating = _OPERATING[mode]
        for k in range(5):
            inside = not (at_once and k == 0) and all(port.octets(number, _MODE, 1)[0] == operating for number in ids)
            port.sync_write(_WATCHDOG, 1, [byte for number in ids for byte in (number, 0)])
            if not inside:
                port.sync_write(_TORQUE, 1, [byte for number in ids for byte in (number, 0)])
                port.sync_write(_MODE, 1, [byte for number in ids for byte in (number, operating)])
            if mode is CommandMode.JOINT_POSITION:
                port.sync_write(_PROFILE, 8, [byte for number in ids for byte in (number, *[0] * 8)])
            port.sync_write(_TORQUE, 1, [byte for number in ids for byte in (number, 1)])
            self._send(mode, self._rest(mode))
            ready = all(port.octets(number, _MODE, 1)[0] == operating and port.octets(number, _TORQUE, 1)[0] == 1 for number in ids)
            # Set and checked in one packet each: servos asked one by one might trip while the others are asked.
            port.sync_write(_WATCHDOG, 1, [byte for number in ids for byte in (number, self._watchdog)])
            self._dog = [0] * len(ids)
            port.sync_read(_WATCHDOG, 1, ids, _SWITCH_S, self._take_check)
            if ready and self._dog == [self._watchdog] * len(ids):
                self._torque_on = [True] * len(ids)
                return
            self._refresh()
        raise HardwareError(f"the servos on {self.device} do not go into {mode} mode: check wire and supply")

    def _rest(self, mode: CommandMode) -> np.ndarray:
        """Return the set-point (nv,) of `mode` that keeps the arm where it stands."""
        if mode is CommandMode.JOINT_POSITION:
            return self._q
        return self._weight() if mode is CommandMode.JOINT_TORQUE else np.zeros(len(self._ids))

    def _weight(self) -> np.ndarray:
        if self._data is None:
            self._data = mujoco.MjData(self._model)
        self._data.qpos[:], self._data.qvel[:] = self._q, 0.0
        mujoco.mj_forward(self._model, self._data)
        return self._data.qfrc_bias.copy()

    def read(self) -> Measurement:
        port, budget = self._wire(), 0.4 * self.arm.spec.control_dt
        self._lead_back()
        self._reads += 1
        port.sync_read(_STATE, self._tags.ask(), self._ids, budget, self._take)
        if self._reads % _CHECK_EVERY == 0 or any(alert and not error for alert, error in zip(self._alert, self._errors, strict=True)):
            port.sync_read(_CHECK, _CHECK_SIZE, self._ids, 0.5 * budget, self._take_check)
        elif self._reads % _CHECK_EVERY == _CHECK_EVERY // 2 and self._mode is not None:
            port.sync_read(_WATCHDOG, 1, self._ids, 0.5 * budget, self._take_check)
        return self._measurement()

    def _take(self, packet: Packet) -> bool:
        """Note one servo's answer, to this request or to an earlier one; True when all have answered."""
        i, size = self._place.get(packet[4]), (packet[5] | packet[6] << 8) - 4
        if i is None or not self._tags.place(size):
            self._take_check(packet)
            return False
        if not self._tags.take(i, size):
            return False
        self._alert[i] = bool(packet[8] & 0x80)
        if not self._alert[i]:
            self._errors[i] = 0
        if abs(_number(packet, 9, 2)) < self._duty_max[i]:
            self._eased[i] = time.monotonic()
        self._tau[i] = _number(packet, 11, 2) * self._torque_scale[i]
        self._dq[i] = _number(packet, 13, 4) * self._velocity_scale[i]
        self._q[i] = (_number(packet, 17, 4) - self._zero[i]) * self._scale[i]
        return self._tags.complete

    def _take_check(self, packet: Packet) -> bool:
        """Note what a servo says of torque, errors and watchdog; True with the last servo's answer."""
        i, size = self._place.get(packet[4]), (packet[5] | packet[6] << 8) - 4
        if i is None:
            return False
        if size == _CHECK_SIZE:
            self._torque_on[i], self._errors[i] = packet[9] == 1, packet[9 + _CHECK_SIZE - 1]
        elif size == 1:
            self._dog[i] = packet[9]
        elif self._tags.place(size):
            return self._take(packet) and False
        return size in (1, _CHECK_SIZE) and i == len(self._ids) - 1

    def _measurement(self) -> Measurement:
        heard = min(self._tags.heard)
        fault = self._fault()
        state = VendorState.READY if self._mode is not None and all(self._torque_on) else VendorState.NOT_READY
        if any(error & ~_OVERLOAD for error in self._errors):
            state = VendorState.FAULT
        elif any(self._errors) or self._strained() or (self._mode is not None and _TRIPPED in self._dog):
            state = VendorState.PROTECTIVE_STOP
        if self._tags.silence() > self.config.lost_after_s:
            silent = [name for name, stamp in zip(self.arm.spec.joint_names, self._tags.heard, strict=True) if stamp == heard]
            state, fault = VendorState.LOST, f"nothing is heard of {', '.join(silent)}"
        return Measurement(received_ns=heard, device_s=float("nan"), q=self._q.copy(), dq=self._dq.copy(), tau=self._tau.copy(),
                           state=state, fault=fault, bus_errors=self._tags.missing)

    def _strained(self) -> list[str]:
        """Return the joints whose servos have given all they can for too long."""
        if self._mode is None:
            return []
        return [name for name, on, eased, stamp in zip(self.arm.spec.joint_names, self._torque_on, self._eased, self._tags.heard,
                                                       strict=True) if on and 1e-9 * stamp - eased > self.config.strain_s]

    def _fault(self) -> str:
        words = [f"{name}: has given all it can for {1000 * self.config.strain_s:.0f} ms; an overload soon switches it off, and the joint "
                 "falls: it is blocked or carries too much" for name in self._strained()]
        for name, error, on, dog in zip(self.arm.spec.joint_names, self._errors, self._torque_on, self._dog, strict=True):
            off = ", torque off until it is rebooted" if error & _LATCHED else ""
            words += [f"{name}: {text}{off}" for bit, text in _WORDS.items() if error & bit]
            if self._mode is not None and dog == _TRIPPED:
                words.append(f"{name}: its bus watchdog stopped it after {1000 * self._watchdog * _WATCHDOG_UNIT_S:.0f} ms of silence")
            if self._mode is not None and not on and not error:
                words.append(f"{name}: torque is off (did the servo restart?)")
        return "; ".join(words)

    def write(self, values: np.ndarray) -> None:
        if self._mode is None:
            raise HardwareError("servoing has not begun: call begin first")
        self._send(self._mode, values)

    def _send(self, mode: CommandMode, values: np.ndarray) -> None:
        if mode is CommandMode.JOINT_POSITION:
            goals = values / self._scale + self._zero
        elif mode is CommandMode.JOINT_VELOCITY:
            goals = values / self._velocity_scale
        else:
            goals = values / self._torque_scale
            goals = np.minimum(np.maximum(goals, -self._current_max), self._current_max)  # the servo would ignore what is beyond
        if not np.isfinite(goals).all():
            raise NonFiniteError(f"set-point {values} never reaches the bus: expected finite numbers")
        address, size = _GOAL[mode]
        mask = (1 << 8 * size) - 1
        entries = []
        for number, goal in zip(self._ids, np.rint(goals).tolist(), strict=True):
            entries.append(number)
            entries.extend((int(goal) & mask).to_bytes(size, "little"))
        self._wire().sync_write(address, size, entries)
        if mode is CommandMode.JOINT_POSITION:
            self._goal = values.copy()

    def end(self) -> None:
        """Leave servoing with every servo holding its place; the watchdog is switched off, for holding needs no program."""
        self._back = iter(())
        if self._mode is None:
            return
        port = self._wire()
        if self._mode is not CommandMode.JOINT_POSITION:
            self._refresh()
            self._switch(CommandMode.JOINT_POSITION)
        for number in self._ids:
            port.write(number, _WATCHDOG, 0)
        self._mode = None

    def stop(self) -> None:
        """Halt at once: velocities go to 0; positions are led back to where the arm was last seen, slowly and a step with every `read`,
        but not where what is known of it is old: it rests at its goals, and would be moved;
        from torque mode, and where a servo strains, the servos are switched to position mode, which holds the arm where it is: what a
        velocity loop has summed up against an obstacle goes on pushing.
        """
        if self._mode is None or self._port is None or not np.isfinite(self._q).all():
            return
        with contextlib.suppress(Exception):  # whatever it is, the supervisor's fault state has it already
            if self._mode is CommandMode.JOINT_TORQUE or (self._mode is CommandMode.JOINT_VELOCITY and self._strained()):
                self._switch(CommandMode.JOINT_POSITION, at_once=True)
                self._mode = CommandMode.JOINT_POSITION
            elif self._mode is CommandMode.JOINT_POSITION:
                if self._tags.age() >= self.config.lost_after_s:
                    return
                self._back = way_back(self._goal, self._q.copy(), self.arm.spec.limits.velocity_max * self.arm.spec.control_dt)
                self._lead_back()
            else:
                self._send(self._mode, self._rest(self._mode))

    def _lead_back(self) -> None:
        goal = next(self._back, None)
        if goal is not None:
            self._send(CommandMode.JOINT_POSITION, goal)

    def clear_fault(self) -> None:
        """Reboot servos that switched themselves off and release tripped watchdogs. Servoing must be begun again."""
        port = self._wire()
        self._back = iter(())
        self._inspect()
        for number, error in zip(self._ids, self._errors, strict=True):
            if error & _LATCHED:
                port.asked(port.packets.reboot, number)
        if any(error & _LATCHED for error in self._errors):
            time.sleep(_REBOOT_S)
        self._mode = None
        port.sync_write(_WATCHDOG, 1, [byte for number in self._ids for byte in (number, 0)])
        self._refresh()
        self._inspect()
        if any(self._errors):
            raise HardwareError(f"the servos refuse: {self._fault()}; take the load off, let them cool, check the supply, then try again")

    def let_go(self) -> None:
        """Switch torque off: for a person who holds the arm, it falls."""
        self._mode = None
        for number in self._ids:
            self._wire().write(number, _TORQUE, 0)

    def close(self) -> None:
        if self._port is not None:
            with contextlib.suppress(HardwareError):
                self.end()
            self._port.close()
            self._port = None
        self._mode = None

    def _inspect(self) -> None:
        """Ask every servo for torque, hardware error and watchdog."""
        for i, number in enumerate(self._ids):
            answer = self._wire().octets(number, _CHECK, _CHECK_SIZE)
            self._torque_on[i], self._errors[i] = answer[0] == 1, answer[-1]
            self._dog[i] = self._wire().octets(number, _WATCHDOG, 1)[0]


def _number(octets: list[int], at: int, size: int) -> int:
    """Return a signed number, lowest byte first."""
    return int.from_bytes(bytes(octets[at:at + size]), "little", signed=True)


def _named(model: int) -> str:
    return f"{KINDS[model].name} ({model})" if model in KINDS else f"of unknown model {model}"
