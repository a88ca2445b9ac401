"""Watchdogs: each looks at one thing that can go silent, stand still or run away, and names its rule."""

from __future__ import annotations

import numba
import numpy as np

from hw_bridge.drivers.driver import Measurement, VendorState
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.rules import Rule
from robots.arms.arm import Arm

_WINDOW = 1.0
"""Errors and drift are judged over this long [s]."""
_OUTSIDE = 0.05
"""An encoder that says the arm is this far beyond its limits [rad] is not believed, or the arm is not where it may be."""


class Watchdogs:
    """Everything about the wire and the arm that can go wrong by itself. `look` once a period."""

    def __init__(self, arm: Arm, config: SafetyConfig) -> None:
        limits = arm.spec.limits
        self._config, self._names = config, arm.spec.joint_names
        self._low, self._high = limits.position_min - _OUTSIDE, limits.position_max + _OUTSIDE
        self._velocity_max = limits.velocity_max
        n = arm.spec.nv
        believable(np.zeros(n), np.zeros(n), np.zeros(n), self._low, self._high, np.zeros(n), self._velocity_max, 0.0)  # compiles it
        self.good: Measurement | None = None
        """The newest measurement that could be believed."""
        self.reset()

    def reset(self) -> None:
        """Forget clocks and counts; the newest good measurement stays."""
        self._clock: tuple[float, float] | None = None
        self._errors: tuple[float, int] | None = None
        self._awake_ns = 0

    def stood_still(self, now_ns: int) -> None:
        """Our own loop stood still until now: that the arm was not heard meanwhile is no fault of the arm's."""
        self._awake_ns = now_ns

    def look(self, now_ns: int, measurement: Measurement | None) -> tuple[Rule, str]:
        """Return the rules that fired and words for the gravest; a measurement without fault becomes `good`."""
        rules, words = Rule.NONE, ""  # combined only where one fired: a flag's `|` costs microseconds
        if measurement is not None:
            doubt = self._doubt(measurement)
            if doubt:
                rules, words = rules | Rule.BAD_MEASUREMENT, doubt
            else:
                self.good = measurement
            clock = self._clock_fault(now_ns, measurement)
            if clock:
                rules, words = rules | Rule.DEVICE_CLOCK, clock
            bus = self._bus_fault(now_ns, measurement)
            if bus:
                rules, words = rules | Rule.BUS_ERRORS, bus
        if self.good is not None:
            age = (now_ns - max(self.good.received_ns, self._awake_ns)) * 1e-9
            if age > self._config.observation_age_max or age < -1e-3:
                rules |= Rule.OBSERVATION_AGE
                words = f"nothing believable was heard of the arm for {age * 1e3:.0f} ms" + (f" ({words})" if words else "")
        if measurement is not None and measurement.state is not VendorState.READY:
            rules |= Rule.VENDOR
            words = f"the arm's controller says {measurement.state}: {measurement.fault or 'no words'}"
        return rules, words

    def _doubt(self, m: Measurement) -> str:
        n = len(self._names)
        if len(m.q) != n or len(m.dq) != n or len(m.tau) != n:
            return f"the measurement has {len(m.q)}, {len(m.dq)} and {len(m.tau)} entries, expected {n}"
        before, elapsed = (m.q, 0.0) if self.good is None else (self.good.q, max((m.received_ns - self.good.received_ns) * 1e-9, 0.0))
        room = 2.0 * elapsed if elapsed < _WINDOW else np.inf
        if believable(m.q, m.dq, m.tau, self._low, self._high, before, self._velocity_max, room):
            return ""
        if not np.isfinite([m.q, m.dq, m.tau]).all():
            return f"the measurement holds NaN or infinity: q {m.q.tolist()}, dq {m.dq.tolist()}"
        beyond = (m.q < self._low) | (m.q > self._high)
        if beyond.any():
            i = int(np.argmax(beyond))
            return f"{self._names[i]} is said to be at {m.q[i]:.3f} rad, beyond its limits"
        i = int(np.argmax(np.abs(m.q - before) - room * self._velocity_max))
        return f"{self._names[i]} is said to have jumped by {abs(m.q[i] - before[i]):.3f} rad in {elapsed * 1e3:.1f} ms"

    def _clock_fault(self, now_ns: int, m: Measurement) -> str:
        if not np.isfinite(m.device_s):
            return ""
        now = m.received_ns * 1e-9
        if self._clock is None or now - self._clock[0] > _WINDOW:
            previous, self._clock = self._clock, (now, m.device_s)
            if previous is None:
                return ""
        else:
            previous = self._clock
        drift = (m.device_s - previous[1]) - (now - previous[0])
        if abs(drift) > self._config.clock_drift_max:
            return f"the controller's clock went {drift * 1e3:+.0f} ms against ours within {now - previous[0]:.2f} s"
        return ""

    def _bus_fault(self, now_ns: int, m: Measurement) -> str:
        now = now_ns * 1e-9
        if self._errors is None or now - self._errors[0] > _WINDOW:
            self._errors = (now, m.bus_errors)
            return ""
        count = m.bus_errors - self._errors[1]
        if count > self._config.bus_errors_max:
            return f"{count} bad or missing answers on the bus within {now - self._errors[0]:.2f} s"
        return ""


@numba.njit(cache=True)
def believable(q: np.ndarray, dq: np.ndarray, tau: np.ndarray, low: np.ndarray, high: np.ndarray, before: np.ndarray,
               velocity_max: np.ndarray, room: float) -> bool:
    """Return whether a measurement holds numbers, lies in [low, high], and is no further from `before` than speed allows;
    `room` [s]: twice the time between the two, inf where the one before is too old to tell."""
    for i in range(q.shape[0]):
        if not (np.isfinite(q[i]) and np.isfinite(dq[i]) and np.isfinite(tau[i])):
            return False
        if q[i] < low[i] or q[i] > high[i] or abs(q[i] - before[i]) > room * velocity_max[i] + _OUTSIDE:
            return False
    return True
