"""The subcommand `reflexarc record`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.arm_cli import Calibration, Cameras, Patience


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
