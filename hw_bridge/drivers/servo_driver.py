"""What the drivers of servo buses share: a wire that must be open, and servos that must all be heard of."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from hw_bridge.drivers.driver import Measurement
from hw_bridge.drivers.servo_port import ServoPort, Tags
from robots.arms.arm import Arm
from robots.errors import HardwareError

_PATIENCE_S = 1.0


class ServoDriver(ABC):
    """A `Driver` of servos on one serial line."""

    arm: Arm
    device: str
    _port: ServoPort | None
    _tags: Tags

    @abstractmethod
    def read(self) -> Measurement: ...

    def _refresh(self) -> None:
        """Read until every servo was heard of; HardwareError where one stays silent."""
        start = time.monotonic_ns()
        while time.monotonic_ns() < start + _PATIENCE_S * 1e9:
            self.read()
            if min(self._tags.heard) >= start:
                return
            time.sleep(self.arm.spec.control_dt)
        silent = [name for name, stamp in zip(self.arm.spec.joint_names, self._tags.heard, strict=True) if stamp < start]
        raise HardwareError(f"no answer from {', '.join(silent)} on {self.device}: check the wire from that servo on")

    def _wire(self) -> ServoPort:
        if self._port is None:
            raise HardwareError(f"the arm on {self.device} is not connected: call connect first")
        return self._port
