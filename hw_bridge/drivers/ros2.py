"""An arm behind ROS 2 topics, without ROS: JointState in, JointTrajectory or Float64MultiArray out.

ROS 2 topics carry no watchdog: a forward_command_controller repeats the last velocity or effort for ever when its client dies, and
nobody says whether the arm stands in an emergency stop. What this driver can do is to look at the age of the newest JointState and
to write nothing to an arm it does not hear. Position through a trajectory controller is the mode to prefer: it ends in a hold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mujoco
import numpy as np

from hw_bridge.drivers.driver import ArmIdentity, Measurement, VendorState
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, ShapeError, UnknownNameError
from robots.spec import TorqueConvention

if TYPE_CHECKING:
    from cyclonedds.pub import DataWriter

    from hw_bridge.drivers.ros2_messages import JointState

SETTLE_S = 0.3
"""How long other publishers get to be discovered [s]."""
KEPT = 10
"""Depth of the topics' history."""
LIMIT_SLACK = 0.02
"""How far beyond a limit an arm may stand and still be taken [rad]."""


@dataclass(frozen=True)
class Ros2Config:
    """Where the arm's topics are."""

    domain: int = 0
    """ROS_DOMAIN_ID."""
    loopback: bool = True
    """True: this machine only. False: the network as CYCLONEDDS_URI says."""
    joint_states: str = "/joint_states"
    trajectory: str = "/joint_trajectory_controller/joint_trajectory"
    position: str = "/forward_position_controller/commands"
    velocity: str = "/forward_velocity_controller/commands"
    effort: str = "/forward_effort_controller/commands"
    position_through: Literal["trajectory", "forward"] = "trajectory"
    """Which controller takes joint positions."""
    trajectory_s: float = 0.02
    """Time that a trajectory controller gets to reach a set-point [s]; longer is smoother and later."""
    age_max_s: float = 0.1
    """A JointState older than this counts as silence [s]."""
    timeout_s: float = 5.0
    """How long `connect` waits for the arm [s]."""

    def __post_init__(self) -> None:
        if self.position_through not in ("trajectory", "forward"):
            raise UnknownNameError("position controller", str(self.position_through), ["trajectory", "forward"])
        for name in ("trajectory_s", "age_max_s", "timeout_s"):
            if not 0 < getattr(self, name) < 60:
                raise ConfigurationError(f"Ros2Config.{name}: expected 0 to 60 s, got {getattr(self, name)}")


