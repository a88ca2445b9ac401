"""`reflexarc sysid`: an arm's payload, friction and rotors from its logs, with what is known of them and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from experiments.arm_robots import CLIENTS
from experiments.progress import make_console
from experiments.run_directory import replace_file
from hw_bridge.identification.file import to_text
from hw_bridge.identification.identify import Identified, identify
from hw_bridge.identification.parameters import units
from hw_bridge.identification.prediction import sysid
from hw_bridge.identification.recording import Stretch, stretches
from hw_bridge.identification.windows import WINDOW_S, moving_windows
from hw_bridge.recorder.read_log import read_log
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from experiments.arm_log_cli import Sysid

_LOST = 3.0
"""Further off than this [rad] a prediction is no motion of the arm any more; joints without friction and rotors get there."""


def sysid_command(options: Sysid) -> int:
    """Identify, print the table, and write the file where one is asked for."""
    sysid()  # without its extra nothing needs to be read
    if not options.logs:
        raise ConfigurationError("reflexarc sysid needs one log (MCAP) or more of one arm")
    console = make_console()
    arm, found = _recorded(options.logs, console)
    identified = identify(moving_windows(found, arm), arm)
    _print(console, identified, arm)
    if options.out is not None:
        replace_file(options.out, to_text(identified, arm, options.logs).encode())
        console.print(f"written: {options.out}", highlight=False)
    return 0


def arm_of(name: str) -> Arm:
    """Return the arm that logs call `name`; UnknownNameError for one that is not known here."""
    arms = {arm.spec.name: arm for arm in (client.arm() for client in CLIENTS.values())}
    if name not in arms:
        raise UnknownNameError("arm in the log", name, arms)
    return arms[name]


def _recorded(logs: tuple[Path, ...], console: Console) -> tuple[Arm, list[Stretch]]:
    arm, found = None, []
    for path in logs:
        log = read_log(path)
        arm = arm or arm_of(log.header.robot_spec["name"])
        found += stretches(log, arm, str(path))
        for words in log.damage:
            console.print(f"{path}: {words}", highlight=False, markup=False)
    return arm, found


def _print(console: Console, identified: Identified, arm: Arm) -> None:
    table = Table("parameter", "value", "95 %", "described", "could be", "unit", "identifiable", box=None, pad_edge=False)
    rows = zip(identified.names, identified.value, identified.half_width, identified.prior, identified.spread, units(arm),
               identified.identifiable, strict=True)
    for name, value, half, prior, spread, unit, known in rows:
        table.add_row(name, f"{value:.4f}", f"±{half:.4f}", f"{prior:.4g}", f"±{spread:.2g}", unit, "yes" if known else "no")
    console.print(table, highlight=False)
    for words, error in (("as identified", identified.held_out), ("as described ", identified.held_out_prior)):
        after = f"{error.position:.3g} rad and {error.velocity:.3g} rad/s" if error.position < _LOST else f"more than {_LOST:g} rad"
        console.print(f"held out, {words}: torque {error.torque:.3g} N·m, after {WINDOW_S:g} s {after} off", highlight=False)
    unknown = [name for name, known in zip(identified.names, identified.identifiable, strict=True) if not known]
    words = f"; not told by this motion: {', '.join(unknown)}" if unknown else ""
    console.print(f"{identified.windows} windows fitted, {identified.held_out_windows} held out, {WINDOW_S:g} s each{words}",
                  highlight=False)
