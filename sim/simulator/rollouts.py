"""Rollouts of plans side by side, each charged by the thread that lived through it."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from planners.compiler.compiled_cost import CompiledCost
from sim.simulator import kernels
from sim.simulator.closed_loops import reading_table
from sim.simulator.engine import Simulations, slot_of, warnings_at
from sim.simulator.physics_space import PhysicsSpace


class Rollouts:
    """Simulations and buffers for as many rollouts as were ever asked for at once."""

    def __init__(self, model: mujoco.MjModel, space: PhysicsSpace, substeps: int, threads: int,
                 variants: Sequence[mujoco.MjModel] = ()) -> None:
        """`variants`: the rollouts are shared among them evenly, in order."""
        self._model, self._variants, self._threads, self._nx = model, variants, threads, space.nx
        self._readings = reading_table(model, space)
        self._simulations: Simulations | None = None
        self._shared = 0
        """Rollouts that the variants were shared among."""
        self._room = np.empty(0)
        self._prepared: tuple[tuple[int, ...], int, int] | None = None
        self._job = job = np.zeros(1, kernels.ROLLOUT)
        job["readings"], job["reading_count"] = self._readings.ctypes.data, len(self._readings)
        job["nx"], job["nu"], job["substeps"] = space.nx, model.nu, substeps
        job["nq"], job["nv"], job["physics"], job["told"] = space.nq, space.nv, space.physics, space.nx - len(self._readings)
        data = mujoco.MjData(model)
        job["warnings"] = warnings_at(data)
        for field in ("ctrl", "qpos", "qvel", *(["act"] if space.na else [])):
            job[field] = slot_of(data, field)
        self._job_at = job.ctypes.data
        self._numbers = job[0]

    def run(self, starts: np.ndarray, actions: np.ndarray, particles: int = 1,
            cost: CompiledCost | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the states (P N, H, nx) from `starts` (nx,) or (P N, nx) under `actions` (N, H, nu), and what they cost (P N,), where a
        cost is given; buffers, which the next call overwrites.

        What diverged is NaN from then on.
        """
        if self._prepared != (actions.shape, particles, starts.ndim):
            self._prepare(actions.shape, particles, starts.ndim)
        starts, actions = (np.ascontiguousarray(array, dtype=np.float64) for array in (starts, actions))
        job = self._numbers
        job["starts"], job["actions"] = starts.ctypes.data, actions.ctypes.data
        job["charge"] = 0 if cost is None else cost.totals_at
        failed = self._simulations.run(kernels.roll(), self._job_at, len(self._costs))
        if len(failed):
            self._states[failed], self._costs[failed] = np.nan, np.nan
        return self._states, self._costs

    def _prepare(self, shape: tuple[int, int, int], particles: int, kind: int) -> None:
        """Make room for rollouts of commands of a shape."""
        plans, horizon, _ = shape
        count = particles * plans
        if self._simulations is None or self._simulations.count < count:
            self._simulations, self._shared = Simulations(self._model, count, self._threads), 0
        if self._variants and self._shared != count:
            self._simulations.share_models(self._variants, count)
            self._shared = count
        if self._room.size < count * (horizon * self._nx + 1):
            self._room = np.empty(count * (horizon * self._nx + 1))
        self._costs = self._room[:count]
        self._states = self._room[count:count * (horizon * self._nx + 1)].reshape(count, horizon, self._nx)
        job = self._numbers
        job["start_size"] = self._nx if kind == 2 else 0
        job["plans"], job["horizon"] = plans, horizon
        job["states"], job["costs"] = self._states.ctypes.data, self._costs.ctypes.data
        self._prepared = shape, particles, kind
