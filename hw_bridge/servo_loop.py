"""One servo period after the other: read the arm, hear the policy and the operator, ask the supervisor, write, log."""

from __future__ import annotations

import time

import numpy as np

from hw_bridge.boards import DESKS, VERBS
from hw_bridge.channels import Channels
from hw_bridge.drivers.driver import Driver, Measurement, VendorState
from hw_bridge.realtime.privileges import threads_before_others
from hw_bridge.realtime.schedule import Schedule
from hw_bridge.recorder.log_row import MODE_CODES, NO_MODE, VENDOR_CODES, Level
from hw_bridge.recorder.recorder import Recorder
from hw_bridge.safety.rules import HARMLESS, State
from hw_bridge.safety.supervisor import Action, Outcome, SafetyRefusal, Supervisor
from robots.errors import HardwareError

_MODES = {code: mode for mode, code in MODE_CODES.items()}
_STATUS_SECONDS = 0.1
_LEVELS = {State.FAULT: Level.ERROR, State.ESTOP: Level.FATAL, State.HOLD: Level.WARNING}


class ServoLoop:
    """Ties a driver, a supervisor and the boards; the only caller of `Driver.write`. `tick` once a period."""

    def __init__(self, driver: Driver, supervisor: Supervisor, schedule: Schedule, channels: Channels, recorder: Recorder | None,
                 thread_priority: int = 0, watch_only: bool = False) -> None:
        """`thread_priority`: under SCHED_FIFO, of what the driver starts when servoing begins; 0: as others. `watch_only`: nobody may
        arm or reset."""
        self.driver, self.supervisor, self.schedule, self.channels, self.recorder = driver, supervisor, schedule, channels, recorder
        self._thread_priority, self._watch_only = thread_priority, watch_only
        self.closing = False
        """True once someone asked the bridge to end."""
        n = supervisor.arm.spec.nv
        self._nothing = np.full(n, np.nan)
        record = channels.state.record
        self._told = {name: record[name] for name in record.dtype.names}
        self._action: Action | None = None
        self._action_count = 0
        self._wishes = dict.fromkeys(DESKS, (0, 0))
        self._shown: tuple[State, str] = (supervisor.state, "")
        self._status_due = 0
        self._status_every = max(int(_STATUS_SECONDS / supervisor.arm.spec.control_dt), 1)
        self._interventions = 0
        self._wire = ""
        self._begun = self._lost = False
        self._state_of_vendor = VendorState.READY
        self.overhead_ns = 0
        """From the measurement in hand to the set-point handed to the driver, the driver's own time left out [ns]."""

    def tick(self) -> Outcome:
        """Wait for the period to begin, and do all of it."""
        schedule, supervisor = self.schedule, self.supervisor
        schedule.sleep()
        supervisor.rehearse()
        wake_ns = schedule.spin()
        self._hear_people()  # first: what they wish for may take its time
        measurement = self._read()
        now_ns = time.monotonic_ns()
        action = self._hear_policy()
        outcome = supervisor.step(now_ns, measurement, action)
        written = outcome.values
        self.overhead_ns = time.monotonic_ns() - now_ns
        if outcome.stop:
            self.driver.stop()
            self._begun = False
        elif written is not None:
            self._write(written)
        self._tell(now_ns, wake_ns, outcome, action)
        if (supervisor.state, supervisor.cause) != self._shown:
            self._note_transition(now_ns)
        self._status_due -= 1
        if self._status_due <= 0:
            self._status_due = self._status_every
            self._tell_status()
        return outcome

    def _read(self) -> Measurement | None:
        try:
            measurement = self.driver.read()
        except HardwareError as error:
            if str(error) != self._wire:
                self._wire = str(error)
                self.event("wire", self._wire, Level.ERROR)
            return None
        self._state_of_vendor = measurement.state
        self._lost = self._lost or measurement.state is VendorState.LOST
        return measurement

    def _write(self, values: np.ndarray) -> None:
        try:
            self.driver.write(values)
        except HardwareError as error:
            # The watchdog of observation age ends this if it lasts; a wire that takes nothing is told to stop in the same breath.
            if str(error) != self._wire:
                self._wire = str(error)
                self.event("wire", self._wire, Level.ERROR)
            self.supervisor.emergency_stop(f"a set-point could not be sent: {error}")

    def _hear_policy(self) -> Action | None:
        value, stamp_ns, count = self.channels.action.read()
        if count != self._action_count:
            self._action_count = count
            sequence, generation, speed, values, spec, length, mode, _ = value.item()
            if length != len(self._nothing):
                values = np.zeros(min(length, 1024))
            self._action = Action(values, _MODES.get(mode), stamp_ns, sequence, generation, spec.decode(errors="replace"), speed)
        return self._action

    def _hear_people(self) -> None:
        for desk in DESKS:
            wish, _, _ = self.channels.wishes[desk].read()
            if wish is None:
                continue
            number, stops = int(wish["number"]), int(wish["stops"])
            heard, pressed = self._wishes[desk]
            if stops != pressed:
                self.supervisor.emergency_stop(f"stopped by a person at the {desk}: {wish['text'].item().decode(errors='replace')}")
            if number != heard:
                self._answer(desk, number, wish["verb"].item().decode(errors="replace"))
            self._wishes[desk] = (number, stops)

    def _answer(self, desk: str, number: int, verb: str) -> None:
        try:
            self._obey(verb, desk)
            ok, text = True, self.supervisor.state.name
        except HardwareError as error:
            ok, text = False, str(error)
        self.event("operator", f"{verb} ({desk}): {text}", Level.INFO if ok else Level.WARNING)
        self.channels.answer(desk, number, ok, text)

    def _obey(self, verb: str, desk: str) -> None:
        supervisor = self.supervisor
        if verb not in VERBS:
            raise SafetyRefusal(f"unknown wish {verb!r}; known: {', '.join(VERBS)}")
        if self._watch_only and verb in ("arm", "reset"):  # a reset powers motors up and releases brakes
            raise SafetyRefusal(f"cannot {verb}: this bridge only watches; end it and start one that may move the arm")
        if verb == "arm":
            self._arm()
        elif verb == "activate":
            supervisor.activate()
            self._action = None  # what was said before is no news; an old action that comes from now on is
        elif verb == "resume":
            supervisor.resume()
            self._action = None
        elif verb == "hold":
            supervisor.hold(f"a person at the {desk} asked to hold")
        elif verb == "stop":
            supervisor.emergency_stop(f"stopped by a person at the {desk}")
        elif verb == "reset":
            supervisor.may_reset()
            self._recover()
            supervisor.reset()
        elif verb == "disarm":
            supervisor.disarm()
            self._end()
        elif verb == "close":
            self.closing = True

    def _recover(self) -> None:
        """Clear the arm's own fault, or connect anew where it was not heard any more: its client may be beyond help."""
        if self._lost:
            self.driver.close()
            with threads_before_others(self._thread_priority):
                self.driver.connect()
            self._lost = False
        elif self._state_of_vendor is not VendorState.READY:
            self.driver.clear_fault()
        self._look()

    def _arm(self) -> None:
        supervisor = self.supervisor
        supervisor.may_arm()
        if self._lost:
            self._recover()
        with threads_before_others(self._thread_priority):
            self.driver.begin(supervisor.written_mode)
        self._begun = True
        try:
            self._look()
            supervisor.arm_motors()
        except HardwareError:
            self._end()
            raise

    def _look(self) -> None:
        """Let the supervisor see the arm as it is now, once it rests: the driver may just have taken its time, and an arm of servos sinks
        a little when it is held anew.
        """
        until, rest = time.monotonic() + 1.0, self.supervisor.config.rest_speed
        while True:
            measurement = self.driver.read()
            now_ns = time.monotonic_ns()
            if (now_ns - measurement.received_ns < 10_000_000 and np.abs(measurement.dq).max() <= rest) or time.monotonic() > until:
                break
            time.sleep(0.001)
        self.supervisor.step(now_ns, measurement, None)
        self.schedule.start_over()

    def _end(self) -> None:
        if self._begun:
            self._begun = False
            self.driver.end()
            self.schedule.start_over()

    def finish(self) -> None:
        """Brake, hand the arm to its own controller and let go of it; takes as long as a stop."""
        supervisor = self.supervisor
        supervisor.hold("the bridge is ending")
        ends = time.monotonic() + supervisor.stop_time_max + 0.5
        while supervisor.state is State.HOLD and time.monotonic() < ends:
            written = self.tick().values
            if written is None or supervisor.at_rest():
                break
        try:
            if supervisor.state in (State.HOLD, State.ARMED):
                self._end()
            elif supervisor.state in (State.FAULT, State.ESTOP):
                self.driver.stop()
        finally:
            self.driver.close()

    def event(self, kind: str, text: str, level: Level = Level.INFO) -> None:
        """Put words into the log."""
        if self.recorder is not None:
            self.recorder.events.push_event(time.monotonic_ns(), self.schedule.ticks, kind, text, level)

    def _note_transition(self, now_ns: int) -> None:
        supervisor = self.supervisor
        self._shown = (supervisor.state, supervisor.cause)
        self.event("transition", f"{supervisor.state.name}: {supervisor.cause}", _LEVELS.get(supervisor.state, Level.INFO))
        self._status_due = 0

    def _tell(self, now_ns: int, wake_ns: int, outcome: Outcome, action: Action | None) -> None:
        supervisor, schedule = self.supervisor, self.schedule
        m, nothing = supervisor.measured, self._nothing
        if outcome.rules and outcome.state is State.ACTIVE and outcome.rules & ~HARMLESS:
            self._interventions += 1
        if m is None:
            return
        written = nothing if outcome.values is None else outcome.values
        target = supervisor.target if outcome.state is State.ACTIVE else nothing
        board, to = self.channels.state, self._told
        to["tick"][()], to["now_ns"][()], to["received_ns"][()], to["device_s"][()] = schedule.ticks, now_ns, m.received_ns, m.device_s
        to["action_sequence"][()], to["rules"][()] = supervisor.heard_sequence, int(outcome.rules)
        to["generation"][()], to["state"][()] = supervisor.generation, int(outcome.state)
        to["vendor"][()], to["writing"][()] = VENDOR_CODES[m.state], outcome.values is not None
        to["q"][:], to["dq"][:], to["tau"][:] = m.q, m.dq, m.tau
        to["target"][:], to["written"][:] = target, written
        to["reference"][:], to["reference_rate"][:] = supervisor.reference, supervisor.reference_rate
        board.publish(now_ns)
        if self.recorder is None:
            return
        asked = nothing
        sequence, stamp_ns, mode = -1, 0, NO_MODE
        if action is not None:
            sequence, stamp_ns, mode = action.sequence, action.stamp_ns, MODE_CODES.get(action.mode, NO_MODE)
            if action.values.shape == nothing.shape:
                asked = action.values
        self.recorder.rows.push_row(schedule.ticks, wake_ns, m.received_ns, float(m.device_s), schedule.dt_ns, schedule.lateness_ns,
                                    sequence, stamp_ns, now_ns - m.received_ns, int(outcome.rules), m.q, m.dq, m.tau, asked, target,
                                    supervisor.reference, supervisor.reference_rate, written, m.bus_errors, supervisor.generation, mode,
                                    NO_MODE if outcome.values is None else MODE_CODES[supervisor.written_mode], int(outcome.state),
                                    VENDOR_CODES[m.state])

    def _tell_status(self) -> None:
        supervisor, schedule = self.supervisor, self.schedule
        m = supervisor.measured
        trouble = ""
        if self.recorder is not None:
            status = self.recorder.status()
            trouble = status.error or (f"{status.dropped} rows were dropped" if status.dropped else "")
        self.channels.tell_status(state=int(supervisor.state), ticks=schedule.ticks, misses=schedule.misses, skipped=schedule.skipped,
                                  worst_ns=schedule.worst_ns, late_99_ns=schedule.lateness_quantile(0.99),
                                  interventions=self._interventions, bus_errors=0 if m is None else m.bus_errors,
                                  cause=supervisor.cause, vendor="" if m is None else m.fault, recorder=trouble)
