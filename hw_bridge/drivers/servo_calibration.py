"""How a calibration is made: a person holds the arm with every joint at angle 0, torque off, and the servos are asked where they stand."""

from __future__ import annotations

import numpy as np

from hw_bridge.calibration import Calibration
from hw_bridge.drivers.servo_port import ServoPort
from robots.arms.arm import Arm
from robots.errors import HardwareError, MissingExtraError

_TURN = 4096
_FEETECH_TORQUE, _FEETECH_LOCK, _FEETECH_LIMITS, _FEETECH_HOMING, _FEETECH_PRESENT = 40, 55, 9, 31, 56
_DYNAMIXEL_TORQUE, _DYNAMIXEL_HOMING, _DYNAMIXEL_PRESENT = 64, 20, 132


def calibrate_feetech(arm: Arm, device: str, ids: tuple[int, ...], direction: tuple[int, ...], baud: int = 1_000_000) -> Calibration:
    """Set every STS3215's homing so that it reads 2048 where it stands, its angle limits to the joint's, and return the calibration.

    `direction` is 1 or -1 a joint: does the servo count up as the angle grows? HardwareError where a servo is silent or drives its motor.
    """
    try:
        import scservo_sdk
    except ImportError as error:
        raise MissingExtraError("the Feetech driver", "feetech") from error
    port = ServoPort(scservo_sdk, device, baud, 0, no_fast=False)
    try:
        models = _present(port, ids, _FEETECH_TORQUE)
        low, high = _ranges(arm, direction, [_TURN // 2] * len(ids))
        homing = []
        for i, number in enumerate(ids):
            register, reading = _word(port, number, _FEETECH_HOMING), _word(port, number, _FEETECH_PRESENT)
            before = -(register & 0x7FF) if register & 0x800 else register
            offset = max((reading + before) % _TURN - _TURN // 2, -0x7FF)
            homing.append(offset)
            port.write(number, _FEETECH_LOCK, 0)
            port.write(number, _FEETECH_HOMING, *_two(abs(offset) | (0x800 if offset < 0 else 0)))
            port.write(number, _FEETECH_LIMITS, *_two(low[i]), *_two(high[i]))
            port.write(number, _FEETECH_LOCK, 1)
            if abs(_word(port, number, _FEETECH_PRESENT) - _TURN // 2) > 20:
                raise HardwareError(f"servo {number} does not read {_TURN // 2} after homing: hold the arm still and try again")
        return Calibration(arm=arm.spec.name, joints=arm.spec.joint_names, ids=tuple(ids), models=tuple(models[number] for number in ids),
                           homing=tuple(homing), zero=(_TURN // 2,) * len(ids), direction=tuple(direction), range_min=tuple(low),
                           range_max=tuple(high))
    finally:
        port.close()


def calibrate_dynamixel(arm: Arm, device: str, ids: tuple[int, ...], direction: tuple[int, ...], baud: int = 1_000_000) -> Calibration:
    """Return the calibration of Dynamixel servos that stand at angle 0; nothing is written. Errors as `calibrate_feetech`."""
    try:
        import dynamixel_sdk
    except ImportError as error:
        raise MissingExtraError("the Dynamixel driver", "dynamixel") from error
    port = ServoPort(dynamixel_sdk, device, baud, 2.0, no_fast=True)
    try:
        models = _present(port, ids, _DYNAMIXEL_TORQUE)
        zero = [_signed(port, number, _DYNAMIXEL_PRESENT) for number in ids]
        low, high = _ranges(arm, direction, zero)
        return Calibration(arm=arm.spec.name, joints=arm.spec.joint_names, ids=tuple(ids), models=tuple(models[number] for number in ids),
                           homing=tuple(_signed(port, number, _DYNAMIXEL_HOMING) for number in ids), zero=tuple(zero),
                           direction=tuple(direction), range_min=tuple(low), range_max=tuple(high))
    finally:
        port.close()


def _present(port: ServoPort, ids: tuple[int, ...], torque: int) -> dict[int, int]:
    """Return the models of the servos, all there and with torque off."""
    models = port.models(list(ids))
    missing = [number for number in ids if number not in models]
    if missing:
        raise HardwareError(f"no servo answers at ids {missing} on {port.device}: check wire, supply and the servos' ids")
    driven = [number for number in ids if port.octets(number, torque, 1)[0]]
    if driven:
        raise HardwareError(f"servos {driven} drive their motors: hold the arm, switch torque off, bring every joint to angle 0 by hand")
    return models


def _ranges(arm: Arm, direction: tuple[int, ...], zero: list[int]) -> tuple[list[int], list[int]]:
    """Return the readings at the ends of every joint's range; HardwareError where a servo's one turn does not hold it."""
    limits, scale = arm.spec.limits, _TURN / (2.0 * np.pi)
    ends = np.sort(np.stack([limits.position_min, limits.position_max]) * np.array(direction) * scale, axis=0) + np.array(zero)
    low, high = np.floor(ends[0]).astype(int).tolist(), np.ceil(ends[1]).astype(int).tolist()
    for name, first, last in zip(arm.spec.joint_names, low, high, strict=True):
        if first < 0 or last >= _TURN:
            raise HardwareError(f"{name}: its range would be steps {first} to {last}, a servo has 0 to {_TURN - 1}: turn the horn, or set "
                                "the servo's homing, so that angle 0 reads about 2048")
    return low, high


def _word(port: ServoPort, number: int, address: int) -> int:
    low, high = port.octets(number, address, 2)
    return low | high << 8


def _signed(port: ServoPort, number: int, address: int) -> int:
    return int.from_bytes(bytes(port.octets(number, address, 4)), "little", signed=True)


def _two(value: int) -> tuple[int, int]:
    return value & 0xFF, value >> 8
