"""The control program that ur_rtde uploads, as the controller runs it: a command in input_int_register_0, its state in
output_int_register_0 (1 ready, 2 done).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hw_bridge.twins.ur.motion import DT, Mode, Motion
from robots.errors import ConfigurationError

READY, DONE = 1, 2
SERVOJ, SPEEDJ, TORQUE = 11, 9, 66
JOINT_TORQUES, STEP_TIME = 38, 26
MOVEJ, SPEED_STOP, SERVO_STOP, SET_PAYLOAD, PROTECTIVE_STOP, STOPL, STOPJ = 1, 15, 16, 17, 31, 33, 34
SET_WATCHDOG, JOINTS_WITHIN_LIMITS, IS_STEADY, STOP_SCRIPT = 35, 37, 47, 255
REALTIME = {SERVOJ, SPEEDJ, TORQUE, JOINT_TORQUES, STEP_TIME}
"""Commands that are carried out in every period for as long as they stand in the register."""
STARTS_AFTER_S = 0.02
"""From the script's last line to its first [s]."""


class Program:
    """One running (or ended) program. `protective_stop` takes words."""

    def __init__(self, motion: Motion, protective_stop: Callable[[str], None]) -> None:
        self._motion, self._protective_stop = motion, protective_stop
        self.int_in, self.double_in = [0] * 48, [0.0] * 48
        self.int_out, self.double_out = [0] * 48, [0.0] * 48
        self.running = False
        self.ended = ""
        """Why the last program ended."""
        self.watchdog_s = 0.0
        """Longest silence of input_int_register_0 [s]; 0: no watchdog."""
        self.watchdog_trips = 0
        self.heard = 0.0
        """When input_int_register_0 was last written, on the host's clock [s]."""
        self._starts = np.inf
        self._executing = False
        self._waiting: Callable[[], bool] | None = None

    def load(self, script: str, now: float) -> bool:
        """Take a script, which replaces the running one; False where it is none that this twin can carry out."""
        if "rtde_control" not in script and "rtde_cmd" not in script:
            self.ended = "the script is not ur_rtde's: this twin carries out no other"
            return False
        self.end("another script was sent")
        self._starts = now + STARTS_AFTER_S
        return True

    def end(self, why: str) -> None:
        """End the program; its watchdog ends with it."""
        if self.running:
            self.ended = why
        self.running, self.watchdog_s, self._starts, self._waiting, self._executing = False, 0.0, np.inf, None, False

    def cycle(self, now: float, host_now: float, q: np.ndarray, dq: np.ndarray, tau: np.ndarray) -> None:
        """Run one period at simulated time `now` and host time `host_now` [s], with the arm's state (6,)."""
        if now >= self._starts:
            self.running, self._starts, self.ended, self.heard = True, np.inf, "", host_now
        if not self.running:
            return
        if self.watchdog_s and host_now - self.heard > self.watchdog_s:
            self.watchdog_trips += 1
            self.end(f"RTDE watchdog: nothing heard for {1e3 * self.watchdog_s:.0f} ms")
            return
        if self._waiting is not None:
            if not self._waiting():
                return
            self._waiting = None
            self.int_out[0] = DONE
        command = self.int_in[0]
        if command in REALTIME:
            self.int_out[0] = READY
            self._realtime(command, tau)
        elif command == 0:
            self._executing = False
            self.int_out[0] = READY
        elif not self._executing:
            self._executing = True
            self._once(command, q, dq)
            if self._waiting is None and self.running:
                self.int_out[0] = DONE

    def _realtime(self, command: int, tau: np.ndarray) -> None:
        values = np.array(self.double_in[:18])
        if command == JOINT_TORQUES:
            self.double_out[:6] = tau.tolist()
        elif command == STEP_TIME:
            self.double_out[0] = DT
        elif not np.isfinite(values if command == TORQUE else values[:6]).all():
            self._protective_stop("path sanity check: the target is not a number")
        elif command == SERVOJ:
            self._motion.servo(values[:6], float(values[9]), float(values[10]))
        elif command == SPEEDJ:
            self._motion.speed(values[:6], float(values[6]))
        else:
            self._motion.torque(values[:6], values[6:12], values[12:18])

    def _once(self, command: int, q: np.ndarray, dq: np.ndarray) -> None:
        values, motion = self.double_in, self._motion
        if command == MOVEJ:
            target = np.array(values[:6])
            if not np.isfinite(target).all():
                self._protective_stop("path sanity check: the target is not a number")
                return
            motion.move(target, values[6], values[7])
            self._waiting = None if self.int_in[1] else self._stands
        elif command in (SPEED_STOP, SERVO_STOP, STOPJ, STOPL):
            if motion.mode is not Mode.HOLD:
                motion.stop(values[0] if values[0] > 0.1 else 0.1, q, dq)
            self._waiting = self._stands
        elif command == SET_PAYLOAD:
            try:
                motion.set_payload(values[0], (values[1], values[2], values[3]))
            except ConfigurationError as error:
                self.end(f"set_payload: {error}")
        elif command == PROTECTIVE_STOP:
            self._protective_stop("the program asked for it")
        elif command == SET_WATCHDOG:
            self.watchdog_s = 1.0 / values[0] if values[0] > 0 else 0.0
        elif command == JOINTS_WITHIN_LIMITS:
            self.int_out[1] = int(motion.within_limits(np.array(values[:6])))
        elif command == IS_STEADY:
            self.int_out[1] = int(motion.at_rest)
        elif command == STOP_SCRIPT:
            self.end("the client stopped it")
        else:
            self.end(f"this twin does not carry out ur_rtde's command {command}")

    def _stands(self) -> bool:
        return self._motion.at_rest
