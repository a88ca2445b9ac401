"""`reflexarc twin`: a simulated arm behind the vendor's own wire protocol, in the foreground."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from experiments.progress import make_console
from experiments.termination import sigterm_raises
from hw_bridge.calibration import Calibration
from hw_bridge.twins.twin import TwinProcess
from robots.errors import ConfigurationError, HardwareError, UnknownNameError

if TYPE_CHECKING:
    from experiments.arm_cli import Twin

_POLL_S = 0.5


@dataclass(frozen=True)
class TwinEntry:
    """One twin."""

    module: str
    """Of hw_bridge/twins."""
    summary: str
    network: bool
    """True where it takes a loopback address; else it makes a pseudo-terminal, or joins a ROS domain."""


TWINS = {
    "ur5e": TwinEntry("ur5e", "UR5e: RTDE, dashboard and script ports, for ur_rtde", True),
    "so101": TwinEntry("so101", "SO-101: six STS3215 on a pseudo-terminal, for the Feetech SDK", False),
    "dynamixel-arm": TwinEntry("dynamixel_arm", "desktop arm of six Dynamixel X servos on a pseudo-terminal, for dynamixel_sdk", False),
    "panda": TwinEntry("panda", "Franka Panda or FR3 (--arm fr3): FCI with its reflexes, for libfranka's clients", True),
    "ros2-arm": TwinEntry("ros2_arm", "an arm under ros2_control, for DDS (needs the extra 'ros2')", False),
}


def twin_command(options: Twin) -> int:
    """Run a twin until Ctrl-C, or list them; 1 where the twin ended by itself."""
    console = make_console()
    if options.name is None:
        for name, entry in TWINS.items():
            console.print(f"  {name:<14s} {entry.summary}", highlight=False)
        console.print("Start one with: reflexarc twin NAME; its own options: reflexarc twin NAME --own-help", highlight=False)
        return 0
    if options.name not in TWINS:
        raise UnknownNameError("twin", options.name, TWINS)
    entry = TWINS[options.name]
    if options.own_help:
        return subprocess.run([sys.executable, "-m", f"hw_bridge.twins.{entry.module}", "--help"], check=False,
                              cwd=Path(__file__).resolve().parents[1]).returncode
    if options.address is not None and not entry.network:
        raise ConfigurationError(f"--address: twin {options.name} has none, it says where it is once it runs; leave --address out")
    own = [*options.further, *(() if options.address is None else ("--address", options.address))]
    with sigterm_raises(), TwinProcess(entry.module, *own) as twin, contextlib.suppress(KeyboardInterrupt):
        _say(console, options.name, entry, twin)
        while True:
            try:
                code = twin.process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            raise HardwareError(f"twin {options.name} ended by itself with {code}: {twin.process.stderr.read().strip()[-2000:]}")
    console.print(f"\ntwin {options.name} ended")
    return 0


def _say(console: Console, name: str, entry: TwinEntry, twin: TwinProcess) -> None:
    """Print where the twin listens, how to reach it and how to hurt it."""
    ready = twin.ready
    address, port = ready.get("device") or ready["address"], ready["fault_port"]
    further = ""
    if "device" in ready:
        path = Path("runs") / "calibrations" / f"{name}-twin.json"
        Calibration(**twin.fault("calibration")).save(path)
        further = f" --calibration {path}"
    lines = [f"twin {name} is at {address}; it ends with Ctrl-C",
             "look at it through the bridge, with the vendor's own client:",
             f"  reflexarc check --robot {name} --address {address}{further}",
             "hurt it, on its fault port (one JSON object a line), for instance with a kilogram that nobody told it of:",
             f"""  echo '{{"do": "payload", "mass": 1.0}}' | nc -q 1 127.0.0.1 {port}""",
             f"what else can be done to it: {', '.join(fault_names(twin))}"]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def fault_names(twin: TwinProcess) -> list[str]:
    """Return what the twin's fault port can be asked for; it says so of a name that it does not know."""
    try:
        twin.fault("?")
    except HardwareError as error:
        return re.findall(r"\w+", str(error).partition("known:")[2])
    return []
