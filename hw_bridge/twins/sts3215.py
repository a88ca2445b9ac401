"""A Feetech STS3215: its memory, and the loop that drives its motor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw_bridge.twins.profile import follow_profile

PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x82, 0x83
BROADCAST = 0xFE

RETURN_DELAY, RESPONSE_LEVEL, ANGLE_MIN, ANGLE_MAX, TEMPERATURE_MAX = 7, 8, 9, 11, 13
VOLTAGE_MAX, VOLTAGE_MIN, TORQUE_MAX, PHASE, UNLOAD_ON, GAIN_P, GAIN_D, GAIN_I = 14, 15, 16, 18, 19, 21, 22, 23
DEAD_ZONE, CURRENT_MAX, HOMING, PROTECTIVE, PROTECTION_TIME, OVERLOAD, CURRENT_TIME = 26, 28, 31, 34, 35, 36, 38
TORQUE_ENABLE, ACCELERATION, GOAL, GOAL_SPEED, TORQUE_LIMIT, LOCK = 40, 41, 42, 46, 48, 55
PRESENT, SPEED, LOAD, VOLTAGE, TEMPERATURE, STATUS, MOVING, CURRENT = 56, 58, 60, 62, 63, 65, 66, 69
EEPROM_END, MEMORY = 40, 90

BIT_VOLTAGE, BIT_SENSOR, BIT_TEMPERATURE, BIT_CURRENT, BIT_OVERLOAD = 1, 2, 4, 8, 32

FACTORY = {0: 3, 1: 10, 3: 9, 4: 3, RESPONSE_LEVEL: 1, ANGLE_MAX: 0xFF, ANGLE_MAX + 1: 0x0F, TEMPERATURE_MAX: 70, VOLTAGE_MAX: 140,
           VOLTAGE_MIN: 40, TORQUE_MAX: 0xE8, TORQUE_MAX + 1: 3, PHASE: 12, UNLOAD_ON: 44, 20: 47, GAIN_P: 32, GAIN_D: 32, 24: 16,
           DEAD_ZONE: 1, 27: 1, CURRENT_MAX: 0xF4, CURRENT_MAX + 1: 1, 30: 1, PROTECTIVE: 20, PROTECTION_TIME: 200, OVERLOAD: 80,
           37: 10, CURRENT_TIME: 200, 39: 10}
"""Memory of a new servo; what is not listed is 0. Firmware 3.10, model 777."""

STEP = 2.0 * math.pi / 4096
CURRENT_UNIT = 0.0065
"""[A]"""
KP = 0.332
"""Duty per radian of error and unit of P: 17.8 N·m/rad at P = 16 and 3.35 N·m, the value identified publicly on real servos."""
KD = 0.0064
"""Duty per rad/s and unit of D; together with the motor's own braking it damps the arm well (chosen)."""
KI = 0.05
"""Duty per rad·s and unit of I (chosen)."""


@dataclass(frozen=True)
class Motor:
    """The electric side of one servo, seen at the joint."""

    stall: float
    """Torque at full duty and standstill [N·m]."""
    no_load: float
    """Speed at full duty without load [rad/s]."""
    torque_constant: float
    """[N·m/A]"""
    volts: float
    """Supply [V]."""


MOTORS = {"12V": Motor(2.94, 4.7, 1.08, 12.0), "7.4V": Motor(1.9, 5.4, 0.79, 7.4)}


def magnitude(value: int, sign_bit: int) -> int:
    """Return a signed number as the servo writes it: size and a sign bit."""
    return min(abs(value), (1 << sign_bit) - 1) | (1 << sign_bit if value < 0 else 0)


def signed(value: int, sign_bit: int) -> int:
    """Return the number behind size and sign bit."""
    size = value & ((1 << sign_bit) - 1)
    return -size if value >> sign_bit & 1 else size


class Servo:
    """One servo's memory and what its firmware does when it is read and written. Angles are in steps of its own encoder."""

    def __init__(self, number: int, homing: int, return_delay: int) -> None:
        self.delivered = bytearray(MEMORY)
        """Memory as delivered and homed."""
        for address, value in FACTORY.items():
            self.delivered[address] = value
        self.delivered[5] = number
        self.delivered[RETURN_DELAY] = return_delay
        self._put(self.delivered, HOMING, magnitude(homing, 11))
        self.eeprom = bytearray(self.delivered)
        self.registered: tuple[int, bytes] | None = None
        self.boot()

    @property
    def number(self) -> int:
        """Address on the bus."""
        return self.memory[5]

    def boot(self) -> None:
        """Power comes: memory from the EEPROM, torque off, nothing latched."""
        self.memory = bytearray(self.eeprom)
        self.memory[LOCK] = 1
        self.memory[TORQUE_LIMIT:TORQUE_LIMIT + 2] = self.memory[TORQUE_MAX:TORQUE_MAX + 2]
        self.latched = 0
        self.registered = None

    @staticmethod
    def _put(memory: bytearray, address: int, value: int) -> None:
        memory[address:address + 2] = value.to_bytes(2, "little")

    def put(self, address: int, value: int) -> None:
        """Store two bytes, the lower first."""
        self._put(self.memory, address, value)

    def word(self, address: int) -> int:
        """Return two bytes."""
        return self.memory[address] | self.memory[address + 1] << 8

    @property
    def speed_unit(self) -> float:
        """What 1 means in a speed [rad/s]."""
        return STEP if self.memory[PHASE] & 4 else 50 * STEP

    @property
    def torque_on(self) -> bool:
        """True where the motor is driven."""
        return self.memory[TORQUE_ENABLE] == 1

    def write(self, address: int, data: bytes, actual: int) -> bool:
        """Store `data` as the firmware does; True where a goal came in. `actual` is the encoder's reading before homing [steps].

        A goal switches torque on. Torque enable, written at all, releases a latched overload (128 makes here the middle).
        """
        if address + len(data) > MEMORY:
            return False
        for place, value in enumerate(data, address):
            if place < 5 or PRESENT <= place < 80:
                continue
            self.memory[place] = value
            if place < EEPROM_END and not self.memory[LOCK]:
                self.eeprom[place] = value
        if address <= TORQUE_ENABLE < address + len(data):
            self.latched = 0
            if self.memory[TORQUE_ENABLE] == 128:
                self.write(HOMING, magnitude(actual - 2048, 11).to_bytes(2, "little"), actual)
                self.memory[TORQUE_ENABLE] = 0
        goal = address < GOAL + 2 and address + len(data) > GOAL
        if goal:
            self.memory[TORQUE_ENABLE] = 1
        return goal


