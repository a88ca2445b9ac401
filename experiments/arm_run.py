"""A run of an arm that learns to reach, on disk, and the learner that acts with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import safetensors.torch

from experiments.arm_reaching import ArmReaching, ArmReachingConfig
from experiments.config import read_config, to_json
from experiments.run_directory import Checkpoint, RunDirectory
from hw_bridge.client import BridgeClient
from policies.model_based import LearningListener
from robots.errors import ConfigurationError, StoreError, VersionError


@dataclass(frozen=True)
class ArmRunConfig:
    """Everything about a run."""

    robot: str
    """As the driver catalogue names the arm that learned."""
    speed: float = 1.0
    """Share of the arm's velocity limits with which it learned."""
    safety: str = ""
    """Fingerprint of the rules and the compliance under which it learned, before a person's speed and patience."""
    parent: str = ""
    """Run that it was trained anew from; empty: none."""
    data: tuple[str, ...] = ()
    """Logs that it was trained on, of a run with a parent."""
    distilled: bool = False
    """Whether it keeps a network, its parent's planner distilled, with the model that judges it."""
    reaching: ArmReachingConfig = ArmReachingConfig()


class ArmRun(RunDirectory):
    """As `RunDirectory`; its configuration is an `ArmRunConfig`."""

    config: ArmRunConfig

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run; StoreError if there is none or it is no arm's, VersionError if it is of another version."""
        file = path / "config.json"
        try:
            values = dict(json.loads(file.read_bytes())["config"])
            robot = "reaching" in values
        except OSError as error:
            raise StoreError(f"{path}: no run there (no config.json). Start one with: reflexarc reach --robot ROBOT --address ADDRESS "
                             f"--name {path.name}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{file}: expected a run's configuration; it was edited or damaged ({error})") from error
        if not robot:
            raise StoreError(f"{path}: expected the run of an arm that learned to reach (reflexarc reach), got one of the simulated task "
                             f"{values.get('task')!r}")
        try:
            return cls(path, read_config(ArmRunConfig, values))
        except VersionError as error:
            raise VersionError(f"{file}: {error}") from error

    def learned(self) -> Checkpoint:
        """Return the newest checkpoint; StoreError where nothing was learned yet."""
        checkpoint = self.load()
        if checkpoint is None or not int(checkpoint.tensors.get("model.fits", 0)):
            raise StoreError(f"{self.path}: nothing was learned there yet; go on with it: reflexarc reach --robot {self.config.robot} "
                             f"--address ADDRESS --name {self.path.name}")
        return checkpoint

    def distilled(self) -> Checkpoint:
        """Return the checkpoint of a distilled network; StoreError where there is none yet."""
        checkpoint = self.load()
        if checkpoint is None:
            raise StoreError(f"{self.path}: nothing was distilled there yet; distil anew: reflexarc distil {self.config.parent}")
        return checkpoint

    def policy_hash(self) -> str:
        """Return a short hash of what acts: model and settings; the parent and the logs' names do not matter."""
        settings = json.dumps(to_json(self.config.reaching), sort_keys=True).encode()
        tensors = (self.distilled() if self.config.distilled else self.learned()).tensors
        return hashlib.sha256(settings + safetensors.torch.save({name: tensors[name] for name in sorted(tensors)})).hexdigest()[:16]


@contextlib.contextmanager
def reaching(run: ArmRun, client: BridgeClient, listener: LearningListener, threads: int | None) -> Iterator[ArmReaching]:
    """A context with the run's learner on the arm behind `client`, as its checkpoint left it."""
    arm = ArmReaching(client, run.config.reaching, run.episodes_path, listener, threads)
    try:
        checkpoint = run.load()
        if checkpoint is not None:
            arm.learner.restore(checkpoint.tensors, checkpoint.records)
        yield arm
    finally:
        arm.close()


def run_path(runs: Path, name: str | None, stem: str) -> Path:
    """Return where a run called `name` goes; None: named after `stem` and the time. ConfigurationError for a name that is no folder's."""
    if name is None:
        name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(f"--name: expected letters, digits, '.', '_' and '-', got {name!r}")
    return runs / name
