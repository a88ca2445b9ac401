"""What runs on each simulation, compiled: rollouts, closed loops and derivatives.

All in one file: numba's cache notices when a file changes, but not when a file that it calls into does. Nothing here allocates: an
error of MuJoCo's leaves such a function by a long jump.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import mujoco
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic

from sim.simulator.engine import library

_POINTER, _INT = types.intp, types.int32
_step = types.ExternalFunction("mj_step", types.void(_POINTER, _POINTER))
_forward = types.ExternalFunction("mj_forward", types.void(_POINTER, _POINTER))
_kinematics = types.ExternalFunction("mj_kinematics", types.void(_POINTER, _POINTER))
_get_state = types.ExternalFunction("mj_getState", types.void(_POINTER, _POINTER, _POINTER, _INT))
_set_state = types.ExternalFunction("mj_setState", types.void(_POINTER, _POINTER, _POINTER, _INT))
_integrate_pos = types.ExternalFunction("mj_integratePos", types.void(_POINTER, _POINTER, _POINTER, types.float64))
_transition = types.ExternalFunction("mjd_transitionFD", types.void(_POINTER, _POINTER, types.float64, _INT, _POINTER, _POINTER, _POINTER,
                                                                    _POINTER))
_STATE = mujoco.mjtState
PHYSICS = int(_STATE.mjSTATE_QPOS | _STATE.mjSTATE_QVEL | _STATE.mjSTATE_ACT)
_POSITIONS, _COMMANDS, _WARM_START = int(_STATE.mjSTATE_QPOS), int(_STATE.mjSTATE_CTRL), int(_STATE.mjSTATE_WARMSTART)
_DOUBLE = 8
"""Bytes."""
STEP = 1e-6
"""Of finite differences, in the units of the tangent and of the commands (MuJoCo's own choice for `mjd_transitionFD`)."""
SENSOR = -1
"""In the place of a field's pointer: a reading of `sensordata`."""
LARGEST = float(mujoco.mjMAXVAL)
WARNINGS = int(mujoco.mjtWarning.mjNWARNING)

_VERSION = (f"mujoco {mujoco.__version__}", np.int64)
"""Part of what compiled code is kept under: MuJoCo's numbers are compiled in."""
ROLLOUT = np.dtype([_VERSION, *((name, np.int64) for name in (
    "starts", "start_size", "actions", "particles", "states", "readings", "reading_count", "charge", "costs", "horizon", "nx", "nu",
    "substeps", "nq", "nv", "physics", "told", "warnings", "ctrl", "qpos", "qvel", "act"))])
"""A rollout's arrays, by their addresses, and sizes; see `Rollouts`."""
LOOP = np.dtype([_VERSION, *((name, np.int64) for name in (
    "states", "actions", "steps", "feedforward", "gains", "lower", "upper", "plain", "plain_count", "rotations", "rotation_count",
    "readings", "reading_count", "lived", "commands", "deviation", "horizon", "nx", "ndx", "nu", "substeps", "physics", "told",
    "warnings"))])
"""A closed loop's arrays, by their addresses, and sizes; see `ClosedLoops`."""
DERIVATIVES = np.dtype([_VERSION, *((name, np.int64) for name in (
    "a", "b", "work", "work_size", "readings", "reading_count", "sensors", "ndx", "moved", "nq", "nv", "nu", "substeps", "told",
    "solve_first", "acceleration", "warnings"))])
"""Likewise, of the derivatives; see `Transitions`."""


@intrinsic
def _pointer(typing: object, address: types.Type, kind: types.Type) -> tuple[object, Callable]:
    """Return an address as a pointer to numbers of a kind."""
    signature = types.CPointer(kind.dtype)(address, kind)

    def generate(context: object, builder: object, signature: object, given: list) -> object:
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    return signature, generate


@intrinsic
def _call(typing: object, function: types.Type, numbers: types.Type) -> tuple[object, Callable]:
    """Call a C function by its address, with a tuple of addresses and sizes, 64-bit numbers."""
    signature = types.void(function, numbers)

    def generate(context: object, builder: object, signature: object, given: list) -> object:
        passed = [context.cast(builder, value, kind, types.int64)
                  for value, kind in zip(cgutils.unpack_tuple(builder, given[1]), numbers, strict=True)]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in passed])
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), passed)
        return context.get_dummy_value()

    return signature, generate


@numba.njit(cache=True)
def _doubles(address: int, shape: int | tuple[int, ...]) -> np.ndarray:
    return numba.carray(_pointer(address, np.float64), shape)


@numba.njit  # not kept by itself: it has MuJoCo's numbers in it
def _warned(data: int, warnings: int) -> int:
    """Return how often MuJoCo has warned; a simulation that diverges does, and is reset."""
    numbers = numba.carray(_pointer(data + warnings, np.int32), 2 * WARNINGS - 1)
    total = 0
    for i in range(WARNINGS):
        total += numbers[2 * i]
    return total


