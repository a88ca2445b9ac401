"""Twin of a Franka arm: a plant behind Franka's control interface (FCI), for libfranka's own clients on loopback.

It takes joint torques, joint velocities and joint positions (no Cartesian motions, no gripper) and has the arm's reflexes: set-points
that jump, limits that are passed, collisions, more than 20 lost packets. See `hw_bridge/twins/franka`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro

from hw_bridge.twins.channel import WireFaults, heal_wire, wire_actions
from hw_bridge.twins.franka.controller import FrankaController
from hw_bridge.twins.franka.link import FrankaLink
from hw_bridge.twins.franka.mechanics import franka_mechanics
from hw_bridge.twins.franka.reflexes import PACKETS_LOST_MAX
from hw_bridge.twins.franka.urdf import urdf
from hw_bridge.twins.franka.wire import MOVE, PERIOD, PORT, VERSION, MoveStatus, RecoveryStatus, Request, RobotMode, SetterStatus
from hw_bridge.twins.pace import Pace
from hw_bridge.twins.plant import Plant
from hw_bridge.twins.twin import FaultPort, announce
from robots.arms.panda import fr3, panda
from robots.errors import ConfigurationError

ARMS = {"panda": panda, "fr3": fr3}


@dataclass(frozen=True)
class PandaConfig:
    """Options of the twin."""

    address: str = "127.0.0.4"
    """Loopback address; the port is the arm's, 1337."""
    arm: Literal["panda", "fr3"] = "panda"
    """Whose limits, masses and stops."""
    version: int = VERSION
    """Version of the FCI that it says it speaks (the packets are always version 10's): for tests of refusals."""
    lost_max: int = PACKETS_LOST_MAX
    """Set-points in a row that may be missing; the arm's own value is 20. Raise it where the machine is too busy for 1 kHz."""
    late_max: int = 3
    """Ticks by which a set-point may be late; later ones are dropped [ms]."""
    q: tuple[float, ...] = ()
    """Where the arm stands at first [rad]; empty: its home."""
    realtime: bool = True
    """Ask for real-time scheduling (SCHED_FIFO 1), as the real controller has a computer of its own; without the right it runs as is."""
    fault_port: int = 0
    """Port for faults on loopback; 0: any."""
    seed: int = 0


