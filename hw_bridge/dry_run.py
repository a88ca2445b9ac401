"""A dry run: the bridge, the wire and the log as in earnest, while nothing is written to the arm; and what stands against moving it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hw_bridge.bridge import BridgeConfig
from hw_bridge.client import ArmState, BridgeProcess
from hw_bridge.drivers.driver import ArmIdentity, VendorState
from hw_bridge.recorder.log_row import VENDOR_CODES
from hw_bridge.recorder.read_log import Log, read_log
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.geometry import Geometry
from hw_bridge.safety.rules import Rule, State
from robots.arms.arm import Arm
from robots.errors import HardwareError, StoreError

SETTLING_S = 0.3
"""The loop's first moments are not judged [s]."""
LATE_SHARE = 0.1
"""99 of 100 periods begin no later than this share of the longest pause that is borne."""
_VENDOR = {code: state for state, code in VENDOR_CODES.items()}


@dataclass(frozen=True)
class DryRun:
    """What was found."""

    identity: ArmIdentity | None
    """None where no arm answered."""
    calibration: str | None
    real_time_refused: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was measured, by name with its unit."""
    reasons: tuple[str, ...] = ()
    """What stands against moving, in words."""


def dry_run(config: BridgeConfig, seconds: float = 3.0) -> DryRun:
    """Return what a bridge of `config` finds within `seconds` of watching the arm; the arm is not moved, `config.log` not written.

    Raises UserError where the configuration itself cannot be; what the arm or the wire lack is among the reasons.
    """
    with tempfile.TemporaryDirectory(prefix="reflexarc-dry-run-") as folder:
        log = Path(folder) / "dry-run.mcap"
        try:
            bridge = BridgeProcess(replace(config, log=str(log), watch_only=True))
        except HardwareError as error:
            return DryRun(None, None, reasons=(str(error),))
        with bridge:
            time.sleep(SETTLING_S + seconds)
            reasons = list(_standing(bridge, config.safety))
        ready = bridge.ready
        try:
            figures, more = punctuality(read_log(log), config.safety)
        except StoreError as error:
            figures, more = {}, [f"nothing was recorded: {error}"]
        return DryRun(ArmIdentity(**ready["identity"]), ready["calibration"], tuple(ready["refused"]), figures, (*reasons, *more))


def pose_faults(arm: Arm, config: SafetyConfig, q: np.ndarray, dq: np.ndarray) -> list[str]:
    """Return in words all that is wrong with an arm at `q` (nv,) [rad] that moves with `dq` (nv,) [rad/s] and should be at rest."""
    words, limits, margin = [], arm.spec.limits, config.position_margin
    for i, name in enumerate(arm.spec.joint_names):
        low, high = limits.position_min[i] + margin, limits.position_max[i] - margin
        if not low <= q[i] <= high:
            words.append(f"{name} is at {q[i]:.3f} rad, allowed is {low:.3f} to {high:.3f}: move it back by hand or with the maker's tools")
        if not abs(dq[i]) <= config.rest_speed:
            words.append(f"{name} moves with {dq[i]:.3f} rad/s, at most {config.rest_speed} counts as at rest: wait until the arm stands")
    wrong = Geometry(arm, config.workspace).words(q) if np.isfinite(q).all() else ""
    return [*words, f"{wrong}: move the arm"] if wrong else words


def _standing(bridge: BridgeProcess, config: SafetyConfig) -> Iterator[str]:
    """Yield what is wrong with the arm as it stands and with the bridge as it runs."""
    try:
        state: ArmState = bridge.client.state()
    except HardwareError as error:
        yield str(error)
        return
    status = bridge.client.status()
    vendor = _VENDOR[int(bridge.client.channels.state.read().value["vendor"])]
    if vendor is not VendorState.READY and not (vendor is VendorState.NOT_READY and not status.vendor):  # servos wait for servoing to begin
        yield f"the arm's controller says {vendor}: {status.vendor or 'no words'}"
    if state.state is not State.IDLE:
        yield f"the supervisor is in {state.state.name}, expected IDLE: {status.cause}"
    if status.recorder:
        yield f"the log cannot be kept: {status.recorder}"
    yield from pose_faults(bridge.arm, config, state.q, state.dq)


def punctuality(log: Log, config: SafetyConfig) -> tuple[dict[str, float], list[str]]:
    """Return figures of a log in which the arm was watched, and which of them are beyond their limits, in words."""
    rows = log.rows
    rows = rows[rows["wake_ns"] > rows["wake_ns"][0] + SETTLING_S * 1e9] if len(rows) else rows
    if len(rows) < 10:
        return {}, [f"the servo loop ran for {len(rows)} periods only: this computer is too slow or too busy"]
    age, dt, late = (rows[name] * 1e-6 for name in ("observation_age_ns", "dt_ns", "lateness_ns"))
    jitter = np.abs(dt - np.median(dt))
    figures = {"periods": float(len(rows)), "period_median_ms": float(np.median(dt)), "period_longest_ms": float(dt.max()),
               "jitter_99_ms": float(np.percentile(jitter, 99)), "lateness_99_ms": float(np.percentile(late, 99)),
               "lateness_worst_ms": float(late.max()), "observation_age_median_ms": float(np.median(age)),
               "observation_age_worst_ms": float(age.max()), "bus_errors": float(int(rows["bus_errors"][-1]) - int(rows["bus_errors"][0]))}
    bounds = {"observation_age_worst_ms": (config.observation_age_max, "the arm's state came too late: check the cable and the network"),
              "period_longest_ms": (config.gap_max, "our own loop stood still: end what else this computer does, give real-time rights"),
              "lateness_99_ms": (LATE_SHARE * config.gap_max, "our own loop is late: end what else this computer does, "
                                                              "give real-time rights")}
    words = [f"{name.removesuffix('_ms').replace('_', ' ')} is {figures[name]:.2f} ms, at most {1e3 * bound:.2f} is allowed: {what}"
             for name, (bound, what) in bounds.items() if figures[name] > 1e3 * bound]
    for rule in Rule:
        count = int(((rows["rules"] & int(rule)) != 0).sum()) if rule and rule not in (Rule.VENDOR, Rule.OBSERVATION_AGE, Rule.GAP) else 0
        if count:
            words.append(f"the rule '{rule.words()}' fired in {count} of {len(rows)} periods while nothing was commanded")
    return figures, words
