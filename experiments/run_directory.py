"""One run on disk: configuration, episodes, checkpoints, metrics, pictures."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import safetensors.torch
from torch import Tensor

from episodes.store import EpisodeStore
from experiments.config import RunConfig, run_config_from_json, to_json
from policies.trial import TrialRecord
from robots.errors import ConfigurationError, StoreError, VersionError

FORMAT = 1
"""Version of the files of a run."""
_PACKAGES = ("reflexarc", "torch", "mujoco", "dm-control", "gymnasium", "pybullet", "numpy", "scipy")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands after a number of finished trials."""

    records: list[TrialRecord]
    tensors: dict[str, Tensor]


class RunDirectory:
    """`runs/<name>/`: config.json, episodes/, checkpoints/, metrics/, videos/, report.html. Files are replaced, never half written."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunDirectory:
        """Make a new run; ConfigurationError if there is one already."""
        if (path / "config.json").exists():
            raise ConfigurationError(f"{path} already holds a run. Go on with it: reflexarc resume {path}; "
                                     "or give this one another name: --name NAME")
        try:
            for part in ("episodes", "checkpoints", "metrics", "videos"):
                (path / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: cannot be made ({error.strerror or error}); choose another place with --runs DIR") from error
        content = {"format": FORMAT, "config": to_json(config), "packages": _package_versions(), "commit": _commit()}
        replace_file(path / "config.json", json.dumps(content, indent=1).encode())
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open a run; StoreError if there is none, VersionError if it is of another version."""
        file = path / "config.json"
        if not file.is_file():
            near = sorted(str(p.parent) for p in path.parent.glob("*/config.json"))[:8] if path.parent.is_dir() else []
            raise StoreError(f"{path}: no run there (no config.json). " + (f"Runs beside it: {', '.join(near)}" if near
                                                                         else "Start one with: reflexarc learn TASK"))
        content = _read_json(file)
        if content.get("format") != FORMAT:
            raise VersionError(f"{file}: format {content.get('format')!r}, this version reads {FORMAT}; "
                               "use the version of Reflexarc that wrote it")
        return cls(path, run_config_from_json(content.get("config")))

    @property
    def episodes_path(self) -> Path:
        """Where the episodes are."""
        return self.path / "episodes"

    @property
    def report_path(self) -> Path:
        """Where the report goes."""
        return self.path / "report.html"

    def video_path(self, name: str) -> Path:
        """Where the video called `name` goes."""
        return self.path / "videos" / f"{name}.mp4"

    def store(self) -> EpisodeStore:
        """Return the store of the run's episodes."""
        return EpisodeStore(self.episodes_path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from learning here; the kernel lets go when this one dies. StoreError where one is at it."""
        try:
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written to ({error.strerror or error})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise StoreError(f"{self.path}: another process is learning there; wait until it has ended, or stop it") from error
        try:
            yield
        finally:
            os.close(lock)

    def save(self, records: list[TrialRecord], tensors: dict[str, Tensor]) -> None:
        """Write a checkpoint after the last of `records`; the one before it stays until this one is whole.

        StoreError if the disk is full; the last checkpoint then still stands.
        """
        folder = self.path / "checkpoints"
        name = f"trial-{len(records):06d}.safetensors"
        replace_file(folder / name, safetensors.torch.save(tensors))
        content = {"format": FORMAT, "tensors": name, "records": [record.to_json() for record in records]}
        replace_file(folder / "latest.json", json.dumps(content, indent=1).encode())
        for old in (*folder.glob("trial-*.safetensors"), *folder.glob(".*.tmp")):  # the latter: of writers that were killed
            if old.name != name:
                old.unlink(missing_ok=True)

    def records(self) -> list[TrialRecord]:
        """Return the trials that the newest checkpoint kept, none before the first; StoreError if it is damaged."""
        checkpoint = self.load()
        return [] if checkpoint is None else checkpoint.records

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint, or None before the first; StoreError if it is damaged."""
        file = self.path / "checkpoints" / "latest.json"
        if not file.exists():
            return None
        content = _read_json(file)
        if content.get("format") != FORMAT:
            raise VersionError(f"{file}: format {content.get('format')!r}, this version reads {FORMAT}")
        if not isinstance(content.get("tensors"), str) or not isinstance(content.get("records"), list):
            raise StoreError(f"{file}: expected the name of a file of 'tensors' and a list of 'records'; it was edited or damaged")
        tensors_file = file.parent / content["tensors"]
        try:
            tensors = safetensors.torch.load(tensors_file.read_bytes())
        except (OSError, safetensors.SafetensorError) as error:
            raise StoreError(f"{tensors_file}: cannot be read ({error}); the episodes are whole, "
                             "so a new run can learn from the start") from error
        return Checkpoint([TrialRecord.from_json(values) for values in content["records"]], tensors)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name, sync, and rename: `path` holds the old or the new, never a part.

    StoreError where it cannot be written (a full disk, say); what there was then stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(f"{path}: could not be written ({error.strerror or error}); what was there before still stands. "
                         + ("Make room; a run goes on with: reflexarc resume" if full else "Check the path")) from error


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise StoreError(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def _package_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _commit() -> str:
    """Return the commit of this checkout, with '+' where files differ from it, or 'unknown'."""
    folder = Path(__file__).parent
    try:
        commit, dirty = (subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
                         for words in (("rev-parse", "HEAD"), ("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if dirty else "")
