"""Rollouts of plans side by side, each charged by the thread that lived through it."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from planners.compiler.compiled_cost import CompiledCost
from sim.simulator import kernels
from sim.simulator.engine import Simulations, at_least, slot_of, warnings_at
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.reading_table import reading_table


class Rollouts:
    """Simulations and buffers for as many rollouts as were ever asked for at once."""

    def __init__(self, model: mujoco.MjModel, space: PhysicsSpace, substeps: int, threads: int,
                 variants: Sequence[mujoco.MjModel] = ()) -> None:
        """`variants`: every plan is rolled out through each of them, in order."""
        self._model, self._variants, self._threads, self._nx = model, variants, threads, space.nx
        self._readings = reading_table(model, space)
        self._simulations: Simulations | None = None
        self._room = self._states = self._costs = np.empty(0)
        """Memory, and what of it the states and costs of the last call have."""
        self._prepared: tuple[tuple[int, ...], int] | None = None
        """Shape of the last call's actions, and dimensions of its starts."""
        self._job = job = np.zeros(1, kernels.ROLLOUT)
        job["readings"], job["reading_count"] = self._readings.ctypes.data, len(self._readings)
        job["nx"], job["nu"], job["substeps"], job["particles"] = space.nx, model.nu, substeps, max(1, len(variants))
        job["nq"], job["nv"], job["physics"], job["told"] = space.nq, space.nv, space.physics, space.nx - len(self._readings)
        data = mujoco.MjData(model)
        job["warnings"] = warnings_at(data)
        for field in ("ctrl", "qpos", "qvel", *(["act"] if space.na else [])):
            job[field] = slot_of(data, field)

    def run(self, starts: np.ndarray, actions: np.ndarray, cost: CompiledCost | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the states (P, N, H, nx) from `starts` (nx,), or (N, nx) without variants, under `actions` (N, H, nu), and what they cost
        (P, N), where a cost is given; one particle for every variant, buffers that the next call overwrites.

        What diverged is NaN from then on, and so is its cost.
        """
        if self._prepared != (actions.shape, starts.ndim):
            self._prepare(actions.shape, starts.ndim)
        starts, actions = (np.ascontiguousarray(array, dtype=np.float64) for array in (starts, actions))
        self._job["starts"], self._job["actions"] = starts.ctypes.data, actions.ctypes.data
        self._job["charge"] = 0 if cost is None else cost.totals_at
        failed = self._simulations.run(kernels.roll(), self._job.ctypes.data, self._costs.size)
        if len(failed):
            self._states.reshape(self._costs.size, -1)[failed], self._costs.reshape(-1)[failed] = np.nan, np.nan
        return self._states.swapaxes(0, 1), self._costs.T

    def _prepare(self, shape: tuple[int, int, int], dimensions: int) -> None:
        """Make room for rollouts of commands of a shape."""
        plans, horizon, _ = shape
        particles = max(1, len(self._variants))
        count = particles * plans
        before = self._simulations
        self._simulations = at_least(count, before, self._model, self._threads)
        if self._variants and self._simulations is not before:
            self._simulations.take_turns(self._variants)
        size = count * (horizon * self._nx + 1)
        if self._room.size < size:
            self._room = np.empty(size)
        self._costs, self._states = self._room[:count].reshape(plans, particles), self._room[count:size]
        self._states = self._states.reshape(plans, particles, horizon, self._nx)
        self._job["start_size"], self._job["horizon"] = self._nx if dimensions == 2 else 0, horizon
        self._job["states"], self._job["costs"] = self._states.ctypes.data, self._costs.ctypes.data
        self._prepared = shape, dimensions
