"""What a person sees and is asked while an arm moves."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich.console import Console

from experiments.arm_settings import ArmSettings
from hw_bridge.client import BridgeClient
from hw_bridge.safety.rules import HARMLESS, State
from robots.errors import ConfigurationError, HardwareError

_REFRESH_S = 0.2
HAZARDS = ("Before it moves: the emergency stop is in your hand, nobody and nothing is within its reach, payload and mounting are set as "
           "they are.\nCtrl-C brakes it gently, at any time; the emergency stop stops it whatever this computer does.")
FALLS = ("\nThis arm has no brakes and no emergency stop of its own: a switch in its supply stops it, and then it falls. Something soft is "
         "under it.")


def ask_to_go_on(console: Console, words: str, yes: bool) -> None:
    """Say what will happen and wait for Enter, unless `yes`; ConfigurationError where nobody is there to press it."""
    console.print(words, highlight=False, markup=False)
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is at the keyboard to press Enter (standard input is no terminal): nothing was moved. With "
                                 "somebody at the emergency stop, --yes goes on without asking")
    console.print("Enter to go on, Ctrl-C to leave everything as it is.")
    input()


def page_command(settings: ArmSettings, bridge: str, cameras: Sequence[str] = (), watch_only: bool = False) -> str:
    """Return what starts the operator's page of a running bridge."""
    further = " --watch-only" if watch_only else ""
    further += f" --options calibration {settings.calibration}" if settings.calibration else ""
    further += f" --cameras {' '.join(cameras)}" if cameras else ""
    return f"python -m hw_bridge.page {bridge} {settings.robot}{further}"


@contextlib.contextmanager
def live_state(console: Console, client: BridgeClient, further: Callable[[], str] = str) -> Iterator[None]:
    """A context in which a line tells of the arm and what `further` says, several times a second; nothing where the output is no
    terminal."""
    if not console.is_terminal:
        yield
        return
    ended = threading.Event()
    with console.status("", refresh_per_second=1.0 / _REFRESH_S) as line:

        def show() -> None:
            desk = BridgeClient(client.channels.status.name.rsplit(".", 1)[0], client.arm)  # of its own: boards are read by one thread
            while not ended.wait(_REFRESH_S):
                with contextlib.suppress(HardwareError):
                    line.update(state_line(desk) + further())
            desk.close()

        shower = threading.Thread(target=show, name="live-state", daemon=True)
        shower.start()
        try:
            yield
        finally:
            ended.set()
            shower.join()


def state_line(client: BridgeClient) -> str:
    """Return the arm's state in one line."""
    state, status = client.state(), client.status()
    fired = (state.rules & ~HARMLESS).words()
    pose = " ".join(f"{angle:+.2f}" for angle in state.q)
    return (f"{state.state.name}  q [{pose}] rad  fastest {np.abs(state.dq).max():.2f} rad/s  interventions {status.interventions}"
            f"{f' ({fired})' if fired else ''}  late {status.late_99_ns / 1e6:.2f} ms")


def interventions_at_rest(client: BridgeClient) -> int:
    """Hold the arm, which nobody leads now (it must not be waited for until that counts as a silence), and return the supervisor's
    interventions so far."""
    with contextlib.suppress(HardwareError):
        client.wish("hold")
    time.sleep(0.2)  # a status is told ten times a second
    return client.status().interventions


def hold_and_disarm(client: BridgeClient, seconds: float = 5.0) -> None:
    """Brake, and once the arm is at rest leave it to its own controller. Where a fault or a stop came first, nothing is left to do;
    nor where the bridge does not answer any more: its end brakes the arm too."""
    ends = time.monotonic() + seconds
    with contextlib.suppress(HardwareError):
        client.wish("hold", timeout=seconds)
    while time.monotonic() < ends and client.status().state in (State.ACTIVE, State.HOLD, State.ARMED):
        with contextlib.suppress(HardwareError):  # still braking: ask again
            client.wish("disarm", timeout=seconds)
        time.sleep(0.05)
