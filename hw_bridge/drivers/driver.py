"""The `Driver` protocol: an arm on its wire, read and written once every servo period. Only the supervisor's loop writes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from robots.arms.arm import Arm
from robots.command import CommandMode


class VendorState(StrEnum):
    """What the arm's own controller says of itself."""

    READY = "ready"
    """It takes set-points."""
    NOT_READY = "not_ready"
    """Motors off, brakes on, or another program runs."""
    PROTECTIVE_STOP = "protective_stop"
    """It stopped itself (collision, reflex, overload) and wants to be told to go on."""
    EMERGENCY_STOP = "emergency_stop"
    """A person pressed a button."""
    FAULT = "fault"
    """It must be looked at by a person."""
    LOST = "lost"
    """Nothing is heard of it."""


@dataclass(frozen=True)
class ArmIdentity:
    """Who answered at the address."""

    model: str
    serial: str
    firmware: str


@dataclass(slots=True)
class Measurement:
    """What was read in one servo period. Arrays are fresh or never written again by the driver; NaN passes, the supervisor looks."""

    received_ns: int
    """Host's monotonic clock when the newest state arrived [ns]; it stands still while nothing arrives."""
    device_s: float
    """The controller's own clock [s]; NaN where it has none."""
    q: np.ndarray
    """(nv,) joint positions [rad]."""
    dq: np.ndarray
    """(nv,) joint velocities [rad/s]."""
    tau: np.ndarray
    """(nv,) joint torques [N·m], measured or estimated from current as the driver's page says."""
    state: VendorState
    fault: str = ""
    """The controller's own words for what is wrong; empty where nothing is."""
    bus_errors: int = 0
    """Bad or missing answers since `connect`."""


class Driver(Protocol):
    """One arm. Every method raises HardwareError, in words a person can act on, where the wire or the arm fails."""

    arm: Arm
    calibration_hash: str
    """Short hash of what turns the wire's numbers into joint angles; 'factory' where the controller keeps it."""

    def connect(self) -> ArmIdentity:
        """Open the wire and refuse, before any motion, what is not this arm: model, firmware, a second client, a stale calibration."""
        ...

    def begin(self, mode: CommandMode) -> None:
        """Make the arm take set-points of `mode` from where it stands, with the vendor's own watchdog set."""
        ...

    def read(self) -> Measurement:
        """Return the newest state without waiting for more than half a servo period."""
        ...

    def write(self, values: np.ndarray) -> None:
        """Send one set-point (nv,), in the mode that was begun [rad, rad/s or N·m]. It is sent as given: limits are the supervisor's."""
        ...

    def end(self) -> None:
        """Leave servoing with the arm held where it is (brakes, the controller's own hold, or torque on at the last position)."""
        ...

    def stop(self) -> None:
        """Stop as fast as the controller itself can and leave the arm held; works in every state and never raises."""
        ...

    def clear_fault(self) -> None:
        """Tell the controller that a person has looked and that it may go on; HardwareError where it refuses."""
        ...

    def close(self) -> None:
        """End, and let go of the wire; harmless twice. Torque is switched off by nobody but a person, on arms that would fall."""
        ...
