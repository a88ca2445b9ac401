"""`reflexarc replay`: a twin is driven again as a log says, and must go where the arm went."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.arm_live import hold_and_disarm
from experiments.arm_settings import WATCHDOG_MAX, is_local
from experiments.arm_twin import TWINS
from experiments.progress import make_console
from experiments.termination import sigterm_raises
from hw_bridge.bridge import BridgeConfig
from hw_bridge.calibration import Calibration
from hw_bridge.client import BridgeClient, BridgeProcess
from hw_bridge.drivers.catalog import DRIVERS
from hw_bridge.realtime.privileges import RealTime, RealTimeConfig
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import MODE_CODES, NO_MODE
from hw_bridge.recorder.read_log import Log, read_log
from hw_bridge.safety.rules import State
from hw_bridge.twins.twin import TwinProcess
from robots.command import Command, CommandMode
from robots.errors import ConfigurationError, HardwareError, StoreError

if TYPE_CHECKING:
    from experiments.arm_log_cli import Replay

_PRIORITY = 60
"""Actions that come late are another motion: who sends them goes before ordinary processes, where that is allowed, and after the bridge."""

_SETTLE_S = 0.5
"""Servos sag to where they stay within this [s]."""


@dataclass(frozen=True)
class Motion:
    """What was commanded and where the arm went, from an activation to the hold or stop after it. Times [s] since the activation."""

    action_time: np.ndarray
    """(k,) when each action came."""
    target: np.ndarray
    """(k, nv) what it was taken for [rad]."""
    time: np.ndarray
    """(n,) of the rows."""
    q: np.ndarray
    """(n, nv) where the arm was [rad]."""


def replay_command(options: Replay) -> int:
    """Replay on a twin, print how far it went astray; 1 where that is too far."""
    if not is_local(options.address) or not options.tolerance > 0:
        raise ConfigurationError(f"expected a loopback --address for the twin and a --tolerance above 0, got {options.address!r} and "
                                 f"{options.tolerance}; a log is replayed on a twin, never on an arm")
    log = read_log(options.log)
    recorded, header = first_motion(log, options.log), log.header
    robot = _robot(header)
    with sigterm_raises(), tempfile.TemporaryDirectory(prefix="reflexarc-replay-") as folder:
        entry, stood = TWINS[DRIVERS[robot].twin], start_pose(log, recorded)
        start = stood.tolist()
        placed = ["--address", options.address] if entry.network else ["--q", *map(str, start)]
        with TwinProcess(entry.module, *placed) as twin:
            if entry.network:
                twin.fault("place", q=start)
            else:
                _stand(twin, stood)
            address, further = twin.ready.get("device") or twin.ready["address"], {"watchdog_s": str(WATCHDOG_MAX)}
            if "device" in twin.ready:
                Calibration(**twin.fault("calibration")).save(Path(folder) / "calibration.json")
                further["calibration"] = str(Path(folder) / "calibration.json")
            config = BridgeConfig.from_text(json.dumps({
                **json.loads(BridgeConfig(robot, address, CommandMode.JOINT_POSITION, options=further).to_text()),
                "safety": json.loads(header.extra["safety"]), "log": str(Path(folder) / "again.mcap"), "task": header.task,
                "policy_hash": header.policy_hash, "provenance": "replay"}))
            with BridgeProcess(config) as bridge:
                with RealTime(RealTimeConfig(_PRIORITY, lock_memory=False, stop_garbage_collector=False)):
                    _drive(bridge.client, recorded, header.robot_fingerprint)
                hold_and_disarm(bridge.client)
        again = first_motion(read_log(Path(folder) / "again.mcap"), options.log)
    difference = largest_difference(recorded, again)
    joint = int(np.argmax(difference))
    make_console().print(f"{len(recorded.target)} actions in {recorded.time[-1]:.1f} s again on a twin of {robot}: the largest difference "
                         f"is {difference[joint]:.4f} rad ({header.joint_names[joint]}), at most {options.tolerance:g} is allowed",
                         highlight=False)
    return 0 if difference[joint] <= options.tolerance else 1


def first_motion(log: Log, path: Path) -> Motion:
    """Return the log's first motion; StoreError where nothing moved, or other things than joint positions were commanded."""
    rows = log.rows
    active = np.flatnonzero(rows["state"] == [name.upper() for name in log.header.states].index("ACTIVE"))
    acting = active[rows["action_sequence"][active] >= 0]
    if not len(acting):
        raise StoreError(f"{path}: no policy acted in this log, so there is nothing to replay")
    stretches = np.split(active, np.flatnonzero(np.diff(active) != 1) + 1)
    stretch = rows[next(indices for indices in stretches if acting[0] in indices)]
    if not np.isin(stretch["action_mode"], (MODE_CODES[CommandMode.JOINT_POSITION], NO_MODE)).all():
        raise StoreError(f"{path}: the log commands something else than joint positions; only these can be replayed")
    stretch = stretch[np.isfinite(stretch["q"]).all(axis=1)]
    heard = np.flatnonzero((stretch["action_sequence"] >= 0) & np.isfinite(stretch["target"]).all(axis=1)
                           & (np.diff(stretch["action_sequence"], prepend=-1) != 0))
    came, woke = (stretch[name] - stretch["wake_ns"][0] for name in ("action_stamp_ns", "wake_ns"))
    return Motion(came[heard] * 1e-9, stretch["target"][heard], woke * 1e-9, stretch["q"])


