"""Rollouts of one feedback policy with many step lengths, side by side: iLQR's line search at the speed of the physics."""

from __future__ import annotations

import mujoco
import numpy as np

from dynamics.feedback_rollout import check_feedback
from sim.simulator import kernels
from sim.simulator.engine import Simulations, at_least, warnings_at
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.reading_table import reading_table
from sim.simulator.tangent import TangentArithmetic


class ClosedLoops:
    """Simulations for as many rollouts as were ever asked for at once."""

    def __init__(self, model: mujoco.MjModel, space: PhysicsSpace, tangent: TangentArithmetic, substeps: int, threads: int) -> None:
        self._model, self._space, self._threads = model, space, threads
        self._tables = (tangent.plain, tangent.rotations, reading_table(model, space))
        self._simulations: Simulations | None = None
        self._job = job = np.zeros(1, kernels.LOOP)
        job["plain_count"], job["rotation_count"], job["reading_count"] = map(len, self._tables)
        job["nx"], job["ndx"], job["nu"], job["substeps"] = space.nx, space.ndx, model.nu, substeps
        job["physics"], job["told"], job["warnings"] = space.physics, space.nx - len(self._tables[2]), warnings_at(mujoco.MjData(model))

    def run(self, x0: np.ndarray, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, feedforward: np.ndarray, gains: np.ndarray,
            lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `SimulatorModel.roll_out_feedback`; ShapeError for arrays that do not fit together."""
        given = {"states": states, "actions": actions, "steps": steps, "feedforward": feedforward, "gains": gains, "lower": lower,
                 "upper": upper}
        check_feedback(self._space, self._model.nu, x0=x0, **given)
        count, horizon, space, nu = len(steps), len(actions), self._space, self._model.nu
        plain, rotations, readings = self._tables
        self._simulations = at_least(count, self._simulations, self._model, self._threads)
        lived, commands = np.empty((count, horizon + 1, space.nx)), np.empty((count, horizon, nu))
        lived[:, 0] = x0
        arrays = {name: np.ascontiguousarray(array, dtype=np.float64) for name, array in given.items()}
        arrays |= {"deviation": np.empty((count, space.ndx)), "lived": lived, "commands": commands, "plain": plain,
                   "rotations": rotations, "readings": readings}
        for name, array in arrays.items():
            self._job[name] = array.ctypes.data
        self._job["horizon"] = horizon
        self._simulations.begin(x0[:space.physics])
        failed = self._simulations.run(kernels.live(), self._job.ctypes.data, count)
        lived[failed, 1:], commands[failed] = np.nan, np.nan
        return lived, commands