class Ros2Arm:
    """An arm's `Driver` over DDS. Joints are matched by name; `tau` is the message's effort (NaN where it sends none)."""

    def __init__(self, arm: Arm, config: Ros2Config | None = None) -> None:
        from hw_bridge.drivers import ros2_wire  # isort: skip (it says which extra is missing)
        from hw_bridge.drivers import ros2_cdr, ros2_messages

        self.arm, self.config = arm, config or Ros2Config()
        self.calibration_hash = "factory"
        self._messages, self._wire = ros2_messages, ros2_wire
        self._node: ros2_wire.Node | None = None
        self._mode: CommandMode | None = None
        self._parser = ros2_cdr.JointStateParser(arm.spec.joint_names)
        nothing = np.full(arm.spec.nv, np.nan)
        self._newest = Measurement(0, float("nan"), nothing, nothing, nothing, VendorState.LOST)
        self._bus_errors = 0
        seconds, rest = divmod(round(1e9 * self.config.trajectory_s), 10**9)
        header = ros2_messages.Header(ros2_messages.Time(0, 0), "")
        point = ros2_messages.JointTrajectoryPoint([], [], [], [], ros2_messages.Duration(seconds, rest))
        self._trajectory = ros2_cdr.SetPointTemplate(
            ros2_messages.JointTrajectory(header, list(arm.spec.joint_names), [point]), arm.spec.nv)
        self._array = ros2_cdr.SetPointTemplate(
            ros2_messages.Float64MultiArray(ros2_messages.MultiArrayLayout([], 0), []), arm.spec.nv)

    def connect(self) -> ArmIdentity:
        """Join the domain and wait for a JointState that holds this arm's joints, standing within its limits."""
        config, limits = self.config, self.arm.spec.limits
        self._node = node = self._wire.Node(config.domain, config.loopback)
        kind = self._messages
        self._states = node.reader(config.joint_states, kind.JointState)
        self._topics = {
            CommandMode.JOINT_POSITION: config.trajectory if config.position_through == "trajectory" else config.position,
            CommandMode.JOINT_VELOCITY: config.velocity, CommandMode.JOINT_TORQUE: config.effort,
        }
        self._writers: dict[CommandMode, DataWriter] = {
            mode: node.writer(topic, kind.JointTrajectory if topic == config.trajectory else kind.Float64MultiArray)
            for mode, topic in self._topics.items()}
        deadline = time.monotonic() + config.timeout_s
        while self.read().received_ns == 0:
            if time.monotonic() > deadline:
                heard = f"those that came lack this arm's joints {self.arm.spec.joint_names}" if self._bus_errors else "none came"
                self.close()
                raise HardwareError(f"{config.joint_states} in ROS domain {config.domain}: no usable JointState within "
                                    f"{config.timeout_s:g} s, {heard}. Is the arm's driver running, in this domain, and is it this arm?")
            time.sleep(0.005)
        time.sleep(SETTLE_S)
        for topic in self._topics.values():
            if strangers := node.strangers(topic):
                self.close()
                raise HardwareError(f"{len(strangers)} other client(s) already publish on {topic}; two writers would fight over the "
                                    "arm: stop them first")
        q = self.read().q
        for i in np.flatnonzero((q < limits.position_min - LIMIT_SLACK) | (q > limits.position_max + LIMIT_SLACK)):
            self.close()
            raise HardwareError(f"{self.arm.spec.joint_names[i]} stands at {q[i]:.3f} rad, outside {limits.position_min[i]:.3f} to "
                                f"{limits.position_max[i]:.3f}: bring it back by hand or with the arm's own tools")
        return ArmIdentity(self.arm.spec.name, f"ROS domain {config.domain}", "unknown")

    def begin(self, mode: CommandMode) -> None:
        """Make sure that a controller listens for `mode`; UnknownNameError for a mode the arm lacks."""
        self.arm.spec.command(mode)
        if mode not in self._connected():
            raise UnknownNameError("command mode over ROS 2", str(mode), list(self._writers))
        if not self._wire.matched(self._writers[mode], self.config.timeout_s):
            raise HardwareError(f"nobody listens on {self._topics[mode]}: load and activate the controller (ros2 control list_controllers)")
        self._mode = mode

    def read(self) -> Measurement:
        """Return the newest state; LOST once it is older than `age_max_s`."""
        self._connected()
        for message in reversed(self._wire.take(self._states, KEPT)):
            if self._take(message):
                break
        newest = self._newest
        age = 1e-9 * (time.monotonic_ns() - newest.received_ns)
        lost = newest.received_ns == 0 or age > self.config.age_max_s
        newest.state = VendorState.LOST if lost else VendorState.READY
        newest.fault = f"no JointState for {age:.2f} s" if lost else ""
        newest.bus_errors = self._bus_errors
        return newest

    def write(self, values: np.ndarray) -> None:
        """Publish one set-point; HardwareError where the arm has been silent for longer than `age_max_s`."""
        age = 1e-9 * (time.monotonic_ns() - self._newest.received_ns)
        if age > self.config.age_max_s:
            raise HardwareError(f"nothing heard of the arm for {age:.2f} s: no set-point is sent to an arm that is not heard")
        if self._mode is None:
            raise HardwareError("no command mode has begun: call begin first")
        self._publish(self._mode, values)

    def end(self) -> None:
        """Leave the arm held: velocities go to zero, efforts to what holds it; positions are held by the controller."""
        if self._mode is not None:
            self.stop()
            self._mode = None

    def stop(self) -> None:
        """Publish the set-point that stops: the measured position, no velocity, or the effort that carries the arm's weight."""
        mode, q = self._mode, self._newest.q
        if mode is None or self._node is None or not np.isfinite(q).all():
            return
        try:
            self._publish(mode, q if mode is CommandMode.JOINT_POSITION else self._holding_effort(q)
                          if mode is CommandMode.JOINT_TORQUE else np.zeros(len(q)))
        except HardwareError:
            return  # the wire is gone; a stop never raises

    def clear_fault(self) -> None:
        """Nothing to clear over topics; HardwareError while the arm is silent."""
        if self.read().state is VendorState.LOST:
            raise HardwareError(f"{self.config.joint_states} is silent: start the arm's ROS driver; its faults are cleared there")

    def close(self) -> None:
        """Stop and leave the domain."""
        if self._node is not None:
            self.end()
            self._node, self._writers, self._states = None, {}, None

    def _connected(self) -> dict[CommandMode, DataWriter]:
        if self._node is None:
            raise HardwareError("the ROS 2 arm is not connected: call connect first")
        return self._writers

    def _take(self, message: JointState) -> bool:
        """Make `message` the newest measurement; False, and a bus error, where it does not hold this arm."""
        try:
            stamp, q, dq, tau = self._parser.parse(message.cdr)
        except ShapeError:
            self._bus_errors += 1
            return False
        self._newest = Measurement(time.monotonic_ns(), stamp, q, dq, tau, VendorState.READY)
        return True

    def _publish(self, mode: CommandMode, values: np.ndarray) -> None:
        through_trajectory = mode is CommandMode.JOINT_POSITION and self.config.position_through == "trajectory"
        message = (self._trajectory if through_trajectory else self._array).fill(values)
        try:
            self._writers[mode].write(message)
        except self._wire.DDSException as error:
            raise HardwareError(f"{self._topics[mode]}: {error.msg}") from error

    def _holding_effort(self, q: np.ndarray) -> np.ndarray:
        """Return (nv,) efforts [N·m] that carry the arm at `q`: none where its controller compensates gravity itself."""
        if self.arm.spec.torque_convention is not TorqueConvention.TOTAL:
            return np.zeros(len(q))
        model = self.arm.model()
        data = mujoco.MjData(model)
        data.qpos[:] = q
        mujoco.mj_forward(model, data)
        return data.qfrc_bias.copy()
