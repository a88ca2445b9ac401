"""Universal Robots e-Series arms through ur_rtde: servoj, speedj or direct torque, always under the controller's watchdog."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time

import numpy as np

from hw_bridge.drivers import ur_client
from hw_bridge.drivers.driver import ArmIdentity, Measurement, VendorState
from hw_bridge.drivers.rtde_stream import RtdeStream
from hw_bridge.drivers.ur_client_process import ClientProcess
from robots.arms.arm import Arm
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, MissingExtraError

EXTRA = "ur"
MODELS = {"ur5e": ("UR5", "UR5e")}
"""What the dashboard calls each arm: e-Series controllers leave the e out."""
FIRMWARE_MIN, TORQUE_FIRMWARE_MIN = (5, 6), (5, 23)
"""PolyScope: serial number and remote control on the dashboard; direct torque."""
VARIABLES = {"timestamp": "DOUBLE", "actual_q": "VECTOR6D", "actual_qd": "VECTOR6D", "target_moment": "VECTOR6D",
             "target_current": "VECTOR6D", "actual_current": "VECTOR6D", "robot_status_bits": "UINT32", "safety_status_bits": "UINT32"}
_NUMBERS, _BITS = np.dtype(">f8"), struct.Struct(">II")
_BITS_AT = 31 * _NUMBERS.itemsize
"""Where a state's doubles end and its two words of bits begin [byte]."""
TORQUE_PER_AMPERE = np.array([12.0, 12.0, 12.0, 10.0, 10.0, 10.0])
"""(6,) [N·m/A], about; it scales only what the motors give beyond the controller's own model of the arm."""
LOST_AFTER_S = 0.1
"""A state older than this is no state [s]."""
GAP_S = 0.01
"""A silence of five periods is a missing answer [s]."""
STOP_WAIT_S = 0.1
"""A stop waits so long for the dashboard's answer [s]; on a dead wire that would take seconds, and the watchdog is faster."""
SAFETY_WORDS = {
    9: (VendorState.FAULT, "FAULT: the safety system found a fault; look at the pendant"),
    8: (VendorState.FAULT, "VIOLATION: a safety limit was exceeded; look at the pendant"),
    7: (VendorState.EMERGENCY_STOP, "EMERGENCY_STOP"), 6: (VendorState.EMERGENCY_STOP, "ROBOT_EMERGENCY_STOP"),
    5: (VendorState.EMERGENCY_STOP, "SYSTEM_EMERGENCY_STOP"), 4: (VendorState.NOT_READY, "SAFEGUARD_STOP: the safeguard input is open"),
    3: (VendorState.FAULT, "RECOVERY: the arm stands outside a safety limit; move it back with the pendant"),
    2: (VendorState.PROTECTIVE_STOP, "PROTECTIVE_STOP: the arm stopped itself; the pendant's log tells why"),
}
"""What each of the safety status bits means, the worst first."""
_MODES = {CommandMode.JOINT_POSITION: ur_client.SERVO, CommandMode.JOINT_VELOCITY: ur_client.SPEED,
          CommandMode.JOINT_TORQUE: ur_client.TORQUE}
_log = logging.getLogger(__name__)


