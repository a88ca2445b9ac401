"""The twins of the fault matrix: how each is started and driven, and what its vendor promises."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hw_bridge.bridge import BridgeConfig
from hw_bridge.calibration import Calibration
from hw_bridge.drivers.catalog import open_driver
from hw_bridge.realtime.privileges import RealTimeConfig
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.supervisor import Supervisor
from hw_bridge.twins.twin import TwinProcess
from robots.arms.arm import Arm

MACHINE_S = 0.05
"""What looking at a twin from outside, on a machine that others use too, may add to every time [s]."""


@dataclass(frozen=True)
class TwinSetup:
    """One twin. Times are the vendor's part of a bound [s]."""

    robot: str
    """In the driver catalogue."""
    module: str
    """The twin's own, below hw_bridge.twins."""
    options: tuple[str, ...]
    """Of the twin's command line."""
    address: str
    """Empty: the twin says on which device it is."""
    watchdog_s: float | None
    """After this silence the arm stops by itself; None: it holds its last goal."""
    vendor_stop_s: float
    """The slowest stop of the arm's own controller."""
    settle_s: float
    """From a set-point at rest to an arm at rest."""
    lacks: Mapping[str, str]
    """Kinds of fault that it cannot have, and why."""
    calibrated: bool = False
    """Whether its driver needs a calibration."""
    safety: SafetyConfig = SafetyConfig()

    def start(self) -> TwinProcess:
        """Start it."""
        return TwinProcess(self.module, *self.options)

    def bridge(self, twin: TwinProcess, folder: Path, number: int) -> BridgeConfig:
        """Return the configuration of the `number`th bridge to the running twin, which logs into `folder`."""
        options = {}
        if self.calibrated:
            options["calibration"] = str(folder / f"{self.robot}.json")
            Calibration(**twin.fault("calibration")).save(options["calibration"])
        log = folder / f"{self.robot}-{number}.mcap"
        return BridgeConfig(self.robot, self.address or twin.ready["device"], safety=self.safety, log=str(log), task="faults",
                            provenance="fault matrix", options=options, real_time=RealTimeConfig(lock_memory=False))

    def stop_time(self, config: BridgeConfig) -> float:
        """Return how long the supervisor may take from a cause that it sees to a set-point at rest [s]."""
        arm: Arm = open_driver(config.robot, config.address, config.options).arm
        return Supervisor(arm, config.mode, config.safety).stop_time_max


_BUS_SAFETY = SafetyConfig(observation_age_max=0.05, gap_max=0.05)
"""At 100 Hz the supervisor's usual 20 ms are two periods: one answer that is lost, and one late wake-up."""
_NO_CLOCK = "its servos tell no time"
_NO_SERVOS = "its joints are not servos on a bus"
_COLLISION = "its controller feels a collision: 'protective stop'"
_OWN_ADDRESS = f"127.0.{100 + os.getpid() % 150}.{2 + os.getpid() // 150 % 250}"
"""Two matrices may run at once."""

TWINS: Mapping[str, TwinSetup] = {
    # 20 rad/s^2 from pi rad/s; servoj looks 30 ms ahead.
    "ur5e": TwinSetup("ur5e", "ur5e", ("--address", _OWN_ADDRESS, "--unlock-after", "0.2"), _OWN_ADDRESS, watchdog_s=0.02,
                      vendor_stop_s=0.16, settle_s=0.15, lacks={"overload latch": _NO_SERVOS, "blocked joint": _COLLISION}),
    # The shoulder's loop: 31 N·m/rad and 1.2 N·m·s/rad on 0.08 kg·m^2 swings with a time constant of 0.13 s.
    "so101": TwinSetup("so101", "so101", (), "", watchdog_s=None, vendor_stop_s=0.0, settle_s=0.5, calibrated=True, safety=_BUS_SAFETY,
                       lacks={"protective stop": "its overload latch is all it has", "watchdog trip": "it has none",
                              "clock step": _NO_CLOCK}),
    "dynamixel-arm": TwinSetup("dynamixel-arm", "dynamixel_arm", (), "", watchdog_s=0.1, vendor_stop_s=0.0, settle_s=0.5, calibrated=True,
                               safety=_BUS_SAFETY,
                               lacks={"protective stop": "it has none", "clock step": _NO_CLOCK,
                                      "overload latch": "its servo switches itself off, the joint falls, and no program can hold it; "
                                                        "'blocked joint' shows that the arm stops before"}),
    "panda": TwinSetup("panda", "panda", ("--address", _OWN_ADDRESS), _OWN_ADDRESS, watchdog_s=0.02,
                       vendor_stop_s=0.1, settle_s=0.3, lacks={"overload latch": _NO_SERVOS, "blocked joint": _COLLISION}),
}