class Drive:
    """What turns one servo's memory into torque, once a tick: profile, position PID, duty limits, protection. Angles of the joint [rad].

    Plain numbers: six servos a millisecond in arrays would cost four times as much.
    """

    def __init__(self, servo: Servo, motor: Motor, backlash: float, tick: float) -> None:
        self.servo, self.motor, self.backlash, self.tick = servo, motor, backlash, tick
        self.volts, self.celsius = motor.volts, 32.0
        self.begin(0.0)

    def begin(self, q: float) -> None:
        """Start over at `q` [rad] with what stands in the memory."""
        self.goal = self.setpoint = q
        self.profile_speed = self.integral = self.duty = self.current = self.overload_s = self.overcurrent_s = 0.0
        self.reload()

    def reload(self) -> None:
        """Take over what was written to the servo's memory."""
        servo, memory = self.servo, self.servo.memory
        self.on = servo.torque_on
        self.kp, self.kd, self.ki = memory[GAIN_P] * KP, memory[GAIN_D] * KD, memory[GAIN_I] * KI
        self.speed_max = servo.word(GOAL_SPEED) * servo.speed_unit or math.inf
        self.acceleration = memory[ACCELERATION] * 100 * STEP or math.inf
        self.duty_max = min(servo.word(TORQUE_MAX), servo.word(TORQUE_LIMIT)) / 1000.0
        if servo.latched:
            self.duty_max = min(self.duty_max, memory[PROTECTIVE] / 100.0)
        self.dead = memory[DEAD_ZONE] * STEP
        self.overload_at, self.overload_after = memory[OVERLOAD] / 100.0, memory[PROTECTION_TIME] * 0.01
        self.current_at, self.current_after = servo.word(CURRENT_MAX) * CURRENT_UNIT, memory[CURRENT_TIME] * 0.01

    def torque(self, measured: float, dq: float) -> float:
        """Return the motor's torque [N·m] for the encoder's angle and the true velocity."""
        if not self.on or (self.celsius > self.servo.memory[TEMPERATURE_MAX] and self.servo.memory[UNLOAD_ON] & BIT_TEMPERATURE):
            self.setpoint, self.profile_speed = measured, 0.0
            self.duty = self.current = self.integral = self.overload_s = self.overcurrent_s = 0.0
            return 0.0
        self._profile()
        error = self.setpoint - measured
        felt = 0.0 if abs(error) <= self.dead else math.copysign(max(abs(error) - 0.5 * self.backlash, 0.0), error)
        self.integral = min(max(self.integral + self.ki * felt * self.tick, -1.0), 1.0) if self.ki else 0.0
        duty = self.kp * felt - self.kd * dq + self.integral
        self.duty = min(max(duty, -self.duty_max), self.duty_max)
        torque = self.motor.stall * (self.duty * self.volts / self.motor.volts - dq / self.motor.no_load)
        self.current = torque / self.motor.torque_constant
        self._protect()
        return torque

    def _profile(self) -> None:
        """Move the set-point to the goal at the acceleration and speed that were asked for."""
        self.setpoint, self.profile_speed = follow_profile(self.setpoint, self.profile_speed, self.goal, self.speed_max,
                                                           self.acceleration, self.tick)

    def _protect(self) -> None:
        unload = self.servo.memory[UNLOAD_ON]
        self.overload_s = self.overload_s + self.tick if abs(self.duty) >= self.overload_at else 0.0
        self.overcurrent_s = self.overcurrent_s + self.tick if abs(self.current) >= self.current_at else 0.0
        latched = self.servo.latched
        if self.overload_s >= self.overload_after and unload & BIT_OVERLOAD:
            self.servo.latched |= BIT_OVERLOAD
        if self.overcurrent_s >= self.current_after and unload & BIT_CURRENT:
            self.servo.latched |= BIT_CURRENT
        if self.servo.latched != latched:
            self.reload()

    def status(self) -> int:
        """Return the servo's status bits."""
        memory, bits = self.servo.memory, self.servo.latched
        if not memory[VOLTAGE_MIN] <= round(10 * self.volts) <= memory[VOLTAGE_MAX]:
            bits |= BIT_VOLTAGE
        return bits | (BIT_TEMPERATURE if self.celsius > memory[TEMPERATURE_MAX] else 0)