@numba.njit(cache=True)
def _integers(address: int, shape: tuple[int, ...]) -> np.ndarray:
    return numba.carray(_pointer(address, np.int64), shape)


@numba.njit(cache=True)
def _address_in(data: int, slot: int) -> int:
    """Return the pointer that lies `slot` bytes into MjData."""
    return numba.carray(_pointer(data + slot, np.int64), 1)[0]


@numba.njit(cache=True)
def _field(data: int, slot: int, size: int) -> np.ndarray:
    """Return the field whose pointer lies `slot` bytes into MjData."""
    return _doubles(_address_in(data, slot), size)


@numba.njit(cache=True)
def _read(data: int, slot: int, entry: int) -> float:
    """Return an entry of the field whose pointer lies `slot` bytes into MjData."""
    return _doubles(_address_in(data, slot) + _DOUBLE * entry, 1)[0]


@numba.njit  # as `_warned`
def _lives(x: np.ndarray, physics: int) -> bool:
    """Return whether MuJoCo would step from a state: its first entries, the physics, are numbers and not too large."""
    lives = True
    for i in range(physics):
        lives = lives and abs(x[i]) <= LARGEST
    return lives


@numba.njit(cache=True)
def _tell(data: int, lives: bool, start: np.ndarray, x: np.ndarray, physics: int, told: int, readings: np.ndarray) -> None:
    """Write the constants and readings of a new state x (nx,) behind its physics; all of it NaN where it does not live."""
    if lives:
        for i in range(physics, told):
            x[i] = start[i]
        for i in range(len(readings)):
            x[told + i] = _read(data, readings[i, 0], readings[i, 1])
    else:
        for i in range(len(x)):
            x[i] = np.nan


@numba.njit(cache=True, error_model="numpy")
def subtract(x: np.ndarray, y: np.ndarray, plain: np.ndarray, rotations: np.ndarray, dx: np.ndarray) -> None:
    """Write the tangent step dx (ndx,) that leads from x to y (nx,), see `StateSpace.difference`.

    `plain` (n, 3): an entry of x, of dx, and whether it is an angle; `rotations` (n, 2): first entries of quaternions in x and dx.
    """
    for i in range(len(plain)):
        at, to = plain[i, 0], plain[i, 1]
        change = y[at] - x[at]
        if plain[i, 2]:
            change -= 2.0 * np.pi * np.rint(change / (2.0 * np.pi))
        dx[to] = change
    for i in range(len(rotations)):
        at, to = rotations[i, 0], rotations[i, 1]
        pw, p1, p2, p3 = x[at], -x[at + 1], -x[at + 2], -x[at + 3]
        qw, q1, q2, q3 = y[at], y[at + 1], y[at + 2], y[at + 3]
        w = pw * qw - (p1 * q1 + p2 * q2 + p3 * q3)
        v1 = pw * q1 + qw * p1 + (p2 * q3 - p3 * q2)
        v2 = pw * q2 + qw * p2 + (p3 * q1 - p1 * q3)
        v3 = pw * q3 + qw * p3 + (p1 * q2 - p2 * q1)
        if w < 0.0:
            w, v1, v2, v3 = -w, -v1, -v2, -v3
        norm = np.sqrt(v1 * v1 + v2 * v2 + v3 * v3)
        scale = 2.0 * np.arctan2(norm, w) / norm if norm > 1e-12 else 2.0
        dx[to], dx[to + 1], dx[to + 2] = scale * v1, scale * v2, scale * v3


def _roll(model: int, data: int, sample: int, given: object) -> None:
    """Live through one plan and charge it, while its states are still in the caches; NaN from where it diverges."""
    job = numba.carray(given, 1)[0]
    horizon, nx, nu = job.horizon, job.nx, job.nu
    plan = sample // job.particles
    start_at, actions_at = job.starts + _DOUBLE * plan * job.start_size, job.actions + _DOUBLE * plan * horizon * nu
    states_at = job.states + _DOUBLE * sample * horizon * nx
    start, states, actions = _doubles(start_at, nx), _doubles(states_at, (horizon, nx)), _doubles(actions_at, (horizon, nu))
    readings, nq, active = _integers(job.readings, (job.reading_count, 2)), job.nq, job.nq + job.nv
    # a small model's step takes hardly longer than MuJoCo's own functions for its state
    ctrl, qpos, qvel = _field(data, job.ctrl, nu), _field(data, job.qpos, nq), _field(data, job.qvel, job.nv)
    act = _field(data, job.act, job.physics - active)
    at_start, lives = _warned(data, job.warnings), True
    _set_state(model, data, start_at, PHYSICS)
    for t in range(horizon):
        if lives:
            ctrl[:] = actions[t]
            for _ in range(job.substeps):
                _step(model, data)
            states[t, :nq], states[t, nq:active], states[t, active:job.physics] = qpos, qvel, act
            lives = _lives(states[t], job.physics) and _warned(data, job.warnings) == at_start
        _tell(data, lives, start, states[t], job.physics, job.told, readings)
    if job.charge != 0 and lives:
        _call(job.charge, (start_at, 0, states_at, 0, _DOUBLE * nx, actions_at, 0, _DOUBLE * nu, 1, horizon, job.costs + _DOUBLE * sample))
    elif job.charge != 0:  # a cost may look at nothing that is NaN
        _doubles(job.costs, sample + 1)[sample] = np.nan


