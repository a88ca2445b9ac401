"""Twin of an arm under ros2_control: a plant behind joint_states, a trajectory controller and three forward controllers.

As in ROS 2, nobody watches the commands: the forward controllers repeat the last one for ever, the trajectory controller ends in a
hold. The position loop and the order of the joints are the twin's own; `mode` in the truth says which controller acts.
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro

from hw_bridge.drivers.ros2_messages import Float64MultiArray, Header, JointState, JointTrajectory, Time
from hw_bridge.drivers.ros2_wire import Node, take
from hw_bridge.twins.audit import CommandAudit
from hw_bridge.twins.channel import Channel, WireFaults, heal_wire, wire_actions
from hw_bridge.twins.franka.mechanics import franka_mechanics
from hw_bridge.twins.pace import Pace
from hw_bridge.twins.plant import Plant
from hw_bridge.twins.twin import FaultPort, announce
from robots.arms.panda import fr3, panda
from robots.command import CommandMode
from robots.errors import ConfigurationError
from robots.spec import TorqueConvention

ARMS = {"panda": panda, "fr3": fr3}


@dataclass(frozen=True)
class Ros2ArmConfig:
    """Options of the twin."""

    arm: Literal["panda", "fr3"] = "panda"
    """Which arm stands behind the topics."""
    domain: int = 42
    """ROS_DOMAIN_ID; loopback only."""
    rate: float = 250.0
    """Rate of the controllers and of joint_states [Hz]."""
    order: Literal["arm", "reversed"] = "reversed"
    """Order of the joints in joint_states."""
    fault_port: int = 0
    """Port for faults on loopback; 0: any."""
    seed: int = 0


class Ros2ArmTwin:
    """The controllers and the plant. One thread ticks; the fault port's threads share `lock`."""

    def __init__(self, config: Ros2ArmConfig) -> None:
        if not 10.0 <= config.rate <= 1000.0:
            raise ConfigurationError(f"rate: expected 10 to 1000 Hz, got {config.rate}")
        self.config, self.lock = config, threading.Lock()
        arm = ARMS[config.arm]()
        self.plant = Plant(arm, franka_mechanics())
        self.names = list(arm.spec.joint_names)
        self.audit = CommandAudit(arm.spec.limits, arm.spec.joint_names)
        self.mode = "hold"
        self.rejected = 0
        """Messages that a controller refused: wrong joints or length."""
        self.received = 0
        self.overtaken = 0
        """Messages that came twice or behind their successors: DDS drops them."""
        self._last_sent = 0.0
        self._stuck: dict[int, float] = {}
        self._frozen: Time | None = None
        self._clock_step = 0.0
        self._stiffness = 50.0 * self.plant.mechanics.torque_max
        self._damping = 0.03 * self._stiffness
        self._knots: tuple[np.ndarray, np.ndarray] = (np.array([0.0]), self.plant.q[None])
        self._feed = np.zeros(arm.spec.nv)
        generator = np.random.default_rng(config.seed)
        self._faults = WireFaults()
        self._inward = Channel(self._faults, generator, self._garble_command)
        self._outward = Channel(self._faults, generator, self._garble_state)
        node = Node(config.domain)
        self._states = node.writer("/joint_states", JointState)
        self._readers = {
            "trajectory": node.reader("/joint_trajectory_controller/joint_trajectory", JointTrajectory),
            "position": node.reader("/forward_position_controller/commands", Float64MultiArray),
            "velocity": node.reader("/forward_velocity_controller/commands", Float64MultiArray),
            "effort": node.reader("/forward_effort_controller/commands", Float64MultiArray),
        }
        self._node = node

    def tick(self, steps: int) -> None:
        """Take what arrived, advance by `steps` periods, publish."""
        now = time.monotonic()
        for controller, reader in self._readers.items():
            for message in take(reader, 10):
                self._inward.push((controller, message), now)
        with self.lock:
            for controller, message in self._inward.due(now):
                self._command(controller, message)
            self.plant.advance(self.plant.time + steps / self.config.rate, self._law)
            self._outward.push(self._state(), now)
        for message in self._outward.due(time.monotonic()):
            self._states.write(message)

    def _command(self, controller: str, message: JointTrajectory | Float64MultiArray) -> None:
        self.received += 1
        sent = 1e-9 * message.sample_info.source_timestamp
        if sent <= self._last_sent:
            self.overtaken += 1
            return
        self._last_sent, n = sent, len(self.names)
        if controller == "trajectory":
            lengths = {len(point.positions) for point in message.points}
            if sorted(message.joint_names) != sorted(self.names) or lengths != {n}:
                self.rejected += 1
                return
            order = [message.joint_names.index(name) for name in self.names]
            goals = np.array([point.positions for point in message.points])[:, order]
            spans = np.array([p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points])
            self.audit.look(CommandMode.JOINT_POSITION, goals[-1], sent)
        else:
            values = np.array(message.data)
            if values.shape != (n,):
                self.rejected += 1
                return
            goals, spans = values[None], np.zeros(1)
            self.audit.look({"position": CommandMode.JOINT_POSITION, "velocity": CommandMode.JOINT_VELOCITY,
                             "effort": CommandMode.JOINT_TORQUE}[controller], values, sent)
        if self.plant.braked or not np.isfinite(goals).all():
            return
        if controller in ("velocity", "effort"):
            if self.mode != controller:
                self._knots = np.array([self.plant.time]), self.plant.q[None]
            else:
                self._knots = np.array([self.plant.time]), self._reference(self.plant.time)[None]
            self._feed = goals[0]
        else:
            start = self._reference(self.plant.time) if self.mode in ("trajectory", "position") else self.plant.q
            self._knots = self.plant.time + np.concatenate([[0.0], np.maximum(spans, 1e-6)]), np.vstack([start, goals])
            self._feed = np.zeros(n)
        self.mode = controller

    def _reference(self, now: float) -> np.ndarray:
        """Return (nv,) the position [rad] that the acting controller wants at plant time `now` [s]."""
        times, goals = self._knots
        k = int(np.searchsorted(times, now, side="right"))
        if k >= len(times):
            return goals[-1] + (self._feed * (now - times[-1]) if self.mode == "velocity" else 0.0)
        share = (now - times[k - 1]) / (times[k] - times[k - 1])
        return goals[k - 1] + share * (goals[k] - goals[k - 1])

    def _law(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        gravity = self.plant.gravity_torque()
        if self.mode == "effort":
            own = self.plant.arm.spec.torque_convention is TorqueConvention.TOTAL
            return self._feed + (0.0 if own else gravity)
        want = self._feed if self.mode == "velocity" else 0.0
        return self._stiffness * (self._reference(self.plant.time) - q) + self._damping * (want - dq) + gravity

    def _state(self) -> JointState:
        q = self.plant.encoders()
        for joint, angle in self._stuck.items():
            q[joint] = angle
        stamp = self._frozen or self._stamp()
        picked = range(len(q)) if self.config.order == "arm" else range(len(q) - 1, -1, -1)
        dq, tau = self.plant.dq, self.plant.tau
        return JointState(Header(stamp, ""), [self.names[i] for i in picked], [float(q[i]) for i in picked],
                          [float(dq[i]) for i in picked], [float(tau[i]) for i in picked])

    def _stamp(self) -> Time:
        seconds, rest = divmod(time.time_ns() + round(1e9 * self._clock_step), 10**9)
        return Time(seconds, rest)

    def _garble_state(self, message: JointState) -> JointState:
        return JointState(message.header, message.name, message.position[:-1], message.velocity, message.effort)

    def _garble_command(self, item: tuple) -> tuple:
        controller, message = item
        if controller == "trajectory":
            broken = JointTrajectory(message.header, message.joint_names[:-1], message.points)
        else:
            broken = Float64MultiArray(message.layout, message.data[:-1])
        broken.sample_info = message.sample_info
        return controller, broken

    def truth(self) -> dict[str, object]:
        """Return what is really so, for the fault port."""
        with self.lock:
            plant = self.plant
            return {"time": plant.time, "q": plant.q.tolist(), "dq": plant.dq.tolist(), "tau": plant.tau.tolist(),
                    "mode": "stopped" if plant.braked else self.mode, "received": self.received, "rejected": self.rejected,
                    "overtaken": self.overtaken,
                    "limit_violations": plant.limit_violations(), "command_violations": list(self.audit.violations),
                    "command_violation_count": self.audit.count}

    def actions(self) -> dict:
        """Return the fault port's actions."""
        def payload(mass: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
            with self.lock:
                self.plant.set_payload(mass, tuple(centre))

        def stuck_encoder(joint: int) -> None:
            with self.lock:
                self._stuck[int(joint)] = float(self.plant.encoders()[int(joint)])

        def frozen_timestamp(on: bool = True) -> None:
            with self.lock:
                self._frozen = self._stamp() if on else None

        def clock_step(s: float) -> None:
            with self.lock:
                self._clock_step += float(s)

        def brakes() -> None:
            with self.lock:
                self.plant.braked, self.mode = True, "hold"

        def heal() -> None:
            with self.lock:
                heal_wire(self._faults)
                self._stuck.clear()
                self._frozen, self._clock_step = None, 0.0
                if self.plant.braked:
                    self.plant.braked, self._feed = False, np.zeros(len(self.names))
                    self._knots = np.array([self.plant.time]), self.plant.q[None]

        return {"state": self.truth, "payload": payload, "stuck_encoder": stuck_encoder, "frozen_timestamp": frozen_timestamp,
                "clock_step": clock_step, "protective_stop": brakes, "emergency_stop": brakes, "heal": heal, **wire_actions(self._faults)}


def main(config: Ros2ArmConfig) -> None:
    """Run the twin until SIGTERM."""
    running = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: running.set())
    twin = Ros2ArmTwin(config)
    port = FaultPort(twin.actions(), port=config.fault_port)
    announce(model=config.arm, address=f"ROS domain {config.domain}", domain=config.domain, fault_port=port.port)
    pace = Pace(1.0 / config.rate)
    while not running.is_set():
        twin.tick(pace.wait())
    port.close()


if __name__ == "__main__":
    main(tyro.cli(Ros2ArmConfig))
