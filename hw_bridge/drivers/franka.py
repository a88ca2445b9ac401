"""Franka's arms through franky (libfranka): set-points at 100 to 500 Hz, the 1 kHz loop is the client's own, in C++.

Position and velocity are tracked by the client's joint impedance loop, so the arm is compliant and lags a little; torque goes out as it
comes, without gravity, which the arm's controller adds. `tau` is the link-side torque sensors', gravity included.

Watchdogs: in torque mode the client's own ends the motion when no torque came for `watchdog_s`. In position and velocity mode silence
leaves the last reference standing: the arm holds there, further on by its damping over its stiffness times the last speed. If this
process dies or is stopped, the arm itself stops after 20 lost packets.

An FR3 needs franky's wheel as it is on the registry. A Panda (FER) speaks an older protocol: it needs the franky wheel that its makers
build against libfranka 0.9, under the same import name.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from hw_bridge.drivers.driver import ArmIdentity, Measurement, VendorState
from hw_bridge.drivers.franka_client import FrankaConfig, PatientClient, in_thread
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import HardwareError, MissingExtraError

if TYPE_CHECKING:
    import franky

UNFILTERED_HZ = 1000.0
"""libfranka's cut-off frequency from which on it does not filter."""
TORQUE_STEP = 0.5
"""What the native loop lets a torque change in one ms [N·m]: half of the arm's own limit of 1000 N·m/s. It measures from the torque that
the newest state tells of (as libfranka's own limiter does). Where states come late that is an older one, and torques made one after the
other may lie too far apart: the arm refuses these, and stops by its own reflex. Much smaller steps make the arm's spring swing, for a
limit on torque's rate is a delay in its loop."""
TASKS = "/proc/self/task"
IDLE_READ_S = 0.004
"""Pause between two reads while the arm stands idle [s]."""
LOST_S = 0.1
"""Without a new state for this long the arm counts as lost [s]."""
REACH = 0.1
"""How far the position that velocities add up to may run ahead of the arm [rad]."""
SILENCE_S = 0.05
"""A velocity counts for at most this long when the next comes later [s]."""
STOP_WAIT_S = 0.3
RECOVERY_S = 1.0
RETRY_S = 0.1


