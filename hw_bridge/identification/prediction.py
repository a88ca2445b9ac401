"""Where a model of an arm goes from measured states under measured torques, beside where the arm went."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType

import mujoco
import numpy as np

from hw_bridge.identification.parameters import driven_model, midpoint, with_parameters
from hw_bridge.identification.windows import MOVING, Windows
from robots.arms.arm import Arm
from robots.errors import MissingExtraError

EXTRA = "sysid"
_EVERY_S = 0.01
"""Predictions are compared so often [s]."""


@dataclass(frozen=True)
class PredictionError:
    """How far a model is from what was recorded: root mean squares over windows and joints."""

    position: float
    """At the end of a window [rad]."""
    velocity: float
    """At the end of a window [rad/s]."""
    torque: float
    """Of the torque that the model says the recorded motion takes, where a joint moves [N·m]."""


def sysid() -> ModuleType:
    """Return mujoco.sysid; MissingExtraError where what it needs is not installed (it then imports as an empty module)."""
    from mujoco import sysid as module

    if not hasattr(module, "optimize"):
        raise MissingExtraError("system identification (mujoco.sysid)", EXTRA)
    return module


class Prediction:
    """Of windows, for any parameters. Vectors of parameters are (4 + 3 nv,) as `ArmParameters` has them."""

    def __init__(self, windows: Windows, arm: Arm) -> None:
        toolbox = self._toolbox = sysid()
        self._windows, self._speed = windows, MOVING * arm.spec.limits.velocity_max
        self._model = driven_model(arm, windows.period / windows.substeps)
        n, every = arm.spec.nv, max(round(_EVERY_S / windows.period), 1)
        self._shown = np.arange(every, windows.q.shape[1], every)
        self.span = windows.period * (windows.q.shape[1] - 1)
        """Length of a window [s]."""
        self._datas = [mujoco.MjData(self._model) for _ in range(os.cpu_count() or 1)]
        steps = np.arange(windows.torque.shape[1] + 1) * self._model.opt.timestep
        self._control = [toolbox.TimeSeries(steps, np.concatenate([torque, torque[-1:]])) for torque in windows.torque]
        self._start = [toolbox.create_initial_state(self._model, start[:n], start[n:]) for start in windows.start]
        *states, self._controls = toolbox.TimeSeries.compute_all_state_mappings(self._model)
        self._states = states[0] | states[1] | states[2]

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return (p, k, m - 1, 2 nv) positions and velocities after the first, for each of `vectors` (p, 4 + 3 nv)."""
        models = [model for vector in vectors for model in [midpoint(with_parameters(self._model, vector))] for _ in self._start]
        lived = self._toolbox.sysid_rollout(models, self._datas, self._control * len(vectors), self._start * len(vectors),
                                            {"none": ()}, self._states, self._controls)
        substeps = self._windows.substeps
        found = np.stack([trajectory.state.data[substeps - 1 :: substeps, 1:] for trajectory in lived])
        found = found.reshape(len(vectors), len(self._start), *found.shape[1:])
        n = self._model.nv
        found[..., :n] -= 0.5 * self._model.opt.timestep * (found[..., n:] - self._windows.start[:, None, n:])  # Euler's to the trapezoid's
        return found

    def errors(self, vectors: np.ndarray) -> np.ndarray:
        """Return (p, k, s, 2, nv) errors of positions [rad / window's length] and velocities [rad/s] at s moments, the last the end."""
        n, windows, shown = self._model.nv, self._windows, self._shown
        lived = self.predict(vectors)[:, :, shown - 1]
        return np.stack([(lived[..., :n] - windows.q[:, shown]) / self.span, lived[..., n:] - windows.dq[:, shown]], axis=3)

    def error(self, vector: np.ndarray) -> PredictionError:
        """Return the errors of the model with these parameters."""
        last = self.errors(vector[None])[0, :, -1]
        position, velocity = np.sqrt((last**2).mean(axis=(0, 2)))
        return PredictionError(float(position * self.span), float(velocity), self._torque_error(vector))

    def _torque_error(self, vector: np.ndarray) -> float:
        windows, model = self._windows, with_parameters(self._model, vector)
        data, errors = mujoco.MjData(model), []
        inertia = np.zeros((model.nv, model.nv))
        for q, dq, ddq, tau in zip(*(values[:, ::5].reshape(-1, model.nv) for values in (windows.q, windows.dq, windows.ddq, windows.tau)),
                                   strict=True):
            data.qpos[:], data.qvel[:] = q, dq
            mujoco.mj_fwdPosition(model, data)
            mujoco.mj_fwdVelocity(model, data)
            mujoco.mj_fullM(model, data, inertia)
            needed = inertia @ ddq + data.qfrc_bias + model.dof_damping * dq + model.dof_frictionloss * np.sign(dq)
            errors.append(np.where(np.abs(dq) > self._speed, needed - tau, np.nan))
        return float(np.sqrt(np.nanmean(np.square(errors))))
