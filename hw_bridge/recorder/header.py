"""What a log says of itself before its first row: the arm, what judged and what commanded it, and its clock."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Self

from episodes.metadata import software_version
from hw_bridge.recorder.log_row import MODE_CODES, VENDOR_CODES
from robots.errors import ConfigurationError, StoreError, VersionError

VERSION = 2
"""Of the log's format: 2 since rows hold what is followed (reference, reference_rate)."""


def wall_offset_ns() -> int:
    """Return the wall clock minus the host's monotonic clock now [ns]."""
    return time.time_ns() - time.monotonic_ns()


def now_text() -> str:
    """Return the wall-clock time now, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class LogHeader:
    """Everything that is needed to read a log's rows, and to know whose they are."""

    robot_spec: dict
    """`RobotSpec.to_json()`."""
    robot_fingerprint: str
    """`RobotSpec.fingerprint()`."""
    calibration_hash: str
    """`Driver.calibration_hash`."""
    policy_hash: str
    """Of the policy that acts; 'none' where nobody does."""
    safety_hash: str
    """Of the supervisor's configuration."""
    states: tuple[str, ...]
    """Names of the supervisor's states, by code."""
    rules: tuple[str, ...]
    """Names of the supervisor's rules, by bit."""
    task: str = "arm"
    """What was to be done, as episodes name it."""
    provenance: str = "policy"
    """Who acts: 'policy', 'human', 'exploration', ..."""
    extra: dict[str, str] = field(default_factory=dict)
    """Whatever else a reader should know."""
    modes: tuple[str, ...] = tuple(map(str, MODE_CODES))
    """Names of the command modes, by code."""
    vendor_states: tuple[str, ...] = tuple(map(str, VENDOR_CODES))
    """Names of the vendor's states, by code."""
    software_version: str = field(default_factory=software_version)
    created_at: str = field(default_factory=now_text)
    """Wall-clock time, ISO 8601 in UTC."""
    wall_offset_ns: int = field(default_factory=wall_offset_ns)
    """Wall clock minus the host's monotonic clock at the start [ns]; a log's own times are monotonic plus this."""
    version: int = VERSION

    def __post_init__(self) -> None:
        for name in ("states", "rules", "modes", "vendor_states"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.robot_spec.get("joint_names"):
            raise ConfigurationError("LogHeader.robot_spec: expected RobotSpec.to_json() with its joint names")
        if "active" not in map(str.lower, self.states):
            raise ConfigurationError(f"LogHeader.states: expected a state 'active' among the supervisor's states, got {self.states}")

    @property
    def joint_names(self) -> tuple[str, ...]:
        """nv names."""
        return tuple(self.robot_spec["joint_names"])

    @property
    def nv(self) -> int:
        """Number of joints."""
        return len(self.joint_names)

    def to_text(self) -> str:
        """Return the header as JSON on one line; `from_text` reads it back."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the header that `to_text` wrote. VersionError if another version wrote it, StoreError if it is none."""
        try:
            values = json.loads(text)
            version = values["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the log's header cannot be read: {error}") from error
        if version != VERSION:
            raise VersionError(f"the log's format is version {version}, this software reads version {VERSION}; use the software that "
                               f"wrote it ({values.get('software_version')})")
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            raise StoreError(f"the log's header: expected the keys {sorted(known)}, got {sorted(values)}")
        return cls(**values)
