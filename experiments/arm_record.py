"""`reflexarc record`: an arm is watched and recorded with its cameras, and never commanded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mcap.exceptions import McapError
from mcap.reader import make_reader
from rich.console import Console

from experiments.arm_cameras import ArmCameras, arm_cameras, camera_sources
from experiments.arm_live import page_command
from experiments.arm_settings import PATIENCE, ArmSettings
from experiments.progress import make_console
from experiments.termination import EXIT_CODE, Terminated, sigterm_raises
from hw_bridge.client import BridgeProcess, BridgeStatus
from hw_bridge.recorder.mcap_log import ROWS_TOPIC
from hw_bridge.safety.config import SafetyConfig
from robots.errors import ConfigurationError, HardwareError, ReflexarcError

if TYPE_CHECKING:
    from experiments.arm_log_cli import Record

_REFRESH_S = 0.2


def record_command(options: Record) -> int:
    """Record until Ctrl-C or for --seconds; 1 where the bridge died or something is missing in a log."""
    if options.seconds is not None and not options.seconds > 0:
        raise ConfigurationError(f"--seconds: expected a time above 0, got {options.seconds}")
    if options.log.exists():
        raise ConfigurationError(f"--log {options.log}: exists already; a log is never written over, take another name")
    sources = camera_sources(options.camera, options.log)
    settings = ArmSettings(options.robot, options.address, calibration=options.calibration,
                           patience=PATIENCE if options.patience is None else options.patience)
    settings.arm()
    config = settings.bridge(settings.careful(SafetyConfig()), "record", "none", "human", str(options.log))
    config = replace(config, watch_only=True)
    console = make_console()
    with sigterm_raises(), BridgeProcess(config) as bridge, contextlib.ExitStack() as stack:
        name, identity = bridge.ready["name"], bridge.ready["identity"]
        try:
            cameras = stack.enter_context(arm_cameras(name, sources, options.log))
        except ReflexarcError:
            bridge.close()
            options.log.unlink(missing_ok=True)  # a moment of an arm without its cameras, and in the way of the next attempt
            raise
        until = "until Ctrl-C" if options.seconds is None else f"for {options.seconds:g} s, or until Ctrl-C"
        console.print(f"{identity['model']} (serial {identity['serial']}) at {settings.address} is recorded {until}. Nothing is written to "
                      f"it.\nto see it: {page_command(settings, name, cameras.names, watch_only=True)}", highlight=False, markup=False)
        watch = Watch(console, bridge, cameras)
        code = watch.run(options.seconds)
        status = bridge.client.status()
        bridge.close()
        whole = [_tell_log(console, options.log, status), *_tell_cameras(console, cameras)]
    return code if code or all(whole) else 1


class Watch:
    """What a person is told while an arm is recorded."""

    def __init__(self, console: Console, bridge: BridgeProcess, cameras: ArmCameras) -> None:
        self._console, self._bridge, self._cameras = console, bridge, cameras
        self._began, self._ticks = time.monotonic(), bridge.client.status().ticks
        self._said = {"arm": "", "log": ""}

    @property
    def seconds(self) -> float:
        """Time since it began [s]."""
        return time.monotonic() - self._began

    def run(self, seconds: float | None) -> int:
        """Watch until `seconds` have passed [s] or somebody says so; the exit code."""
        with contextlib.ExitStack() as stack:
            line = stack.enter_context(self._console.status("")) if self._console.is_terminal else None
            try:
                while seconds is None or self.seconds < seconds:
                    words = self.look()
                    if line is not None:
                        line.update(words)
                    time.sleep(_REFRESH_S if seconds is None else min(max(seconds - self.seconds, 0.0), _REFRESH_S))
            except KeyboardInterrupt as stop:
                return EXIT_CODE if isinstance(stop, Terminated) else 0
            except HardwareError as error:
                self._console.print(f"the recording ended: {error}", highlight=False, markup=False)
                return 1
        return 0

    def look(self) -> str:
        """Print what is new, and return how it goes in one line. HardwareError where the bridge died."""
        if self._bridge.process.poll() is not None:
            raise HardwareError("the bridge's process died; what it had recorded is in the log")
        state, status = self._bridge.client.state(), self._bridge.client.status()
        age = (time.monotonic_ns() - state.received_ns) * 1e-9
        silent = "" if age < 1.0 else "is not heard any more"
        for what, words in (("arm", status.vendor or silent), ("log", status.recorder)):
            if words != self._said[what]:
                self._console.print(f"the {what}: {words or 'all is well again'}", highlight=False, markup=False)
                self._said[what] = words
        for words in self._cameras.news():
            self._console.print(words, highlight=False, markup=False)
        pose = " ".join(f"{angle:+.2f}" for angle in state.q)
        return (f"{self.seconds:.1f} s  {(status.ticks - self._ticks) / max(self.seconds, 1e-3):.0f} rows/s  "
                f"{status.recorder or 'nothing dropped'}{self._cameras.line()}  q [{pose}] rad")


def _tell_log(console: Console, log: Path, status: BridgeStatus) -> bool:
    """Print what the arm's log holds; return whether it is whole."""
    found = rows_in(log)
    held = "an unknown number of rows; the log was not finished, what it holds can be read" if found is None \
        else f"{found[0]} rows in {found[1]:.1f} s"
    console.print(f"{held}{f'; {status.recorder}' if status.recorder else ''}; {status.skipped} periods skipped by a late loop, 99 % "
                  f"began within {status.late_99_ns / 1e6:.3f} ms; {log}", highlight=False, markup=False)
    return found is not None and not status.recorder


def _tell_cameras(console: Console, cameras: ArmCameras) -> Iterator[bool]:
    for whole, words in cameras.close():
        console.print(words, highlight=False, markup=False)
        yield whole


def rows_in(log: Path) -> tuple[int, float] | None:
    """Return how many rows a finished log holds, and how long it is [s], from its summary; None where it was not finished."""
    try:
        with log.open("rb") as file:
            summary = make_reader(file).get_summary()
    except (OSError, McapError):
        return None
    if summary is None or summary.statistics is None:
        return None
    statistics = summary.statistics
    rows = sum(statistics.channel_message_counts.get(number, 0) for number, channel in summary.channels.items()
               if channel.topic == ROWS_TOPIC)
    return rows, (statistics.message_end_time - statistics.message_start_time) * 1e-9
