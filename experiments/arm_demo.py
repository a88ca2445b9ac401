"""`reflexarc demo`: the whole circle on the twin of an arm, from knowing nothing to recovering from a load that nobody told it of."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from dynamics.matmul import enable_fast_float32
from dynamics.workers import checked_threads
from episodes.episode import Episode
from experiments.arm_check import certify
from experiments.arm_distil import Reflex, distillation_bar, reach_at_servo_rate, words
from experiments.arm_live import hold_and_disarm, interventions_at_rest
from experiments.arm_phases import Phase, goal_spans
from experiments.arm_reach import Keeper
from experiments.arm_reaching import UNSEEN_GOALS, ArmReaching, ArmReachingConfig, at_servo_rate, bridge_config
from experiments.arm_run import ArmRun, ArmRunConfig, reaching
from experiments.arm_settings import SHARED_PATIENCE, ArmSettings
from experiments.progress import ProgressDisplay, make_console
from experiments.quiet import Quiet
from experiments.termination import EXIT_CODE, Terminated, sigterm_raises
from hw_bridge.client import BridgeClient, BridgeProcess
from hw_bridge.reaching import draw_goals
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.twins.twin import TwinProcess
from policies.model_based import algorithm
from robots.errors import HardwareError, ReflexarcError, StoreError, VersionError

if TYPE_CHECKING:
    from experiments.cli import Demo

ROBOT, PAYLOAD_KG = "ur5e", 1.0
ATTEMPTS = 3
"""Times that learning is begun or gone on with: on a computer that is busy, times are missed now and then, and the arm stops."""
GOALS, STEPS = 8, 30
"""Unseen goals that are reached for in every phase, and the control periods for each."""
_ADDRESSES = tuple(f"127.0.0.{last}" for last in range(2, 8))


@dataclass
class _Judged:
    """Goals that were reached for."""

    errors: list[float]
    """[m]"""
    times: list[np.ndarray]
    """When the arm was measured meanwhile [s]."""

    def add(self, error: float, times: np.ndarray) -> None:
        self.errors.append(error)
        self.times.append(times)


@dataclass
class _Show:
    """What the phases share."""

    console: Console
    run: ArmRun
    settings: ArmSettings
    twin: TwinProcess
    threads: int | None
    phases: list[Phase]
    payload_kg: float = 0.0

    @property
    def config(self) -> ArmReachingConfig:
        return self.run.config.reaching

    @property
    def goals(self) -> np.ndarray:
        """(GOALS, 3) [m]."""
        return draw_goals(self.settings.arm(), self.config.reaching, range(UNSEEN_GOALS, UNSEEN_GOALS + GOALS))

    @contextlib.contextmanager
    def bridge(self, safety: SafetyConfig, name: str) -> Iterator[tuple[BridgeClient, Path]]:
        """A context with a bridge of these rules and its log; the arm is held and let go of at the end."""
        log = self.run.path / "logs" / f"{name}-{len(list(self.run.path.glob('logs/*.mcap')))}.mcap"
        config = self.settings.bridge(self.settings.careful(safety), f"{ROBOT}-reach", "demo", name, str(log))
        with BridgeProcess(config) as bridge:
            try:
                yield bridge.client, log
            finally:
                with contextlib.suppress(HardwareError):  # where the bridge has ended, its end has braked the arm
                    person = BridgeClient(bridge.ready["name"], bridge.arm)  # those who acted have let go of theirs
                    hold_and_disarm(person)
                    person.close()

    @contextlib.contextmanager
    def phase(self, client: BridgeClient, log: Path, name: str, told: str) -> Iterator[_Judged]:
        """A context that adds a phase; it is handed what is to be filled, a goal after the other."""
        before, judged = interventions_at_rest(client), _Judged([], [])
        began = time.monotonic_ns()
        yield judged
        errors = judged.errors
        self.phases.append(Phase(name, told, began, time.monotonic_ns(), log, self.goals[: len(errors)], np.array(errors),
                                 client.status().interventions - before, self.payload_kg, goal_spans(judged.times)))
        if errors:
            self.console.print(f"  {name}: median {1e3 * np.median(errors):.1f} mm from {len(errors)} unseen goals, worst "
                               f"{1e3 * max(errors):.1f} mm; the supervisor changed {self.phases[-1].interventions} servo periods",
                               highlight=False)

    def each_goal(self, name: str) -> Iterator[int]:
        """Yield the goals' seeds, with a bar."""
        return track(range(UNSEEN_GOALS, UNSEEN_GOALS + GOALS), name, console=self.console, transient=True,
                     disable=not self.console.is_terminal)

    def reach(self, client: BridgeClient, log: Path, arm: ArmReaching, name: str, told: str) -> list[Episode]:
        """Reach for the unseen goals through the model, in a phase."""
        lived: list[Episode] = []
        with self.phase(client, log, name, told) as judged:
            for seed in self.each_goal(name):
                lived += arm.reach([seed], STEPS)
                judged.add(float(arm.final_errors(lived[-1:])[0]), lived[-1].time)
        return lived


