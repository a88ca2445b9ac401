"""MuJoCo's C library: many simulations of one model on its own threads, on each of which a compiled function runs."""

from __future__ import annotations

import ctypes
import functools
import itertools
import weakref
from collections.abc import Sequence
from pathlib import Path

import llvmlite.binding
import mujoco
import numpy as np

from robots.errors import ConfigurationError

_MESSAGE = 500
"""Characters of an error, at most."""
_CALLBACKS = {name: getattr(mujoco, f"get_mjcb_{name}") for name in (
    "passive", "control", "contactfilter", "sensor", "time", "act_dyn", "act_gain", "act_bias")}
"""What MuJoCo calls while it steps, as mujoco.set_mjcb_* names it."""
_C_FUNCTION = ctypes.CFUNCTYPE(None).__base__


@functools.cache
def library() -> ctypes.CDLL:
    """Return MuJoCo's own shared library, with what is used of `mjbatch.h` declared, its symbols known to compiled code.

    ConfigurationError where it is not found beside the Python package.
    """
    for path in sorted(Path(mujoco.__file__).parent.glob("libmujoco.*")):
        llvmlite.binding.load_library_permanently(str(path))
        found = ctypes.CDLL(str(path))
        break
    else:
        raise ConfigurationError(f"found no libmujoco in {Path(mujoco.__file__).parent}; install the package mujoco from its wheel")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    found.mjb_makeBatch.restype = pointer
    found.mjb_makeBatch.argtypes = [pointer, number, pointer, ctypes.c_char_p, number]
    found.mjb_deleteBatch.restype, found.mjb_deleteBatch.argtypes = None, [pointer]
    found.mjb_nstate.restype, found.mjb_nstate.argtypes = number, [pointer]
    for function in (found.mjb_state, found.mjb_status):
        function.restype, function.argtypes = pointer, [pointer]
    found.mjb_stateComponent.restype, found.mjb_stateComponent.argtypes = pointer, [pointer, number, pointer]
    found.mjb_setModels.restype, found.mjb_setModels.argtypes = None, [pointer, pointer]
    found.mjb_apply.restype, found.mjb_apply.argtypes = number, [pointer, pointer, number, pointer, pointer, number]
    return found


def refuse_python_callbacks() -> None:
    """Raise ConfigurationError where a Python function is installed as one of MuJoCo's callbacks, which its own threads cannot call."""
    for name, installed in _CALLBACKS.items():
        callback = installed()
        if callback is not None and not isinstance(callback, _C_FUNCTION):
            called = getattr(callback, "__name__", type(callback).__name__)
            raise ConfigurationError(f"mjcb_{name} is the Python function {called!r}, which MuJoCo's threads cannot call; plan without it, "
                                     f"mujoco.set_mjcb_{name}(None), or install a C function through ctypes")


class _Config(ctypes.Structure):
    """mjBatchConfig"""

    _fields_ = (("threads", ctypes.c_int), ("persistent", ctypes.c_bool))


class Simulations:
    """`count` simulations of a copy of a model; what runs on one sees nothing that another left behind.

    Functions begin with no history: nothing of what they do to a simulation's state is kept, so time and warm starts are those of a new
    MjData.
    """

    def __init__(self, model: mujoco.MjModel, count: int, threads: int) -> None:
        self.count = count
        self._library = library()
        message = ctypes.create_string_buffer(_MESSAGE)
        config = _Config(min(threads, count), False)
        self._batch = self._library.mjb_makeBatch(model._address, count, ctypes.byref(config), message, _MESSAGE)
        if not self._batch:
            raise ConfigurationError(f"MuJoCo cannot simulate this model {count} times: {message.value.decode()}")
        weakref.finalize(self, self._library.mjb_deleteBatch, self._batch)
        self._rows = self._array(self._library.mjb_state(self._batch), ctypes.c_double, (count, self._library.mjb_nstate(self._batch)))
        self._status = self._array(self._library.mjb_status(self._batch), ctypes.c_int, (count,))
        self._ids = np.arange(count, dtype=np.int32)
        self._ids_at = self._ids.ctypes.data
        state = mujoco.mjtState
        self._qpos, self._qvel, self._act, self._ctrl = (
            self._component(part) for part in (state.mjSTATE_QPOS, state.mjSTATE_QVEL, state.mjSTATE_ACT, state.mjSTATE_CTRL))

    def begin(self, starts: np.ndarray, commands: np.ndarray | None = None) -> None:
        """Put the first simulations into `starts` (n, nq + nv + na), or all of `starts` (nq + nv + na,), under `commands` (n, nu)."""
        n = len(starts) if starts.ndim == 2 else self.count
        nq, nv = self._qpos.shape[1], self._qvel.shape[1]
        self._qpos[:n], self._qvel[:n], self._act[:n] = starts[..., :nq], starts[..., nq:nq + nv], starts[..., nq + nv:]
        if commands is not None:
            self._ctrl[:n] = commands

    def take_turns(self, models: Sequence[mujoco.MjModel]) -> None:
        """Have the simulations run on `models`, of the batch's layout: the first one on the first, the second on the second, and so on."""
        addresses = np.array([models[i % len(models)]._address for i in range(self.count)], dtype=np.uint64)
        self._library.mjb_setModels(self._batch, addresses.ctypes.data)
        self._models = tuple(models), addresses  # which the batch reads from now on

    def run(self, function: int, job: int, count: int) -> np.ndarray:
        """Call function(model, data, number, job) on the first `count` simulations; return those (n,) in which MuJoCo raised an error.

        `function` is a C function's address, `job` that of what it is told. ConfigurationError where a callback is a Python function.
        """
        refuse_python_callbacks()
        failed = self._library.mjb_apply(self._batch, self._ids_at, count, function, job, 0)
        return np.flatnonzero(self._status[:count]) if failed else self._ids[:0]

    def _component(self, part: mujoco.mjtState) -> np.ndarray:
        """Return the view (count, n) of a part of the states."""
        size = ctypes.c_int()
        at = self._library.mjb_stateComponent(self._batch, int(part), ctypes.byref(size))
        first = (at - self._rows.ctypes.data) // 8 if size.value else 0
        return self._rows[:, first:first + size.value]

    @staticmethod
    def _array(address: int, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        """Return what lies at an address, without a copy."""
        return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(kind)), shape)


def at_least(count: int, simulations: Simulations | None, model: mujoco.MjModel, threads: int) -> Simulations:
    """Return `simulations` where they are enough, or `count` new ones."""
    return Simulations(model, count, threads) if simulations is None or simulations.count < count else simulations


def warnings_at(data: mujoco.MjData) -> int:
    """Return where in MjData its counters of warnings begin [bytes]: the first of pairs of 32-bit numbers, of which every second counts."""
    return data.warning.number.ctypes.data - data._address


def slot_of(data: mujoco.MjData, field: str) -> int:
    """Return where in MjData the pointer to an array lies [bytes]; the same in every MjData of this MuJoCo."""
    pointers = warnings_at(data) - 4  # which follow the counters
    address = getattr(data, field).ctypes.data
    return next(at for at in itertools.count(pointers, 8) if ctypes.c_uint64.from_address(data._address + at).value == address)