class UniversalRobots:
    """The driver. A state is dated when it is first seen by `read`, at most one loop period after it arrived. `tau` is the
    controller's model plus what the currents say beyond it. Torques are sent without the controller's friction compensation.

    The program runs on the arm only between `begin` and `end`: a program that runs at `connect` is somebody else's.
    """

    calibration_hash = "factory"

    def __init__(self, address: str, arm: Arm | None = None, watchdog_s: float = 0.02) -> None:
        """`watchdog_s`: the arm stops by itself when it hears nothing for so long [s]; 20 ms as UR's own driver, at most 200 ms."""
        if not 0.02 <= watchdog_s <= 0.2:
            raise ConfigurationError(f"UniversalRobots: expected a watchdog of 0.02 to 0.2 s, got {watchdog_s} s")
        try:
            from dashboard_client import DashboardClient
        except ImportError as error:
            raise MissingExtraError("the Universal Robots driver", EXTRA) from error
        self._dashboard_class = DashboardClient
        self.arm = ur5e() if arm is None else arm
        if self.arm.spec.name not in MODELS:
            raise ConfigurationError(f"UniversalRobots drives {', '.join(MODELS)}; got {self.arm.spec.name!r}")
        self.address, self.watchdog_s = address, watchdog_s
        self._dashboard = self._states = self._client = None
        self._asking: threading.Thread | None = None
        self._mode = 0
        self._begun = False
        """Whether a program that runs on the arm may be ours."""
        self._failure = ""
        self._forget()

    def _forget(self) -> None:
        self._timestamp, self._received_ns, self._bus_errors, self._silent = float("nan"), 0, 0, False
        self._firmware: tuple[int, ...] = ()

    def connect(self) -> ArmIdentity:
        self.close()
        self._forget()
        try:
            identity = self._identify()
            self._listen()
            self._client = ClientProcess(self.address)
            self._refuse_outside_limits(self.read().q)
            self._states.pause()  # until a loop reads it
        except HardwareError:
            self.close()
            raise
        return identity

    def _identify(self) -> ArmIdentity:
        dashboard = self._dashboard = self._dashboard_class(self.address)
        try:
            dashboard.connect(2000)
            firmware, model = dashboard.polyscopeVersion(), dashboard.getRobotModel()
            self._firmware = tuple(int(number) for number in firmware.split("."))
            if self._firmware[0] != 5 or self._firmware < FIRMWARE_MIN:
                raise HardwareError(f"{self.address} runs PolyScope {firmware}; expected 5.6 or a later 5: update the controller")
            expected = MODELS[self.arm.spec.name]
            if model not in expected:
                raise HardwareError(f"{self.address} is a {model!r}; expected {self.arm.spec.name} ({' or '.join(expected)}): "
                                    "check the address")
            if not dashboard.isInRemoteControl():
                raise HardwareError(f"{self.address} is in local control: switch it to remote control on the pendant")
            if dashboard.running():
                raise HardwareError(f"{self.address} already runs a program, perhaps another client's: stop it first")
            return ArmIdentity(self.arm.spec.name, dashboard.getSerialNumber(), firmware)
        except (RuntimeError, ValueError) as error:
            raise HardwareError(f"{self.address} does not answer as a Universal Robots dashboard (port 29999): {error}. Is it switched on, "
                                "is this its address, is the dashboard server enabled?") from error

    def _listen(self) -> None:
        self._states = RtdeStream(self.address, VARIABLES)
        until = time.monotonic() + 2.0
        while not self._states.newest() or not self._bits()[1]:
            if time.monotonic() > until:
                raise HardwareError(f"{self.address}: RTDE sends no state: is another client using up the connection?")
            time.sleep(0.002)
        self._states.pause()  # while the control client connects

    def _bits(self) -> tuple[int, int]:
        """Return the newest robot status bits and safety status bits."""
        return _BITS.unpack_from(self._states.newest(), _BITS_AT)

    def _refuse_outside_limits(self, q: np.ndarray) -> None:
        limits = self.arm.spec.limits
        outside = np.flatnonzero(~((q >= limits.position_min) & (q <= limits.position_max)))
        if len(outside):
            joint = int(outside[0])
            raise HardwareError(f"{self.arm.spec.joint_names[joint]} stands at {q[joint]:.3f} rad, outside its limits of "
                                f"{limits.position_min[joint]:.3f} to {limits.position_max[joint]:.3f} rad: move it back with the pendant")

    def begin(self, mode: CommandMode) -> None:
        self.arm.spec.command(mode)
        if mode is CommandMode.JOINT_TORQUE and self._firmware < TORQUE_FIRMWARE_MIN:
            raise HardwareError(f"direct torque needs PolyScope 5.23 or later, {self.address} runs {'.'.join(map(str, self._firmware))}: "
                                "update the controller or command positions")
        self._mode, self._failure = 0, ""
        now = self.read()
        if now.state is not VendorState.READY or self._client is None:
            raise HardwareError(f"{self.address} is not ready: {now.state}: {now.fault}")
        self._refuse_outside_limits(now.q)
        number, self._begun = _MODES[mode], True
        self._client.request(f"begin {mode}", number + 10, now.q, 1.0 / self.watchdog_s)
        self._await("start the control program", lambda: self._bits()[0] & 2)
        self._mode = number

    def read(self) -> Measurement:
        if self._states is None:
            raise HardwareError(f"{self.address} is not connected: connect first")
        state = self._states.newest()
        numbers = np.frombuffer(state, _NUMBERS, 31).astype(float)
        timestamp, q, dq, moment, target_current, current = float(numbers[0]), *numbers[1:].reshape(5, 6)
        tau = moment + TORQUE_PER_AMPERE * (current - target_current)
        robot, safety = _BITS.unpack_from(state, _BITS_AT)
        now = time.monotonic_ns()
        if timestamp != self._timestamp:
            self._timestamp, self._received_ns, self._silent = timestamp, now, False
        elif not self._silent and now - self._received_ns > GAP_S * 1e9:
            self._bus_errors, self._silent = self._bus_errors + 1, True
        state, fault = self._judge(safety, robot, (now - self._received_ns) * 1e-9)
        return Measurement(self._received_ns, timestamp, q, dq, tau, state, fault, self._bus_errors)

    def _judge(self, safety: int, robot: int, age: float) -> tuple[VendorState, str]:
        if age > LOST_AFTER_S:
            if self._client is not None:
                self._kill_client()  # before it comes back by itself
            return VendorState.LOST, f"nothing heard from {self.address} for {age:.2f} s: check cable and controller, then connect again"
        if safety & 0x3FC:
            return SAFETY_WORDS[(safety & 0x3FC).bit_length() - 1]
        if not robot & 1:
            return VendorState.NOT_READY, "the motors are off: power on and release the brakes"
        if self._mode and not robot & 2:
            return VendorState.NOT_READY, self._failure or (f"the control program ended: its watchdog heard nothing for "
                                                            f"{1e3 * self.watchdog_s:.0f} ms, or somebody stopped it")
        if not self._mode and robot & 2:
            return VendorState.NOT_READY, "another program runs on the arm"
        return VendorState.READY, ""

    def write(self, values: np.ndarray) -> None:
        if not self._mode or self._client is None:
            raise HardwareError(f"{self.address} takes no set-points: begin first. {self._failure}".rstrip())
        failure = self._client.send(self._mode, values)
        if failure:
            self._failure, self._mode = failure, 0
            raise HardwareError(f"{self.address}: {failure}")

    def set_payload(self, mass: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        """Tell the controller what hangs on the flange: mass [kg] and its centre [m] in the flange's frame; only after `begin`."""
        if self._client is None:
            raise HardwareError(f"{self.address} is not connected: connect first")
        self._client.request("set the payload", ur_client.PAYLOAD, np.array([*centre, 0.0, 0.0, 0.0]), mass)

    def end(self) -> None:
        if self._client is not None and self._begun and (self._mode or self._bits()[0] & 2):
            self._mode = 0
            self._client.request("end", ur_client.END, np.zeros(6), timeout=3.0)
            self._await("stand still", lambda: np.abs(self.read().dq).max() < 0.02 and not self._bits()[0] & 2)
        self._begun = False

    def _await(self, what: str, reached: object, timeout: float = 3.0) -> None:
        until = time.monotonic() + timeout
        while not reached():
            if time.monotonic() > until:
                raise HardwareError(f"{self.address} did not {what} within {timeout:g} s")
            self._states.newest()  # a controller cuts off who leaves its states lying
            time.sleep(0.002)

    def stop(self) -> None:
        self._mode = 0
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask_to_stop, args=(self._dashboard,), daemon=True)
            self._asking.start()
        self._asking.join(STOP_WAIT_S)

    def _ask_to_stop(self, dashboard: object) -> None:
        try:
            dashboard.stop()
        except Exception as error:  # nothing may keep a stop from returning: without set-points the controller's watchdog stops the arm
            _log.error("%s: the dashboard did not stop the arm (%s); its watchdog does within %g s", self.address, error, self.watchdog_s)

    def clear_fault(self) -> None:
        if self._dashboard is None:
            raise HardwareError(f"{self.address} is not connected: connect first")
        self._join_asking()
        dashboard = self._dashboard
        try:
            status = dashboard.safetystatus()
            if "PROTECTIVE_STOP" in status:
                dashboard.closeSafetyPopup()
                dashboard.unlockProtectiveStop()
            elif "NORMAL" not in status and "REDUCED" not in status:
                raise HardwareError(f"{self.address} says {status}: turn the emergency stop out, or clear the fault on the pendant")
            self._await("return to normal", lambda: self._bits()[1] & 0x3FC == 0)
            if "RUNNING" not in dashboard.robotmode():
                dashboard.powerOn()
                dashboard.brakeRelease()
                self._await("power on and release its brakes", lambda: "RUNNING" in dashboard.robotmode(), 30.0)
        except RuntimeError as error:
            raise HardwareError(f"{self.address} refuses to go on: {error}") from error
        self._mode, self._failure = 0, ""

    def _kill_client(self) -> None:
        if self._client is not None:
            self._client.kill()
        self._client, self._mode, self._begun = None, 0, False

    def close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(HardwareError):
                self.end()
            self._kill_client()
        self._join_asking()
        if self._states is not None:
            self._states.close()
        if self._dashboard is not None:
            with contextlib.suppress(RuntimeError):
                self._dashboard.disconnect()
        self._states = self._dashboard = None

    def _join_asking(self) -> None:
        """Two threads in one dashboard client would crash it."""
        if self._asking is not None:
            self._asking.join()
        self._asking = None
