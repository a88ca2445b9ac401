"""Derivatives of control periods by `mjd_transitionFD`, on MuJoCo's own threads: for all models that it takes."""

from __future__ import annotations

import copy

import mujoco
import numpy as np

from sim.simulator import kernels
from sim.simulator.contacts import may_touch
from sim.simulator.engine import Simulations, at_least, slot_of, warnings_at
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.reading_table import reading_table
from sim.simulator.tangent import TangentArithmetic


class Transitions:
    """Simulations for as many periods as were ever asked for at once.

    A velocity's difference repeats no stage that only positions matter to, a command's none that velocities matter to.
    """

    def __init__(self, model: mujoco.MjModel, space: PhysicsSpace, tangent: TangentArithmetic, substeps: int, threads: int) -> None:
        self._model, self._space, self._tangent, self._threads = _with_warm_starts(model), space, tangent, threads
        self._readings = reading_table(model, space, sensors_apart=True)
        self._simulations: Simulations | None = None
        moved, nu, count = len(tangent.moved), model.nu, len(self._readings)
        sensors = model.nsensordata if (self._readings[:, 0] == kernels.SENSOR).any() else 0
        work = (3 * moved + 2 * count + sensors) * (moved + nu) + 2 * model.nq + model.nv + count
        self._work = np.empty((0, work))
        data = mujoco.MjData(model)
        self._job = job = np.zeros(1, kernels.DERIVATIVES)
        job["reading_count"], job["sensors"] = count, sensors
        job["ndx"], job["moved"], job["nq"], job["nv"], job["nu"] = space.ndx, moved, model.nq, model.nv, nu
        job["substeps"], job["told"], job["work_size"] = substeps, space.ndx - count, work
        # forces of contacts are worth a solution to begin every difference at
        job["solve_first"], job["acceleration"], job["warnings"] = may_touch(model), slot_of(data, "qacc"), warnings_at(data)

    @staticmethod
    def know(model: mujoco.MjModel) -> bool:
        """Return whether MuJoCo differentiates this model so (not with Runge-Kutta or delays)."""
        try:
            mujoco.mjd_transitionFD(model, mujoco.MjData(model), kernels.STEP, False, None, None, None, None)
        except mujoco.FatalError:
            return False
        return True

    def run(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `SimulatorModel.linearize`."""
        count = len(x)
        self._simulations = at_least(count, self._simulations, self._model, self._threads)
        if len(self._work) < count:
            self._work = np.empty((count, self._work.shape[1]))
        a, b = np.empty((count, self._space.ndx, self._space.ndx)), np.zeros((count, self._space.ndx, self._model.nu))
        a[:] = self._tangent.constant_rows
        for name, array in {"a": a, "b": b, "work": self._work, "readings": self._readings}.items():
            self._job[name] = array.ctypes.data
        self._simulations.begin(x[:, :self._space.physics], u)
        failed = self._simulations.run(kernels.differentiate(), self._job.ctypes.data, count)
        a[failed], b[failed] = np.nan, np.nan
        return a, b


def _with_warm_starts(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return the model, or a copy with the warm starts that it does without: differences begin at one solution, or they would show how
    far apart the solver ended each time."""
    if not model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_WARMSTART:
        return model
    model = copy.copy(model)
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_WARMSTART)
    return model
