"""The safety supervisor: sole owner of the writer. Every period it is told what was measured and what the policy wants, and says what
may be written. It has no clock, no wire and no thread of its own, so that all of it can be tested.

    DISCONNECTED -> IDLE -> ARMED -> ACTIVE <-> HOLD        FAULT and ESTOP are left by `reset` alone, to IDLE.

Whatever comes in, at whatever time, what goes out keeps the arm's limits (jerk_limited.py says why). A stop brakes as fast as the
limits allow, is held, and only then is the arm's own controller told to stop; where the controller has stopped by itself or is not
heard any more, it is told at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from hw_bridge.drivers.driver import Measurement, VendorState
from hw_bridge.safety import jerk_limited
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.geometry import Geometry
from hw_bridge.safety.interpolation import Interpolator
from hw_bridge.safety.rules import Rule, State
from hw_bridge.safety.setpoints import CompliantSetPoints, MotionSetPoints, SetPoints, TorqueSetPoints
from hw_bridge.safety.still_encoders import StillEncoders
from hw_bridge.safety.watchdogs import Watchdogs
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import HardwareError

_GRAVE = Rule.OBSERVATION_AGE | Rule.VENDOR | Rule.DEVICE_CLOCK | Rule.BUS_ERRORS
_WRITING = (State.ARMED, State.ACTIVE, State.HOLD)
_FUTURE_NS = 5_000_000
"""An action stamped later than this from now was stamped by another clock."""


class SafetyRefusal(HardwareError):
    """The supervisor does not do what a person asked; the message says why and what to do."""


@dataclass(slots=True)
class Action:
    """What a policy wants, as it came over shared memory; nothing in it is believed."""

    values: np.ndarray
    """(nv,) in the mode, units and joint order of the spec that `spec` names."""
    mode: CommandMode
    stamp_ns: int
    """Host's monotonic clock when the policy issued it [ns]."""
    sequence: int
    """Counts up by one an action."""
    generation: int
    """The stop generation that the policy saw: an action older than the last stop is not heard."""
    spec: str
    """Fingerprint of the robot's spec that the policy was made for."""
    speed: float = 1.0
    """Share of the velocity limits that the policy dares, for an uncertain model; 0 stands still."""


@dataclass(slots=True)
class Outcome:
    """What is to be done in this period."""

    values: np.ndarray | None
    """(nv,) the set-point to write, valid until the next step; None: write nothing."""
    stop: bool
    """True: tell the arm's controller to stop, now."""
    state: State
    rules: Rule
    """Everything that fired in this period."""


