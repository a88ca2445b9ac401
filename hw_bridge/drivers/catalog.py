"""The robots that can be driven, by the names that `--robot` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hw_bridge.drivers.driver import Driver
from robots.errors import ConfigurationError, UnknownNameError


@dataclass(frozen=True)
class DriverEntry:
    """One kind of robot."""

    open: Callable[[str, Mapping[str, str]], Driver]
    """From its address and further options to its driver, not yet connected."""
    address: str
    """What an address looks like, for people."""
    twin: str
    """The twin that stands in for it: `reflexarc twin NAME`."""


def _ur5e(address: str, options: Mapping[str, str]) -> Driver:
    from hw_bridge.drivers.universal_robots import UniversalRobots

    return UniversalRobots(address, watchdog_s=float(options.get("watchdog_s", "0.02")))


def _so101(address: str, options: Mapping[str, str]) -> Driver:
    from hw_bridge.calibration import Calibration
    from hw_bridge.drivers.feetech import FeetechDriver
    from robots.arms.so101 import so101

    return FeetechDriver(so101(), address, Calibration.load(_needed(options, "calibration", "so101")))


def _dynamixel_arm(address: str, options: Mapping[str, str]) -> Driver:
    from hw_bridge.calibration import Calibration
    from hw_bridge.drivers.dynamixel import DynamixelDriver
    from robots.arms.dynamixel_arm import dynamixel_arm

    return DynamixelDriver(dynamixel_arm(), address, Calibration.load(_needed(options, "calibration", "dynamixel-arm")))


def _panda(address: str, options: Mapping[str, str]) -> Driver:
    from hw_bridge.drivers.franka import FrankaArm
    from hw_bridge.drivers.franka_client import FrankaConfig
    from robots.arms.panda import panda

    return FrankaArm(panda(), FrankaConfig(address))


def _needed(options: Mapping[str, str], name: str, robot: str) -> str:
    if name not in options:
        raise ConfigurationError(f"robot {robot!r} needs the option {name!r}: give --{name} FILE; reflexarc calibrate makes one")
    return options[name]


DRIVERS: Mapping[str, DriverEntry] = {
    "ur5e": DriverEntry(_ur5e, "the controller's IP address, such as 192.168.0.10", "ur5e"),
    "so101": DriverEntry(_so101, "the serial port, such as /dev/ttyACM0", "so101"),
    "dynamixel-arm": DriverEntry(_dynamixel_arm, "the serial port, such as /dev/ttyUSB0", "dynamixel-arm"),
    "panda": DriverEntry(_panda, "the controller's FCI address, such as 172.16.0.2", "panda"),
}


def open_driver(robot: str, address: str, options: Mapping[str, str] | None = None) -> Driver:
    """Return the driver of `robot` at `address`, not yet connected; UnknownNameError lists the known robots."""
    if robot not in DRIVERS:
        raise UnknownNameError("robot", robot, DRIVERS)
    return DRIVERS[robot].open(address, options or {})