def _live(model: int, data: int, sample: int, given: object) -> None:
    """Live through one closed loop, from the state that the simulation is in; NaN from where it diverges."""
    job = numba.carray(given, 1)[0]
    horizon, nx, ndx, nu = job.horizon, job.nx, job.ndx, job.nu
    states, actions = _doubles(job.states, (horizon + 1, nx)), _doubles(job.actions, (horizon, nu))
    feedforward, gains = _doubles(job.feedforward, (horizon, nu)), _doubles(job.gains, (horizon, nu, ndx))
    lower, upper, step = _doubles(job.lower, nu), _doubles(job.upper, nu), _doubles(job.steps, sample + 1)[sample]
    lived_at, commands_at = job.lived + _DOUBLE * sample * (horizon + 1) * nx, job.commands + _DOUBLE * sample * horizon * nu
    lived, commands = _doubles(lived_at, (horizon + 1, nx)), _doubles(commands_at, (horizon, nu))
    deviation = _doubles(job.deviation + _DOUBLE * sample * ndx, ndx)
    plain, rotations = _integers(job.plain, (job.plain_count, 3)), _integers(job.rotations, (job.rotation_count, 2))
    readings = _integers(job.readings, (job.reading_count, 2))
    at_start, lives = _warned(data, job.warnings), True
    for t in range(horizon):
        if lives:
            subtract(states[t], lived[t], plain, rotations, deviation)
            for i in range(nu):
                wanted = actions[t, i] + step * feedforward[t, i]
                for j in range(ndx):
                    wanted += gains[t, i, j] * deviation[j]
                commands[t, i] = min(max(wanted, lower[i]), upper[i])
            _set_state(model, data, commands_at + _DOUBLE * t * nu, _COMMANDS)
            for _ in range(job.substeps):
                _step(model, data)
            _get_state(model, data, lived_at + _DOUBLE * (t + 1) * nx, PHYSICS)
            lives = _lives(lived[t + 1], job.physics) and _warned(data, job.warnings) == at_start
        else:
            for i in range(nu):
                commands[t, i] = np.nan
        _tell(data, lives, lived[0], lived[t + 1], job.physics, job.told, readings)


def _differentiate(model: int, data: int, period: int, given: object) -> None:
    """Write the derivatives of one control period from the state and command that the simulation has; NaN where it diverges.

    By the chain rule over the physics steps. Readings are taken at the beginning of the last one.
    """
    job = numba.carray(given, 1)[0]
    n, nu, count, sensors, ndx = job.moved, job.nu, job.reading_count, job.sensors, job.ndx
    readings, at = _integers(job.readings, (count, 2)), job.work + _DOUBLE * period * job.work_size
    step_a, step_b, at = _doubles(at, (n, n)), _doubles(at + _DOUBLE * n * n, (n, nu)), at + _DOUBLE * n * (n + nu)
    so_far, after, at = _doubles(at, (n, n + nu)), _doubles(at + _DOUBLE * n * (n + nu), (n, n + nu)), at + 2 * _DOUBLE * n * (n + nu)
    read_a, read_b, at = _doubles(at, (count, n)), _doubles(at + _DOUBLE * count * n, (count, nu)), at + _DOUBLE * count * (n + nu)
    told, at = _doubles(at, (count, n + nu)), at + _DOUBLE * count * (n + nu)
    sensor_a_at, sensor_b_at, work = at, at + _DOUBLE * sensors * n, at + _DOUBLE * sensors * (n + nu)
    at_start = _warned(data, job.warnings)
    if job.solve_first:  # every difference then begins at the solution
        _forward(model, data)
        _set_state(model, data, _address_in(data, job.acceleration), _WARM_START)
    for step in range(job.substeps):
        last = step == job.substeps - 1
        if last and count > 0:
            _look(model, data, job.nq, job.nv, readings, read_a, read_b, work)
        see = last and sensors > 0
        _transition(model, data, STEP, 0, step_a.ctypes.data, step_b.ctypes.data, sensor_a_at if see else 0, sensor_b_at if see else 0)
        if see:
            _take(_doubles(sensor_a_at, (sensors, n)), readings, read_a)
            _take(_doubles(sensor_b_at, (sensors, nu)), readings, read_b)
        if last:
            _chain(read_a, read_b, so_far, step == 0, told)
        _chain(step_a, step_b, so_far, step == 0, after)
        so_far, after = after, so_far
        if not last:
            _step(model, data)
    a, b = _doubles(job.a + _DOUBLE * period * ndx * ndx, (ndx, ndx)), _doubles(job.b + _DOUBLE * period * ndx * nu, (ndx, nu))
    diverged = _warned(data, job.warnings) != at_start
    _put(so_far, 0, diverged, a, b)
    _put(told, job.told, diverged, a, b)


