"""A UR5e behind Universal Robots' own network protocols: `python -m hw_bridge.twins.ur5e --address 127.0.0.2`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import tyro

from hw_bridge.twins.twin import FaultPort, announce
from hw_bridge.twins.ur.controller import Controller
from hw_bridge.twins.ur.dashboard import Nameplate
from hw_bridge.twins.ur.motion import DT
from hw_bridge.twins.ur.network import Network
from hw_bridge.twins.ur.wire import WireFaults
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, NumericalError

BEHIND_MAX = 0.05
"""Lateness [s] beyond which simulated time skips rather than catches up."""


@dataclass(frozen=True)
class Options:
    """The UR5e's twin."""

    address: str = "127.0.0.2"
    """Loopback address on which the controller's ports (29999, 30003, 30004) are opened."""
    model: str = "UR5"
    """What the dashboard says of the model: UR's own word for the UR5e is "UR5"."""
    firmware: str = "5.26.0.129"
    """PolyScope version."""
    serial: str = "20265500041"
    """Serial number."""
    local_control: bool = False
    """The pendant has not given control to the network."""
    unlock_after: float = 5.0
    """Seconds after a protective stop in which it cannot be unlocked (UR: 5)."""
    payload: float = 0.0
    """Mass that hangs on the flange [kg]; the controller is not told."""
    realtime: bool = True
    """Ask for real-time scheduling (SCHED_FIFO 1), as the real controller has a computer of its own; without the right it runs as is."""
    seed: int = 0
    """Seed of the random faults."""

    def __post_init__(self) -> None:
        if not self.address.startswith("127."):
            raise ConfigurationError(f"--address: expected a loopback address (127.x.x.x), got {self.address!r}")
        if not re.fullmatch(r"\d+\.\d+\.\d+\.\d+", self.firmware):
            raise ConfigurationError(f"--firmware: expected four numbers such as 5.26.0.129, got {self.firmware!r}")


class UR5eTwin:
    """The twin in this process: a controller, its network and its faults. One lock: the fault port has threads of its own."""

    def __init__(self, options: Options) -> None:
        firmware = tuple(int(number) for number in options.firmware.split("."))
        self.controller = Controller(ur5e(), options.unlock_after)
        self.controller.plant.set_payload(options.payload)
        self.wire = WireFaults(options.seed)
        plate = Nameplate(options.model, options.serial, firmware, not options.local_control)
        self.network = Network(options.address, self.controller, plate, self.wire)
        self.lock = threading.Lock()
        self.ending = False
        self.cycles = 0
        self.skipped_s = 0.0
        """Host time that passed without simulated time [s]."""
        self.diverged = ""

    def run(self) -> None:
        """Keep the plant and the network in real time until `ending`."""
        due = time.monotonic() + DT
        while not self.ending:
            ready = self.network.wait(due - time.monotonic())
            with self.lock:
                now = time.monotonic()
                if ready:
                    self.network.serve(ready, now)
                if now >= due:
                    if now - due > BEHIND_MAX:
                        self.skipped_s += now - due
                        due = now
                    self.controller.cycle(now)
                    self.cycles += 1
                    self.network.cycle(self.cycles, now)
                    due += DT

    def state(self) -> dict[str, object]:
        """Return the truth."""
        c = self.controller
        return {
            "time": c.plant.time, "clock": c.clock, "skipped_s": self.skipped_s, "cycles": self.cycles, "clients": self.network.clients(),
            "q": c.plant.q.tolist(), "dq": c.plant.dq.tolist(), "tau": c.plant.tau.tolist(), "q_ref": c.motion.q_ref.tolist(),
            "mode": str(c.motion.mode), "robot_mode": c.safety.robot_mode.name, "safety_mode": c.safety.mode.name,
            "words": c.safety.words, "stops": c.safety.stops, "braked": c.plant.braked,
            "program_running": c.program.running, "program_ended": c.program.ended, "watchdog_s": c.program.watchdog_s,
            "watchdog_trips": c.program.watchdog_trips, "payload_told": c.motion.payload[0],
            "set_points": c.audit.received, "command_violations": c.audit.violations, "command_violation_count": c.audit.count,
            "limit_violations": c.plant.limit_violations(), "contacts": int(c.plant.data.ncon),
        }

    def payload(self, mass: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        """Hang something on the flange without telling the controller."""
        self.controller.plant.set_payload(mass, tuple(centre))

    def emergency_stop(self, pressed: bool = True) -> None:
        """Press the button, or turn it out again."""
        if pressed:
            self.controller.emergency_stop()
        else:
            self.controller.safety.release_emergency_stop()

    def frozen_timestamp(self, frozen: bool = True) -> None:
        """Let the controller's clock stand still."""
        self.controller.frozen_timestamp = self.controller.clock if frozen else None

    def clock_step(self, s: float) -> None:
        """Set the controller's clock ahead."""
        self.controller.clock_offset += s

    def half_open(self, half_open: bool = True) -> None:
        """Answer nobody while the connections stay open."""
        self.wire.half_open = half_open

    def nameplate(self, **changes: object) -> None:
        """Let the dashboard say another `model`, `serial`, `firmware` (four numbers) or `remote` from now on."""
        self.network.plate = replace(self.network.plate, **changes)

    def heal(self) -> None:
        """Switch all faults off; stops stay until they are cleared as on the arm, the emergency stop's button is turned out."""
        self.wire.heal()
        self.controller.stuck.clear()
        self.frozen_timestamp(False)
        self.controller.clock_offset = 0.0
        self.controller.safety.release_emergency_stop()

    def actions(self) -> dict[str, object]:
        """Return what the fault port offers, each behind the lock."""
        c, wire = self.controller, self.wire
        bare = {
            "state": self.state, "payload": self.payload, "heal": self.heal, "half_open": self.half_open,
            "delay": lambda ms: wire.set("delay_s", ms / 1e3), "jitter": lambda ms: wire.set("jitter_s", ms / 1e3),
            "loss": lambda share: wire.set("loss", share), "duplicate": lambda share: wire.set("duplicate", share),
            "reorder": lambda share: wire.set("reorder", share), "corrupt": lambda share: wire.set("corrupt", share),
            "stuck_encoder": lambda joint: c.stick_encoder(joint),
            "frozen_timestamp": self.frozen_timestamp, "clock_step": self.clock_step,
            "protective_stop": lambda words="asked for at the fault port": c.protective_stop(words),
            "emergency_stop": self.emergency_stop, "nameplate": self.nameplate, "place": lambda q: c.place(np.array(q, float)),
        }

        def locked(call: object) -> object:
            def run(**fields: object) -> object:
                with self.lock:
                    return call(**fields)
            return run

        return {name: locked(call) for name, call in bare.items()}


def main() -> None:
    """Run the twin until SIGTERM."""
    options = tyro.cli(Options, description=__doc__)
    try:
        twin = UR5eTwin(options)
    except ConfigurationError as error:
        raise SystemExit(f"twin ur5e: {error}") from error
    if options.realtime:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    port = FaultPort(twin.actions())  # its threads too, so that none keeps the controller waiting

    def end(number: int, frame: object) -> None:
        twin.ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    announce(model="ur5e", address=options.address, fault_port=port.port)
    try:
        twin.run()
    except NumericalError as error:
        raise SystemExit(f"twin ur5e: {error}") from error
    port.close()


if __name__ == "__main__":
    main()
