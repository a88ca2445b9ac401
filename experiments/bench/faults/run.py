"""One run of the matrix: strike, and watch the plant until it stands or has ridden the fault out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.bench.faults.kinds import FaultKind, Survivor, supervised
from experiments.bench.faults.stage import MOVING, Stage
from hw_bridge.realtime.privileges import threads_before_others
from hw_bridge.safety.rules import State

LOOK_S = 0.004
"""How often the plant is looked at [s]."""
STILL_S = 0.3
"""An arm that has not moved for so long stands [s]."""
RIDE_S = 1.5
"""A fault that has not stopped the arm by then is ridden out [s]."""
RELIEF_S = 0.6
LONGEST_S = 3.0
"""Beyond the bound the plant is watched for so much longer [s]."""
TRIES = 3
"""A machine too busy for the watchdogs may stop the arm before the fault does."""
MOMENT_S = 0.8
"""The fault strikes at a moment drawn from so long [s]."""


@dataclass(frozen=True)
class Outcome:
    """What was seen of one fault, before its log is read."""

    stopped: bool
    seconds: float
    bound: float
    violations: tuple[str, ...]
    words: str
    log: Path
    window_ns: tuple[int, int]
    """From the fault to the end of the run, on the clock of the log's events."""


def run_fault(stage: Stage, kind: FaultKind, seed: int) -> Outcome:
    """Return what comes of `kind` with `seed`; the stage is left as the fault leaves it."""
    generator = np.random.default_rng([seed, *kind.name.encode()])
    path, moment = int(generator.integers(1 << 31)), float(generator.uniform(0.0, MOMENT_S))
    for _ in range(TRIES):
        stage.ready(path)
        time.sleep(moment)
        if stage.bridge.client.state().state is State.ACTIVE:
            break
    watch = _Watch(stage, kind)
    violations = stage.violations()
    with threads_before_others(1):  # who watches late measures late
        begun_ns = time.monotonic_ns()
        kind.strike(stage, generator)
        stopped, seconds = watch.outcome(begun_ns * 1e-9, generator)
    bound = kind.bound(stage) if kind.bound is not None else supervised(stage) if stopped else float("nan")
    if kind.survivor is not Survivor.NO_TWIN:
        violations += stage.violations()
    return Outcome(stopped, seconds, bound, tuple(violations), watch.words, stage.logs[-1], (begun_ns, time.monotonic_ns()))


class _Watch:
    """Looks at plant and bridge after the fault."""

    def __init__(self, stage: Stage, kind: FaultKind) -> None:
        self._stage, self._kind = stage, kind
        self._stopped: float | None = None
        """When the supervisor was first seen to have stopped, on the monotonic clock [s]."""
        self.words = ""

    def outcome(self, struck: float, generator: np.random.Generator) -> tuple[bool, float]:
        """Return whether the arm was stopped, and how long that took [s]; inf where the plant went on moving."""
        kind, stage = self._kind, self._stage
        longest = LONGEST_S + (RIDE_S if kind.bound is None else kind.bound(stage))
        if kind.survivor in (Survivor.NO_TWIN, Survivor.FROZEN_TWIN):
            noticed = self._await_notice(struck + longest)
            if kind.survivor is Survivor.NO_TWIN or not noticed:
                return noticed, self._stopped - struck if noticed else float("inf")
            time.sleep(RELIEF_S)
            stage.twin.go_on()
            struck = time.monotonic()
        standing, relieved = None, kind.relief is None
        while True:
            truth = stage.truth()
            now = time.monotonic()
            standing = (standing or now) if np.abs(truth["dq"]).max() <= MOVING else None
            self._look(now)
            if not relieved and now - struck > RELIEF_S:
                relieved = True
                kind.relief(stage, generator)
            stopped = self._stopped is not None or kind.survivor is Survivor.NO_BRIDGE
            if stopped and relieved and standing and now - standing > STILL_S and now - struck > RELIEF_S + STILL_S:
                return True, standing - (struck if kind.bound is not None else min(self._stopped, standing))
            if not stopped and kind.bound is None and now - struck > RIDE_S:
                return False, float("nan")
            if now - struck > longest:
                return stopped, float("inf")
            time.sleep(LOOK_S)

    def _look(self, now: float) -> None:
        if self._kind.survivor is Survivor.NO_BRIDGE:
            return
        client = self._stage.bridge.client
        if client.state().state is not State.ACTIVE:
            self._stopped = self._stopped or now
            self.words = client.status().cause

    def _await_notice(self, until: float) -> bool:
        while self._stopped is None and time.monotonic() < until:
            self._look(time.monotonic())
            time.sleep(LOOK_S)
        time.sleep(STILL_S)  # until the status has told why
        self._look(time.monotonic())
        return self._stopped is not None
