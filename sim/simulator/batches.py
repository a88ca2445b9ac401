"""Threaded rollouts of one size, with buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError

from sim.simulator.physics_space import PhysicsSpace

LARGEST = mujoco.mjMAXVAL
"""Positions and velocities beyond it make MuJoCo stop and reset a simulation."""
_STATE = mujoco.mjtState
_PHYSICS = int(_STATE.mjSTATE_QPOS | _STATE.mjSTATE_QVEL | _STATE.mjSTATE_ACT)


class Batches:
    """`count` simulations over `horizon` control periods of `substeps` physics steps each."""

    def __init__(self, model: mujoco.MjModel, space: PhysicsSpace, substeps: int, count: int, horizon: int, threads: int,
                 variants: Sequence[mujoco.MjModel] = ()) -> None:
        """`variants`: the simulations are shared among them evenly, in order."""
        self.variants = len(variants)
        self._space, self._substeps, self._horizon = space, substeps, horizon
        self._batch = Batch(model, count, min(threads, count))
        if variants:
            self._batch.set_models([variant for variant in variants for _ in range(count // len(variants))])
        self._fresh = self._batch.state.copy()
        """(count, n) integration states with no history: every rollout begins with nothing that another left behind."""
        self._qpos, self._qvel, self._act = self._batch.bind("qpos"), self._batch.bind("qvel"), self._batch.bind("act")
        steps = horizon * substeps
        self._control = np.empty((count, steps, model.nu))
        self._physics = np.empty((count, steps, space.physics))
        self._record: list[str | int] = [_PHYSICS]
        self._out: dict[str | int, np.ndarray] = {_PHYSICS: self._physics}
        template = mujoco.MjData(model)
        for field in space.fields:
            self._record.append(field)
            self._out[field] = np.empty((count, steps, *getattr(template, field).shape))
        self._told = space.nx - sum(len(reading.columns) for reading in space.readings)
        """Where the readings begin in x."""
        self._states = np.empty((count, horizon, space.nx)) if space.nx > space.physics else None

    def run(self, starts: np.ndarray, actions: np.ndarray, particles: int = 1) -> np.ndarray:
        """Return the states (count, H, nx) from `starts` (nx,) or (count, nx) under `actions` (count / particles, H, nu); a buffer.

        What diverged is NaN from then on.
        """
        space, batch, sub = self._space, self._batch, self._substeps
        batch.state[:] = self._fresh
        batch.warning[:] = 0
        nq, nv = space.nq, space.nv
        self._qpos[:], self._qvel[:] = starts[..., :nq], starts[..., nq:nq + nv]
        if space.na:
            self._act[:] = starts[..., nq + nv:space.physics]
        held = self._control.reshape(particles, -1, self._horizon, sub, self._control.shape[-1])
        held[:] = actions[None, :, :, None]
        try:
            batch.rollout(self._horizon * sub, control=self._control, record=self._record, out=self._out)
            failed = ()
        except SimulationError as error:
            failed = error.ids
            self._physics[failed] = np.nan
        ends = self._physics[:, sub - 1::sub]
        diverged = batch.warning[:, :, 1].any(axis=1) | ~(np.abs(self._physics[:, -1]) <= LARGEST).all(axis=1)
        if diverged.any():
            self._mark(np.flatnonzero(diverged))
        if self._states is None:
            return ends
        states = self._states
        states[..., :space.physics] = ends
        told = self._told
        if told > space.physics:
            states[..., space.physics:told] = starts[..., space.physics:told] if starts.ndim == 1 else starts[:, None, space.physics:told]
        if space.readings:
            ended = {field: self._out[field].reshape(*self._physics.shape[:2], -1)[:, sub - 1::sub] for field in space.fields}
            states[..., told:] = space.read(ended)
        if len(failed) or diverged.any():  # readings were taken of the state that MuJoCo reset a simulation to
            states[np.isnan(ends).any(axis=-1)] = np.nan
        return states

    def _mark(self, simulations: np.ndarray) -> None:
        """Put NaN where simulations stopped, whose last record is repeated from there on, and for a state that made them stop."""
        for i in simulations:
            record = self._physics[i]
            same = (record == record[-1]).all(axis=1)
            stopped = len(record) - int(np.argmin(same[::-1])) if not same.all() else 0
            bad = ~(np.abs(record) <= LARGEST).all(axis=1)
            bad[stopped:] = True
            record[bad] = np.nan
