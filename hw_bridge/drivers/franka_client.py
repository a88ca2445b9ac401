"""How Franka's client is set, and patience with it: libfranka waits for ever for an answer that does not come; here nobody does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from robots.errors import ConfigurationError, HardwareError

if TYPE_CHECKING:
    import franky

Result = TypeVar("Result")


@dataclass(frozen=True)
class FrankaConfig:
    """Where the arm is and how its client is set."""

    address: str
    """The arm's FCI address."""
    watchdog_s: float = 0.05
    """Torque mode ends when no set-point came for this long [s]; 0.005 to 0.2."""
    stiffness: tuple[float, ...] = (600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0)
    """Of the joint impedance loop that tracks positions and velocities [N·m/rad]."""
    damping: tuple[float, ...] = (50.0, 50.0, 50.0, 40.0, 20.0, 12.0, 6.0)
    """[N·m·s/rad]; about critical. Twice as much in the wrist swings up when packets come some ms late."""
    torque_threshold: float = 20.0
    """External joint torque that counts as a collision [N·m]."""
    force_threshold: float = 30.0
    """External force that counts as a collision [N]."""
    load_mass: float = 0.0
    """Payload that the arm's gravity compensation is told of [kg]."""
    load_centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Its centre of mass in the flange's frame [m]."""
    realtime: bool = False
    """True: refuse to run without a real-time kernel."""
    loop_priority: int = 20
    """SCHED_FIFO priority of the native loop where the system allows it; 0: none."""
    timeout_s: float = 5.0
    """How long the arm may take to answer a command [s]."""

    def __post_init__(self) -> None:
        if not 0.005 <= self.watchdog_s <= 0.2:
            raise ConfigurationError(f"FrankaConfig.watchdog_s: expected 0.005 to 0.2 s, got {self.watchdog_s}")
        if not 0 <= self.loop_priority <= 99:
            raise ConfigurationError(f"FrankaConfig.loop_priority: expected 0 to 99, got {self.loop_priority}")
        for name in ("stiffness", "damping"):
            values = np.array(getattr(self, name), dtype=float)
            if values.shape != (7,) or not (np.isfinite(values).all() and (values >= 0).all()):
                raise ConfigurationError(f"FrankaConfig.{name}: expected 7 numbers of 0 or more, got {getattr(self, name)}")


class PatientClient:
    """Calls into libfranka that end after `config.timeout_s`, and its errors with what a person can do about them."""

    def __init__(self, config: FrankaConfig) -> None:
        import franky

        self.config, self._client = config, franky

    def connect(self) -> franky.Robot:
        """Return the client, connected; HardwareError where nobody answers, another client holds the arm or the versions differ."""
        client, config = self._client, self.config
        realtime = client.RealtimeConfig.Enforce if config.realtime else client.RealtimeConfig.Ignore
        return self.call("connect", lambda: client.Robot(
            config.address, default_torque_threshold=config.torque_threshold, default_force_threshold=config.force_threshold,
            realtime_config=realtime))

    def call(self, what: str, call: Callable[[], Result]) -> Result:
        """Return what `call` returns; HardwareError where it fails or takes longer than the timeout."""
        outcome = in_thread(call, self.config.timeout_s)
        if not outcome:
            raise HardwareError(f"the arm at {self.config.address} does not answer ({what}, {self.config.timeout_s:g} s): something "
                                "listens there that hangs or is no Franka arm; restart its control, or check the address")
        if isinstance(outcome[0], Exception):
            raise self._translated(what, outcome[0]) from outcome[0]
        return outcome[0]

    def _translated(self, what: str, error: Exception) -> HardwareError:
        client = self._client
        if isinstance(error, client.IncompatibleVersionException):
            advice = "the arm's system version does not fit this libfranka: a Panda (FER) needs franky's wheel for libfranka 0.9, an FR3 " \
                     "the version that Franka's compatibility table names for its system image"
        elif isinstance(error, client.NetworkException):
            advice = "is the arm on, its joints unlocked and FCI activated in Desk, and no other client connected to it?"
        else:
            advice = "look at the arm's state in Desk"
        return HardwareError(f"the arm at {self.config.address}: cannot {what}: {error}; {advice}")


def in_thread(call: Callable[[], Result], timeout: float) -> list[Result | Exception]:
    """Return [what `call` returned or raised], or [] where it took longer than `timeout` [s] and goes on in the background."""
    outcome: list[Result | Exception] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error.with_traceback(None))  # its frames would keep the client alive

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    return list(outcome)
