"""What the page shows: a thread that looks at the bridge's boards, keeps a few seconds of them, and notes what happened."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

import numpy as np

from hw_bridge.client import ArmState, BridgeClient, BridgeStatus
from hw_bridge.safety.rules import Rule, State
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import HardwareError

LIVE_S = 0.5
"""A state older than this is not shown as the arm's [s]."""
HISTORY_S = 8.0
PERIOD_S = 0.02
_EVENTS = 30
_SILENT = Rule.BLEND | Rule.ACCELERATION
"""What fires all the time and worries nobody."""


class Feed:
    """The newest of one bridge and its recent past. Only its own thread reads the state, status and action boards."""

    def __init__(self, client: BridgeClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._samples: deque[dict[str, object]] = deque(maxlen=round(HISTORY_S / PERIOD_S))
        self._events: deque[dict[str, object]] = deque(maxlen=_EVENTS)
        self._count = self._event_count = 0
        self._state: ArmState | None = None
        self._status = client.status()
        self._action_ns = 0
        self._live = True
        self._run_length, self._run_rules = 0, Rule.NONE
        self._ended = threading.Event()
        self.look()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self.look()

    def look(self) -> None:
        """Read the boards once."""
        try:
            state = self._client.state()
        except HardwareError:
            state = None
        status = self._client.status()
        action_ns = self._client.channels.action.read().stamp_ns
        with self._lock:
            before, self._status, self._action_ns = self._status, status, action_ns
            if state is not None and (self._state is None or state.tick != self._state.tick):
                self._state = state
                self._count += 1
                self._samples.append(_sample(self._count, state))
            self._note_changes(before, status)

    def _note_changes(self, before: BridgeStatus, now: BridgeStatus) -> None:
        if (before.state, before.cause) != (now.state, now.cause) or not self._event_count:
            self._note(now.state.name, now.cause)
        for what, old, new in (("vendor", before.vendor, now.vendor), ("recorder", before.recorder, now.recorder)):
            if old != new:
                self._note(what, new or "all is well again")
        if now.interventions > before.interventions and now.state not in (State.FAULT, State.ESTOP):
            self._note_interventions(now.interventions - before.interventions)
        live = self.age() <= LIVE_S
        if live != self._live:
            self._live = live
            self._note("live" if live else "not live", "the bridge is heard again" if live else "the bridge is not heard any more")

    def _note_interventions(self, more: int) -> None:
        newest = self._events[-1] if self._events else None
        rules = Rule.NONE if self._state is None else self._state.rules & ~_SILENT
        if newest is not None and newest["kind"] == "intervention":  # one line for a row of them
            more, rules = more + self._run_length, rules | self._run_rules
            self._events.pop()
        self._run_length, self._run_rules = more, rules
        seen = f": {rules.words()}" if rules else ""
        self._note("intervention", f"{more} {'period' if more == 1 else 'periods'} changed or refused{seen}")

    def note(self, kind: str, text: str) -> None:
        """Add a line to what happened."""
        with self._lock:
            self._note(kind, text)

    def _note(self, kind: str, text: str) -> None:
        self._event_count += 1
        self._events.append({"number": self._event_count, "time": time.strftime("%H:%M:%S"), "kind": kind, "text": text})

    def age(self) -> float:
        """Return how old the newest state is [s]; inf where there never was one."""
        return np.inf if self._state is None else (time.monotonic_ns() - self._state.now_ns) * 1e-9

    def stopped_since(self, since_ns: int) -> bool:
        """Return whether the bridge said after `since_ns` (monotonic [ns]) that it is in ESTOP."""
        state = self._state
        return state is not None and state.now_ns > since_ns and state.state is State.ESTOP

    def picture(self, after: int = 0) -> dict[str, object]:
        """Return everything as plain JSON values: samples whose number is above `after`, and all events; None stands for not a number."""
        with self._lock:
            state, status, age = self._state, self._status, self.age()
            now_ns = time.monotonic_ns()
            shown = status.state if state is None else state.state
            return {
                "age_s": None if state is None else age, "live": age <= LIVE_S, "state": shown.name, "cause": status.cause,
                "vendor": status.vendor, "recorder": status.recorder, "ticks": status.ticks, "misses": status.misses,
                "skipped": status.skipped, "worst_ms": status.worst_ns * 1e-6, "late_99_us": status.late_99_ns * 1e-3,
                "interventions": status.interventions, "bus_errors": status.bus_errors,
                "observation_age_ms": None if state is None else (state.now_ns - state.received_ns) * 1e-6,
                "action_age_s": (now_ns - self._action_ns) * 1e-9 if self._action_ns else None,
                "generation": None if state is None else state.generation,
                "samples": [s for s in self._samples if s["n"] > after] if after < self._count else [],
                "events": list(self._events),
            }

    def close(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()


def arm_words(arm: Arm, mode: CommandMode, bridge: str) -> Mapping[str, object]:
    """Return what never changes, as plain JSON values: names, limits (None: not stated), the mode of set-points."""
    spec = arm.spec
    limits = {key: _numbers(getattr(spec.limits, key)) for key in ("position_min", "position_max", "velocity_max", "torque_max")}
    return {"bridge": bridge, "robot": spec.name, "mode": str(mode), "joints": list(spec.joint_names), "period_ms": spec.control_dt * 1e3,
            "history_s": HISTORY_S, "live_s": LIVE_S, "limits": limits}


def _sample(number: int, state: ArmState) -> dict[str, object]:
    rules, writing = state.rules & ~_SILENT, bool(np.isfinite(state.written).all())
    return {"n": number, "t": state.now_ns * 1e-9, "q": _numbers(state.q), "dq": _numbers(state.dq), "tau": _numbers(state.tau),
            "reference": _numbers(state.reference) if writing else None, "rules": rules.words()}


def _numbers(values: np.ndarray) -> list[float | None]:
    return [round(v, 5) if np.isfinite(v) else None for v in values.tolist()]
