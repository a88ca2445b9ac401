"""Twin of a desktop arm of six Dynamixel servos on one bus, protocol 2.0 (`python -m hw_bridge.twins.dynamixel_arm`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tyro

from hw_bridge.calibration import Calibration
from hw_bridge.twins import dynamixel2 as dxl
from hw_bridge.twins import x_series as x
from hw_bridge.twins.plant import Mechanics, Plant
from hw_bridge.twins.servo_arm import TICK, ServoArm
from hw_bridge.twins.twin import FaultCall
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.errors import ConfigurationError

IDS = (1, 2, 3, 4, 5, 6)
KINDS = (x.XM430_W350,) * 3 + (x.XL330_M288,) * 3
HOMING = (120, -340, 0, 77, -9, 400)
"""Homing registers; with them 2048 is joint angle 0 [steps]."""
DIRECTION = (1, -1, 1, 1, -1, 1)
ZERO = 2048
REBOOT_S = 0.15
"""A servo that was told to reboot is silent for so long [s]."""
_RETURN_DELAY_UNIT = 2e-6


@dataclass(frozen=True)
class Options:
    """A desktop arm of Dynamixel servos behind a pseudo-terminal."""

    baud: int = 1_000_000
    """Bits a second on the wire."""
    return_delay: int = 0
    """What stands in the servos' return delay registers [2 µs] (new servos: 250)."""
    seed: int = 0
    """Seed of the random faults."""
    fault_port: int = 0
    """Port of the faults on loopback (0: any)."""
    q: tuple[float, ...] | None = None
    """Joint angles at the start [rad] (none given: the arm's home)."""
    hold: bool = True
    """The arm is held where it stands, as its last user left it; otherwise torque is off, and it falls."""


def mechanics() -> Mechanics:
    """Return what the joints have: friction and rotors as identified publicly on such arms (order of magnitude), play of 15 arc minutes
    as the maker states it."""
    def parts(big: float, small: float) -> np.ndarray:
        return np.array([big] * 3 + [small] * 3)

    return Mechanics(viscous=parts(0.06, 0.005), coulomb=parts(0.08, 0.015), armature=parts(0.012, 0.002), torque_max=parts(6.0, 1.0),
                     backlash=np.full(6, math.radians(0.25)), encoder_step=np.full(6, x.STEP))