class FrankaArm:
    """A Franka arm's `Driver`."""

    def __init__(self, arm: Arm, config: FrankaConfig) -> None:
        try:
            import franky
        except ImportError as error:
            raise MissingExtraError("a Franka arm", "franka") from error
        self.arm, self.config = arm, config
        self.calibration_hash = "factory"
        self._client, self._patient = franky, PatientClient(config)
        modes = franky.RobotMode
        self._states = {modes.Idle: VendorState.READY, modes.Move: VendorState.READY, modes.Reflex: VendorState.PROTECTIVE_STOP,
                        modes.UserStopped: VendorState.EMERGENCY_STOP}
        self._robot: franky.Robot | None = None
        self._motion: franky.SimpleTorqueMotion | franky.JointImpedanceTrackingMotion | None = None
        self._mode: CommandMode | None = None
        self._reference = np.zeros(7)
        self._written = 0
        self._bus_errors, self._words = 0, ""
        self._device_ms = -1
        self._newest = _unheard()
        self._reader: threading.Thread | None = None
        self._open = False
        self._loop_threads: list[int] = []

    def connect(self) -> ArmIdentity:
        """Take the arm's control interface and refuse another model, another protocol, a second client, a pose outside the limits."""
        config, limits = self.config, self.arm.spec.limits
        self._robot, self._newest = self._patient.connect(), _unheard()
        found = ET.fromstring(self._robot.model_urdf).get("name", "")
        if not found.startswith(self.arm.spec.name):
            self.close()
            raise HardwareError(f"the arm at {config.address} says it is {found!r}, expected {self.arm.spec.name!r}: check the address")
        if config.load_mass:
            self._patient.call("set_load", lambda: self._robot.set_load(
                config.load_mass, list(config.load_centre), [0.0] * 9))
        self._open = True
        atexit.register(self.close)  # a thread inside the client's C++ when Python ends would abort the process
        self._reader = threading.Thread(target=self._read_while_idle, name="franka-idle", daemon=True)
        self._reader.start()
        deadline = time.monotonic() + config.timeout_s
        while self._newest.received_ns == 0 and time.monotonic() < deadline:
            time.sleep(0.002)
        if self._newest.received_ns == 0:
            self.close()
            words = self._words or "is a firewall in the way of UDP?"
            raise HardwareError(f"the arm at {config.address} took the connection and sends no states: {words}")
        q = self._newest.q
        for i in np.flatnonzero(~((q >= limits.position_min) & (q <= limits.position_max))):
            self.close()
            raise HardwareError(f"{self.arm.spec.joint_names[i]} stands at {q[i]:.3f} rad, outside {limits.position_min[i]:.3f} to "
                                f"{limits.position_max[i]:.3f}: move it back by hand in Desk's guiding mode")
        return ArmIdentity(found, "unknown", f"spoken by franky-control {version('franky-control')}")

    def begin(self, mode: CommandMode) -> None:
        """Start the native loop for `mode` where the arm stands; HardwareError in the controller's words where it will not."""
        self.arm.spec.command(mode)
        if self._there().is_in_control:
            self.end()
        self._reap()
        client = self._client
        if mode is CommandMode.JOINT_TORQUE:
            motion = client.SimpleTorqueMotion(signal_timeout=self.config.watchdog_s, max_delta_tau=TORQUE_STEP)
        else:
            motion = client.JointImpedanceTrackingMotion(
                stiffness=np.array(self.config.stiffness), damping=np.array(self.config.damping), max_delta_tau=TORQUE_STEP)
            self._reference = self._newest.q.copy()
            motion.set_reference(client.JointReference(q=self._reference))
        self._words = ""
        self._patient.call("start a motion", lambda: self._start(motion))
        deadline = time.monotonic() + self.config.timeout_s
        while self._robot.is_in_control and self._robot.state.robot_mode != client.RobotMode.Move and time.monotonic() < deadline:
            time.sleep(0.001)
        if not self._robot.is_in_control:
            self._reap()
            raise HardwareError(f"the arm at {self.config.address} does not start a motion: {self._words or 'it gives no reason'}")
        self._motion, self._mode, self._written = motion, mode, time.monotonic_ns()
        if mode is CommandMode.JOINT_TORQUE:
            motion.set_torque(np.zeros(7))

    def read(self) -> Measurement:
        """Return the newest state: in motion the native loop's, else the idle reader's."""
        robot = self._there()
        running = robot.is_in_control
        if running:
            self._store(robot.state)
        newest = self._newest
        age = 1e-9 * (time.monotonic_ns() - newest.received_ns)
        if age > LOST_S:
            self._calm()
            return replace(newest, state=VendorState.LOST, fault=self._words or f"no state for {age:.2f} s", bus_errors=self._bus_errors)
        if self._mode is not None and not running:
            self._reap()
            if newest.state is VendorState.READY:
                state = VendorState.PROTECTIVE_STOP if "reflex" in self._words else VendorState.NOT_READY  # its own state comes later
                return replace(newest, state=state, fault=self._words or "the motion ended by itself")
        return newest

    def write(self, values: np.ndarray) -> None:
        """Hand one set-point to the native loop. HardwareError where the loop has ended, in the words of its end."""
        now = time.monotonic_ns()
        elapsed, self._written = 1e-9 * (now - self._written), now
        motion, mode = self._motion, self._mode
        if motion is None or not self._robot.is_in_control:
            self._reap()
            raise HardwareError(f"the arm takes no set-points: {self._words or 'no motion runs, call begin first'}")
        try:
            if mode is CommandMode.JOINT_TORQUE:
                motion.set_torque(values)
            elif mode is CommandMode.JOINT_VELOCITY:
                step = values * min(elapsed, SILENCE_S)
                q = self._newest.q
                self._reference = np.minimum(np.maximum(self._reference + step, q - REACH), q + REACH)
                motion.set_reference(self._client.JointReference(q=self._reference, dq=values))
            else:
                rate = (values - self._reference) / max(elapsed, self.arm.spec.control_dt)
                self._reference = values.copy()
                motion.set_reference(self._client.JointReference(q=values, dq=rate))
        except (ValueError, TypeError) as error:
            raise HardwareError(f"the client takes no such set-point: {error}") from error

    def end(self) -> None:
        """Ramp the torque into damping until the arm rests; its controller then holds it."""
        self._motion = self._mode = None
        robot = self._robot
        if robot is None or not robot.is_in_control:
            return
        try:
            robot.move(self._client.TorqueStopMotion(max_delta_tau=TORQUE_STEP), asynchronous=True, cutoff_frequency=UNFILTERED_HZ)
            if not robot.join_motion(timeout=self.config.timeout_s):
                self.stop()
        except Exception as error:
            self._note(error)

    def stop(self) -> None:
        """Have the controller stop and hold; returns after at most 0.3 s, whatever the wire does."""
        self._motion = self._mode = None
        robot = self._robot
        if robot is not None:
            in_thread(robot.stop, STOP_WAIT_S)

    def clear_fault(self) -> None:
        """Run the arm's automatic error recovery; connects anew where the connection was lost."""
        deadline = time.monotonic() + self.config.timeout_s
        self._motion = self._mode = None
        if self._robot is not None:
            if self._robot.is_in_control:
                self.stop()
            self._reap()
        while True:
            try:
                if self._robot is None or self.read().state is VendorState.LOST:
                    self.close()
                    self.connect()
                self._patient.call("recover from errors", lambda: self._robot.recover_from_errors())  # its result is a state too early
                break
            except HardwareError as error:
                if isinstance(error.__cause__, self._client.CommandException) or time.monotonic() > deadline:
                    raise
                self.close()
                time.sleep(RETRY_S)
        deadline = time.monotonic() + RECOVERY_S
        while (newest := self.read()).state is not VendorState.READY:
            if time.monotonic() > deadline:
                raise HardwareError(f"the arm at {self.config.address} does not recover: {newest.fault}; look at it, and at Desk")
            time.sleep(IDLE_READ_S)
        self._words = ""

    def close(self) -> None:
        """End the motion and let go of the arm."""
        robot, self._open = self._robot, False
        atexit.unregister(self.close)
        if robot is None:
            return
        self._calm()
        if self._newest.state is not VendorState.LOST:
            self.end()
        if self._reader is not None:
            self._reader.join(STOP_WAIT_S)
        self._robot = self._reader = None
        held = [robot]
        del robot
        in_thread(held.clear, STOP_WAIT_S)  # libfranka's destructor waits for ever where the arm hangs

    def _there(self) -> franky.Robot:
        if self._robot is None:
            raise HardwareError(f"the arm at {self.config.address} is not connected: call connect first")
        return self._robot

    def _start(self, motion: franky.SimpleTorqueMotion | franky.JointImpedanceTrackingMotion) -> None:
        """Start the native loop from a thread whose scheduling it inherits."""
        if self.config.loop_priority:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self.config.loop_priority))
        before = set(os.listdir(TASKS))
        self._robot.move(motion, asynchronous=True, cutoff_frequency=UNFILTERED_HZ)
        self._loop_threads = [int(task) for task in set(os.listdir(TASKS)) - before]

    def _calm(self) -> None:
        """Take real-time scheduling from the native loop: once the wire is dead libfranka may spin in it for ever."""
        for thread in self._loop_threads:
            with contextlib.suppress(OSError):
                if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        self._loop_threads = []

    def _read_while_idle(self) -> None:
        """Keep the newest state fresh while no motion runs: reading then waits for the next packet, up to a second if none comes."""
        while self._open:
            robot = self._robot
            if robot is None:
                return
            if not robot.is_in_control:
                try:
                    self._store(robot.state)
                except Exception as error:
                    self._note(error)
                    self._newest = replace(self._newest, state=VendorState.LOST, fault=self._words)
                    return
            time.sleep(IDLE_READ_S)

    def _store(self, state: franky.RobotState) -> None:
        """Make `state` the newest measurement where it is one that was not seen."""
        device_ms = state.time.to_msec()
        if device_ms == self._device_ms:
            return
        self._device_ms = device_ms
        vendor = self._states.get(state.robot_mode, VendorState.NOT_READY)
        fault = ""
        if vendor is not VendorState.READY:
            fault = f"{state.robot_mode.name}: {state.current_errors or state.last_motion_errors}"
        self._newest = Measurement(time.monotonic_ns(), 1e-3 * device_ms, state.q, state.dq, state.tau_J, vendor,
                                   fault, self._bus_errors)

    def _reap(self) -> None:
        """Take the words of a motion that ended by itself."""
        try:
            self._robot.poll_motion()
        except Exception as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        self._words = str(error)
        if isinstance(error, (self._client.NetworkException, self._client.ProtocolException)):
            self._bus_errors += 1


def _unheard() -> Measurement:
    nothing = np.full(7, np.nan)
    return Measurement(0, float("nan"), nothing, nothing, nothing, VendorState.LOST)
