"""What twins of arms on a servo bus share: true time, the plant, the wire, and the faults that can be asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from hw_bridge.calibration import Calibration
from hw_bridge.twins.plant import Plant
from hw_bridge.twins.serial_bus import SerialBus
from hw_bridge.twins.setpoints import SetpointJudge
from hw_bridge.twins.twin import FaultCall, FaultPort, announce
from robots.errors import ConfigurationError
from robots.validation import checked_array

TICK = 0.001
"""Period of a servo's own loop, and of the plant's integration [s]."""
TURN = 0.002
"""How often the plant is brought to now, where no request asks earlier [s]."""
BEHIND = 0.05
"""A twin that is further behind than this lets the time go [s]."""


class ServoArm(ABC):
    """An arm of servos on one bus. `serve` runs in the main thread; the fault port's thread shares the state through `lock`."""

    def __init__(self, plant: Plant, calibration: Calibration, baud: int, seed: int) -> None:
        self.plant, self.calibration = plant, calibration
        self.bus = SerialBus(self.split, self.answer_on_time, baud, seed)
        self.lock = threading.RLock()
        self.judge = self._new_judge()
        self.powered = True
        self.frozen = False
        """True: the servos answer every read with what they answered last."""
        self.stuck: dict[int, float] = {}
        """Angle that a joint's encoder is stuck at [rad], by joint."""
        self.stuck_in_loop = False
        """True: the servo's own loop is fooled as well, not only its readers."""
        self.skipped_s = 0.0
        self._origin = time.monotonic()

    def _new_judge(self) -> SetpointJudge:
        spec = self.plant.arm.spec
        return SetpointJudge(spec.joint_names, spec.limits, spec.control_dt, self.calibration.step)

    @abstractmethod
    def split(self, received: bytearray) -> list[bytes]:
        """Take whole requests off `received`."""

    @abstractmethod
    def answer(self, packet: bytes) -> list[tuple[float, bytes]]:
        """Act on one request and return the servos' answers."""

    @abstractmethod
    def torque(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        """One tick of the servos' loops: from true positions and velocities (nv,) to motor torques (nv,) [N·m]."""

    @abstractmethod
    def boot(self) -> None:
        """Power returns: registers as the servos' memory keeps them, torque off."""

    @abstractmethod
    def factory(self) -> None:
        """Give the servos the memory that they were delivered with; `boot` follows."""

    @abstractmethod
    def hold(self) -> None:
        """Switch torque on where the arm stands, as a user did before."""

    @abstractmethod
    def trip(self, joint: int) -> None:
        """Make the servo of `joint` believe that it was overloaded."""

    @abstractmethod
    def mode(self) -> dict[str, object]:
        """What the servos say of themselves, as plain JSON."""

    def answer_on_time(self, packet: bytes) -> list[tuple[float, bytes]]:
        """Bring the plant to now, then answer."""
        with self.lock:
            self._advance()
            return self.answer(packet) if self.powered else []

    def encoders(self) -> np.ndarray:
        """Return (nv,) what the encoders show their readers [rad]."""
        angles = self.plant.encoders()
        for joint, angle in self.stuck.items():
            angles[joint] = angle
        return angles

    def _advance(self) -> None:
        behind = time.monotonic() - self._origin - self.plant.time
        if behind > BEHIND:
            self._origin += behind
            self.skipped_s += behind
        self.plant.advance(time.monotonic() - self._origin, self._law)

    def _law(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        return self.torque(q, dq) if self.powered else np.zeros(len(q))

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Live in true time until `stopped()`."""
        while not stopped():
            with self.lock:
                self._advance()
            self.bus.serve(time.monotonic() + TURN)

    def actions(self) -> dict[str, FaultCall]:
        """Return what the fault port can be asked for."""
        faults = self.bus.faults
        return {
            "state": self._locked(self.state), "heal": self._locked(self.heal), "calibration": lambda: vars(self.calibration),
            "payload": self._locked(lambda mass, centre=(0.0, 0.0, 0.0): self.plant.set_payload(mass, tuple(centre))),
            "delay": lambda ms: faults.put("delay_ms", ms), "jitter": lambda ms: faults.put("jitter_ms", ms),
            "loss": lambda share: faults.put("loss", share), "duplicate": lambda share: faults.put("duplicate", share),
            "reorder": lambda share: faults.put("reorder", share), "corrupt": lambda share: faults.put("corrupt", share),
            "half_open": lambda on=True: setattr(faults, "half_open", bool(on)),
            "frozen_timestamp": lambda on=True: setattr(self, "frozen", bool(on)),
            "by_hand": self._locked(lambda on=True: setattr(self.plant, "braked", bool(on))), "place": self._locked(self._place),
            "stuck_encoder": self._locked(self._stick),
            "block": self._locked(lambda joint, on=True: self.plant.block(self._checked(joint), bool(on))),
            "protective_stop": self._locked(self._trip), "overload": self._locked(self._trip),
            "emergency_stop": self._locked(self._cut_power),
            "power_cycle": self._locked(self.boot), "clock_step": self.clock_step, "reset": self._locked(self.reset),
        }

    def _locked(self, action: FaultCall) -> FaultCall:
        def call(**fields: object) -> object:
            with self.lock:
                return action(**fields)
        return call

    def _checked(self, joint: int) -> int:
        if not (isinstance(joint, int) and 0 <= joint < self.plant.arm.spec.nv):
            raise ConfigurationError(f"expected the number of a joint, 0 to {self.plant.arm.spec.nv - 1}, got {joint!r}")
        return joint

    def _place(self, q: list[float]) -> list[float]:
        """A person brings the arm to `q` (nv,) [rad], no joint beyond its stops, and keeps it there until `by_hand` is off; return where
        it is. ConfigurationError while servos drive their motors: they do not give way.
        """
        if self.powered and any(self.mode()["torque_on"]):
            raise ConfigurationError("the servos hold the arm: nobody moves it by hand before their torque is off")
        plant = self.plant
        plant.data.qpos[:] = np.clip(checked_array("place.q", q, (plant.arm.spec.nv,)), *plant.model.jnt_range.T)
        plant.data.qvel[:], plant.braked = 0.0, True
        return plant.q.tolist()

    def _stick(self, joint: int, in_loop: bool = False) -> None:
        joint = self._checked(joint)
        self.stuck[joint] = float(self.plant.encoders()[joint])
        self.stuck_in_loop = in_loop

    def _trip(self, joint: int = 1) -> None:
        self.trip(self._checked(joint))

    def _cut_power(self, on: bool = True) -> None:
        """Such arms have no emergency stop of their own: the button cuts their supply."""
        if on:
            self.powered = False
        elif not self.powered:
            self.powered = True
            self.boot()

    def clock_step(self, s: float) -> str:
        """Step the servos' own clocks; in words where they have none."""
        return f"these servos tell no time: nothing to step by {s} s"

    def heal(self) -> None:
        """Take every fault off; power returns if it was off. What the servos latched stays latched."""
        self.bus.faults.heal()
        self.frozen, self.stuck, self.stuck_in_loop = False, {}, False
        self._cut_power(False)
        for joint in range(self.plant.arm.spec.nv):
            self.plant.block(joint, False)

    def reset(self, q: list[float] | None = None, hold: bool = True) -> None:
        """Begin again as a new arm at `q` (nv,) [rad], home where None: no faults, no payload, factory memory, nothing remembered;
        held there as its last user left it, or (`hold` False) with torque off, falling.
        """
        plant = self.plant
        plant.data.qpos[:] = plant.arm.home if q is None else checked_array("reset.q", q, (plant.arm.spec.nv,))
        plant.data.qvel[:] = 0.0
        plant.set_payload(0.0)
        plant.velocity_peak[:] = 0.0
        plant.braked = False
        self.heal()
        self.bus.clear()
        self.factory()
        self.boot()
        if hold:
            self.hold()
        self.judge = self._new_judge()

    def state(self) -> dict[str, object]:
        """Return the truth, as plain JSON."""
        plant = self.plant
        return {"time": plant.time, "q": plant.q.tolist(), "dq": plant.dq.tolist(), "tau": plant.tau.tolist(), "powered": self.powered,
                "limit_violations": plant.limit_violations(), "command_violations": list(self.judge.words),
                "command_violation_count": self.judge.count, "skipped_s": self.skipped_s,
                "counters": dict(self.bus.counters), "mode": self.mode()}

    def run(self, model: str, fault_port: int) -> None:
        """Announce the twin and serve until SIGTERM or SIGINT."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with contextlib.suppress(OSError):  # servos have processors of their own; its threads too: none keeps another waiting
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        port = FaultPort(self.actions(), port=fault_port)
        self._origin = time.monotonic() - self.plant.time
        announce(model=model, device=self.bus.device, fault_port=port.port)
        self.serve(stop.is_set)
        port.close()
        self.bus.close()
