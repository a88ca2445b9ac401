"""The state of a MuJoCo model as a state space: positions, velocities, activations, then constants of the episode, then readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from dynamics.state_space import Channel, Kind, StateSpace, Target
from robots.errors import ConfigurationError, NonFiniteError, UnknownNameError
from robots.observation import Observation
from sim.mujoco_description import degree_of_freedom_names
from sim.simulator.reading import Reading

READINGS = "readings"
"""Source of the readings' channels."""
_PLACES = ("x", "y", "z")
_TURNS = ("qw", "qx", "qy", "qz")


class PhysicsSpace(StateSpace):
    """x holds q (nq,), dq (nv,) and activations (na,) of `model`, then `constants`, then `readings`.

    The tangent has MuJoCo's order and conventions: nv entries for q (rotations in the body's own frame), nv for dq. Hinges without
    a stop are angles. Readings are for costs: what MuJoCo works out of the state (where a tip is, how fast a centre of mass goes). They
    tell no future.

    Activations are read from `Observation.extra['act']`, where the model has any.
    """

    def __init__(self, model: mujoco.MjModel, constants: Sequence[Channel] = (), readings: Sequence[Reading] = ()) -> None:
        """ConfigurationError for constants that are not, UnknownNameError for a reading of what the model lacks."""
        for channel in constants:
            if channel.target is not Target.CONSTANT:
                raise ConfigurationError(f"PhysicsSpace: {channel.names} is no constant; what moves belongs to the model")
        self.nq, self.nv, self.na = model.nq, model.nv, model.na
        self.readings = tuple(readings)
        self._entries = [(reading.field, reading.entries(model)) for reading in self.readings]
        told, count = [], 0
        for reading in self.readings:
            places = range(count, count := count + len(reading.columns))
            told.append(Channel(READINGS, reading.names, tuple(places), target=Target.ABSOLUTE, model_input=False))
        super().__init__([*_physics(model), *constants, *told])
        self.physics = self.nq + self.nv + self.na
        """Entries of x that are the model's own state; constants and readings follow."""
        self._model, self._data = model, mujoco.MjData(model)

    def state(self, observation: Observation) -> np.ndarray:
        """Return x (nx,) float64; the readings are worked out here, from q and dq. NonFiniteError where they are not finite."""
        data = self._data
        mujoco.mj_resetData(self._model, data)
        data.qpos[:], data.qvel[:] = observation.q, observation.dq
        extra = dict(observation.extra)
        if self.na:
            if "act" not in extra:
                raise UnknownNameError("entry of Observation.extra", "act", extra,
                                       hint="this model has actuators with a state of their own, which the robot has to report")
            data.act[:] = extra["act"]
        if self.readings:
            mujoco.mj_forward(self._model, data)
            extra[READINGS] = self.read({field: getattr(data, field).reshape(-1) for field in self.fields})
            if not np.isfinite(extra[READINGS]).all():
                raise NonFiniteError(f"{[reading.name for reading in self.readings]} are {extra[READINGS].tolist()} in the observed "
                                     "state: the physics diverge there")
        return super().state(Observation(observation.stamp_ns, observation.q, observation.dq, observation.tau, observation.ee_pose, {},
                                         extra))

    @property
    def fields(self) -> list[str]:
        """Fields of MjData that the readings come from."""
        return list(dict.fromkeys(field for field, _ in self._entries))

    def read(self, fields: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the readings (..., n) from the fields of MjData, each (..., m) with its entries taken flat."""
        return np.concatenate([fields[field][..., entries] for field, entries in self._entries], axis=-1)


def _physics(model: mujoco.MjModel) -> list[Channel]:
    channels = []
    for joint in range(model.njnt):
        name, at = model.joint(joint).name or f"joint_{joint}", int(model.jnt_qposadr[joint])
        match model.jnt_type[joint]:
            case mujoco.mjtJoint.mjJNT_FREE:
                channels.append(Channel("q", tuple(f"{name}_{axis}" for axis in _PLACES), (at, at + 1, at + 2)))
                channels.append(Channel("q", tuple(f"{name}_{axis}" for axis in _TURNS), tuple(range(at + 3, at + 7)), Kind.QUATERNION))
            case mujoco.mjtJoint.mjJNT_BALL:
                channels.append(Channel("q", tuple(f"{name}_{axis}" for axis in _TURNS), tuple(range(at, at + 4)), Kind.QUATERNION))
            case kind:
                turns = kind == mujoco.mjtJoint.mjJNT_HINGE and not model.jnt_limited[joint]
                channels.append(Channel("q", (name,), (at,), Kind.ANGLE if turns else Kind.LINEAR))
    channels.append(Channel("dq", tuple(f"{name}_rate" for name in degree_of_freedom_names(model)), tuple(range(model.nv))))
    if model.na:
        channels.append(Channel("act", tuple(f"activation_{i}" for i in range(model.na)), tuple(range(model.na))))
    return channels
