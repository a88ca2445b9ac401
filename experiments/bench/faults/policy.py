"""The policy of the fault matrix in a process of its own: `python -m experiments.bench.faults.policy`. It drives a seeded path whenever
the bridge is ACTIVE, and spoils its actions where it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from experiments.bench.faults.path import SwingPath
from hw_bridge.bridge import BridgeConfig, policy_spec
from hw_bridge.client import BridgeClient
from hw_bridge.drivers.catalog import open_driver
from hw_bridge.recorder.log_row import MODE_CODES
from hw_bridge.safety.rules import State
from robots.errors import HardwareError

SPOILS = {"": lambda q: q, "nan": lambda q: np.where(np.arange(len(q)) == 0, np.nan, q),
          "inf": lambda q: np.where(np.arange(len(q)) == 0, np.inf, q), "times ten": lambda q: 10.0 * q}
"""What may happen to an action (nv,) before it is told to the bridge."""


class PolicyProcess:
    """The policy of one bridge. A person may pause, kill and replace it."""

    def __init__(self, config: BridgeConfig, bridge: str) -> None:
        """`bridge`: the name of the running bridge's boards."""
        root = Path(__file__).resolve().parents[3]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
        self.process = subprocess.Popen([sys.executable, "-m", "experiments.bench.faults.policy"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environment)
        self._tell({"bridge": bridge, "config": config.to_text()})
        if self.process.stdout.readline() != "ready\n":
            self.close()
            raise HardwareError("the policy of the fault matrix did not start; its own words are above")

    @property
    def alive(self) -> bool:
        """True while its process runs."""
        return self.process.poll() is None

    def drive(self, seed: int, spoil: str = "") -> None:
        """Drive the path of `seed`; `spoil` is one of SPOILS."""
        self._tell({"seed": seed, "spoil": spoil})

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process."""
        self.process.send_signal(number)

    def close(self) -> None:
        """End it; harmless twice."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()

    def _tell(self, words: dict[str, object]) -> None:
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()


def main() -> None:
    """Act until the standard input ends."""
    first = json.loads(sys.stdin.readline())
    config = BridgeConfig.from_text(first["config"])
    arm, period = open_driver(config.robot, config.address, config.options).arm, config.safety.policy_period
    client, spec = BridgeClient(first["bridge"], arm, "page"), policy_spec(arm, config.mode, config.safety.policy_period).fingerprint()
    with contextlib.suppress(OSError):  # a policy that is late by itself is a fault nobody asked for
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print("ready", flush=True)
    told, path, begun, driven = {"seed": 0, "spoil": ""}, None, 0.0, ()
    due = time.monotonic()
    while True:
        if select.select([sys.stdin], [], [], max(due - time.monotonic(), 0.0))[0]:
            line = sys.stdin.readline()
            if not line:
                return
            told = json.loads(line)
            continue
        due = max(due + period, time.monotonic())
        state = client.state()
        if state.state is not State.ACTIVE:
            continue
        if driven != (state.generation, told["seed"]):
            path, begun, driven = SwingPath(state.reference, arm.home, told["seed"]), time.monotonic(), (state.generation, told["seed"])
        record = client.channels.action.record
        record["sequence"] += 1
        record["generation"], record["speed"], record["length"] = state.generation, 1.0, arm.spec.nv
        record["mode"], record["spec"] = MODE_CODES[config.mode], spec.encode()
        record["values"] = SPOILS[told["spoil"]](path.at(time.monotonic() - begun))
        client.channels.action.publish(time.monotonic_ns())  # past `act`, which takes no command that is no number


if __name__ == "__main__":
    main()
