"""The deployment certificate: what a dry run found, and what may move the arm because of it, for a day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from episodes.metadata import software_version
from robots.errors import ConfigurationError, StoreError, VersionError

VERSION = 1
LIFETIME = timedelta(hours=24)
"""A certificate that is older proves nothing any more: somebody may have touched the arm."""


@dataclass(frozen=True)
class Deployment:
    """What acts on what. None: not known yet."""

    robot: str
    """As the driver catalogue names it."""
    address: str
    mode: str
    """What is commanded."""
    policy: str
    """Short hash of the policy."""
    safety: str
    """`SafetyConfig.fingerprint()`."""
    spec: str
    """Fingerprint of the spec that the policy sees."""
    model: str | None = None
    serial: str | None = None
    firmware: str | None = None
    calibration: str | None = None
    """`Driver.calibration_hash`."""


_WORDS = {"mode": "command mode", "policy": "policy's hash", "safety": "hash of the safety rules", "spec": "spec's fingerprint",
          "model": "arm's model", "serial": "arm's serial number", "firmware": "arm's firmware", "calibration": "calibration's hash"}


@dataclass(frozen=True)
class Certificate:
    """What one dry run found."""

    deployment: Deployment
    reasons: tuple[str, ...]
    """Why it is refused, in words; empty: it passed."""
    speed: float
    """Share of the arm's velocity limits that was certified."""
    patience: float
    """Longest silence and pause that was certified [s]."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was measured, by name with its unit."""
    real_time_refused: tuple[str, ...] = ()
    """What the system did not allow, in words; the loop runs without it."""
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """ISO 8601 in UTC."""
    software: str = field(default_factory=software_version)

    def __post_init__(self) -> None:
        for name in ("reasons", "real_time_refused"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        try:
            aware = datetime.fromisoformat(self.created_at).tzinfo is not None
        except (ValueError, TypeError):
            aware = False
        if not aware:
            raise ConfigurationError(f"Certificate.created_at: expected ISO 8601 with a time zone, got {self.created_at!r}")

    @property
    def passed(self) -> bool:
        """Whether nothing stood against it."""
        return not self.reasons

    def fingerprint(self) -> str:
        """Return a hash of everything in it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def refusals(self, found: Deployment, now: datetime | None = None) -> list[str]:
        """Return in words why `found` may not move the arm on this certificate; empty where it may. What `found` does not know yet
        is not compared. `now`: with a time zone; None: the clock's."""
        words = [f"it did not pass: {reason}" for reason in self.reasons]
        age = (datetime.now(UTC) if now is None else now) - datetime.fromisoformat(self.created_at)
        if age > LIFETIME:
            words.append(f"it is {age / timedelta(hours=1):.0f} hours old, at most {LIFETIME / timedelta(hours=1):.0f} are allowed")
        elif age < -timedelta(minutes=1):
            words.append(f"it was made at {self.created_at}, which lies in the future: set this computer's clock")
        for entry in fields(Deployment):
            certified, now_found = getattr(self.deployment, entry.name), getattr(found, entry.name)
            if now_found is not None and certified != now_found:
                words.append(f"the {_WORDS.get(entry.name, entry.name)} is {now_found!r}, certified was {certified!r}")
        return words

    def to_text(self) -> str:
        """Return it as JSON with its hash."""
        return json.dumps({"version": VERSION, "hash": self.fingerprint(), "verdict": "PASSED" if self.passed else "REFUSED",
                           **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return the certificate in a file; StoreError or VersionError where the file is not what `to_text` wrote."""
        again = "make a new one: reflexarc check"
        try:
            entries = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise StoreError(f"certificate {path} cannot be read ({error.strerror}); {again}") from error
        except ValueError as error:
            raise StoreError(f"{path} is no certificate (not JSON: {error}); {again}") from error
        if not isinstance(entries, dict) or "version" not in entries:
            raise StoreError(f"{path} is no certificate (expected a JSON object with a version); {again}")
        if entries.pop("version") != VERSION:
            raise VersionError(f"certificate {path} is of another version than {VERSION}; {again}")
        try:
            written, verdict = entries.pop("hash"), entries.pop("verdict")
            certificate = cls(Deployment(**entries.pop("deployment")), **entries)
        except (TypeError, KeyError, ConfigurationError) as error:
            raise StoreError(f"{path} is no certificate ({error}); {again}") from error
        if certificate.fingerprint() != written or verdict != ("PASSED" if certificate.passed else "REFUSED"):
            raise StoreError(f"certificate {path} was changed after it was written: its hash does not fit what it says; {again}")
        return certificate
