"""A twin, the bridge that owns it and the policy that swings it: what every run of the matrix begins with."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from experiments.bench.faults.policy import PolicyProcess
from experiments.bench.faults.twins import TwinSetup
from hw_bridge.bridge import BridgeConfig
from hw_bridge.client import BridgeProcess
from hw_bridge.safety.rules import State
from hw_bridge.twins.twin import TwinProcess
from robots.errors import HardwareError

MOVING = 0.05
"""An arm with a joint faster than this moves [rad/s]."""
PATIENCE_S = 6.0
WARM_S = 1.2
"""After activation the arm follows its path at full speed."""


class Stage:
    """Starts what is missing, and starts anew what a fault has ended. `close` leaves no process behind."""

    def __init__(self, setup: TwinSetup, folder: Path) -> None:
        self.setup = setup
        self.twin: TwinProcess | None = None
        self.bridge: BridgeProcess | None = None
        self.policy: PolicyProcess | None = None
        self.config: BridgeConfig | None = None
        self.logs: list[Path] = []
        """Of every bridge so far."""
        self.stop_time = 0.0
        """The supervisor's promise [s]."""
        self.seen = 0
        """Violations of the running twin that were counted already."""
        self._folder = folder

    def ready(self, seed: int) -> None:
        """Return with all faults healed and the arm on the path of `seed`; HardwareError where that cannot be had."""
        troubles = []
        for attempt in range(4):
            try:
                self._start()
                self.twin.fault("heal")
                self.policy.drive(seed)
                self._activate()
                return
            except (HardwareError, OSError, ValueError) as error:  # a twin that is gone answers with nothing, which is no JSON
                troubles.append(str(error))
                if self.bridge is not None:
                    self.bridge.process.kill()  # over a wire that is dead a farewell takes long
                self.end_bridge()
                if attempt or not isinstance(error, HardwareError):
                    self._end_twin()
        raise HardwareError(f"the {self.setup.robot} could not be brought back to motion: {'; '.join(troubles)}")

    def truth(self) -> dict:
        """Return what the twin says of its plant."""
        return self.twin.fault("state")

    def violations(self) -> list[str]:
        """Return the running twin's violations since the last call, in words."""
        truth = self.truth()
        words = truth["limit_violations"] + truth["command_violations"]
        count = len(truth["limit_violations"]) + truth["command_violation_count"]
        new, self.seen = count - self.seen, count
        return (words or ["not kept in words"])[-new:] if new else []

    def signal_bridge(self, number: signal.Signals) -> None:
        """Send a signal to the bridge's process, alone."""
        os.kill(self.bridge.process.pid, number)

    def close(self) -> None:
        """End everything."""
        self.end_bridge()
        self._end_twin()

    def _start(self) -> None:
        if self.twin is None:
            self.end_bridge()
            self.twin, self.seen = self.setup.start(), 0
        if self.bridge is None:
            self.config = self.setup.bridge(self.twin, self._folder, len(self.logs))
            self.logs.append(Path(self.config.log))
            self.bridge = BridgeProcess(self.config)
            self.stop_time = self.stop_time or self.setup.stop_time(self.config)
        if self.bridge.process.poll() is not None:
            raise HardwareError("the bridge's process has ended")
        if self.policy is not None and not self.policy.alive:
            self._end_policy()
        if self.policy is None:
            self.policy = PolicyProcess(self.config, self.bridge.ready["name"])

    def _activate(self) -> None:
        """Go through the supervisor's states as a person would, and wait until the arm follows its path."""
        client, ends = self.bridge.client, time.monotonic() + PATIENCE_S
        verbs = {State.IDLE: "arm", State.ARMED: "activate", State.HOLD: "resume", State.FAULT: "reset", State.ESTOP: "reset"}
        since = None
        while time.monotonic() < ends:
            state = client.state().state
            if state is State.ACTIVE:
                since = since or time.monotonic()
                if time.monotonic() - since > WARM_S:
                    return
            else:
                since, refusal = None, None
                try:
                    client.wish(verbs[state])
                except HardwareError as error:
                    refusal = error
                if refusal is not None and time.monotonic() > ends - 0.5 * PATIENCE_S:
                    raise refusal
            time.sleep(0.02)
        raise HardwareError(f"the bridge did not stay active: {client.status().state.name}: {client.status().cause}")

    def _end_policy(self) -> None:
        if self.policy is not None:
            self.policy.close()
            self.policy = None

    def end_bridge(self) -> None:
        """End the bridge and its policy; its log is whole then."""
        self._end_policy()
        if self.bridge is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal_bridge(signal.SIGCONT)
            self.bridge.close()
            self.bridge = None

    def _end_twin(self) -> None:
        if self.twin is not None:
            self.twin.close()
            self.twin = None