class Supervisor:
    """Supervises one arm in one command mode. Methods named after verbs are a person's; `step` is the loop's."""

    def __init__(self, arm: Arm, mode: CommandMode, config: SafetyConfig, spec: str | None = None) -> None:
        """`spec`: fingerprint of the robot that policies must be made for; None: the arm's own at servo rate."""
        config.check(arm, mode)
        self.arm, self.mode, self.config = arm, CommandMode(mode), config
        self.state = State.DISCONNECTED
        self.cause = "nothing was measured yet"
        """Why it is in this state, for people."""
        self.generation = 0
        """Counts the stops; actions carry the one they were made in."""
        self.target = np.zeros(arm.spec.nv)
        """(nv,) what the newest action was taken for, after the clamp band."""
        self._spec = arm.spec.fingerprint() if spec is None else spec
        self._geometry = Geometry(arm, config.workspace)
        torque = mode is CommandMode.JOINT_TORQUE
        self._points = _set_points(arm, config, self._geometry, mode)
        self.written_mode = config.written_mode(mode)
        """What its set-points are: torques for a compliant arm, whatever policies command."""
        self._scale = arm.spec.limits.torque_max if torque else np.ones(arm.spec.nv)
        self._unit, self._clamped = np.ones(arm.spec.nv), np.zeros(arm.spec.nv)
        nearer(self._unit, self._unit, self._unit, 1.0, self._clamped)  # compiles it
        self._taken: Action | None = None
        self._understudy = Interpolator(config.interpolation, config.policy_period, config.extrapolation, arm.spec.nv)
        """Takes the interpolator's part in rehearsals."""
        self._interpolator = Interpolator(config.interpolation, config.policy_period, config.extrapolation, arm.spec.nv)
        self._watchdogs = Watchdogs(arm, config)
        self._encoders = StillEncoders(arm.spec.joint_names)
        self._last_ns: int | None = None
        self._active_ns = 0
        self._newest: tuple[int, int] | None = None
        """Sequence and stamp of the newest action that was heard."""
        self._speed = 1.0
        self._told = False
        """Whether the controller was told to stop since the last stop began."""
        self._writing = False
        """Whether set-points were being written when the last stop began: else there is nothing to brake."""
        self._now_ns = 0
        jerk_limited.warm_up(arm.spec.nv)
        self._interpolator.warm_up()
        self.stop_time_max = jerk_limited.worst_brake_duration(arm.spec.limits.velocity_max * config.speed,
                                                  arm.spec.limits.acceleration_max * config.acceleration, arm.spec.limits.jerk_max)
        """From a cause that is seen to a set-point at rest [s]; the watchdog's own age comes before it."""

    @property
    def measured(self) -> Measurement | None:
        """The newest measurement that could be believed."""
        return self._watchdogs.good

    @property
    def reference(self) -> np.ndarray:
        """(nv,) what is followed now, in the policy's own mode: the set-point itself, but for a compliant arm."""
        return self._points.reference

    @property
    def reference_rate(self) -> np.ndarray:
        """(nv,) the reference's rate; 0 where torques are commanded."""
        return self._points.reference_rate

    @property
    def heard_sequence(self) -> int:
        """Sequence of the newest action that was taken; -1 where none was since the last activation."""
        return -1 if self._newest is None else self._newest[0]

    def at_rest(self) -> bool:
        """Return whether the set-points of a hold or a stop have come to rest."""
        return self.measured is not None and self._points.resting(self.measured)

    # What a person asks.

    def may_arm(self) -> Measurement:
        """Return the newest measurement; SafetyRefusal unless the arm is heard, without fault, at rest and where it may be.

        Servos are not ready until servoing has begun, so that is not asked here but by `arm_motors`.
        """
        self._expect("arm", State.IDLE)
        m = self._ready("arm", VendorState.NOT_READY)
        fast = float(np.abs(m.dq).max())
        if fast > self.config.rest_speed:
            raise SafetyRefusal(f"cannot arm: the arm moves, {fast:.3f} rad/s (at most {self.config.rest_speed}); wait until it is at rest")
        limits, margin = self.arm.spec.limits, self.config.position_margin
        for i, name in enumerate(self.arm.spec.joint_names):
            if not limits.position_min[i] + margin <= m.q[i] <= limits.position_max[i] - margin:
                raise SafetyRefusal(f"cannot arm: {name} is at {m.q[i]:.3f} rad, allowed is {limits.position_min[i] + margin:.3f} to "
                                    f"{limits.position_max[i] - margin:.3f}; move it back by hand or with the maker's own tools")
        wrong = self._geometry.words(m.q)
        if wrong:
            raise SafetyRefusal(f"cannot arm: {wrong}; move the arm, or change the workspace")
        return m

    def arm_motors(self) -> None:
        """IDLE to ARMED: hold the arm where it stands. SafetyRefusal as `may_arm`, and where the controller takes no set-points."""
        m = self.may_arm()
        self._ready("arm")
        self._points.anchor(m)
        self._encoders.reset()
        self.generation += 1
        self._enter(State.ARMED, "armed by a person")

    def activate(self) -> None:
        """ARMED to ACTIVE: follow the policy, from where the arm is held and slowly at first."""
        self._expect("activate", State.ARMED)
        self._ready("activate")
        self._begin("activated by a person")

    def resume(self) -> None:
        """HOLD to ACTIVE, once the arm is at rest."""
        self._expect("resume", State.HOLD)
        self._ready("resume")
        if not self.at_rest():
            raise SafetyRefusal("cannot resume: the arm is still braking; ask again")
        self._begin("resumed by a person")

    def hold(self, cause: str = "a person asked to hold") -> None:
        """ACTIVE to HOLD: brake and stay; nothing happens in other states."""
        if self.state is State.ACTIVE:
            self._stop(State.HOLD, cause)

    def emergency_stop(self, cause: str = "a person stopped it") -> None:
        """Any state to ESTOP, latched."""
        if self.state is not State.ESTOP:
            self._stop(State.ESTOP, cause)

    def disarm(self) -> None:
        """ARMED, or HOLD at rest, to IDLE: nothing is written any more."""
        self._expect("disarm", State.ARMED, State.HOLD)
        if not self.at_rest():
            raise SafetyRefusal("cannot disarm: the arm is still braking; ask again")
        self.generation += 1
        self._enter(State.IDLE, "disarmed by a person")

    def may_reset(self) -> None:
        """SafetyRefusal unless there is a stop, and it has ended."""
        self._expect("reset", State.FAULT, State.ESTOP)
        if not self._told:
            raise SafetyRefusal("cannot reset: the arm is still braking; ask again")

    def reset(self) -> None:
        """FAULT or ESTOP to IDLE. SafetyRefusal unless the stop has ended and the arm is heard, without fault and at rest."""
        self.may_reset()
        self._watchdogs.reset()
        m = self._ready("reset", VendorState.NOT_READY)
        if float(np.abs(m.dq).max()) > self.config.rest_speed:
            raise SafetyRefusal("cannot reset: the arm still moves; wait until it is at rest")
        self._enter(State.IDLE, "reset by a person")

    # What the loop asks.

    def step(self, now_ns: int, measurement: Measurement | None, action: Action | None, camera_age: float = 0.0) -> Outcome:
        """Return what to do now. `now_ns`: the host's monotonic clock [ns]; `measurement`: None where nothing could be read;
        `action`: the policy's newest, again and again until there is a newer one; `camera_age` [s]: the oldest camera's.
        """
        self._now_ns = now_ns
        elapsed = 0.0 if self._last_ns is None else (now_ns - self._last_ns) * 1e-9
        gap = self._last_ns is not None and not 0.0 <= elapsed <= self.config.gap_max
        if self._last_ns is None or now_ns > self._last_ns or gap:
            self._last_ns = now_ns
        if gap:
            self._watchdogs.stood_still(now_ns)
        trouble, words = self._watchdogs.look(now_ns, measurement)
        rules = trouble
        m = self._watchdogs.good
        if m is None:
            return Outcome(None, False, self.state, rules)
        if self.state is State.DISCONNECTED:
            self._enter(State.IDLE, "measured")
        if gap:
            rules |= Rule.GAP
            elapsed = 0.0
            self._points.freeze()
            stood = f"our own loop stood still or its clock jumped: more than {self.config.gap_max * 1e3:.0f} ms"
            words = f"{stood}; then {words}"
            if self.state in _WRITING:
                self._stop(State.HOLD, stood)
        if self.state in _WRITING:
            if self.mode is CommandMode.JOINT_POSITION and measurement is not None:
                self._encoders.look(measurement.q, self._points.reference)
            if trouble and trouble & _GRAVE:
                still = self._still_words() if trouble & Rule.VENDOR else ""
                self._stop(State.FAULT, f"{still}; {words}" if still else words)  # first: a vendor's words may be long, and are cut
            elif self._lags(m):
                rules |= Rule.TRACKING
                self._stop(State.FAULT, "; ".join(filter(None, (self._lag_words(m), self._still_words()))))
        if self.state is State.ACTIVE:
            heard = self._hear(now_ns, action, camera_age)
            rules = rules | heard if heard else rules
        if self.state is State.ACTIVE and self._newest is not None:
            target, rate, bend = self._interpolator.at(now_ns * 1e-9)
            blend = min(0.1 + 0.9 * (now_ns - self._active_ns) * 1e-9 / self.config.blend, 1.0)
            if blend < 1.0:
                rules |= Rule.BLEND
            values, fired = self._points.follow(target, rate, bend, elapsed, max(blend * self._speed, 1e-3), m)
            rules = rules | fired if fired else rules
            if self.mode is CommandMode.JOINT_TORQUE and fired and fired & Rule.BRAKED:
                self._stop(State.HOLD, f"torques took the arm to its limits: {(fired & ~Rule.BRAKED).words()}")
            return Outcome(values, False, self.state, rules)
        if self.state in _WRITING:
            return Outcome(self._points.brake(elapsed, m), False, self.state, rules)
        if self.state in (State.FAULT, State.ESTOP):
            return self._stopping(elapsed, m, measurement, rules)
        return Outcome(None, False, self.state, rules)

    def rehearse(self) -> None:
        """Do most of the work of a period without a result: called shortly before one begins, it takes half of its time."""
        self._interpolator.at(self._now_ns * 1e-9)
        self._understudy.target(self.target, self._now_ns * 1e-9, self.config.policy_period)
        if self._taken is not None:
            self._fault_of(self._now_ns, self._taken)
        self._points.rehearse()
        m = self.measured
        if m is not None:
            self._watchdogs.look(self._now_ns, None)
            self._encoders.look(m.q, self._points.reference)

    def _stopping(self, elapsed: float, good: Measurement, measurement: Measurement | None, rules: Rule) -> Outcome:
        """Brake, and then tell the controller; at once where braking would reach nobody."""
        rules |= Rule.EMERGENCY if self.state is State.ESTOP else Rule.NONE
        if self._told:
            return Outcome(None, False, self.state, rules)
        unheard = bool(rules & (Rule.OBSERVATION_AGE | Rule.VENDOR)) or good.state is not VendorState.READY
        if unheard or not self._writing or self._points.resting(good):
            self._told = True
            return Outcome(None, True, self.state, rules)
        values = self._points.brake(elapsed, good)
        return Outcome(values, False, self.state, rules)

    def _hear(self, now_ns: int, action: Action | None, camera_age: float) -> Rule:
        """Take the policy's newest action, or stop because of it; the rules that fired."""
        config, rules = self.config, Rule.NONE
        if action is not None:
            rules = self._admit(now_ns, action)
        newest_ns = self._active_ns if self._newest is None else self._newest[1]
        age = (now_ns - newest_ns) * 1e-9
        if self.state is State.ACTIVE and age > config.action_age_max:
            rules |= Rule.ACTION_AGE
            said = f" (the last ones were refused: {rules.words()})" if rules & ~Rule.ACTION_AGE else ""
            self._stop(State.HOLD, f"no action of the policy was taken for {age * 1e3:.0f} ms{said}")
        if self.state is State.ACTIVE and not camera_age <= config.camera_age_max:
            rules |= Rule.CAMERA_AGE
            self._stop(State.HOLD, f"a camera's newest picture is {camera_age * 1e3:.0f} ms old")
        return rules

    def _admit(self, now_ns: int, action: Action) -> Rule:
        """Hand the action to the interpolator if it is new and may be followed; the rules that fired."""
        if self._newest is not None and action.sequence == self._newest[0]:
            return Rule.UNCERTAIN if self._speed < 1.0 else Rule.NONE
        rules = self._fault_of(now_ns, action)
        if rules:
            return rules
        previous_ns = self._newest[1] if self._newest else now_ns
        self._newest, self._taken = (action.sequence, action.stamp_ns), action
        band = self.config.clamp_band
        jump = nearer(action.values, self._points.reference, self._scale, band, self._clamped)
        if jump > self.config.reject_band:
            self._stop(State.HOLD, f"the policy's target is {jump:.2f} from the set-point, beyond the reject band of "
                                   f"{self.config.reject_band}")
            return Rule.REJECTED
        self.target[:] = self._clamped
        self._interpolator.target(self.target, now_ns * 1e-9, (action.stamp_ns - previous_ns) * 1e-9)
        self._speed = min(max(float(action.speed), 0.0), 1.0) if math.isfinite(action.speed) else 0.0
        rules = Rule.CLAMPED if jump > band else Rule.NONE
        return rules if self._speed == 1.0 else rules | Rule.UNCERTAIN

    def _fault_of(self, now_ns: int, action: Action) -> Rule:
        """Return why an action cannot be heard; NONE where it can."""
        if action.generation != self.generation or action.stamp_ns < self._active_ns or action.stamp_ns > now_ns + _FUTURE_NS:
            return Rule.OLD_ACTION
        if self._newest is not None and (action.sequence < self._newest[0] or action.stamp_ns < self._newest[1]):
            return Rule.OLD_ACTION
        if action.mode is not self.mode or action.spec != self._spec:
            return Rule.SPEC
        if action.values.shape != self.target.shape:
            return Rule.SHAPE
        if not math.isfinite(nearer(action.values, self._points.reference, self._scale, np.inf, self._clamped)):
            return Rule.NON_FINITE
        return Rule.NONE

    def _lags(self, m: Measurement) -> bool:
        return (self.mode is CommandMode.JOINT_POSITION and self.state is not State.IDLE
                and nearer(m.q, self._points.reference, self._unit, np.inf, self._clamped) > self.config.tracking_error_max)

    def _still_words(self) -> str:
        return self._encoders.words(self._points.reference) if self.mode is CommandMode.JOINT_POSITION else ""

    def _lag_words(self, m: Measurement) -> str:
        error = np.abs(m.q - self._points.reference)
        i = int(np.argmax(error))
        return (f"{self.arm.spec.joint_names[i]} is {error[i]:.3f} rad from its set-point (at most {self.config.tracking_error_max}): "
                "a collision, a payload, or a stuck encoder")

    # How states change.

    def _begin(self, cause: str) -> None:
        self._active_ns, self._newest, self._speed = self._now_ns, None, 1.0
        self._interpolator.reset(self._points.reference if self.mode is CommandMode.JOINT_POSITION else np.zeros(self.arm.spec.nv))
        self.target[:] = self._interpolator.at(0.0)[0]
        self._enter(State.ACTIVE, cause)

    def _stop(self, state: State, cause: str) -> None:
        """Enter a stopped state; a graver one is never left for a milder one."""
        if state <= self.state and self.state in (State.HOLD, State.FAULT, State.ESTOP):
            return
        self.generation += 1
        self._writing = self.state in _WRITING or (self.state is State.FAULT and self._writing and not self._told)
        self._told = False
        self._enter(state, cause)

    def _enter(self, state: State, cause: str) -> None:
        self.state, self.cause = state, cause

    def _expect(self, verb: str, *states: State) -> None:
        if self.state not in states:
            wanted = " or ".join(state.name for state in states)
            raise SafetyRefusal(f"cannot {verb}: the supervisor is in {self.state.name} ({self.cause}), expected {wanted}")

    def _ready(self, verb: str, *also: VendorState) -> Measurement:
        """Return the newest measurement; SafetyRefusal unless it is fresh and the controller ready, or in a state of `also`."""
        m = self._watchdogs.good
        if m is None:
            raise SafetyRefusal(f"cannot {verb}: nothing was measured yet")
        age = (self._now_ns - m.received_ns) * 1e-9
        if age > self.config.observation_age_max:
            raise SafetyRefusal(f"cannot {verb}: the newest measurement is {age * 1e3:.0f} ms old")
        if m.state is not VendorState.READY and m.state not in also:
            raise SafetyRefusal(f"cannot {verb}: the arm's controller says {m.state}: {m.fault or 'no words'}")
        return m


def _set_points(arm: Arm, config: SafetyConfig, geometry: Geometry, mode: CommandMode) -> SetPoints:
    if config.compliance is not None:
        return CompliantSetPoints(arm, config, geometry, config.compliance)
    if mode is CommandMode.JOINT_TORQUE:
        return TorqueSetPoints(arm, config, geometry)
    return MotionSetPoints(arm, config, geometry, mode)


@numba.njit(cache=True)
def nearer(values: np.ndarray, reference: np.ndarray, scale: np.ndarray, band: float, clamped: np.ndarray) -> float:
    """Return the largest distance of `values` from `reference`, all (n,), in units of `scale`, NaN or infinite where a value is;
    writes to `clamped` the values moved to within `band`."""
    largest = 0.0
    for i in range(values.shape[0]):
        distance = (values[i] - reference[i]) / scale[i]
        if not np.isfinite(distance):
            return distance
        largest = max(largest, abs(distance))
        clamped[i] = reference[i] + min(max(distance, -band), band) * scale[i]
    return largest
