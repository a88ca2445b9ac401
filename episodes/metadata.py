"""What is to be known of an episode besides its numbers: the task, the machine, the seed and who acted."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum

from robots.errors import ConfigurationError


class Clock(StrEnum):
    """Whose time an episode's stamps are."""

    SIMULATED = "simulated"
    """The simulator's own time."""
    MONOTONIC = "monotonic"
    """The host's monotonic clock."""


@functools.cache
def software_version() -> str:
    """Return the installed version of this stack, or 'uninstalled' where it runs from a bare checkout."""
    try:
        return importlib.metadata.version("reflexarc")
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class EpisodeMetadata:
    """Where an episode comes from. Raises ConfigurationError for values that could not be written and read back."""

    task: str
    """The task's name, as `reflexarc list` shows it."""
    robot_fingerprint: str
    """`RobotSpec.fingerprint()`: episodes with the same one took the same commands."""
    robot_spec: dict
    """`RobotSpec.to_json()`."""
    seed: int
    """Seed that the robot was reset with."""
    trial: int
    """Counts the trials of a run from 0."""
    provenance: str
    """Who acted: 'random', 'cem', 'policy', 'human', ..."""
    model_version: int | None = None
    """How many fits the acting model had seen; None where no model acted."""
    clock: Clock = Clock.SIMULATED
    software_version: str = field(default_factory=software_version)
    created_at: str = field(default_factory=_now)
    """Wall-clock time of recording, ISO 8601 in UTC; for people only."""

    def __post_init__(self) -> None:
        for name in ("task", "robot_fingerprint", "provenance", "software_version", "created_at"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"EpisodeMetadata.{name}: expected a non-empty string, got {value!r}")
        for name in ("seed", "trial", "model_version"):
            value = getattr(self, name)
            if value is None and name == "model_version":
                continue
            if isinstance(value, bool) or not hasattr(value, "__index__") or (value := value.__index__()) < 0:
                raise ConfigurationError(f"EpisodeMetadata.{name}: expected a whole number of at least 0, got {value!r}")
            object.__setattr__(self, name, value)
        try:
            object.__setattr__(self, "clock", Clock(self.clock))
            datetime.fromisoformat(self.created_at)
        except ValueError as error:
            raise ConfigurationError(f"EpisodeMetadata: expected clock 'simulated' or 'monotonic' and created_at in ISO 8601, "
                                     f"got {self.clock!r} and {self.created_at!r}") from error
        try:
            json.dumps([self.task, self.provenance], ensure_ascii=False).encode()
            copy = json.loads(json.dumps(self.robot_spec, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"EpisodeMetadata: expected valid Unicode and plain JSON values in robot_spec; {error}. "
                                     "Pass RobotSpec.to_json()") from error
        if not isinstance(copy, dict):
            raise ConfigurationError(f"EpisodeMetadata.robot_spec: expected a mapping as of RobotSpec.to_json(), got {type(copy).__name__}")
        object.__setattr__(self, "robot_spec", copy)

    def to_json(self) -> dict:
        """Return the metadata as plain JSON values; `from_json` reads them back."""
        return asdict(self) | {"clock": str(self.clock)}

    @classmethod
    def from_json(cls, values: dict) -> EpisodeMetadata:
        """Return the metadata that `to_json` described; ConfigurationError if a key is missing or not known."""
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            raise ConfigurationError(f"EpisodeMetadata: expected the keys {sorted(known)}, got {sorted(values)}")
        return cls(**values)
