"""Where the readings of a state space lie in MjData, for compiled code."""

from __future__ import annotations

import mujoco
import numpy as np

from sim.simulator import kernels
from sim.simulator.engine import slot_of
from sim.simulator.physics_space import PhysicsSpace


def reading_table(model: mujoco.MjModel, space: PhysicsSpace, sensors_apart: bool = False) -> np.ndarray:
    """Return for each entry of the readings where MjData holds its field's pointer, and which entry it is there (n, 2) int64.

    `sensors_apart`: `kernels.SENSOR` in place of the pointer for sensors.
    """
    data = mujoco.MjData(model)
    rows = []
    for reading in space.readings:
        slot = kernels.SENSOR if sensors_apart and reading.field == "sensordata" else slot_of(data, reading.field)
        rows += [(slot, entry) for entry in reading.entries(model)]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
