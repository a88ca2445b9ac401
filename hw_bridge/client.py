"""Those who talk to a bridge: starting its process, asking it for things, hearing of the arm, and acting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from hw_bridge.boards import TEXT_BYTES
from hw_bridge.bridge import BridgeConfig
from hw_bridge.channels import Channels
from hw_bridge.drivers.catalog import open_driver
from hw_bridge.recorder.log_row import MODE_CODES, cut
from hw_bridge.safety.rules import Rule, State
from robots.arms.arm import Arm
from robots.command import Command
from robots.errors import HardwareError


@dataclass(frozen=True)
class ArmState:
    """The newest of the state board."""

    tick: int
    now_ns: int
    """When the servo loop looked [ns]."""
    received_ns: int
    """When the arm's state arrived [ns]."""
    q: np.ndarray
    dq: np.ndarray
    tau: np.ndarray
    target: np.ndarray
    """(nv,) what the newest action was taken for; NaN unless ACTIVE."""
    reference: np.ndarray
    """(nv,) what is followed now, in the mode that policies command."""
    reference_rate: np.ndarray
    """(nv,) its rate; 0 where torques are commanded."""
    written: np.ndarray
    """(nv,) the set-point; NaN where none was written."""
    action_sequence: int
    """The newest action that was taken; -1: none since the last activation."""
    generation: int
    state: State
    rules: Rule


@dataclass(frozen=True)
class BridgeStatus:
    """What changes slowly."""

    state: State
    cause: str
    vendor: str
    """The arm's controller's own words."""
    recorder: str
    """What is wrong with the log; empty where nothing is."""
    ticks: int
    misses: int
    skipped: int
    worst_ns: int
    late_99_ns: float
    interventions: int
    """Periods in which a rule changed or refused something."""
    bus_errors: int


class BridgeClient:
    """One desk at a running bridge: it may wish for things; with `act` it is also the bridge's one policy."""

    def __init__(self, name: str, arm: Arm, desk: str = "cli") -> None:
        self.arm, self.desk = arm, desk
        self.channels = Channels.attach(name, arm.spec.nv)
        wish = self.channels.wishes[desk].read().value
        self._number, self._stops = (0, 0) if wish is None else (int(wish["number"]), int(wish["stops"]))
        action = self.channels.action.read().value
        self._sequence = 0 if action is None else int(action["sequence"])
        self._telling = threading.Lock()

    def state(self, patience: float = 1.0) -> ArmState:
        """Return the newest state; of a bridge that just started the first, waited for by up to `patience` [s]. HardwareError where none
        comes.
        """
        value, ends = self.channels.state.read().value, time.monotonic() + patience
        while value is None:
            if time.monotonic() > ends:
                raise HardwareError("the bridge has not heard of the arm yet")
            time.sleep(0.005)
            value = self.channels.state.read().value
        return ArmState(int(value["tick"]), int(value["now_ns"]), int(value["received_ns"]), value["q"], value["dq"], value["tau"],
                        value["target"], value["reference"], value["reference_rate"], value["written"],
                        int(value["action_sequence"]), int(value["generation"]),
                        State(int(value["state"])), Rule(int(value["rules"])))

    def status(self) -> BridgeStatus:
        """Return the newest status."""
        value = self.channels.status.read().value
        if value is None:
            return BridgeStatus(State.DISCONNECTED, "the bridge is starting", "", "", 0, 0, 0, 0, 0.0, 0, 0)
        words = {name: value[name].item().decode(errors="replace") for name in ("cause", "vendor", "recorder")}
        numbers = {name: int(value[name]) for name in ("ticks", "misses", "skipped", "worst_ns", "interventions", "bus_errors")}
        return BridgeStatus(State(int(value["state"])), late_99_ns=float(value["late_99_ns"]), **words, **numbers)

    def wish(self, verb: str, text: str = "", timeout: float = 15.0) -> None:
        """Ask for one of boards.VERBS and wait for the answer; HardwareError with the bridge's words where it refuses."""
        self._number += 1
        self._tell(verb, text)
        board, ends = self.channels.answers[self.desk], time.monotonic() + timeout
        while time.monotonic() < ends:
            value = board.read().value
            if value is not None and int(value["number"]) == self._number:
                if not value["ok"]:
                    raise HardwareError(value["text"].item().decode(errors="replace"))
                return
            time.sleep(0.001)
        self._tell("", "")  # withdrawn: it must not be obeyed later, when nobody expects it any more
        raise HardwareError(f"the bridge did not answer to {verb!r} within {timeout:.0f} s")

    def press_stop(self, why: str = "") -> None:
        """Press the stop button: heard within a servo period, whatever else goes on; nothing is waited for."""
        self._stops += 1
        self._tell("", why)

    def _tell(self, verb: str, text: str) -> None:
        with self._telling:  # a stop is pressed from another thread while a wish is under way
            record = self.channels.wishes[self.desk].record
            record["number"], record["stops"] = self._number, self._stops
            record["verb"], record["text"] = verb.encode()[:24], cut(text, TEXT_BYTES)
            self.channels.wishes[self.desk].publish(time.monotonic_ns())

    def act(self, command: Command, spec: str, generation: int, speed: float = 1.0) -> int:
        """Publish an action for the robot whose spec's fingerprint is `spec`, made in stop generation `generation`; returns its number."""
        self._sequence += 1
        record, nv = self.channels.action.record, self.arm.spec.nv
        record["sequence"], record["generation"], record["speed"] = self._sequence, generation, speed
        record["length"], record["mode"], record["spec"] = len(command.values), MODE_CODES[command.mode], spec.encode()
        record["values"][:] = np.nan
        record["values"][: min(nv, len(command.values))] = command.values[:nv]
        self.channels.action.publish(time.monotonic_ns())
        return self._sequence

    def close(self) -> None:
        """Let go of the boards; the bridge runs on."""
        self.channels.close()


class BridgeProcess:
    """A bridge in a process of its own, which brakes, holds and lets go of the arm when this closes or dies. A context manager."""

    def __init__(self, config: BridgeConfig, timeout: float = 60.0) -> None:
        root = Path(__file__).resolve().parents[1]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
        self.process = subprocess.Popen([sys.executable, "-m", "hw_bridge.bridge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment, start_new_session=True)
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(config.to_text() + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        answer = json.loads(line) if line else {"ready": False, "error": "its process ended or did not answer; its own words are above"}
        if not answer["ready"]:
            self.close()
            raise HardwareError(f"the bridge did not start: {answer['error']}")
        self.ready = answer
        """name, identity, calibration, and what the system refused for real time."""
        self.arm = open_driver(config.robot, config.address, config.options).arm
        self.client = BridgeClient(answer["name"], self.arm)

    def close(self) -> None:
        """Let the bridge end: it brakes, holds and disconnects first. Harmless twice."""
        if self.process.stdin.closed:
            return
        if hasattr(self, "client"):
            self.client.close()
        self.process.stdin.close()
        try:
            self.process.wait(15.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
