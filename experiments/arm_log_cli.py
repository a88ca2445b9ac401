"""The subcommands that make and read logs of an arm: record, replay, sysid, delays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.arm_cli import Calibration, Cameras, File, Patience


@dataclass(frozen=True)
class Record:
    """Watch an arm without commanding it, and record it with its cameras until Ctrl-C: while a hand guides it, or its own program moves it.

    The motors are not touched: an arm of servos must be limp to be guided, an industrial one in its own hand-guiding. Joints go to LOG at
    servo rate, each camera's pictures to LOG.camera-NAME.mcap beside it, all on one clock. Nothing is written over. Where a camera fails
    the rest goes on, and it is said. Exits with 1 where something is missing in the log.

    Examples: `reflexarc record --robot ur5e --address 127.0.0.2 --log guided.mcap`,
    `reflexarc record --robot so101 --address /dev/ttyACM0 --calibration so101.json --camera wrist=/dev/video0,width=640,height=480
    --camera top=/dev/video2 --log demo1.mcap --seconds 60`.
    """

    robot: str
    """Robot by name (`reflexarc list robots`)."""
    address: str
    """Where it is: an IP address, a serial port."""
    log: Path
    """File of the log (MCAP)."""
    camera: Cameras = ()
    """A camera, as often as there are cameras: its name, and a device, a video file or a folder of pictures; further entries after commas:
    width, height, rate, loop, format=png."""
    seconds: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="(default: until Ctrl-C)")] = None
    """How long to record."""
    calibration: Calibration = None
    """The arm's calibration."""
    patience: Patience = None
    """Longest silence of the arm that is borne without a word."""

    def run(self) -> int:
        from experiments.arm_record import record_command

        return record_command(self)


@dataclass(frozen=True)
class Replay:
    """Drive a twin again as a log says, through a new bridge, and compare where the joints went. Exits with 1 above --tolerance.

    A twin of its own is started, placed where the log's arm stood, and given the log's actions at the log's times under the log's
    safety rules: from the first activation to the first hold or stop.

    Examples: `reflexarc replay runs/logs/ur5e-swing-20261121-101500.mcap`, `reflexarc replay LOG --address 127.0.0.9 --tolerance 0.02`.
    """

    log: tyro.conf.Positional[Path]
    """The log (MCAP)."""
    address: str = "127.0.0.9"
    """Loopback address for the twin."""
    tolerance: float = 0.02
    """Furthest that a joint may be from where it was [rad]."""

    def run(self) -> int:
        from experiments.arm_replay import replay_command

        return replay_command(self)


@dataclass(frozen=True)
class Sysid:
    """Identify an arm from its logs: payload and its centre, friction and rotor inertia of every joint, each with its 95 % interval.

    Needs the extra 'sysid', logs of one arm whose driver reports torques, and motion: some ten seconds in which all joints move. The last
    quarter of the motion is held out: the errors there are those of the identified and of the described arm. Links are taken to be as
    described. Forces and payload are as the measured torques say; where these are motor currents, by their constants.

    Examples: `reflexarc sysid runs/logs/ur5e-swing-20261121-101500.mcap --out ur5e-loaded.json`, `reflexarc sysid runs/logs/*.mcap`.
    """

    logs: tyro.conf.Positional[tuple[Path, ...]]
    """Logs (MCAP) of one arm."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")] = None
    """Write the parameters here (JSON), with the logs' hashes."""

    def run(self) -> int:
        from experiments.arm_sysid import sysid_command

        return sysid_command(self)


@dataclass(frozen=True)
class Delays:
    """Estimate from a log how old what the bridge sees is, and how long the arm takes to answer what is written.

    Prints both with their spread, as seconds and as a share of the control period, and what a planner must look ahead. Says so where the
    motion does not tell.

    Example: `reflexarc delays runs/logs/ur5e-swing-20261121-101500.mcap`.
    """

    log: tyro.conf.Positional[Path]
    """The log (MCAP)."""
    json: File = None
    """Write the figures here."""

    def run(self) -> int:
        from experiments.arm_delays import delays_command

        return delays_command(self)
