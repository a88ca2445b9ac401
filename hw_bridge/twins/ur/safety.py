"""What the controller says of itself: robot mode, safety mode, the bits of both, and who may leave which state."""

from __future__ import annotations

from enum import IntEnum


class RobotMode(IntEnum):
    """UR's robot modes, those that the twin knows."""

    POWER_OFF = 3
    IDLE = 5
    RUNNING = 7


class SafetyMode(IntEnum):
    """UR's safety modes, those that the twin knows."""

    NORMAL = 1
    PROTECTIVE_STOP = 3
    ROBOT_EMERGENCY_STOP = 7
    VIOLATION = 8
    FAULT = 9


_BITS = {SafetyMode.NORMAL: 0b1, SafetyMode.PROTECTIVE_STOP: 1 << 2 | 1 << 10, SafetyMode.ROBOT_EMERGENCY_STOP: 1 << 6 | 1 << 7 | 1 << 10,
         SafetyMode.VIOLATION: 1 << 8 | 1 << 10, SafetyMode.FAULT: 1 << 9 | 1 << 10}


class Safety:
    """The safety state. Times are simulated seconds."""

    def __init__(self, unlock_after_s: float) -> None:
        self._unlock_after_s = unlock_after_s
        self.mode = SafetyMode.NORMAL
        self.robot_mode = RobotMode.RUNNING
        self.words = ""
        """Why the arm stopped; empty in normal mode."""
        self.stops: list[str] = []
        """Every stop so far."""
        self._since = 0.0

    @property
    def may_move(self) -> bool:
        """True where programs run."""
        return self.mode is SafetyMode.NORMAL and self.robot_mode is RobotMode.RUNNING

    @property
    def safety_bits(self) -> int:
        """RTDE's safety_status_bits."""
        return _BITS[self.mode]

    def robot_bits(self, program_running: bool) -> int:
        """Return RTDE's robot_status_bits."""
        return (self.robot_mode >= RobotMode.IDLE) | program_running << 1

    def trip(self, mode: SafetyMode, words: str, now: float) -> bool:
        """Enter `mode` unless as bad a one holds already; return whether it was entered."""
        if mode <= self.mode:
            return False
        self.mode, self.words, self._since = mode, words, now
        self.stops.append(f"{now:.3f} s: {mode.name}: {words}")
        return True

    def unlock_protective_stop(self, now: float) -> str:
        """Return the dashboard's answer."""
        if self.mode is not SafetyMode.PROTECTIVE_STOP or now - self._since < self._unlock_after_s:
            return (f"Cannot unlock protective stop until {self._unlock_after_s:g}s after occurrence. "
                    "Always inspect cause of protective stop before unlocking")
        self._normal()
        return "Protective stop releasing"

    def release_emergency_stop(self) -> None:
        """A person turned the button out again: the arm is without power until it is switched on."""
        if self.mode is SafetyMode.ROBOT_EMERGENCY_STOP:
            self._normal()

    def restart(self) -> str:
        """Restart the safety controller after a violation or a fault: the arm is without power until it is switched on."""
        if self.mode in (SafetyMode.VIOLATION, SafetyMode.FAULT):
            self._normal()
        self.robot_mode = RobotMode.POWER_OFF
        return "Restarting safety"

    def _normal(self) -> None:
        self.mode, self.words = SafetyMode.NORMAL, ""
