"""No command that breaks a limit leaves the supervisor, whatever comes in, at whatever time; and every stop ends in time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_bridge.drivers.driver import Measurement, VendorState
from hw_bridge.safety.config import Interpolation, SafetyConfig, Workspace
from hw_bridge.safety.geometry import Geometry
from hw_bridge.safety.rules import Rule, State
from hw_bridge.safety.supervisor import Action, SafetyRefusal, Supervisor
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import ConfigurationError
from robots.limits import JointLimits
from robots.spec import TorqueConvention

ARM = ur5e()
N = ARM.spec.nv
SERVO_NS = 2_000_000
MODES = (CommandMode.JOINT_POSITION, CommandMode.JOINT_VELOCITY, CommandMode.JOINT_TORQUE)


@dataclass
class World:
    """An arm that does what it is told within a period, the clock, and everything that was written."""

    supervisor: Supervisor
    now: int = 1_000_000_000
    q: np.ndarray = field(default_factory=lambda: ARM.home.copy())
    dq: np.ndarray = field(default_factory=lambda: np.zeros(N))
    sequence: int = 0
    written: list[tuple[int, np.ndarray]] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)

    def measurement(self, **changes) -> Measurement:
        fields = {"received_ns": self.now, "device_s": self.now * 1e-9, "q": self.q.copy(), "dq": self.dq.copy(), "tau": np.zeros(N),
                  "state": VendorState.READY}
        return Measurement(**(fields | changes))

    def action(self, values, **changes) -> Action:
        self.sequence += 1
        fields = {"values": np.asarray(values, float), "mode": self.supervisor.mode, "stamp_ns": self.now, "sequence": self.sequence,
                  "generation": self.supervisor.generation, "spec": ARM.spec.fingerprint()}
        return Action(**(fields | changes))

    def period(self, action=None, ns=SERVO_NS, camera_age=0.0, measured=True, **changes):
        self.now += ns
        outcome = self.supervisor.step(self.now, self.measurement(**changes) if measured else None, action, camera_age)
        if outcome.values is not None:
            assert np.isfinite(outcome.values).all()
            self.written.append((self.now, outcome.values.copy()))
            if self.supervisor.mode is CommandMode.JOINT_POSITION:
                self.dq, self.q = np.clip((outcome.values - self.q) / max(ns * 1e-9, 1e-3), -3, 3), outcome.values.copy()
            elif self.supervisor.mode is CommandMode.JOINT_VELOCITY:
                self.q, self.dq = self.q + outcome.values * min(ns, 10**8) * 1e-9, outcome.values.copy()
        else:
            self.dq = np.zeros(N)
        if outcome.stop:
            self.stops.append(self.now)
        return outcome

    def start(self):
        self.period()
        self.supervisor.arm_motors()
        self.period()
        self.supervisor.activate()
        return self

    def live(self, seconds, policy=lambda t: ARM.home, every=10):
        """Let a policy act every `every` periods; stops early when the supervisor leaves ACTIVE."""
        action = None
        for k in range(int(seconds / 0.002)):
            if k % every == 0:
                action = self.action(policy(k * 0.002))
            outcome = self.period(action)
            if outcome.state is not State.ACTIVE:
                break
        return outcome


def world(mode=CommandMode.JOINT_POSITION, **rules) -> World:
    return World(Supervisor(ARM, mode, SafetyConfig(**rules)))


def turned(q, joint, angle):
    """Return pose `q` (N,) with one joint turned by `angle` [rad]."""
    return q + angle * np.eye(N)[joint]


def swing(t):
    return ARM.home + 0.3 * np.sin(2.0 * t)


def broken_limits(mode, written, gap_ns) -> list[str]:
    """Return what the written set-points break, judged by divided differences between writes that follow each other."""
    limits, found = ARM.spec.limits, []
    bounds = {CommandMode.JOINT_POSITION: (np.inf, limits.velocity_max, limits.acceleration_max, limits.jerk_max),
              CommandMode.JOINT_VELOCITY: (limits.velocity_max, limits.acceleration_max, limits.jerk_max),
              CommandMode.JOINT_TORQUE: (limits.torque_max, limits.torque_rate_max)}[mode]
    runs, run, top = [], [], float(np.max(bounds[1]))
    for now, values in written:
        if run and 0 <= now - run[-1][0] < 100_000:
            assert np.abs(values - run[-1][1]).max() <= top * 1e-4 + 1e-6
            continue  # so near in time, rounding is all that a third difference shows
        if run and not 0 < now - run[-1][0] <= gap_ns:
            runs.append(run)
            run = []
        run.append((now, values))
    for stretch in [*runs, run]:
        times, values = np.array([t for t, _ in stretch]) * 1e-9, np.array([v for _, v in stretch])
        if mode is CommandMode.JOINT_POSITION and len(values):
            outside = (values < limits.position_min) | (values > limits.position_max)
            if outside.any():
                found.append("position")
        for order, bound in enumerate(bounds):
            if order:
                if len(values) < 2:
                    break
                values = order * np.diff(values, axis=0) / (times[order:] - times[:-order])[:, None]
            if len(values) and (np.abs(values) > bound * (1 + 1e-3) + 1e-6).any():
                found.append(f"derivative {order}: {np.abs(values).max(0)} > {bound}")
    return found


numbers = st.one_of(st.floats(-8, 8), st.sampled_from([np.nan, np.inf, -np.inf, 1e308, 0.0]))
happenings = st.one_of(
    st.tuples(st.just("act"), st.lists(numbers, min_size=N, max_size=N), st.integers(1, 30)),
    st.tuples(st.just("near"), st.floats(-0.4, 0.4), st.integers(1, 60)),
    st.tuples(st.just("shape"), st.integers(0, 9), st.integers(1, 3)),
    st.tuples(st.just("stale"), st.integers(0, 10**9), st.integers(1, 10)),
    st.tuples(st.just("future"), st.integers(0, 10**12), st.integers(1, 10)),
    st.tuples(st.just("generation"), st.integers(-3, 3), st.integers(1, 10)),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 10_000, 1_999_999, 2_000_001, 9_000_000, 19_000_000, 10**9, -5_000_000]),
              st.integers(1, 3)),
    st.tuples(st.just("measure"), st.sampled_from(["nan", "jump", "frozen", "none", "beyond", "short", "clock", "errors"]),
              st.integers(1, 20)),
    st.tuples(st.just("vendor"), st.sampled_from(list(VendorState)), st.integers(1, 5)),
    st.tuples(st.just("camera"), st.sampled_from([0.1, 10.0, np.nan, np.inf]), st.integers(1, 3)),
    st.tuples(st.just("person"), st.sampled_from(["arm_motors", "activate", "resume", "hold", "emergency_stop", "reset"]),
              st.integers(1, 40)),
)
MEASURED = {"nan": lambda w: {"q": np.full(N, np.nan)}, "jump": lambda w: {"q": w.q + 1.0}, "beyond": lambda w: {"q": w.q + 20.0},
            "frozen": lambda w: {"received_ns": w.now - 10**8}, "short": lambda w: {"q": w.q[:2]},
            "clock": lambda w: {"device_s": 5.0}, "errors": lambda w: {"bus_errors": 10**6}}


def happen(w: World, kind: str, what, repeat: int) -> None:
    """Let one thing happen to the arm, its wire, its policy or its operator, for `repeat` periods."""
    if kind == "person":
        try:
            getattr(w.supervisor, what)()
        except SafetyRefusal:
            repeat = 1
        for _ in range(repeat):
            w.period(w.action(ARM.home))
        return
    action = None
    if kind == "act":
        action = w.action(what)
    elif kind == "near":
        action = w.action(w.q + what)
    elif kind == "shape":
        action = w.action(np.zeros(what))
    elif kind == "stale":
        action = w.action(ARM.home, stamp_ns=w.now - what)
    elif kind == "future":
        action = w.action(ARM.home, stamp_ns=w.now + what)
    elif kind == "generation":
        action = w.action(ARM.home, generation=w.supervisor.generation + what)
    for _ in range(repeat):
        if kind == "wait":
            w.period(ns=what)
        elif kind == "measure":
            if what == "none":
                w.period(measured=False)
            else:
                w.now += SERVO_NS
                changes = MEASURED[what](w)
                w.now -= SERVO_NS
                w.period(**changes)
        elif kind == "vendor":
            w.period(state=what)
        elif kind == "camera":
            w.period(camera_age=what)
        else:
            w.period(action)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=60, deadline=None)
@given(st.lists(happenings, min_size=1, max_size=25), st.sampled_from(list(Interpolation)))
def test_nothing_that_breaks_a_limit_is_ever_written(mode, events, interpolation):
    w = world(mode, interpolation=interpolation, blend=0.05).start()
    w.live(0.2, {CommandMode.JOINT_POSITION: swing}.get(mode, lambda t: np.full(N, 0.2)))
    for kind, what, repeat in events:
        happen(w, kind, what, repeat)
    gap_ns = int(w.supervisor.config.gap_max * 1e9)
    assert broken_limits(mode, w.written, gap_ns) == []


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40, deadline=None)
@given(st.lists(happenings, min_size=0, max_size=10), st.sampled_from(["emergency_stop", "vendor", "silence", "policy"]))
def test_every_stop_ends_in_the_promised_time(mode, events, cause):
    w = world(mode, blend=0.05).start()
    w.live(0.3, {CommandMode.JOINT_POSITION: swing}.get(mode, lambda t: np.full(N, 0.2)))
    for kind, what, repeat in events:
        happen(w, kind, what, repeat)
    if cause == "emergency_stop":
        w.supervisor.emergency_stop()
    config = w.supervisor.config
    promised = w.supervisor.stop_time_max + {"silence": config.observation_age_max, "policy": config.action_age_max}.get(cause, 0.0) + 0.01
    began, heard = w.now, w.now
    for _ in range(int(promised / 0.002) + 1):
        outcome = w.period(received_ns=heard if cause == "silence" else w.now + SERVO_NS,
                           state=VendorState.PROTECTIVE_STOP if cause == "vendor" else VendorState.READY)
    assert outcome.state is not State.ACTIVE
    if mode is not CommandMode.JOINT_TORQUE and outcome.values is not None:
        before = outcome.values.copy()
        after = w.period(received_ns=heard if cause == "silence" else w.now + SERVO_NS).values
        assert after is None or np.array_equal(before, after), f"still moving {promised:.2f} s after {cause} at {began}"


def test_a_policy_is_followed_without_intervention():
    w = world().start()
    outcome = w.live(4.0, swing)
    assert outcome.state is State.ACTIVE and outcome.rules is Rule.NONE
    assert np.abs(w.q - swing(4.0 - 0.05)).max() < 0.05


def test_an_emergency_stop_is_latched_and_older_actions_cannot_resume():
    w = world().start()
    w.live(1.0, swing)
    old = w.action(ARM.home)
    w.supervisor.emergency_stop("the button")
    for _ in range(300):
        outcome = w.period(old)
    assert outcome.state is State.ESTOP and "button" in w.supervisor.cause and len(w.stops) == 1 and outcome.values is None
    for verb in ("arm_motors", "activate", "resume"):
        with pytest.raises(SafetyRefusal, match="ESTOP"):
            getattr(w.supervisor, verb)()
    w.supervisor.reset()
    w.supervisor.arm_motors()
    w.period(old)
    w.supervisor.activate()
    assert w.period(old).rules & Rule.OLD_ACTION
    w.live(0.3)
    assert w.supervisor.state is State.ACTIVE


@pytest.mark.parametrize(("change", "rule"), [
    ({"values": np.full(N, np.nan)}, Rule.NON_FINITE), ({"values": np.zeros(N - 1)}, Rule.SHAPE), ({"spec": "0" * 16}, Rule.SPEC),
    ({"mode": CommandMode.JOINT_TORQUE}, Rule.SPEC), ({"generation": 0}, Rule.OLD_ACTION), ({"stamp_ns": 5}, Rule.OLD_ACTION)])
def test_an_action_that_cannot_be_meant_is_refused_and_the_arm_holds(change, rule):
    w = world().start()
    w.live(0.5)
    values = change.pop("values", ARM.home)
    for k in range(int(w.supervisor.config.action_age_max / 0.002) + 2):
        outcome = w.period(w.action(values, **change))
        assert outcome.state is State.HOLD or outcome.rules & rule
        assert outcome.state is State.ACTIVE or k > 80, "the last good action may still be followed to its end"
    assert outcome.state is State.HOLD and rule.words() in w.supervisor.cause
    for _ in range(100):
        outcome = w.period()
    w.supervisor.resume()
    assert w.live(0.3).state is State.ACTIVE


def test_jumps_are_clamped_and_larger_ones_stop_the_arm():
    w = world(clamp_band=0.1, reject_band=0.5).start()
    w.live(0.5)
    outcome = w.period(w.action(ARM.home + 0.3))
    assert outcome.rules & Rule.CLAMPED and np.allclose(w.supervisor.target, ARM.home + 0.1)
    outcome = w.period(w.action(ARM.home + 0.9))
    assert outcome.rules & Rule.REJECTED and outcome.state is State.HOLD and "reject band" in w.supervisor.cause


@pytest.mark.parametrize(("changes", "rule", "words"), [
    ({"state": VendorState.PROTECTIVE_STOP, "fault": "joint 3 overloaded"}, Rule.VENDOR, "joint 3 overloaded"),
    ({"bus_errors": 1000}, Rule.BUS_ERRORS, "1000 bad or missing"),
    ({"device_s": 0.5}, Rule.DEVICE_CLOCK, "clock"),
    ({"q": np.full(N, np.nan)}, Rule.BAD_MEASUREMENT, "NaN"),
    ({"q": ARM.home + 1.0}, Rule.BAD_MEASUREMENT, "jumped"),
    ({"received_ns": 1_100_000_000}, Rule.OBSERVATION_AGE, "nothing believable")])
def test_what_is_wrong_with_arm_or_wire_ends_in_fault_with_its_words(changes, rule, words):
    w = world().start()
    w.live(0.5)
    fired = Rule.NONE
    for k in range(400):
        outcome = w.period(w.action(ARM.home), **changes)
        fired |= outcome.rules
        if k == 12:
            assert outcome.state is State.FAULT
    assert rule in fired and words in w.supervisor.cause and len(w.stops) == 1


def test_a_stuck_arm_is_a_fault():
    w = world(tracking_error_max=0.1).start()
    for k in range(1500):
        if k % 10 == 0:
            action = w.action(turned(ARM.home, 0, min(0.001 * k, 0.4)))
        outcome = w.period(action, q=ARM.home.copy())
        if outcome.state is State.FAULT:
            break
    assert outcome.state is State.FAULT and outcome.rules & Rule.TRACKING and "shoulder_pan" in w.supervisor.cause
    assert "the encoder of shoulder_pan_joint told nothing new while its set-point went 0.1" in w.supervisor.cause


@pytest.mark.parametrize("stuck", [2, 4, None])
def test_where_the_arm_stops_itself_an_encoder_that_stood_still_is_told_with_it(stuck):
    w = world(tracking_error_max=0.1).start()
    w.live(1.0, swing)
    stood = w.q.copy()
    for k in range(36):
        measured = w.q.copy() if stuck is None else np.where(np.arange(N) == stuck, stood, w.q)
        w.period(w.action(swing(1.0 + 0.002 * k)), q=measured)
    outcome = w.period(state=VendorState.PROTECTIVE_STOP, fault="its words", q=measured)
    assert outcome.state is State.FAULT and "its words" in w.supervisor.cause
    named = [name for name in ARM.spec.joint_names if f"the encoder of {name} told nothing new" in w.supervisor.cause]
    assert named == ([] if stuck is None else [ARM.spec.joint_names[stuck]])


def test_a_silent_policy_or_camera_is_held_and_may_be_resumed():
    w = world().start()
    w.live(1.0, swing)
    for _ in range(300):
        outcome = w.period()
    assert outcome.state is State.HOLD and "no action" in w.supervisor.cause and outcome.values is not None
    w.supervisor.resume()
    w.live(0.5, lambda t: w.q)
    outcome = w.period(w.action(w.q), camera_age=1.0)
    assert outcome.state is State.HOLD and outcome.rules & Rule.CAMERA_AGE


def test_what_was_not_heard_while_our_own_loop_stood_still_is_no_fault_of_the_arm():
    w = world().start()
    w.live(1.0, swing)
    last = w.written[-1][1]
    outcome = w.period(ns=600_000_000, measured=False)
    assert outcome.state is State.HOLD and not outcome.stop and np.array_equal(outcome.values, last)
    for _ in range(50):
        outcome = w.period()
    assert outcome.state is State.HOLD and w.stops == []
    w.period(ns=600_000_000, measured=False)
    for _ in range(int(w.supervisor.config.observation_age_max / 0.002) + 2):
        outcome = w.period(measured=False)
    assert outcome.state is State.FAULT and "heard" in w.supervisor.cause and len(w.stops) == 1


def test_a_loop_that_stood_still_goes_on_from_where_it_was():
    w = world().start()
    w.live(1.0, swing)
    last = w.written[-1][1]
    outcome = w.period(w.action(swing(2.0)), ns=200_000_000)
    assert outcome.rules & Rule.GAP and outcome.state is State.HOLD and np.array_equal(outcome.values, last)


def test_the_workspace_and_the_tool_speed_are_kept():
    geometry = Geometry(ARM, Workspace())
    kinematics = ARM.kinematics()
    start = kinematics.forward(ARM.home)[:3]
    far = turned(ARM.home, 0, 0.5)
    side = kinematics.forward(far)[:3]
    low, high = np.minimum(start, side) - 0.05, np.maximum(start, side) + 0.05
    w = world(workspace=Workspace(tuple(low), tuple(high), tool_speed_max=0.3), clamp_band=1.0, blend=0.01).start()
    fired, fastest = Rule.NONE, 0.0
    for k in range(4000):
        if k % 10 == 0:
            action = w.action(turned(w.supervisor._points.reference, 0, 0.4 if k < 2000 else -0.4))
        before = kinematics.forward(w.q)[:3]
        fired |= w.period(action).rules
        position = kinematics.forward(w.q)[:3]
        fastest = max(fastest, float(np.linalg.norm(position - before)) / 0.002)
        assert (position > low - 1e-3).all() and (position < high + 1e-3).all()
    assert Rule.WORKSPACE in fired and Rule.TOOL_SPEED in fired and 0.2 < fastest < 0.3 * 1.02
    assert geometry.violation(w.q) is Rule.NONE


def test_links_do_not_touch():
    w = world(clamp_band=1.0, workspace=Workspace(tool_speed_max=5.0)).start()
    geometry = Geometry(ARM, Workspace(clearance=0.0))
    fired = Rule.NONE
    for k in range(3000):
        if k % 10 == 0:
            action = w.action(turned(w.supervisor._points.reference, 2, 0.4))  # the elbow folds the arm onto itself
        fired |= w.period(action).rules
        assert geometry.violation(w.q) is Rule.NONE
    assert Rule.COLLISION in fired


def test_an_unsure_policy_slows_the_arm():
    fast, slow = world(clamp_band=1.0, blend=0.01).start(), world(clamp_band=1.0, blend=0.01).start()
    for k in range(200):
        if k % 10 == 0:
            goal = turned(ARM.home, 0, 0.8)
            actions = fast.action(goal), slow.action(goal, speed=0.1)
        fast.period(actions[0])
        outcome = slow.period(actions[1])
    assert outcome.rules & Rule.UNCERTAIN
    assert slow.q[0] - ARM.home[0] < 0.1 * np.pi * 0.4 + 0.01 < fast.q[0] - ARM.home[0]


def test_arming_is_refused_in_words():
    for changes, words in (({"dq": np.full(N, 0.5)}, "moves"), ({"state": VendorState.NOT_READY, "fault": "brakes on"}, "brakes on"),
                           ({"q": turned(ARM.home, 2, 1.58)}, "elbow")):
        w = world()
        w.period(**changes)
        with pytest.raises(SafetyRefusal, match=words):
            w.supervisor.arm_motors()
    with pytest.raises(SafetyRefusal, match="DISCONNECTED"):
        world().supervisor.arm_motors()


def test_a_torque_arm_that_runs_away_is_damped_and_then_held():
    w = world(CommandMode.JOINT_TORQUE, workspace=Workspace(tool_speed_max=10.0)).start()
    q, dq = ARM.home.copy(), np.zeros(N)
    inertia = np.array([2.0, 2.0, 1.0, 0.3, 0.3, 0.1])
    fastest = np.zeros(N)
    for k in range(4000):
        if k % 10 == 0:
            action = w.action(np.array([60.0, 0, 0, 0, 0, 0]))
        outcome = w.period(action, q=q.copy(), dq=dq.copy())
        if outcome.values is not None:
            dq = dq + 0.002 * outcome.values / inertia
            q = q + 0.002 * dq
        fastest = np.maximum(fastest, np.abs(dq))
    assert outcome.state is State.HOLD and "velocity" in w.supervisor.cause
    assert np.abs(dq).max() < 0.01 and (fastest < ARM.spec.limits.velocity_max * 1.2).all()
    assert broken_limits(CommandMode.JOINT_TORQUE, w.written, 10**8) == []


def test_an_arm_whose_torques_carry_its_weight_is_held_by_gravity_compensation():
    spec = replace(ARM.spec, torque_convention=TorqueConvention.TOTAL)
    arm = replace(ARM, spec=spec)
    supervisor = Supervisor(arm, CommandMode.JOINT_TORQUE, SafetyConfig())
    w = World(supervisor)
    w.period()
    supervisor.arm_motors()
    weight = Geometry(arm, Workspace()).gravity(ARM.home)
    assert np.abs(weight).max() > 5.0
    assert np.allclose(w.period().values, weight, atol=1e-9)


def test_an_arm_without_limits_is_refused():
    spec = replace(ARM.spec, limits=JointLimits.unlimited(N))
    with pytest.raises(ConfigurationError, match="finite velocity_max"):
        Supervisor(replace(ARM, spec=spec), CommandMode.JOINT_POSITION, SafetyConfig())
    with pytest.raises(ConfigurationError, match="end effector"):
        SafetyConfig().check(replace(ARM, spec=replace(ARM.spec, commands=(replace(ARM.spec.commands[0], mode="end_effector_pose"),))),
                             CommandMode.END_EFFECTOR_POSE)


def test_configurations_are_refused_in_words_and_hashed():
    with pytest.raises(ConfigurationError, match="clamp_band <= reject_band"):
        SafetyConfig(clamp_band=2.0, reject_band=1.0)
    with pytest.raises(ConfigurationError, match="positive finite"):
        SafetyConfig(action_age_max=float("nan"))
    with pytest.raises(ConfigurationError, match="minimum < maximum"):
        Workspace((0, 0, 1), (1, 1, 0))
    assert SafetyConfig().fingerprint() != SafetyConfig(speed=0.5).fingerprint()