@numba.njit(cache=True)
def _chain(outer_a: np.ndarray, outer_b: np.ndarray, inner: np.ndarray, first: bool, out: np.ndarray) -> None:
    """Write the derivatives of what depends on the state by `outer_a` and on the command by `outer_b` into `out`, all by [x, u].

    `inner`: those of the state, where this is not the first physics step.
    """
    rows, n = outer_a.shape
    for i in range(rows):
        for j in range(out.shape[1]):
            out[i, j] = 0.0
        if first:
            for j in range(n):
                out[i, j] = outer_a[i, j]
        else:
            for k in range(n):
                for j in range(out.shape[1]):
                    out[i, j] += outer_a[i, k] * inner[k, j]
        for j in range(outer_b.shape[1]):
            out[i, n + j] += outer_b[i, j]


@numba.njit(cache=True)
def _take(sensors: np.ndarray, readings: np.ndarray, rows: np.ndarray) -> None:
    """Copy the derivatives of those sensors that are read."""
    for i in range(len(readings)):
        if readings[i, 0] == SENSOR:
            for j in range(rows.shape[1]):
                rows[i, j] = sensors[readings[i, 1], j]


@numba.njit(cache=True)
def _put(found: np.ndarray, row: int, diverged: bool, a: np.ndarray, b: np.ndarray) -> None:
    """Copy derivatives by [x, u] into rows of A and B; NaN, constants and all, where the simulation diverged."""
    rows, nu = len(found), b.shape[1]
    n = found.shape[1] - nu
    for i in range(rows):
        for j in range(n):
            a[row + i, j] = np.nan if diverged else found[i, j]
        for j in range(nu):
            b[row + i, j] = np.nan if diverged else found[i, n + j]


@numba.njit(error_model="numpy")  # as `_warned`
def _look(model: int, data: int, nq: int, nv: int, readings: np.ndarray, rows_a: np.ndarray, rows_b: np.ndarray, work: int) -> None:
    """Write the derivatives of readings that are no sensors: by position, which alone kinematics depend on."""
    q, moved, along = _doubles(work, nq), _doubles(work + _DOUBLE * nq, nq), _doubles(work + 2 * _DOUBLE * nq, nv)
    here = _doubles(work + _DOUBLE * (2 * nq + nv), len(readings))
    _get_state(model, data, work, _POSITIONS)
    _kinematics(model, data)
    for i in range(len(readings)):
        if readings[i, 0] != SENSOR:
            here[i] = _read(data, readings[i, 0], readings[i, 1])
            for j in range(rows_a.shape[1]):
                rows_a[i, j] = 0.0
            for j in range(rows_b.shape[1]):
                rows_b[i, j] = 0.0
    for j in range(nv):
        for i in range(nq):
            moved[i] = q[i]
        for i in range(nv):
            along[i] = 1.0 if i == j else 0.0
        _integrate_pos(model, moved.ctypes.data, along.ctypes.data, STEP)
        _set_state(model, data, moved.ctypes.data, _POSITIONS)
        _kinematics(model, data)
        for i in range(len(readings)):
            if readings[i, 0] != SENSOR:
                rows_a[i, j] = (_read(data, readings[i, 0], readings[i, 1]) - here[i]) / STEP
    _set_state(model, data, q.ctypes.data, _POSITIONS)


@functools.cache
def roll() -> int:
    """Return the address of the compiled `_roll`."""
    return _address(_roll, ROLLOUT)


@functools.cache
def live() -> int:
    """Return the address of the compiled `_live`."""
    return _address(_live, LOOP)


@functools.cache
def differentiate() -> int:
    """Return the address of the compiled `_differentiate`."""
    return _address(_differentiate, DERIVATIVES)


def _address(function: Callable, job: np.dtype) -> int:
    library()
    return numba.cfunc(types.void(_POINTER, _POINTER, _INT, types.CPointer(numba.from_dtype(job))), cache=True)(function).address
