"""Torch's operations that compute nothing, on arrays of numbers: views stay views, so that what is written in place is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from planners.compiler.arithmetic import as_array
from planners.compiler.expression import NotCompilable, Number


def _along(a: np.ndarray, dim: int, which: slice) -> np.ndarray:
    return a[(*[slice(None)] * (dim % a.ndim), which)]


def _select(a: Any, dim: int, index: int) -> np.ndarray:
    return _along(as_array(a), dim, slice(index, index + 1 or None)).squeeze(dim)


def _slice(a: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> np.ndarray:
    return _along(as_array(a), dim, slice(start, end, step))


def _places(indices: Sequence[Any]) -> tuple[Any, ...]:
    if any(isinstance(n, Number) for i in indices if i is not None for n in as_array(i).flat):
        raise NotCompilable("it picks entries by numbers that are not known before")
    return tuple(slice(None) if i is None else _known_places(as_array(i)) for i in indices)


def _known_places(index: np.ndarray) -> np.ndarray:
    """Return places, or truths, that went through arithmetic as they were."""
    if index.dtype != object:
        return index
    return index.astype(bool if all(isinstance(n, bool) for n in index.flat) else np.int64)


def _index(a: Any, indices: Sequence[Any]) -> np.ndarray:
    return as_array(a)[_places(indices)]


def _index_put(a: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> np.ndarray:
    if accumulate:
        raise NotCompilable("it adds to entries that it picks")
    a = as_array(a).astype(object)
    a[_places(indices)] = values
    return a


def _split(a: Any, sizes: int | Sequence[int], dim: int = 0) -> list[np.ndarray]:
    whole = np.shape(a)[dim]
    sizes = [min(sizes, whole - at) for at in range(0, whole, sizes)] if isinstance(sizes, int) else sizes
    edges = np.cumsum([0, *sizes]).tolist()
    return [_slice(a, dim, start, end) for start, end in pairwise(edges)]


def _squeeze(a: Any, dim: int | None = None) -> np.ndarray:
    a = as_array(a)
    return a.squeeze() if dim is None else a.squeeze(dim) if a.shape[dim] == 1 else a


def _expand(a: Any, shape: Sequence[int], **_: Any) -> np.ndarray:
    a = as_array(a)
    known = [1] * (len(shape) - a.ndim) + list(a.shape)
    return np.broadcast_to(a, [k if s == -1 else s for s, k in zip(shape, known, strict=True)])


def _filled(shape: Sequence[int], number: Any) -> np.ndarray:
    filled = np.empty(tuple(shape), object)
    filled[...] = number
    return filled


def _same(a: Any, *_: Any, **__: Any) -> Any:
    return a


def _given(a: Any, b: Any, *_: Any) -> Any:
    return b


def _viewed(a: Any, shape: Sequence[int]) -> np.ndarray:
    return as_array(a).reshape(shape)


def _objects(tensors: Sequence[Any]) -> list[np.ndarray]:
    return [as_array(t).astype(object) for t in tensors]


SHAPES: dict[str, Callable[..., Any]] = {
    "select": _select,
    "slice": _slice,
    "index": _index,
    "index_put": _index_put,
    "cat": lambda tensors, dim=0: np.concatenate(_objects(tensors), axis=dim),
    "stack": lambda tensors, dim=0: np.stack(_objects(tensors), axis=dim),
    "unbind": lambda a, dim=0: [_select(a, dim, i) for i in range(np.shape(a)[dim])],
    "split": _split,
    "split_with_sizes": _split,
    "view": _viewed,
    "reshape": _viewed,
    "unsafe_view": _viewed,
    "unsqueeze": lambda a, dim: np.expand_dims(as_array(a), dim),
    "squeeze": _squeeze,
    "expand": _expand,
    "permute": lambda a, dims: as_array(a).transpose(dims),
    "transpose": lambda a, first, second: as_array(a).swapaxes(first, second),
    "t": lambda a: as_array(a).T,
    "flip": lambda a, dims: np.flip(as_array(a), axis=tuple(dims)),
    "clone": lambda a, **_: as_array(a).astype(object),
    "detach": _same,
    "alias": _same,
    "lift_fresh_copy": _same,
    "contiguous": _same,
    "copy": _given,
    "fill": _given,
    "zeros": lambda shape, **_: _filled(shape, 0.0),
    "ones": lambda shape, **_: _filled(shape, 1.0),
    "full": lambda shape, number, **_: _filled(shape, number),
    "scalar_tensor": lambda number, **_: _filled((), number),
    "zeros_like": lambda a, **_: _filled(np.shape(a), 0.0),
    "ones_like": lambda a, **_: _filled(np.shape(a), 1.0),
    "full_like": lambda a, number, **_: _filled(np.shape(a), number),
    "new_zeros": lambda a, shape, **_: _filled(shape, 0.0),
    "new_ones": lambda a, shape, **_: _filled(shape, 1.0),
    "new_full": lambda a, shape, number, **_: _filled(shape, number),
}
"""By torch's names, without what marks those that write in place."""
