"""`python -m hw_bridge.page BRIDGE ROBOT`: serve the operator's page of a running bridge, and print where it is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from hw_bridge.drivers.catalog import open_driver
from hw_bridge.page.server import OperatorPage
from robots.command import CommandMode
from robots.errors import ReflexarcError

_NICE = -10
"""The stop button does not wait behind a busy planner, where the system allows it."""


@dataclass(frozen=True)
class PageConfig:
    """Which bridge the page is for, and where it is served."""

    bridge: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="BRIDGE")]
    """Name of the running bridge, as it says when it is ready."""
    robot: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ROBOT")]
    """The robot it drives, as the driver catalogue names it: ur5e, so101, ..."""
    mode: tyro.conf.EnumChoicesFromValues[CommandMode] = CommandMode.JOINT_POSITION
    """What its policies command, and so what set-points are."""
    address: str = "127.0.0.1"
    """Of this machine, on loopback only."""
    port: int = 0
    """0: any free one."""
    cameras: tuple[str, ...] = ()
    """Names of the cameras that are shown, as in --cameras wrist top."""
    watch_only: bool = False
    """No button does anything but the stop button: while an arm is recorded that nobody is to command."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Further options of the driver, as the bridge was given them."""


def serve_page(config: PageConfig) -> int:
    """Serve the page until SIGINT or SIGTERM; its address, with the token, is printed. Errors say in words what cannot be."""
    arm = open_driver(config.robot, "", config.options).arm
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    with OperatorPage(config.bridge, arm, config.mode, config.address, config.port, config.cameras, config.watch_only) as page:
        for number in (signal.SIGINT, signal.SIGTERM):
            # shutdown waits for the loop that this very thread is in
            signal.signal(number, lambda *_: threading.Thread(target=page.close).start())
        print(f"operator page: {page.url}", flush=True)
        page.serve()
    return 0


def main() -> int:
    """Run the command line."""
    try:
        return serve_page(tyro.cli(PageConfig, description=__doc__))
    except ReflexarcError as error:
        print(f"operator page: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
