"""The main job: a robot that knows nothing learns a task; kept, watched, and resumable at any moment."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from dynamics.matmul import enable_fast_float32
from dynamics.neural_ensemble import FitReport
from episodes.episode import Episode
from experiments.build import build_run
from experiments.config import RunConfig
from experiments.progress import ProgressDisplay
from experiments.run_directory import RunDirectory
from policies.episode_loop import Recording
from policies.model_based import Learner, algorithm
from policies.trial import TrialRecord
from robots.errors import ConfigurationError, StoreError

logger = logging.getLogger(__name__)

SMALLEST_FREE_SPACE = 64 * 2**20
"""A run is not started on a disk with less room than this [byte]."""


@dataclass
class _Keeper:
    """Listens to a run: shows it, writes metrics and checkpoints."""

    run: RunDirectory
    display: ProgressDisplay
    metrics: SummaryWriter
    learner: Learner | None = None

    def trial_started(self, trial: int, provenance: str, steps: int) -> None:
        self.display.trial_started(trial, provenance, steps)

    def fitting(self, trial: int) -> None:
        self.display.fitting(trial)

    def fitted(self, trial: int, report: FitReport) -> None:
        self.display.fitted(trial, report)

    def stepped(self, trial: int, recording: Recording) -> None:
        self.display.stepped(trial, recording)

    def trial_finished(self, record: TrialRecord, episode: Episode) -> None:
        assert self.learner is not None
        self.run.save(self.learner.records, self.learner.tensors())
        try:
            write_metrics(self.metrics, record)
        except OSError as error:  # TensorBoard's, not ours: it says so at any later write, too
            raise StoreError(f"{self.run.path / 'metrics'}: could not be written ({error.strerror or error}); trial {record.trial} is "
                             f"kept. Make room and go on with: reflexarc resume {self.run.path}") from error
        self.display.trial_finished(record, episode)


def write_metrics(writer: SummaryWriter, record: TrialRecord) -> None:
    """Write a trial's numbers as TensorBoard scalars, by trial."""
    scalars = {
        "return/trial": record.total_return, "trial/steps": record.steps, "time/trial_seconds": record.seconds,
        "time/fit_seconds": record.fit_seconds, "time/plan_milliseconds": record.plan_milliseconds_median,
        "model/training_loss": record.training_loss, "model/validation_loss": record.validation_loss,
        "model/one_step_error": record.one_step_error, "model/negative_log_likelihood": record.negative_log_likelihood,
        **{f"model/error_{k}_steps": error for k, error in record.k_step_error.items()},
        **{f"model/coverage_{level}": share for level, share in record.coverage.items()},
        **{f"cost/{name}": value for name, value in record.cost_by_term.items()},
    }
    for name, value in scalars.items():
        if value is not None and math.isfinite(value):
            writer.add_scalar(name.replace(" ", "_"), value, record.trial)
    writer.flush()


def new_run(config: RunConfig, runs: Path, name: str | None) -> RunDirectory:
    """Make the directory of a new run; an unnamed one is named after its task, seed and the time."""
    if name is None:
        stem = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', config.task)}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"
        name, count = stem, 1
        while (runs / name).exists():
            count += 1
            name = f"{stem}-{count}"
    elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(f"--name: expected letters, digits, '.', '_' and '-', got {name!r}")
    existing = next(path for path in [runs.absolute(), *runs.absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    if free < SMALLEST_FREE_SPACE:
        raise ConfigurationError(f"{runs}: only {free / 2**20:.0f} MiB are free there, a run wants {SMALLEST_FREE_SPACE / 2**20:.0f}; "
                                 "make room or choose another place with --runs DIR")
    return RunDirectory.create(runs / name, config)


def learn(run: RunDirectory, console: Console, threads: int | None = None, stop_after: int | None = None) -> list[TrialRecord]:
    """Run or go on with a run until its last trial and return the records of all trials.

    With `stop_after` it ends before the first trial that could pass so many control periods in all. A run that was killed
    or stopped goes on after its last checkpoint and ends as it would have ended, bit for bit.
    """
    with run.locked():
        return _learn(run, console, threads, stop_after)


def _learn(run: RunDirectory, console: Console, threads: int | None, stop_after: int | None) -> list[TrialRecord]:
    enable_fast_float32()
    checkpoint = run.load()
    done = checkpoint.records if checkpoint is not None else []
    config = run.config
    trials = config.learning.trials if stop_after is None else min(config.learning.trials, stop_after // config.learning.episode_steps)
    with ProgressDisplay(console, trials, done) as display:
        writer = SummaryWriter(str(run.path / "metrics"), purge_step=len(done) if done else None)
        keeper = _Keeper(run, display, writer)
        try:
            with build_run(config, run.store(), keeper, threads) as built:
                keeper.learner = built.learner
                built.learner.stop_after = stop_after
                if checkpoint is not None:
                    built.learner.restore(checkpoint.tensors, checkpoint.records)
                algorithm(config.algorithm)(built.learner)
                return built.learner.records
        finally:
            with contextlib.suppress(OSError):  # a disk that filled up was told already
                writer.close()
