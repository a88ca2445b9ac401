"""What can be driven, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from hw_bridge.drivers.catalog import DRIVERS
from robots.arms.arm import Arm
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.panda import fr3, panda
from robots.arms.so101 import so101
from robots.arms.ur5e import ur5e
from robots.spec import TorqueConvention


@dataclass(frozen=True)
class Client:
    """An arm and the vendor's client that drives it."""

    arm: Callable[[], Arm]
    extra: str
    """Of the package, which installs the client."""
    module: str
    """That the client is imported as."""


CLIENTS = {
    "ur5e": Client(ur5e, "ur", "rtde_control"),
    "so101": Client(so101, "feetech", "scservo_sdk"),
    "dynamixel-arm": Client(dynamixel_arm, "dynamixel", "dynamixel_sdk"),
    "panda": Client(panda, "franka", "franky"),
    "fr3": Client(fr3, "franka", "franky"),
}
_GRAVITY = {
    TorqueConvention.TOTAL: "nobody compensates gravity",
    TorqueConvention.GRAVITY_COMPENSATED: "its controller compensates gravity",
    TorqueConvention.GRAVITY_AND_FRICTION_COMPENSATED: "its controller compensates gravity and friction",
    TorqueConvention.NONE: "takes no torques",
}


def robot_summaries() -> Mapping[str, str]:
    """Return every robot that can be driven, by name: how it is commanded, where it is, what it needs."""
    return {name: _summary(name) for name in DRIVERS}


def _summary(name: str) -> str:
    entry, client = DRIVERS[name], CLIENTS.get(name)
    where = f"address: {entry.address}; twin: reflexarc twin {entry.twin}"
    if client is None:
        return where
    arm = client.arm()
    modes = ", ".join(str(command.mode) for command in arm.spec.commands)
    installed = "installed" if find_spec(client.module) is not None else f"not installed: pip install 'reflexarc[{client.extra}]'"
    falls = "; falls when its motors are off" if arm.falls else ""
    return (f"{modes} at {1 / arm.spec.control_dt:.0f} Hz; {_GRAVITY[arm.spec.torque_convention]}{falls}; {where}; "
            f"extra '{client.extra}' ({installed})")
