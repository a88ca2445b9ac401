"""A Dynamixel of the X series: its control table, and the loop that drives its motor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw_bridge.twins import dynamixel2 as dxl
from hw_bridge.twins.profile import follow_profile

MODEL, FIRMWARE, NUMBER, RETURN_DELAY, DRIVE_MODE, MODE, HOMING = 0, 6, 7, 9, 10, 11, 20
TEMPERATURE_MAX, VOLTAGE_MAX, VOLTAGE_MIN, DUTY_MAX, CURRENT_MAX, VELOCITY_MAX, POSITION_MAX, POSITION_MIN = 31, 32, 34, 36, 38, 44, 48, 52
SHUTDOWN, TORQUE_ENABLE, STATUS_LEVEL, HARDWARE_ERROR, GAIN_D, GAIN_I, GAIN_P, WATCHDOG = 63, 64, 68, 70, 80, 82, 84, 98
GOAL_DUTY, GOAL_CURRENT, GOAL_VELOCITY, PROFILE_ACCELERATION, PROFILE_VELOCITY, GOAL_POSITION = 100, 102, 104, 108, 112, 116
TICK_MS, MOVING, DUTY, CURRENT, VELOCITY, POSITION, VOLTAGE, TEMPERATURE = 120, 122, 124, 126, 128, 132, 144, 146
EEPROM_END, TABLE = 64, 160

CURRENT_MODE, VELOCITY_MODE, POSITION_MODE, CURRENT_POSITION_MODE = 0, 1, 3, 5
BIT_VOLTAGE, BIT_HOT, BIT_ENCODER, BIT_SHOCK, BIT_OVERLOAD = 1, 4, 8, 16, 32

STEP = 2.0 * math.pi / 4096
VELOCITY_UNIT = 0.229 * 2.0 * math.pi / 60.0
"""[rad/s]"""
ACCELERATION_UNIT = 214.577 * 2.0 * math.pi / 3600.0
"""[rad/s^2]"""
WATCHDOG_UNIT = 0.02
"""[s]"""
TRIPPED = 0xFF
OVERLOAD_AFTER = 1.0
"""Full duty for this long is an overload [s]; the maker says 'persistent'."""


@dataclass(frozen=True)
class Kind:
    """One model of servo, seen at its horn."""

    model: int
    firmware: int
    stall: float
    """[N·m] at the rated voltage."""
    no_load: float
    """[rad/s]"""
    torque_constant: float
    """[N·m/A]"""
    current_unit: float
    """[A]"""
    current_max: int
    """Current limit as delivered [current_unit]."""
    volts: float
    velocity_max: int
    """Velocity limit as delivered [VELOCITY_UNIT]."""


XM430_W350 = Kind(1020, 47, 4.1, 4.82, 4.1 / 2.3, 0.00269, 1193, 12.0, 200)
XL330_M288 = Kind(1200, 52, 0.52, 10.8, 0.52 / 1.47, 0.001, 1750, 5.0, 445)


class Servo:
    """One servo's control table and what its firmware does when it is written."""

    def __init__(self, number: int, kind: Kind, homing: int, return_delay: int) -> None:
        self.kind = kind
        table = bytearray(TABLE)
        for address, size, value in ((MODEL, 2, kind.model), (FIRMWARE, 1, kind.firmware), (NUMBER, 1, number), (8, 1, 3),
                                     (RETURN_DELAY, 1, return_delay), (MODE, 1, POSITION_MODE), (12, 1, 255), (13, 1, 2),
                                     (HOMING, 4, homing), (24, 4, 10), (TEMPERATURE_MAX, 1, 80), (VOLTAGE_MAX, 2, 160),
                                     (VOLTAGE_MIN, 2, 35), (DUTY_MAX, 2, 885), (CURRENT_MAX, 2, kind.current_max),
                                     (VELOCITY_MAX, 4, kind.velocity_max), (POSITION_MAX, 4, 4095), (SHUTDOWN, 1, 52)):
            table[address:address + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.delivered, self.eeprom = table, bytearray(table)
        self.boot()

    def boot(self) -> None:
        """Power comes, or a reboot was asked for: settings from the EEPROM, torque off, nothing latched."""
        self.table = bytearray(self.eeprom)
        self.table[STATUS_LEVEL] = 2
        for address, value in ((76, 1920), (78, 100), (GAIN_P, 800)):
            self.put(address, 2, value)
        self.put(GOAL_DUTY, 2, 885)
        self.registered: tuple[int, bytes] | None = None

    @property
    def number(self) -> int:
        """Address on the bus."""
        return self.table[NUMBER]

    def get(self, address: int, size: int) -> int:
        """Return a signed number."""
        return int.from_bytes(self.table[address:address + size], "little", signed=True)

    def put(self, address: int, size: int, value: int) -> None:
        """Store a number of `size` bytes."""
        self.table[address:address + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def write(self, address: int, data: bytes) -> int:
        """Store `data` where the firmware allows it, and return the error number (0: none)."""
        if address + len(data) > TABLE or not data:
            return dxl.DATA_LENGTH
        last = address + len(data)
        if address < EEPROM_END and self.table[TORQUE_ENABLE]:
            return dxl.ACCESS
        if address < NUMBER or last > TICK_MS:
            return dxl.ACCESS
        if self.table[WATCHDOG] == TRIPPED and last > GOAL_DUTY:
            return dxl.DATA_RANGE
        error = self._refused(address, data)
        if error:
            return error
        mode = self.table[MODE]
        self.table[address:last] = data
        if address < EEPROM_END:
            self.eeprom[address:last] = data
        if self.table[MODE] != mode:
            self.put(GOAL_CURRENT, 2, self.get(CURRENT_MAX, 2) if self.table[MODE] == CURRENT_POSITION_MODE else 0)
            self.put(GOAL_VELOCITY, 4, 0)
        return 0

    def _refused(self, address: int, data: bytes) -> int:
        """Return the error number of values that their registers do not take."""
        last = address + len(data)

        def value(at: int, size: int) -> int | None:
            return int.from_bytes(data[at - address:at - address + size], "little", signed=True) if address <= at < last else None

        mode, enable = value(MODE, 1), value(TORQUE_ENABLE, 1)
        if mode is not None and mode not in (CURRENT_MODE, VELOCITY_MODE, POSITION_MODE, CURRENT_POSITION_MODE):
            return dxl.DATA_RANGE
        if enable is not None and enable and self.table[HARDWARE_ERROR] & self.table[SHUTDOWN]:
            return dxl.RESULT_FAIL
        current, velocity, position = value(GOAL_CURRENT, 2), value(GOAL_VELOCITY, 4), value(GOAL_POSITION, 4)
        if current is not None and abs(current) > self.get(CURRENT_MAX, 2):
            return dxl.DATA_LIMIT
        if velocity is not None and abs(velocity) > self.get(VELOCITY_MAX, 4):
            return dxl.DATA_LIMIT
        beyond = position is not None and not self.get(POSITION_MIN, 4) <= position <= self.get(POSITION_MAX, 4)
        return dxl.DATA_LIMIT if beyond and self.table[MODE] == POSITION_MODE else 0


class Drive:
    """What turns one servo's table into torque, once a tick. Angles and velocities are the joint's [rad, rad/s]."""

    def __init__(self, servo: Servo, direction: int, zero: int, backlash: float, tick: float) -> None:
        self.servo, self.direction, self.zero, self.backlash, self.tick = servo, direction, zero, backlash, tick
        self.volts, self.celsius = servo.kind.volts, 35.0
        self.begin(0.0)

    def begin(self, q: float) -> None:
        """Start over at `q` [rad]."""
        self.setpoint, self.profile_speed, self.integral, self.duty, self.current = q, 0.0, 0.0, 0.0, 0.0
        self.strained_s = self.silent_s = 0.0
        self.was_on = False
        self.reload()

    def reload(self) -> None:
        """Take over what was written to the table."""
        servo, kind = self.servo, self.servo.kind
        self.on = bool(servo.table[TORQUE_ENABLE])
        self.mode = servo.table[MODE]
        self.goal_current = self.direction * servo.get(GOAL_CURRENT, 2) * kind.current_unit
        self.goal_velocity = self.direction * servo.get(GOAL_VELOCITY, 4) * VELOCITY_UNIT
        delivered = int.from_bytes(servo.delivered[HOMING:HOMING + 4], "little", signed=True)
        self.homed_zero = self.zero + servo.get(HOMING, 4) - delivered
        self.goal = self.direction * (servo.get(GOAL_POSITION, 4) - self.homed_zero) * STEP
        self.speed_max = servo.get(PROFILE_VELOCITY, 4) * VELOCITY_UNIT or math.inf
        self.acceleration = servo.get(PROFILE_ACCELERATION, 4) * ACCELERATION_UNIT or math.inf
        self.kp = servo.get(GAIN_P, 2) / 128.0 / 885.0 / STEP
        self.kd = servo.get(GAIN_D, 2) / 16.0 / 885.0 / STEP * 0.001
        self.ki = servo.get(GAIN_I, 2) / 65536.0 / 885.0 / STEP * 1000.0
        self.duty_max = servo.get(DUTY_MAX, 2) / 885.0

    def torque(self, measured: float, dq: float) -> float:
        """Return the motor's torque [N·m] for the encoder's angle and the true velocity."""
        self._watch()
        if not self.on:
            self.setpoint, self.profile_speed, self.integral, self.duty, self.current, self.strained_s = measured, 0.0, 0.0, 0.0, 0.0, 0.0
            self.was_on = False
            return 0.0
        if not self.was_on:
            self.setpoint, self.was_on = measured, True
        kind = self.servo.kind
        if self.mode == CURRENT_MODE:
            wanted = kind.torque_constant * self.goal_current
            duty = wanted / kind.stall + dq / kind.no_load
        elif self.mode == VELOCITY_MODE:
            error = self.goal_velocity - dq
            self.integral = min(max(self.integral + 3.0 * error * self.tick, -1.0), 1.0)
            duty = 0.4 * error + self.integral + self.goal_velocity / kind.no_load
        else:
            duty = self._position(measured, dq)
        self.duty = min(max(duty, -self.duty_max), self.duty_max)
        torque = kind.stall * (self.duty * self.volts / kind.volts - dq / kind.no_load)
        if self.mode == CURRENT_POSITION_MODE:
            top = abs(kind.torque_constant * self.goal_current)
            torque = min(max(torque, -top), top)
        self.current = torque / kind.torque_constant
        self._protect()
        return torque if self.on else 0.0

    def _position(self, measured: float, dq: float) -> float:
        self.setpoint, self.profile_speed = follow_profile(self.setpoint, self.profile_speed, self.goal, self.speed_max, self.acceleration,
                                                           self.tick)
        error = self.setpoint - measured
        felt = math.copysign(max(abs(error) - 0.5 * self.backlash, 0.0), error)
        self.integral = min(max(self.integral + self.ki * felt * self.tick, -1.0), 1.0)
        return self.kp * felt - self.kd * dq + self.integral

    def _watch(self) -> None:
        """Shut down a hot motor; trip the bus watchdog after too long a silence: goals become read-only, and the motion stops."""
        if self.celsius > self.servo.table[TEMPERATURE_MAX]:
            self.trip(BIT_HOT)
        self.silent_s += self.tick
        period = self.servo.table[WATCHDOG]
        if self.on and 0 < period < 128 and self.silent_s > period * WATCHDOG_UNIT:
            self.servo.table[WATCHDOG] = TRIPPED
            self.servo.put(GOAL_CURRENT, 2, 0)
            self.servo.put(GOAL_VELOCITY, 4, 0)
            self.servo.put(GOAL_POSITION, 4, round(self.direction * self.setpoint / STEP) + self.homed_zero)
            self.reload()

    def _protect(self) -> None:
        self.strained_s = self.strained_s + self.tick if abs(self.duty) >= 0.98 * self.duty_max else 0.0
        if self.strained_s >= OVERLOAD_AFTER:
            self.strained_s = 0.0
            self.trip(BIT_OVERLOAD)

    def trip(self, bit: int) -> None:
        """A hardware error: where the shutdown register says so, torque is off until a reboot."""
        table = self.servo.table
        table[HARDWARE_ERROR] |= bit
        if bit & table[SHUTDOWN]:
            table[TORQUE_ENABLE] = 0
            self.reload()

    def alert(self) -> bool:
        """True where the servo has a hardware error to tell of."""
        servo = self.servo
        if not servo.get(VOLTAGE_MIN, 2) <= round(10 * self.volts) <= servo.get(VOLTAGE_MAX, 2):
            servo.table[HARDWARE_ERROR] |= BIT_VOLTAGE
        return servo.table[HARDWARE_ERROR] != 0