class DynamixelArm(ServoArm):
    """The arm: servos, their loops and the plant."""

    def __init__(self, options: Options) -> None:
        arm, parts, n = dynamixel_arm(), mechanics(), len(IDS)
        self.servos = [x.Servo(i, kind, homing, options.return_delay) for i, kind, homing in zip(IDS, KINDS, HOMING, strict=True)]
        self.drives = [x.Drive(servo, direction, ZERO, float(play), TICK)
                       for servo, direction, play in zip(self.servos, DIRECTION, parts.backlash, strict=True)]
        calibration = Calibration(arm="dynamixel_arm", joints=arm.spec.joint_names, ids=IDS, models=tuple(kind.model for kind in KINDS),
                                  homing=HOMING, zero=(ZERO,) * n, direction=DIRECTION, range_min=(0,) * n, range_max=(4095,) * n)
        self.bad_requests = 0
        self.clock_offset_ms = 0
        self._silent_until = [0.0] * n
        self._frozen_answers: dict[tuple[int, int, int], bytes] = {}
        plant = Plant(arm, parts, None if options.q is None else np.array(options.q), timestep=TICK)
        super().__init__(plant, calibration, options.baud, options.seed)
        self.boot()
        if options.hold:
            self.hold()

    def split(self, received: bytearray) -> list[bytes]:
        return dxl.split(received)

    def torque(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        fooled = self.stuck if self.stuck_in_loop else {}
        return np.array([drive.torque(fooled.get(i, round(angle / x.STEP) * x.STEP), speed)
                         for i, (drive, angle, speed) in enumerate(zip(self.drives, q.tolist(), dq.tolist(), strict=True))])

    def factory(self) -> None:
        for servo, drive in zip(self.servos, self.drives, strict=True):
            servo.eeprom[:] = servo.delivered
            drive.volts, drive.celsius = servo.kind.volts, 35.0
        self.bad_requests = self.clock_offset_ms = 0

    def boot(self) -> None:
        for i in range(len(self.servos)):
            self._boot(i)

    def _boot(self, i: int) -> None:
        self.servos[i].boot()
        self.servos[i].put(x.GOAL_POSITION, 4, self.present(i))
        self.drives[i].begin(float(self.plant.q[i]))

    def hold(self) -> None:
        for i in range(len(self.servos)):
            self._write(i, x.TORQUE_ENABLE, b"\x01")

    def trip(self, joint: int) -> None:
        self.drives[joint].trip(x.BIT_OVERLOAD)

    def mode(self) -> dict[str, object]:
        return {"torque_on": [drive.on for drive in self.drives], "mode": [drive.mode for drive in self.drives],
                "hardware_error": [servo.table[x.HARDWARE_ERROR] for servo in self.servos],
                "watchdog": [servo.table[x.WATCHDOG] for servo in self.servos], "goal": [drive.goal for drive in self.drives],
                "goal_current": [drive.goal_current for drive in self.drives], "bad_requests": self.bad_requests}

    def actions(self) -> dict[str, FaultCall]:
        return {**super().actions(), "voltage": self._locked(self._volts), "temperature": self._locked(self._celsius),
                "register": self._locked(self._register)}

    def clock_step(self, s: float) -> None:
        self.clock_offset_ms += round(1000 * s)

    def _volts(self, joint: int, volts: float) -> None:
        if not 0.0 <= volts <= 25.0:
            raise ConfigurationError(f"voltage: expected 0 to 25 V, got {volts}")
        self.drives[self._checked(joint)].volts = volts

    def _celsius(self, joint: int, celsius: float) -> None:
        self.drives[self._checked(joint)].celsius = celsius

    def _register(self, joint: int, address: int, data: list[int]) -> None:
        """Write into a servo's table and EEPROM behind the bus's back: somebody worked on it with another program."""
        servo = self.servos[self._checked(joint)]
        servo.table[address:address + len(data)] = servo.eeprom[address:address + len(data)] = bytes(data)
        self.drives[joint].reload()

    def present(self, i: int) -> int:
        """Return servo `i`'s present position [steps]."""
        shift = self.servos[i].get(x.HOMING, 4) - HOMING[i]
        return round(DIRECTION[i] * float(self.encoders()[i]) / x.STEP) + ZERO + shift

    def answer(self, packet: bytes) -> list[tuple[float, bytes]]:
        request = dxl.opened(packet)
        if request is None:
            self.bad_requests += 1
            return []
        number, body = request
        instruction, data = body[0], body[1:]
        if instruction in (dxl.SYNC_READ, dxl.FAST_SYNC_READ, dxl.SYNC_WRITE):
            return self._sync(instruction, data) if number == dxl.BROADCAST and len(data) > 4 else []
        chosen = range(len(self.servos)) if number == dxl.BROADCAST else [i for i in [self._index(number)] if i is not None]
        answers = [self._one(i, instruction, data) for i in chosen]
        if number == dxl.BROADCAST and instruction != dxl.PING:
            return []
        return [answer for answer in answers if answer]

    def _index(self, number: int) -> int | None:
        """Return which servo has the address; hearing its own wakes its watchdog's patience."""
        for i, servo in enumerate(self.servos):
            if servo.number == number and self.plant.time >= self._silent_until[i]:
                self.drives[i].silent_s = 0.0
                return i
        return None

    def _sync(self, instruction: int, data: bytes) -> list[tuple[float, bytes]]:
        address, size = int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:4], "little")
        if instruction == dxl.SYNC_WRITE:
            for at in range(4, len(data) - size, size + 1):
                if (i := self._index(data[at])) is not None:
                    self._write(i, address, data[at + 1:at + 1 + size])
            return []
        chosen = [i for i in map(self._index, data[4:]) if i is not None]
        if instruction == dxl.FAST_SYNC_READ:
            delay = max((self._delay(i) for i in chosen), default=0.0)
            parts = [(self.servos[i].number, self._error(i), self._data(i, address, size)) for i in chosen]
            return [(delay, dxl.fast_answer(parts))] if len(chosen) == len(data) - 4 else []
        return [self._reply(i, self._data(i, address, size)) for i in chosen]

    def _one(self, i: int, instruction: int, data: bytes) -> tuple[float, bytes] | None:
        servo = self.servos[i]
        address = int.from_bytes(data[0:2], "little")
        if instruction == dxl.PING:
            return self._reply(i, bytes(servo.table[x.MODEL:x.MODEL + 2]) + servo.table[x.FIRMWARE:x.FIRMWARE + 1])
        if instruction == dxl.READ and len(data) == 4:
            size = int.from_bytes(data[2:4], "little")
            return self._reply(i, self._data(i, address, size)) if address + size <= x.TABLE else self._reply(i, b"", dxl.DATA_LENGTH)
        if instruction == dxl.WRITE and len(data) > 2:
            return self._reply(i, b"", self._write(i, address, data[2:]))
        if instruction == dxl.REG_WRITE and len(data) > 2:
            servo.registered = (address, bytes(data[2:]))
            return self._reply(i, b"")
        if instruction == dxl.ACTION:
            if servo.registered:
                kept, servo.registered = servo.registered, None
                self._write(i, *kept)
            return None
        if instruction == dxl.REBOOT:
            self._boot(i)
            self._silent_until[i] = self.plant.time + REBOOT_S
            return self._reply(i, b"")
        return self._reply(i, b"", dxl.INSTRUCTION_ERROR)

    def _error(self, i: int) -> int:
        return dxl.ALERT if self.drives[i].alert() else 0

    def _delay(self, i: int) -> float:
        return self.servos[i].table[x.RETURN_DELAY] * _RETURN_DELAY_UNIT

    def _reply(self, i: int, data: bytes, error: int = 0) -> tuple[float, bytes]:
        return self._delay(i), dxl.packet(self.servos[i].number, bytes([dxl.STATUS, error | self._error(i)]) + data)

    def _data(self, i: int, address: int, size: int) -> bytes:
        key, servo = (i, address, size), self.servos[i]
        if not self.frozen or key not in self._frozen_answers:
            self._refresh(i)
            self._frozen_answers[key] = bytes(servo.table[address:address + size])
        return self._frozen_answers[key]

    def _refresh(self, i: int) -> None:
        """Bring what the servo reports up to date."""
        servo, drive, sign = self.servos[i], self.drives[i], DIRECTION[i]
        speed = 0.0 if i in self.stuck else float(self.plant.dq[i])
        servo.put(x.TICK_MS, 2, (round(1000 * self.plant.time) + self.clock_offset_ms) % 32768)
        servo.put(x.DUTY, 2, round(885 * drive.duty) * sign)
        servo.put(x.CURRENT, 2, round(sign * drive.current / servo.kind.current_unit))
        servo.put(x.VELOCITY, 4, round(sign * speed / x.VELOCITY_UNIT))
        servo.put(x.POSITION, 4, self.present(i))
        servo.put(x.VOLTAGE, 2, round(10 * drive.volts))
        servo.table[x.TEMPERATURE] = round(drive.celsius)
        servo.table[x.MOVING] = int(abs(speed) > 0.05)

    def _write(self, i: int, address: int, data: bytes) -> int:
        servo, drive, now = self.servos[i], self.drives[i], self.plant.time
        was_on = drive.on
        error = servo.write(address, data)
        if error:
            return error
        last = address + len(data)
        if servo.table[x.TORQUE_ENABLE] and not was_on:
            servo.put(x.GOAL_POSITION, 4, self.present(i))
            drive.integral = 0.0
            self.judge.begin(i, float(self.plant.q[i]), now)
        drive.reload()
        if drive.on:
            if address <= x.GOAL_POSITION < last and drive.mode in (x.POSITION_MODE, x.CURRENT_POSITION_MODE):
                self.judge.position(i, drive.goal, now)
            if address <= x.GOAL_VELOCITY < last and drive.mode == x.VELOCITY_MODE:
                self.judge.velocity(i, drive.goal_velocity, x.VELOCITY_UNIT)
            if address <= x.GOAL_CURRENT < last and drive.mode == x.CURRENT_MODE:
                unit = servo.kind.torque_constant * servo.kind.current_unit
                self.judge.torque(i, drive.goal_current * servo.kind.torque_constant, unit)
        return 0


def main(options: Options) -> None:
    """Serve the twin until it is told to end."""
    DynamixelArm(options).run("dynamixel_arm", options.fault_port)


if __name__ == "__main__":
    main(tyro.cli(Options))
