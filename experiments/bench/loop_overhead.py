"""What the bridge adds to an arm's own latency: from the observation in hand to the set-point handed to the driver."""

from __future__ import annotations

import os
import time

import numpy as np

from hw_bridge.channels import Channels
from hw_bridge.drivers.driver import Measurement, VendorState
from hw_bridge.realtime.privileges import RealTime
from hw_bridge.realtime.schedule import Schedule, ScheduleConfig
from hw_bridge.recorder.log_row import MODE_CODES
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.rules import State
from hw_bridge.safety.supervisor import Supervisor
from hw_bridge.servo_loop import ServoLoop
from robots.arms.arm import Arm
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import HardwareError


class _Obedient:
    """The end of a wire without the wire: an arm that is where it was told to be. What it costs is not the bridge's."""

    calibration_hash = "none"

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self._q = arm.home.copy()
        self._still = np.zeros(arm.spec.nv)

    def begin(self, mode: CommandMode) -> None: ...

    def read(self) -> Measurement:
        now = time.monotonic_ns()
        return Measurement(now, now * 1e-9, self._q, self._still, self._still, VendorState.READY)

    def write(self, values: np.ndarray) -> None:
        self._q = values.copy()

    def end(self) -> None: ...

    def stop(self) -> None: ...

    def clear_fault(self) -> None: ...

    def close(self) -> None: ...


def measure_overhead(rate: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the overhead and the whole period's work (n,) [ns] of a loop at `rate` [Hz] that follows a policy at 20 Hz."""
    arm = ur5e()
    supervisor = Supervisor(arm, CommandMode.JOINT_POSITION, SafetyConfig(gap_max=1.0, observation_age_max=1.0, action_age_max=1.0))
    channels = Channels.create(f"bench-{os.getpid()}-overhead", arm.spec.nv)
    schedule = Schedule(ScheduleConfig(10**9 // rate))
    loop = ServoLoop(_Obedient(arm), supervisor, schedule, channels, None)
    spec, count = arm.spec.fingerprint().encode(), int(seconds * rate)
    overhead, work = np.zeros(count, np.int64), np.zeros(count, np.int64)
    with RealTime():
        schedule.start_over()
        loop.tick()
        supervisor.arm_motors()
        loop.tick()
        supervisor.activate()
        for i in range(count):
            if i % (rate // 20) == 0:
                record = channels.action.record
                record["sequence"], record["generation"], record["speed"] = i, supervisor.generation, 1.0
                record["length"], record["mode"], record["spec"] = arm.spec.nv, MODE_CODES[CommandMode.JOINT_POSITION], spec
                record["values"][:] = arm.home + 0.2 * np.sin(i / rate)
                channels.action.publish()
            loop.tick()
            overhead[i], work[i] = loop.overhead_ns, time.monotonic_ns() - schedule.wake_ns
    state, cause = supervisor.state, supervisor.cause
    channels.close()
    if state is not State.ACTIVE:
        raise HardwareError(f"the measured loop stopped itself: {cause}")
    return overhead, work