def arm_demo_command(options: Demo) -> int:
    """Show the circle; 1 where the arm or its wire failed, 130 after Ctrl-C."""
    enable_fast_float32()
    checked_threads(options.threads)
    console, began = make_console(), time.perf_counter()
    run = _run(options, console)
    console.print(f"The twin of a {ROBOT}, behind the wire protocol of the real one, knows nothing. It explores under the safety\n"
                  "supervisor, learns how it moves, and reaches by planning through what it learned; a network learns that from the\n"
                  f"planner and answers 500 times a second. Then somebody hangs {PAYLOAD_KG:g} kg on it.\nrun {run.path} "
                  "(stop with Ctrl-C, go on with the same command)", highlight=False)
    with run.locked(), sigterm_raises():
        try:
            show = _live(options, console, run)
        except KeyboardInterrupt as stop:
            console.print(f"stopping: the arm brakes and is held; {_going_on(run)}", markup=False, highlight=False)
            return EXIT_CODE if isinstance(stop, Terminated) else 130
        except HardwareError as error:
            console.print(f"the arm stopped: {error}\nThe finished trials are kept in {run.path}; {_going_on(run)}. On a "
                          "computer that is busy with other things, the twin and the bridge miss their times: let it be quiet",
                          highlight=False, markup=False)
            return 1
        return _report(show, time.perf_counter() - began)


def _live(options: Demo, console: Console, run: ArmRun) -> _Show:
    """Live the circle, after the trials that the run has kept, and go on where the arm was stopped while it learned.

    HardwareError where it was stopped later, or ATTEMPTS times.
    """
    for attempt in itertools.count(1):
        try:
            with _twin() as (twin, address):
                show = _Show(console, run, ArmSettings(ROBOT, address, patience=SHARED_PATIENCE), twin, options.threads, [])
                _circle(show)
            return show
        except HardwareError as error:
            if attempt == ATTEMPTS or _distilled(run):
                raise
            console.print(f"the arm stopped: {error}; going on after {len(run.records())} trials", markup=False, highlight=False)


def _circle(show: _Show) -> None:
    """Live all phases."""
    console, config, settings = show.console, show.config, show.settings
    safety = bridge_config(ROBOT, settings.address, config).safety
    certificate = certify(settings, safety, "demo", 2.0)
    if not certificate.passed:
        raise HardwareError("the dry run refuses: " + "; ".join(certificate.reasons))
    console.print("dry run: passed, nothing was written to the arm yet")
    reflex = _learn_and_distil(show, safety)
    servo = at_servo_rate(safety, settings.arm())
    with show.bridge(servo, "network") as (client, log), show.phase(
            client, log, "network at 500 Hz", "The planner, distilled into a network, answers every measurement of the arm.") as judged:
        for seed in show.each_goal("network"):
            error, lived = reach_at_servo_rate(client, config, reflex, seed, STEPS)
            judged.add(error, lived.time)
    show.twin.fault("payload", mass=PAYLOAD_KG)
    show.payload_kg = PAYLOAD_KG
    with show.bridge(safety, "loaded") as (client, log), reaching(show.run, client, Quiet(), show.threads) as arm:
        lived = show.reach(client, log, arm, f"with {PAYLOAD_KG:g} kg", f"{PAYLOAD_KG:g} kg hangs on the flange; nobody told the "
                           "controller, and the model knows the arm without it.")
        with console.status("learning anew from what was just recorded"):
            arm.relearn(lived, show.run.path / "loaded")
        show.reach(client, log, arm, "retrained", "The same load, and a model learned from the recorded reaching alone.")
        ArmRun.create(show.run.path / "retrained", replace(show.run.config, parent=str(show.run.path), data=(str(log),))).save(
            [], arm.learner.tensors())


