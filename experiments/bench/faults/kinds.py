"""The kinds of fault: how each strikes, what is promised of the time until the arm stands, and what the log must say of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from experiments.bench.faults.path import PERIOD
from experiments.bench.faults.stage import Stage
from experiments.bench.faults.twins import MACHINE_S

Strike = Callable[[Stage, np.random.Generator], None]
Bound = Callable[[Stage], float]


class Survivor(StrEnum):
    """Who is still there to be watched once the fault has struck."""

    ALL = "all"
    NO_BRIDGE = "no bridge"
    FROZEN_TWIN = "frozen twin"
    """Thawed again once the bridge has noticed."""
    NO_TWIN = "no twin"


@dataclass(frozen=True)
class FaultKind:
    """One kind."""

    name: str
    strike: Strike
    cause: str
    """What the log must hold (a regular expression) where the arm was stopped."""
    bound: Bound | None
    """From the fault to an arm at rest [s]; None: it may be ridden out, and where it is not, the supervisor's own bound holds."""
    survivor: Survivor = Survivor.ALL
    relief: Strike | None = None
    """What is done half a second later."""


def supervised(stage: Stage, noticed: float = 0.0) -> float:
    """Return the bound where the supervisor notices after `noticed` [s] and brakes."""
    return noticed + stage.stop_time + max(stage.setup.vendor_stop_s, stage.setup.settle_s) + MACHINE_S


def vendors_own(stage: Stage) -> float:
    """Return the bound where the arm hears nothing any more: its own watchdog stops it, or it comes to rest at its last goal."""
    setup = stage.setup
    return (setup.watchdog_s or 0.0) + setup.vendor_stop_s + setup.settle_s + MACHINE_S


def _silent_policy(stage: Stage) -> float:
    return supervised(stage, stage.setup.safety.action_age_max)


def _unheard(stage: Stage) -> float:
    return supervised(stage, stage.setup.safety.observation_age_max)


def _stale(stage: Stage) -> float:
    """An arm that tells its own time is missed at once; one that does not, when the path has left where it is said to stand."""
    return _moved(stage) if "clock step" in stage.setup.lacks else _unheard(stage)


def _moved(stage: Stage) -> float:
    return supervised(stage, PERIOD)


def _wire(fault: str, field: str, low: float, high: float) -> Strike:
    return lambda stage, generator: stage.twin.fault(fault, **{field: float(generator.uniform(low, high))})


def _fault(name: str, **fields: object) -> Strike:
    return lambda stage, generator: stage.twin.fault(name, **fields)


def _spoil(how: str) -> Strike:
    return lambda stage, generator: stage.policy.drive(int(generator.integers(1 << 31)), how)


def _to_policy(number: signal.Signals) -> Strike:
    return lambda stage, generator: stage.policy.signal(number)


def _to_bridge(number: signal.Signals) -> Strike:
    return lambda stage, generator: stage.signal_bridge(number)


def _pause_bridge(stage: Stage, generator: np.random.Generator) -> None:
    """Keep the bridge from running for longer than the vendor's watchdog waits, and not much longer."""
    stage.signal_bridge(signal.SIGSTOP)
    time.sleep(2.0 * stage.setup.watchdog_s)
    stage.signal_bridge(signal.SIGCONT)


def _kill_twin(stage: Stage, generator: np.random.Generator) -> None:
    stage.twin.process.kill()


def _stick(stage: Stage, generator: np.random.Generator) -> None:
    stage.twin.fault("stuck_encoder", joint=int(generator.integers(stage.bridge.arm.spec.nv)))


def _overload(stage: Stage, generator: np.random.Generator) -> None:
    stage.twin.fault("overload", joint=int(generator.integers(stage.bridge.arm.spec.nv)))


def _block(stage: Stage, generator: np.random.Generator) -> None:
    stage.twin.fault("block", joint=int(generator.integers(stage.bridge.arm.spec.nv)))


def _button(stage: Stage, generator: np.random.Generator) -> None:
    stage.bridge.client.press_stop("pressed by the fault matrix")


UNHEARD = "heard|lost|wire|no answer|silent"
_LATE = f"{UNHEARD}|clock|bad or missing|jumped|program ended|watchdog|set-points|communication|discontinuity|object size"
"""The last three are Franka's: packets missed, set-points that did not fit on what was missed, and a packet that is too short."""
_STUCK = "set-point.*encoder|encoder.*set-point|arm's controller says fault|joint_velocity_violation"
"""The last is Franka's: a loop of torques that is fooled by an encoder drives the joint, and the arm stops it at its speed limit."""

KINDS: tuple[FaultKind, ...] = (
    FaultKind("delay", _wire("delay", "ms", 1.0, 8.0), _LATE, None),
    FaultKind("jitter", _wire("jitter", "ms", 1.0, 8.0), _LATE, None),
    FaultKind("loss", _wire("loss", "share", 0.02, 0.3), _LATE, None),
    FaultKind("duplicate", _wire("duplicate", "share", 0.05, 0.5), _LATE, None),
    FaultKind("reorder", _wire("reorder", "share", 0.05, 0.5), _LATE, None),
    FaultKind("corrupt checksum", _wire("corrupt", "share", 0.05, 0.5), _LATE, None),
    FaultKind("half-open", _fault("half_open"), UNHEARD, vendors_own),
    FaultKind("stuck encoder", _stick, _STUCK, _moved),
    FaultKind("frozen timestamp", _fault("frozen_timestamp"), f"{UNHEARD}|clock|set-point.*encoder", _stale),
    FaultKind("policy SIGSTOP", _to_policy(signal.SIGSTOP), "no action", _silent_policy, relief=_to_policy(signal.SIGCONT)),
    FaultKind("policy SIGKILL", _to_policy(signal.SIGKILL), "no action", _silent_policy),
    FaultKind("NaN action", _spoil("nan"), "non finite", _silent_policy),
    FaultKind("inf action", _spoil("inf"), "non finite", _silent_policy),
    FaultKind("10x action", _spoil("times ten"), "reject band", None),
    FaultKind("protective stop", _fault("protective_stop"), "protective|reflex", supervised),
    FaultKind("blocked joint", _block, "set-point.*collision|all it can", _moved),
    FaultKind("overload latch", _overload, "overload", supervised),
    FaultKind("clock step", _fault("clock_step", s=0.5), "clock", supervised),
    FaultKind("stop button", _button, "pressed by the fault matrix", supervised),
    FaultKind("watchdog trip", _pause_bridge, "watchdog|stood still", vendors_own),
    FaultKind("bridge SIGSTOP", _to_bridge(signal.SIGSTOP), "stood still|watchdog", vendors_own, relief=_to_bridge(signal.SIGCONT)),
    FaultKind("bridge SIGKILL", _to_bridge(signal.SIGKILL), "without a word", vendors_own, Survivor.NO_BRIDGE),
    FaultKind("twin SIGSTOP", lambda stage, generator: stage.twin.pause(), UNHEARD, vendors_own, Survivor.FROZEN_TWIN),
    FaultKind("twin SIGKILL", _kill_twin, UNHEARD, _unheard, Survivor.NO_TWIN),
)
