"""What a report is about: the run, what it lived through, and the model as it stands."""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass

import numpy as np

from dynamics.catalog import LearnedModel, make_model
from episodes.episode import Episode
from experiments.config import RunConfig
from experiments.run_directory import Checkpoint, RunDirectory
from experiments.video import first_and_best
from policies.trial import TrialRecord
from robots.errors import ShapeError, StoreError, VersionError
from sim.catalog import make_task
from sim.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Material:
    """A run, read for its report; what cannot be read is left out and named in `troubles`."""

    run: RunDirectory
    task: Task
    commit: str
    packages: dict[str, str]
    records: list[TrialRecord]
    """Of all trials in order; only what their episodes tell where there is no checkpoint."""
    checkpoint: Checkpoint | None
    troubles: list[str]
    """What could not be read, for people."""

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.run.config

    @functools.cached_property
    def first(self) -> int:
        """Number of the first trial that a model acted in, or 0."""
        return first_and_best(self.records)[0]

    @functools.cached_property
    def best(self) -> int:
        """Number of the trial with the highest return."""
        return first_and_best(self.records)[1]

    @functools.cached_property
    def newest_by_model(self) -> int | None:
        """Number of the last trial that a model acted in, or None."""
        return max((record.trial for record in self.records if record.model_version is not None), default=None)

    @functools.cached_property
    def newest_planned(self) -> int | None:
        """Number of the last trial in which planning was timed, or None."""
        return max((record.trial for record in self.records if record.plan_milliseconds_median is not None), default=None)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - it lives as long as one report takes
    def episode(self, trial: int) -> Episode | None:
        """Return the episode of `trial`, or None (and a line in `troubles`) if it cannot be read."""
        try:
            return self.run.store().read(trial)
        except (StoreError, VersionError) as error:
            self.troubles.append(str(error))
            return None

    @functools.cached_property
    def control_dt(self) -> float | None:
        """Control period of the robot [s], or None before anything was lived."""
        episode = self.episode(0) if self.records else None
        return float(episode.metadata.robot_spec["control_dt"]) if episode is not None else None

    @functools.cached_property
    def model(self) -> LearnedModel | None:
        """The checkpoint's model, or None before its first fit."""
        episode = self.episode(0) if self.records else None
        if self.checkpoint is None or episode is None or self.control_dt is None:
            return None
        config, prefix = self.config, "model."
        model = make_model(config.model, self.task.state_space, len(episode.command_names), self.control_dt, config.ensemble, config.seed)
        tensors = {name.removeprefix(prefix): value for name, value in self.checkpoint.tensors.items() if name.startswith(prefix)}
        try:
            model.load_tensors(tensors)
        except (ShapeError, KeyError) as error:
            self.troubles.append(f"the checkpoint's model does not fit the configuration ({error})")
            return None
        return model if model.fits > 0 else None

    @functools.cached_property
    def steps_lived(self) -> np.ndarray:
        """(trials,) control periods lived at the end of every trial."""
        return np.cumsum([record.steps for record in self.records])

    @functools.cached_property
    def solved_at(self) -> int | None:
        """Number of the first trial that reached the return that counts as solved, or None."""
        threshold = self.task.solved_return
        if threshold is None:
            return None
        return next((record.trial for record in self.records if record.total_return >= threshold), None)


def gather(run: RunDirectory) -> Material:
    """Read `run`; a damaged checkpoint is left out, and the trials are then told from their episodes."""
    facts = json.loads((run.path / "config.json").read_bytes())
    troubles: list[str] = []
    checkpoint = None
    try:
        checkpoint = run.load()
    except (StoreError, VersionError) as error:
        troubles.append(str(error))
    records = checkpoint.records if checkpoint is not None else _records_of_episodes(run, troubles)
    return Material(run, make_task(run.config.task), str(facts.get("commit", "unknown")), dict(facts.get("packages", {})), records,
                    checkpoint, troubles)


def _records_of_episodes(run: RunDirectory, troubles: list[str]) -> list[TrialRecord]:
    """Return what the episodes alone tell of their trials, up to the first one that cannot be read."""
    records: list[TrialRecord] = []
    store = run.store()
    try:
        for index in store.indices():
            episode = store.read(index)
            metadata = episode.metadata
            records.append(TrialRecord(index, metadata.provenance, metadata.model_version, episode.total_return, episode.steps,
                                       episode.terminated, metadata.seed,
                                       {name: float(values.sum()) for name, values in episode.cost_terms.items()}))
    except (StoreError, VersionError) as error:
        troubles.append(str(error))
    return records
