"""What a cost looks at beside the state: numbers that MuJoCo works out of it."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from robots.errors import UnknownNameError

_OBJECTS = {"sensordata": mujoco.mjtObj.mjOBJ_SENSOR, "xpos": mujoco.mjtObj.mjOBJ_BODY, "xipos": mujoco.mjtObj.mjOBJ_BODY,
            "xmat": mujoco.mjtObj.mjOBJ_BODY, "site_xpos": mujoco.mjtObj.mjOBJ_SITE, "geom_xpos": mujoco.mjtObj.mjOBJ_GEOM}
"""Fields of MjData that can be read, and what their rows are."""


@dataclass(frozen=True)
class Reading:
    """Some columns of one object's row in a field of MjData: Reading("torso_height", "xpos", "torso", (2,))."""

    name: str
    """As the entries of the state are called: the name, with _0, _1, ... behind it where there are several."""
    field: str
    """sensordata, xpos (bodies' frames), xipos (their centres of mass), xmat (rotations, row by row), site_xpos or geom_xpos [m]."""
    of: str
    """The sensor, body, site or geom."""
    columns: tuple[int, ...]

    def entries(self, model: mujoco.MjModel) -> np.ndarray:
        """Return the entries of the field, taken flat, in `model`; UnknownNameError where it has no such object."""
        if self.field not in _OBJECTS:
            raise UnknownNameError("field that can be read", self.field, _OBJECTS)
        number = mujoco.mj_name2id(model, _OBJECTS[self.field], self.of)
        if number < 0:
            raise UnknownNameError(f"object of {self.field!r}", self.of, _names(model, _OBJECTS[self.field]))
        if self.field == "sensordata":
            return int(model.sensor_adr[number]) + np.array(self.columns)
        width = 9 if self.field == "xmat" else 3
        return width * number + np.array(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """One name an entry."""
        return (self.name,) if len(self.columns) == 1 else tuple(f"{self.name}_{i}" for i in range(len(self.columns)))


def _names(model: mujoco.MjModel, kind: mujoco.mjtObj) -> list[str]:
    counts = {mujoco.mjtObj.mjOBJ_SENSOR: model.nsensor, mujoco.mjtObj.mjOBJ_BODY: model.nbody, mujoco.mjtObj.mjOBJ_SITE: model.nsite,
              mujoco.mjtObj.mjOBJ_GEOM: model.ngeom}
    return [name for i in range(counts[kind]) if (name := mujoco.mj_id2name(model, kind, i))]
