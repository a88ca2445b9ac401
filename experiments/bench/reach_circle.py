"""The circle on an arm: learn to reach through the vendor's client, carry a payload nobody told of, retrain on what was recorded."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from dynamics.neural_ensemble import FitReport
from episodes.episode import Episode
from experiments.arm_live import interventions_at_rest
from experiments.arm_reaching import UNSEEN_GOALS, ArmReaching, ArmReachingConfig, bridge_config
from experiments.arm_settings import SHARED_PATIENCE, ArmSettings
from experiments.bench.result import Bar, BenchResult, Cell, machine
from hw_bridge.client import BridgeProcess
from hw_bridge.twins.twin import TwinProcess
from policies.episode_loop import Recording
from policies.model_based import mbrl_1_5
from policies.trial import TrialRecord

ADDRESS = "127.0.0.2"
TARGETS = 20
PAYLOAD_KG = 1.0
NOMINAL_BAR_M, LOADED_BAR, RETRAINED_BAR = 0.01, 2.0, 1.25
"""[m]; and as multiples of the nominal error."""


class _Lines:
    """Says every trial in a line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def trial_started(self, trial: int, provenance: str, steps: int) -> None: ...

    def fitting(self, trial: int) -> None: ...

    def fitted(self, trial: int, report: FitReport) -> None:
        self._console.print(f"  fitted in {report.seconds:.1f} s", highlight=False)

    def stepped(self, trial: int, recording: Recording) -> None: ...

    def trial_finished(self, record: TrialRecord, episode: Episode) -> None:
        self._console.print(f"  trial {record.trial} {record.provenance}: return {record.total_return:.1f}, plan "
                            f"{record.plan_milliseconds_median or 0:.0f} ms", highlight=False)


def bench_reach_circle(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Return final errors on unseen goals of the UR5e's twin: learned, loaded, retrained. One seed: it is lived in real time."""
    config, rows, began = ArmReachingConfig(), [], time.perf_counter()
    goals = [UNSEEN_GOALS + k for k in range(TARGETS)]
    with tempfile.TemporaryDirectory() as folder, TwinProcess("ur5e", "--address", ADDRESS) as twin:
        place = Path(folder)
        settings = ArmSettings("ur5e", ADDRESS, patience=SHARED_PATIENCE)
        safety = settings.careful(bridge_config("ur5e", ADDRESS, config).safety)
        with BridgeProcess(settings.bridge(safety, "ur5e-reach", "bench", log=str(place / "circle.mcap"))) as bridge:
            arm = ArmReaching(bridge.client, config, place / "episodes", _Lines(console), threads)
            try:
                mbrl_1_5(arm.learner)

                def measure(phase: str) -> tuple[float, list[Episode]]:
                    before = interventions_at_rest(bridge.client)
                    episodes = arm.reach(goals)
                    errors = arm.final_errors(episodes)
                    row: tuple[Cell, ...] = (phase, float(np.median(errors) * 1e3), float(errors.max() * 1e3),
                                             bridge.client.status().interventions - before, time.perf_counter() - began)
                    rows.append(row)
                    console.print(f"{phase}: median {row[1]:.1f} mm, worst {row[2]:.1f} mm, interventions {row[3]}", highlight=False)
                    return float(np.median(errors)), episodes

                nominal, _ = measure("learned")
                interventions = rows[-1][3]
                twin.fault("payload", mass=PAYLOAD_KG)
                loaded, lived = measure(f"with {PAYLOAD_KG:g} kg")
                arm.relearn(lived, place / "loaded")
                retrained, _ = measure("retrained")
            finally:
                arm.close()
        violations = twin.fault("state")["limit_violations"]
    bars = [Bar(f"median final error on {TARGETS} unseen goals", nominal * 1e3, NOMINAL_BAR_M * 1e3, False, "mm"),
            Bar("interventions meanwhile", float(interventions), 0.0, False),
            Bar(f"error with {PAYLOAD_KG:g} kg over nominal", loaded / nominal, LOADED_BAR, True),
            Bar("error after retraining over nominal", retrained / nominal, RETRAINED_BAR, False),
            Bar("limits broken at the plant", float(len(violations)), 0.0, False)]
    return BenchResult("reach-circle", ("phase", "median error [mm]", "worst [mm]", "interventions", "seconds so far"), rows, bars,
                       machine(threads))