def _learn_and_distil(show: _Show, safety: SafetyConfig) -> Reflex:
    """Explore, learn, reach with the planner, and return it distilled; both are kept as runs."""
    console, trials = show.console, show.config.learning.trials
    with show.bridge(safety, "learning") as (client, log), contextlib.ExitStack() as shown:
        display = shown.enter_context(ProgressDisplay(console, trials, show.run.records()))
        keeper = Keeper(show.run, display)
        with reaching(show.run, client, keeper, show.threads) as arm:
            keeper.learner = arm.learner
            with show.phase(client, log, "learning", "It explores at random, learns a model, and plans through it, again and again."):
                algorithm("1.5")(arm.learner)
            if int(arm.learner.tensors()["steps_since_fit"]):
                arm.learner.fit(trials)
                show.run.save(arm.learner.records, arm.learner.tensors())
            shown.close()  # a terminal shows one bar at a time
            show.reach(client, log, arm, "planning", "Model predictive control: it plans through the learned model, ten times a second.")
    with distillation_bar(console) as progress:
        policy, report = arm.distil(progress)
    console.print(f"  distilled: {words(report)}", highlight=False)
    reflex = Reflex(policy, arm.learner.model, arm.gate())
    kept = ArmRun.create(show.run.path / "network", replace(show.run.config, parent=str(show.run.path), distilled=True))
    kept.save([], reflex.tensors())
    return reflex


def _report(show: _Show, seconds: float) -> int:
    from experiments.arm_overview import write_overview
    from experiments.arm_report import write_arm_report

    show.console.print("writing the report and its film")
    arm = show.settings.arm()
    path = write_arm_report(show.run.path, arm, show.phases, seconds, list(show.run.store()))
    write_overview(show.run.path / "overview.png", show.phases, arm)
    address = show.settings.address
    show.console.print(f"report: {path}\nLet what was learned act again: reflexarc twin {ROBOT} --address {address}, then reflexarc check "
                       f"--policy {show.run.path} --robot {ROBOT} --address {address} --patience {SHARED_PATIENCE}", highlight=False)
    return 0


def _going_on(run: ArmRun) -> str:
    """Return what the same command does next: who has distilled would do it again, so nothing is gone on with from there."""
    return "the same command begins another" if _distilled(run) else "the same command goes on with it"


def _distilled(run: ArmRun) -> bool:
    return (run.path / "network").exists()


def _run(options: Demo, console: Console) -> ArmRun:
    """Return the first demonstration's run that has no report yet."""
    config = ArmReachingConfig(seed=options.seed)
    wanted = ArmRunConfig(ROBOT, safety=bridge_config(ROBOT, "", config).safety.fingerprint(), reaching=config)
    for number in range(1, 10_000):
        path = options.runs / (f"arm-demo-{number}" if number > 1 else "arm-demo")
        if not (path / "config.json").exists():
            return ArmRun.create(path, wanted)
        try:
            run = ArmRun.open(path)
            run.load()  # what is damaged is left alone, too
        except (StoreError, VersionError) as error:
            console.print(f"leaving {path} alone: {error}", markup=False, highlight=False)
            continue
        if run.config == wanted and not run.report_path.exists() and not _distilled(run):
            console.print(f"going on with {path}")
            return run
    raise StoreError(f"{options.runs}: holds ten thousand demonstrations; take another folder with --runs DIR")


@contextlib.contextmanager
def _twin() -> Iterator[tuple[TwinProcess, str]]:
    """A context with the arm's twin at the first loopback address that is free."""
    refused: Sequence[ReflexarcError] = ()
    for address in _ADDRESSES:
        try:
            twin = TwinProcess(ROBOT, "--address", address)
        except HardwareError as error:
            refused = (*refused, error)
            continue
        with twin:
            yield twin, address
        return
    raise HardwareError(f"the twin could not be started at any of {', '.join(_ADDRESSES)}: {refused[-1]}")
