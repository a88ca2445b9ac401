"""The file of an identification: JSON with the arm, the logs' hashes and every parameter; read back to be applied to the arm's model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from episodes.metadata import software_version
from hw_bridge.identification.identify import Identified
from hw_bridge.identification.parameters import ArmParameters, names, units
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, ShapeError, StoreError, VersionError

VERSION = 1


def to_text(identified: Identified, arm: Arm, logs: Sequence[Path]) -> str:
    """Return the file's content."""
    rows = zip(identified.names, units(arm), identified.value, identified.half_width, identified.prior, identified.spread,
               identified.identifiable, strict=True)
    keys = ("name", "unit", "value", "half_width_95", "prior", "prior_spread", "identifiable")
    parameters = [dict(zip(keys, (row[0], row[1], *map(float, row[2:6]), bool(row[6])), strict=True)) for row in rows]
    return json.dumps({
        "version": VERSION, "arm": arm.spec.name, "joints": arm.spec.joint_names, "parameters": parameters,
        "logs": [{"file": log.name, "sha256": sha256(log)} for log in logs],
        "held_out": {"windows": identified.held_out_windows, "identified": asdict(identified.held_out),
                     "prior": asdict(identified.held_out_prior)},
        "windows": identified.windows, "software_version": software_version()}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_parameters(path: Path, arm: Arm) -> ArmParameters:
    """Return the parameters of a file; `.model(arm)` applies them to the arm's model.

    StoreError where it is none, VersionError for another version's, ConfigurationError where it is of another arm.
    """
    try:
        content = json.loads(Path(path).read_text())
        version, name, joints = content["version"], content["arm"], tuple(content["joints"])
        values = {row["name"]: row["value"] for row in content["parameters"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: is no identification of an arm ({error!r}); expected a file of `reflexarc sysid --out`") from error
    if version != VERSION:
        raise VersionError(f"{path}: version {version}, this software reads version {VERSION}; run `reflexarc sysid` on the logs again")
    if name != arm.spec.name or joints != arm.spec.joint_names:
        raise ConfigurationError(f"{path}: is of the arm {name!r}, expected {arm.spec.name!r}: its parameters would be another arm's")
    if set(values) != set(names(arm)):
        raise StoreError(f"{path}: expected the parameters {', '.join(names(arm))}; got {', '.join(values)}")
    try:
        return ArmParameters.from_vector(np.array([values[name] for name in names(arm)], float))
    except (ValueError, TypeError, ShapeError) as error:
        raise StoreError(f"{path}: a parameter is no number ({error})") from error


def sha256(path: Path) -> str:
    """Return the hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
