"""What turns a servo's encoder steps into joint angles: made once with the arm in hand, kept as JSON, checked against the servos."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from robots.errors import ConfigurationError, StoreError, VersionError

VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """One arm's calibration: a tuple entry a joint. angle = direction * (steps - zero) * 2π / steps_per_turn."""

    arm: str
    """Name of the arm's spec."""
    joints: tuple[str, ...]
    """Names of the joints, in the spec's order."""
    ids: tuple[int, ...]
    """Address of each servo on the bus."""
    models: tuple[int, ...]
    """Model number that each servo gives."""
    homing: tuple[int, ...]
    """What stood in each servo's own homing register when the calibration was made [steps]."""
    zero: tuple[int, ...]
    """The servo's reading at joint angle 0 [steps]."""
    direction: tuple[int, ...]
    """1 where the servo counts up as the angle grows, -1 where it counts down."""
    range_min: tuple[int, ...]
    """Lowest reading that the joint may have [steps]."""
    range_max: tuple[int, ...]
    """Highest reading [steps]."""
    steps_per_turn: int = 4096
    """Resolution of the encoders [steps]."""

    def __post_init__(self) -> None:
        n = len(self.joints)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("arm", "steps_per_turn"):
                continue
            object.__setattr__(self, field.name, tuple(value))
            kind = str if field.name == "joints" else int
            if len(value) != n or not all(type(entry) is kind for entry in value):
                raise ConfigurationError(f"Calibration.{field.name}: expected {n} entries of type {kind.__name__}, got {list(value)}")
        if n == 0 or len(set(self.ids)) != n:
            raise ConfigurationError(f"Calibration.ids: expected a different address for every servo, got {list(self.ids)}")
        if type(self.steps_per_turn) is not int or self.steps_per_turn < 1:
            raise ConfigurationError(f"Calibration.steps_per_turn: expected a whole number above 0, got {self.steps_per_turn!r}")
        if not set(self.direction) <= {1, -1}:
            raise ConfigurationError(f"Calibration.direction: expected 1 or -1 for every joint, got {list(self.direction)}")
        for name, low, zero, high in zip(self.joints, self.range_min, self.zero, self.range_max, strict=True):
            if not low < high or not low <= zero <= high:
                raise ConfigurationError(f"Calibration of {name}: expected range_min <= zero <= range_max, got {low}, {zero}, {high}")

    @property
    def step(self) -> float:
        """Angle of one step [rad]."""
        return 2.0 * math.pi / self.steps_per_turn

    def angles(self, steps: np.ndarray) -> np.ndarray:
        """Return joint angles (n,) [rad] of readings (n,) [steps]."""
        return np.array(self.direction) * (np.asarray(steps) - np.array(self.zero)) * self.step

    def steps(self, angles: np.ndarray) -> np.ndarray:
        """Return readings (n,) [steps], as floats, of joint angles (n,) [rad]."""
        return np.array(self.direction) * np.asarray(angles) / self.step + np.array(self.zero)

    def fingerprint(self) -> str:
        """Return a short hash: the same wire numbers mean the same angles."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def stale(self, ids: dict[int, int], homing: dict[int, int]) -> list[str]:
        """Return a line for everything in which the servos (`ids`: model by address, `homing`: register by address) differ from
        this calibration; empty where it still holds.
        """
        found = []
        for name, i, model, register in zip(self.joints, self.ids, self.models, self.homing, strict=True):
            if i not in ids:
                found.append(f"{name}: no servo answers at id {i}")
            elif ids[i] != model:
                found.append(f"{name}: servo {i} is of model {ids[i]}, calibrated was one of model {model}")
            elif homing[i] != register:
                found.append(f"{name}: servo {i} holds homing {homing[i]}, calibrated was {register}")
        return found

    def save(self, path: Path | str) -> None:
        """Write the calibration as JSON; the file is whole or as it was before."""
        path = Path(path)
        scratch = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps({"version": VERSION, "hash": self.fingerprint(), **asdict(self)}, indent=1) + "\n")
            os.replace(scratch, path)
        except OSError as error:
            raise StoreError(f"calibration cannot be written to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return the calibration in a file; StoreError or VersionError where the file is not one that `save` wrote."""
        again = "calibrate the arm again (reflexarc calibrate), or give another file"
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise StoreError(f"calibration {path} cannot be read ({error.strerror}); {again}") from error
        try:
            entries = dict(json.loads(text))
            version, written = entries.pop("version"), entries.pop("hash")
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{path} is no calibration (expected a JSON object with version and hash); {again}") from error
        if version != VERSION:
            raise VersionError(f"calibration {path} is of version {version}, this program reads version {VERSION}; {again}")
        try:
            calibration = cls(**entries)
        except (TypeError, ConfigurationError) as error:
            raise StoreError(f"calibration {path} cannot be used: {error}; {again}") from error
        if calibration.fingerprint() != written:
            raise StoreError(f"calibration {path} was changed by hand: its hash is {calibration.fingerprint()}, it says {written}; {again}")
        return calibration