def start_pose(log: Log, motion: Motion) -> np.ndarray:
    """Return where the arm was before it was taken over (nv,) [rad], or where its motion begins in a log that does not tell: servos sag
    when they are."""
    rows, states = log.rows, [name.upper() for name in log.header.states]
    before = rows[: int(np.argmax(rows["state"] == states.index("ACTIVE")))]
    idle = before[(before["state"] == states.index("IDLE")) & np.isfinite(before["q"]).all(axis=1)]
    return idle["q"][-1] if len(idle) else motion.q[0]


def largest_difference(recorded: Motion, again: Motion) -> np.ndarray:
    """Return how far each joint was from where it had been (nv,) [rad], at the times since the first action that both lived."""
    offset, shift = recorded.action_time[0], again.action_time[0]
    time_since, since = recorded.time - offset, again.time - shift
    both = (time_since >= 0) & (time_since <= min(since[-1], recorded.action_time[-1] - offset))
    there = np.stack([np.interp(time_since[both], since, joint) for joint in again.q.T], axis=1)
    return np.abs(there - recorded.q[both]).max(axis=0)


def _robot(header: LogHeader) -> str:
    """Return the driver catalogue's name of the log's arm."""
    name = str(header.robot_spec["name"])
    for robot in DRIVERS:
        if robot.replace("-", "_") == name.replace("-", "_"):
            return robot
    raise StoreError(f"the log is of the arm {name!r}, which no driver knows; known: {', '.join(DRIVERS)}")


def _stand(twin: TwinProcess, q: np.ndarray) -> None:
    """Let a twin of servos, which sags under its weight where it is held, come to rest at `q` (nv,) [rad], where it begins."""
    time.sleep(_SETTLE_S)
    twin.fault("reset", q=(2.0 * q - np.array(twin.fault("state")["q"])).tolist())
    time.sleep(_SETTLE_S)


def _drive(client: BridgeClient, motion: Motion, spec: str) -> None:
    """Arm, activate, and act as recorded."""
    client.wish("arm")
    client.wish("activate")
    begin = time.monotonic()
    state = client.state()
    while state.state is not State.ACTIVE and time.monotonic() - begin < 1.0:
        time.sleep(0.0005)
        state = client.state()
    begin = time.monotonic()
    for due, target in zip(motion.action_time, motion.target, strict=True):
        while (left := begin + due - time.monotonic()) > 0:
            time.sleep(left)
        if (state := client.state()).state is not State.ACTIVE:
            raise HardwareError(f"the replay ended: the bridge is in {state.state.name}: {client.status().cause}")
        client.act(Command(CommandMode.JOINT_POSITION, target), spec, state.generation)
