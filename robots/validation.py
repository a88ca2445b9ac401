"""Checks at the door: arrays are converted, shaped, found finite and frozen exactly once."""

from __future__ import annotations

import numpy as np

from robots.errors import ConfigurationError, NonFiniteError, ShapeError

_NORM_TOLERANCE = 1e-3


def checked_array(name: str, value: object, shape: tuple[int | None, ...], *, finite: bool = True) -> np.ndarray:
    """Return `value` as a read-only float64 copy of `shape` (None: any length).

    Raises ShapeError or NonFiniteError, both naming `name`, what was got and what was expected.
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name}: expected numbers of shape {_show(shape)}, got {type(value).__name__} ({error})") from error
    if array.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=True)):
        raise ShapeError(f"{name}: expected shape {_show(shape)}, got {array.shape}")
    if finite and not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        raise NonFiniteError(f"{name}: expected finite numbers, got {array[tuple(where)]} at index {where}")
    array.setflags(write=False)
    return array


def checked_pose(name: str, pose: object) -> np.ndarray:
    """Return `pose` (7,), position [m] and quaternion wxyz, with the quaternion scaled to length one.

    ConfigurationError, which names `name`, where it is not nearly so; ShapeError or NonFiniteError as `checked_array`.
    """
    pose = checked_array(name, pose, (7,)).copy()
    length = np.linalg.norm(pose[3:])
    if abs(length - 1) > _NORM_TOLERANCE:
        raise ConfigurationError(f"{name}: expected a unit quaternion wxyz in entries 3 to 6, got {pose[3:].tolist()} of length "
                                 f"{length:.6g}; divide it by its length")
    pose[3:] /= length
    return pose


def _show(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
