"""Twin of the SO-101: six STS3215 on a serial bus of 1 Mbaud (`python -m hw_bridge.twins.so101`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro

from hw_bridge.calibration import Calibration
from hw_bridge.twins import sts3215 as sts
from hw_bridge.twins.plant import Mechanics, Plant
from hw_bridge.twins.servo_arm import TICK, ServoArm
from hw_bridge.twins.twin import FaultCall
from robots.arms.so101 import so101
from robots.errors import ConfigurationError

IDS = (1, 2, 3, 4, 5, 6)
HOMING = (-113, 871, -402, 36, -1290, 655)
"""The servos were screwed in as they came; their homing registers put 2048 at joint angle 0 [steps]."""
DIRECTION = (1, -1, 1, 1, 1, 1)
_RETURN_DELAY_UNIT = 2e-6


@dataclass(frozen=True)
class Options:
    """An SO-101 behind a pseudo-terminal."""

    baud: int = 1_000_000
    """Bits a second on the wire."""
    supply: Literal["12V", "7.4V"] = "12V"
    """Which version of the servos."""
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
    model_number: int = 777
    """Model that the servos say they are (777: STS3215)."""


def mechanics() -> Mechanics:
    """Return what the joints have: friction and rotors as identified publicly on STS3215 (armature 0.028 kg·m^2, friction 0.052 N·m; of
    the damping 0.60 N·m·s/rad that goes with it most is the motor's own, which the loop models), and play of 1 degree."""
    n = len(IDS)
    return Mechanics(viscous=np.full(n, 0.1), coulomb=np.full(n, 0.052), armature=np.full(n, 0.028), torque_max=np.full(n, 6.0),
                     backlash=np.full(n, math.radians(1.0)), encoder_step=np.full(n, sts.STEP))


def checksum(body: bytes) -> int:
    """Return the checksum of id, length, instruction and parameters."""
    return ~sum(body) & 0xFF


def split(received: bytearray) -> list[bytes]:
    """Take whole packets off the front, rubbish before them too."""
    packets = []
    while len(received) >= 4:
        start = received.find(b"\xff\xff")
        if start < 0:
            del received[:-1]
            break
        del received[:start]
        if len(received) < 4:
            break
        if received[2] == 0xFF or received[3] < 2 or received[3] > 250:
            del received[:1]
            continue
        size = received[3] + 4
        if len(received) < size:
            break
        packets.append(bytes(received[:size]))
        del received[:size]
    return packets


class So101(ServoArm):
    """The arm: servos, their loop and the plant."""

    def __init__(self, options: Options) -> None:
        arm = so101()
        self.motor = sts.MOTORS[options.supply]
        self.servos = [sts.Servo(i, homing, options.return_delay) for i, homing in zip(IDS, HOMING, strict=True)]
        for servo in self.servos:
            servo.delivered[3:5] = servo.eeprom[3:5] = servo.memory[3:5] = options.model_number.to_bytes(2, "little")
        n = len(IDS)
        calibration = Calibration(arm="so101", joints=arm.spec.joint_names, ids=IDS, models=(777,) * n, homing=HOMING, zero=(2048,) * n,
                                  direction=DIRECTION, range_min=(0,) * n, range_max=(4095,) * n)
        parts = mechanics()
        plant = Plant(arm, parts, None if options.q is None else np.array(options.q), timestep=TICK)
        self.drives = [sts.Drive(servo, self.motor, float(play), TICK) for servo, play in zip(self.servos, parts.backlash, strict=True)]
        self.bad_requests = 0
        self._frozen_answers: dict[tuple[int, int, int], bytes] = {}
        super().__init__(plant, calibration, options.baud, options.seed)
        self.boot()
        if options.hold:
            self.hold()

    def split(self, received: bytearray) -> list[bytes]:
        return split(received)

    def torque(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        fooled = self.stuck if self.stuck_in_loop else {}
        return np.array([drive.torque(fooled.get(i, round(angle / sts.STEP) * sts.STEP), speed)
                         for i, (drive, angle, speed) in enumerate(zip(self.drives, q.tolist(), dq.tolist(), strict=True))])

    def actual(self, i: int) -> int:
        """Return what the encoder of servo `i` shows before homing [steps]."""
        return (round(DIRECTION[i] * self.encoders()[i] / sts.STEP) + 2048 + HOMING[i]) % 4096

    def present(self, i: int) -> int:
        """Return servo `i`'s present position [steps]."""
        return (self.actual(i) - sts.signed(self.servos[i].word(sts.HOMING), 11)) % 4096

    def _angle(self, i: int, steps: int) -> float:
        """Return the joint angle [rad] at which servo `i`, homed as it is now, reads `steps`."""
        shift = (sts.signed(self.servos[i].word(sts.HOMING), 11) - HOMING[i] + 2048) % 4096 - 2048
        return DIRECTION[i] * (steps + shift - 2048) * sts.STEP

    def factory(self) -> None:
        for servo in self.servos:
            servo.eeprom[:] = servo.delivered
        for drive in self.drives:
            drive.volts, drive.celsius = self.motor.volts, 32.0
        self.bad_requests = 0

    def boot(self) -> None:
        for i, servo in enumerate(self.servos):
            servo.boot()
            servo.put(sts.GOAL, self.present(i))
            self.drives[i].begin(float(self.plant.q[i]))

    def hold(self) -> None:
        for i in range(len(self.servos)):
            self._write(i, sts.TORQUE_ENABLE, b"\x01")

    def trip(self, joint: int) -> None:
        self.servos[joint].latched |= sts.BIT_OVERLOAD
        self.drives[joint].reload()

    def mode(self) -> dict[str, object]:
        return {"torque_on": [servo.torque_on for servo in self.servos], "status": [drive.status() for drive in self.drives],
                "duty": [drive.duty for drive in self.drives], "goal": [drive.goal for drive in self.drives],
                "bad_requests": self.bad_requests}

    def actions(self) -> dict[str, FaultCall]:
        return {**super().actions(), "voltage": self._locked(self._volts), "temperature": self._locked(self._celsius),
                "register": self._locked(self._register)}

    def _volts(self, volts: float) -> None:
        if not 0.0 <= volts <= 25.0:
            raise ConfigurationError(f"voltage: expected 0 to 25 V, got {volts}")
        for drive in self.drives:
            drive.volts = volts

    def _celsius(self, joint: int, celsius: float) -> None:
        self.drives[self._checked(joint)].celsius = celsius

    def _register(self, joint: int, address: int, data: list[int]) -> None:
        """Write into a servo's memory and EEPROM behind the bus's back: somebody worked on it with another program."""
        servo = self.servos[self._checked(joint)]
        servo.memory[address:address + len(data)] = servo.eeprom[address:address + len(data)] = bytes(data)
        self.drives[joint].reload()

    def answer(self, packet: bytes) -> list[tuple[float, bytes]]:
        if checksum(packet[2:-1]) != packet[-1]:
            self.bad_requests += 1
            return []
        number, instruction, data = packet[2], packet[4], packet[5:-1]
        if instruction == sts.SYNC_READ and number == sts.BROADCAST and len(data) > 2:
            return [self._read(i, data[0], data[1]) for i in map(self._index, data[2:]) if i is not None]
        if instruction == sts.SYNC_WRITE and number == sts.BROADCAST and len(data) > 2:
            size = data[1] + 1
            for at in range(2, len(data) - size + 1, size):
                if (i := self._index(data[at])) is not None:
                    self._write(i, data[0], data[at + 1:at + size])
            return []
        chosen = range(len(self.servos)) if number == sts.BROADCAST else [i for i in [self._index(number)] if i is not None]
        answers = [self._one(i, instruction, data) for i in chosen]
        return [] if number == sts.BROADCAST else [answer for answer in answers if answer]

    def _one(self, i: int, instruction: int, data: bytes) -> tuple[float, bytes] | None:
        servo = self.servos[i]
        if instruction == sts.PING:
            return self._reply(i, b"")
        if instruction == sts.READ and len(data) == 2:
            return self._read(i, data[0], data[1])
        if instruction == sts.WRITE and data:
            self._write(i, data[0], data[1:])
        elif instruction == sts.REG_WRITE and data:
            servo.registered = (data[0], bytes(data[1:]))
        elif instruction == sts.ACTION and servo.registered:
            address, kept = servo.registered
            servo.registered = None
            self._write(i, address, kept)
        else:
            return None
        return self._reply(i, b"") if servo.memory[sts.RESPONSE_LEVEL] else None

    def _index(self, number: int) -> int | None:
        return next((i for i, servo in enumerate(self.servos) if servo.number == number), None)

    def _reply(self, i: int, data: bytes) -> tuple[float, bytes]:
        servo = self.servos[i]
        body = bytes([servo.number, len(data) + 2, self.drives[i].status()]) + data
        return servo.memory[sts.RETURN_DELAY] * _RETURN_DELAY_UNIT, b"\xff\xff" + body + bytes([checksum(body)])

    def _read(self, i: int, address: int, size: int) -> tuple[float, bytes]:
        key = (i, address, size)
        if not self.frozen:
            self._refresh(i)
            self._frozen_answers[key] = bytes(self.servos[i].memory[address:address + size])
        return self._reply(i, self._frozen_answers.setdefault(key, bytes(self.servos[i].memory[address:address + size])))

    def _refresh(self, i: int) -> None:
        """Bring what the servo reports up to date."""
        servo, drive = self.servos[i], self.drives[i]
        speed = 0.0 if i in self.stuck else float(self.plant.dq[i]) * DIRECTION[i]
        servo.put(sts.PRESENT, sts.magnitude(self.present(i), 15))
        servo.put(sts.SPEED, sts.magnitude(round(speed / servo.speed_unit), 15))
        servo.put(sts.LOAD, sts.magnitude(round(1000 * drive.duty) * DIRECTION[i], 10))
        servo.put(sts.CURRENT, sts.magnitude(round(drive.current * DIRECTION[i] / sts.CURRENT_UNIT), 15))
        servo.memory[sts.VOLTAGE] = round(10 * drive.volts)
        servo.memory[sts.TEMPERATURE] = round(drive.celsius)
        servo.memory[sts.STATUS] = drive.status()
        servo.memory[sts.MOVING] = int(abs(drive.profile_speed) > 0)

    def _write(self, i: int, address: int, data: bytes) -> None:
        servo, drive, now = self.servos[i], self.drives[i], self.plant.time
        was_on = servo.torque_on
        goal = servo.write(address, data, self.actual(i))
        if goal or (servo.torque_on and not was_on):
            if not was_on:
                drive.setpoint = float(self.plant.q[i])
                self.judge.begin(i, float(self.plant.q[i]), now)
            low, high = servo.word(sts.ANGLE_MIN), servo.word(sts.ANGLE_MAX)
            raw = sts.signed(servo.word(sts.GOAL), 15)
            self.judge.position(i, self._angle(i, raw), now)
            drive.goal = self._angle(i, min(max(raw, low), high))
        drive.reload()


def main(options: Options) -> None:
    """Serve the twin until it is told to end."""
    So101(options).run("so101", options.fault_port)


if __name__ == "__main__":
    main(tyro.cli(Options))
