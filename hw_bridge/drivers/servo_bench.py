"""An arm of servos in a person's hands: who is on its bus, torque off, where the servos stand, and what they are told to remember."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

from hw_bridge.calibration import Calibration
from hw_bridge.drivers.feetech import signed
from hw_bridge.drivers.servo_calibration import TURN, JointFit
from hw_bridge.drivers.servo_port import ServoPort
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, HardwareError, MissingExtraError

_MOVED = 40
"""Steps that an arm in a hand may move while a servo is homed."""


class ServoBench(ABC):
    """The servos with addresses `ids`, one a joint, on one serial device; a context manager. HardwareError wherever the wire fails."""

    torque: ClassVar[int]
    """Register of torque enable."""

    def __init__(self, arm: Arm, device: str, ids: tuple[int, ...], baud: int = 1_000_000) -> None:
        if len(ids) != arm.spec.nv or len(set(ids)) != len(ids):
            raise ConfigurationError(f"ids: expected {arm.spec.nv} different addresses, one for each of {', '.join(arm.spec.joint_names)}, "
                                     f"got {list(ids)}")
        self.arm, self.device, self.ids = arm, device, tuple(ids)
        self._port = self._open(device, baud)
        try:
            found = self._port.models(list(ids))
            missing = [number for number in ids if number not in found]
            if missing:
                raise HardwareError(f"no servo answers at ids {missing} on {device}: check that the arm has power, its wire from servo to "
                                    f"servo, that the device is the arm's adapter, and the servos' ids (found: {sorted(found) or 'none'})")
            self.models = tuple(found[number] for number in ids)
            """Model number of every servo."""
            self._check()
        except BaseException:
            self._port.close()
            raise

    @abstractmethod
    def _open(self, device: str, baud: int) -> ServoPort: ...

    @abstractmethod
    def _check(self) -> None:
        """Raise HardwareError where the servos are not of a kind that the arm may have."""

    @abstractmethod
    def readings(self) -> list[int]:
        """Return where every servo says it stands [steps]."""

    @abstractmethod
    def keep(self, fits: list[JointFit]) -> Calibration:
        """Tell the servos what they are to remember, where they remember anything, and return the calibration; HardwareError where a
        joint's range does not fit into a servo's one turn, before anything is written.
        """

    def driven(self) -> list[str]:
        """Return the joints whose servos drive their motors."""
        servos = zip(self.arm.spec.joint_names, self.ids, strict=True)
        return [name for name, number in servos if self._port.octets(number, self.torque, 1)[0]]

    def let_go(self) -> None:
        """Switch torque off: what nobody holds falls. HardwareError where a servo does not obey."""
        for number in self.ids:
            self._port.write(number, self.torque, 0)
        still = self.driven()
        if still:
            raise HardwareError(f"{', '.join(still)}: torque is still on; cut the power of the arm, with a hand under it, and begin again")

    def close(self) -> None:
        """Let go of the port; the servos stay as they are."""
        self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _calibration(self, fits: list[JointFit], zero: list[int], homing: list[int]) -> Calibration:
        ranges = [fit.range_steps(at) for fit, at in zip(fits, zero, strict=True)]
        for name, (low, high) in zip(self.arm.spec.joint_names, ranges, strict=True):
            if low < 0 or high >= TURN:
                raise HardwareError(f"{name}: its range would be steps {low} to {high}, a servo has 0 to {TURN - 1}: turn the horn, or set "
                                    "the servo's homing with the maker's tool, so that angle 0 reads about 2048")
        low, high = zip(*ranges, strict=True)
        return Calibration(arm=self.arm.spec.name, joints=self.arm.spec.joint_names, ids=self.ids, models=self.models,
                           homing=tuple(homing), zero=tuple(zero), direction=tuple(fit.direction for fit in fits), range_min=low,
                           range_max=high)


class FeetechBench(ServoBench):
    """STS3215 servos. They remember an offset, so that angle 0 reads 2048, and the ends of the joint, beyond which they do not go."""

    torque = 40
    _LIMITS, _HOMING, _LOCK, _PRESENT = 9, 31, 55, 56

    def _open(self, device: str, baud: int) -> ServoPort:
        try:
            import scservo_sdk
        except ImportError as error:
            raise MissingExtraError("the Feetech driver", "feetech") from error
        return ServoPort(scservo_sdk, device, baud, 0, no_fast=False)

    def _check(self) -> None:
        wrong = {number: model for number, model in zip(self.ids, self.models, strict=True) if model != 777}
        if wrong:
            raise HardwareError(f"this is no arm of STS3215 servos (model 777): models by id {wrong}. Is it another arm's adapter?")

    def readings(self) -> list[int]:
        return [signed(self._word(number, self._PRESENT), 15) % TURN for number in self.ids]

    def keep(self, fits: list[JointFit]) -> Calibration:
        old = [signed(self._word(number, self._HOMING), 11) for number in self.ids]
        # Where angle 0 lies on the encoder itself; the register holds a sign and 11 bits.
        homing = [max((fit.zero + before) % TURN - TURN // 2, -0x7FF) for fit, before in zip(fits, old, strict=True)]
        calibration = self._calibration(fits, [TURN // 2] * len(self.ids), homing)
        for i, (number, before, offset) in enumerate(zip(self.ids, old, homing, strict=True)):
            stood = self._word(number, self._PRESENT)
            ends = (*_two(calibration.range_min[i]), *_two(calibration.range_max[i]))
            self._port.write(number, self._LOCK, 0)
            self._port.write(number, self._HOMING, *_two(abs(offset) | (0x800 if offset < 0 else 0)))
            self._port.write(number, self._LIMITS, *ends)
            self._port.write(number, self._LOCK, 1)
            kept = signed(self._word(number, self._HOMING), 11) == offset and tuple(self._port.octets(number, self._LIMITS, 4)) == ends
            stands = self._word(number, self._PRESENT)
            if not kept or abs((stands - stood - before + offset + TURN // 2) % TURN - TURN // 2) > _MOVED:
                raise HardwareError(f"{self.arm.spec.joint_names[i]}: servo {number} did not take its homing: hold the arm still, and "
                                    "begin again; servos before it have theirs already")
        return calibration

    def _word(self, number: int, address: int) -> int:
        low, high = self._port.octets(number, address, 2)
        return low | high << 8


class DynamixelBench(ServoBench):
    """Dynamixel X servos. Nothing is written to them: the calibration says what their readings mean."""

    torque = 64
    _HOMING, _PRESENT = 20, 132

    def _open(self, device: str, baud: int) -> ServoPort:
        try:
            import dynamixel_sdk
        except ImportError as error:
            raise MissingExtraError("the Dynamixel driver", "dynamixel") from error
        return ServoPort(dynamixel_sdk, device, baud, 2.0, no_fast=True)

    def _check(self) -> None:
        from hw_bridge.drivers.dynamixel import KINDS

        wrong = {number: model for number, model in zip(self.ids, self.models, strict=True) if model not in KINDS}
        if wrong:
            raise HardwareError(f"servos of unknown models, by id: {wrong}; known are "
                                f"{', '.join(f'{number} ({kind.name})' for number, kind in KINDS.items())}")

    def readings(self) -> list[int]:
        return [self._signed(number, self._PRESENT) for number in self.ids]

    def keep(self, fits: list[JointFit]) -> Calibration:
        return self._calibration(fits, [fit.zero for fit in fits], [self._signed(number, self._HOMING) for number in self.ids])

    def _signed(self, number: int, address: int) -> int:
        return int.from_bytes(bytes(self._port.octets(number, address, 4)), "little", signed=True)


def _two(value: int) -> tuple[int, int]:
    return value & 0xFF, value >> 8