class PandaTwin:
    """The controller, its link and its faults. One thread ticks; the fault port's threads share `lock`."""

    def __init__(self, config: PandaConfig) -> None:
        if config.lost_max < 1 or config.late_max < 0:
            raise ConfigurationError(f"expected lost_max of 1 or more and late_max of 0 or more, got {config.lost_max}, {config.late_max}")
        arm = ARMS[config.arm]()
        self.lock = threading.Lock()
        self.plant = Plant(arm, franka_mechanics(), q=np.array(config.q) if config.q else None)
        self.controller = FrankaController(self.plant, config.lost_max, config.late_max)
        self._faults = WireFaults()
        self.link = FrankaLink(config.address, config.version, self._faults, np.random.default_rng(config.seed))
        self._urdf = urdf(arm).encode()
        self._frozen: bytes | None = None
        self._push_until = 0.0
        self.skipped = 0

    def tick(self, due: int) -> None:
        """Serve the sockets and advance by `due` ms; only the newest state is sent."""
        now = time.monotonic()
        with self.lock:
            controller = self.controller
            for request, number, payload in self.link.requests():
                self._serve(request, number, payload)
            if controller.moving and not self.link.connected:
                controller.finish(MoveStatus.PREEMPTED)
            commands = self.link.set_points(now)
            sent = controller.message_id
            for remaining in reversed(range(due)):
                controller.tick(commands if remaining == 0 else [], sent, own_lateness=remaining > 0)
            if self._push_until and self.plant.time > self._push_until:
                self._push(0.0)
            while controller.ended:
                number, status = controller.ended.popleft()
                self.link.answer(Request.MOVE, number, status)
            state = self._frozen or controller.state()
        self.link.send_state(state, time.monotonic())

    def _serve(self, request: Request, number: int, payload: bytes) -> None:
        controller, answer = self.controller, self.link.answer
        if request is Request.MOVE:
            answer(request, number, controller.move(number, *MOVE.unpack_from(payload)))
        elif request is Request.STOP_MOVE:
            answer(request, number, 0)
            controller.finish(MoveStatus.PREEMPTED)
        elif request is Request.GET_ROBOT_MODEL:
            answer(request, number, 0, self._urdf)
        elif request is Request.AUTOMATIC_ERROR_RECOVERY:
            answer(request, number, self._recover())
        else:
            answer(request, number, self._set(request, payload))

    def _recover(self) -> RecoveryStatus:
        if self.controller.mode is RobotMode.USER_STOPPED:
            return RecoveryStatus.EMERGENCY_ABORTED
        return RecoveryStatus.SUCCESS if self.controller.recover() else RecoveryStatus.MANUAL_RECOVERY_REQUIRED

    def _set(self, request: Request, payload: bytes) -> SetterStatus:
        values = np.frombuffer(payload[: len(payload) // 8 * 8], "<f8")
        if not np.isfinite(values).all():
            return SetterStatus.INVALID_ARGUMENT
        if request is Request.SET_COLLISION_BEHAVIOR and len(values) == 52:
            self.controller.contacts.set(values[14:21], values[21:28], values[40:46], values[46:52])
        elif request is Request.SET_JOINT_IMPEDANCE and len(values) == 7:
            if (values < 0).any() or (values > 14250).any():
                return SetterStatus.INVALID_ARGUMENT
            self.controller.stiffness = np.maximum(values, 1.0)
        elif request is Request.SET_LOAD and len(values) == 13:
            if self.controller.moving:
                return SetterStatus.NOT_POSSIBLE
            if values[0] < 0:
                return SetterStatus.INVALID_ARGUMENT
            self.controller.load_mass, self.controller.load_centre = float(values[0]), values[1:4].copy()
        elif request not in (Request.SET_CARTESIAN_IMPEDANCE, Request.SET_GUIDING_MODE, Request.SET_EE_TO_K, Request.SET_NE_TO_EE):
            return SetterStatus.INVALID_ARGUMENT
        return SetterStatus.SUCCESS

    def truth(self) -> dict[str, object]:
        """Return what is really so, for the fault port."""
        with self.lock:
            plant, controller = self.plant, self.controller
            return {"time": plant.time, "q": plant.q.tolist(), "dq": plant.dq.tolist(), "tau": plant.tau.tolist(),
                    "mode": controller.mode.name.lower(), "moving": controller.moving, "errors": list(controller.errors),
                    "last_motion_errors": list(controller.last_motion_errors), "connected": self.link.connected,
                    "broken": self.link.broken, "skipped": self.skipped, **controller.counters,
                    "limit_violations": plant.limit_violations(), "command_violations": list(controller.audit.violations),
                    "command_violation_count": controller.audit.count}

    def actions(self) -> dict:
        """Return the fault port's actions."""
        def payload(mass: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
            with self.lock:
                self.plant.set_payload(mass, tuple(centre))

        def push(force: tuple[float, float, float], s: float = 0.5) -> None:
            with self.lock:
                self._push(*force)
                self._push_until = self.plant.time + s

        def stuck_encoder(joint: int) -> None:
            with self.lock:
                self.controller.encoder_stuck[int(joint)] = float(self.controller.encoders()[int(joint)])

        def frozen_timestamp(on: bool = True) -> None:
            with self.lock:
                self._frozen = self.controller.state() if on else None

        def clock_step(s: float) -> None:
            with self.lock:
                self.controller.step_clock(round(s / PERIOD))

        def protective_stop(error: str = "joint_reflex") -> None:
            with self.lock:
                self.controller.reflex(error)

        def emergency_stop(on: bool = True) -> None:
            with self.lock:
                (self.controller.user_stop if on else self.controller.user_release)()

        def heal() -> None:
            """Take every fault off; a reflex stays until the client recovers from it, as on the arm."""
            with self.lock:
                heal_wire(self._faults)
                self._frozen = None
                self._push(0.0)
                self.controller.encoder_stuck.clear()
                self.controller.user_release()

        return {"state": self.truth, "payload": payload, "push": push, "stuck_encoder": stuck_encoder,
                "frozen_timestamp": frozen_timestamp, "clock_step": clock_step, "protective_stop": protective_stop,
                "emergency_stop": emergency_stop, "heal": heal, **wire_actions(self._faults)}

    def _push(self, x: float, y: float = 0.0, z: float = 0.0) -> None:
        """Push at the end effector with a force along the base's axes [N]."""
        self.plant.data.xfrc_applied[self.plant.model.body("payload").id, :3] = x, y, z
        self._push_until = 0.0


def main(config: PandaConfig) -> None:
    """Run the twin until SIGTERM."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    try:
        twin = PandaTwin(config)
    except (ConfigurationError, OSError) as error:
        raise SystemExit(f"twin panda at {config.address}:{PORT}: {error}") from error
    port = FaultPort(twin.actions(), port=config.fault_port)
    gc.collect()
    gc.freeze()
    if config.realtime:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    announce(model=config.arm, address=config.address, port=PORT, fault_port=port.port)
    pace = Pace(PERIOD)
    while not ending.is_set():
        due = pace.wait()
        twin.skipped = pace.skipped
        twin.tick(due)
    twin.link.close()
    port.close()


if __name__ == "__main__":
    main(tyro.cli(PandaConfig))
