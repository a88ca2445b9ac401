"""Which encoder stood still while its set-point went on: a fact for the words of a stop, no reason for one."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

NOTABLE = 0.003
"""A set-point that went so far [rad] without its encoder is worth telling: more than a step of any encoder here."""


class StillEncoders:
    """Remembers for every joint where its set-point was when its encoder last said something new. `look` once a period."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._q, self._since = tuple(names), np.full(len(names), np.nan), np.zeros(len(names))
        still(self._q, self._q.copy(), self._since, self._since.copy())  # compiles it

    def reset(self) -> None:
        """Forget everything: the arm is taken hold of anew."""
        self._q[:] = np.nan

    def look(self, q: np.ndarray, set_point: np.ndarray) -> None:
        """Take what was measured, q (nv,), and the set-point (nv,) that it was measured under [rad]."""
        still(q, self._q, set_point, self._since)

    def words(self, set_point: np.ndarray) -> str:
        """Return which encoder stood still for longest while the set-point came to (nv,) [rad], empty where none did."""
        went = np.abs(set_point - self._since)
        i = int(np.argmax(went))
        if np.isnan(self._q[i]) or went[i] < NOTABLE:
            return ""
        return f"the encoder of {self._names[i]} told nothing new while its set-point went {went[i]:.3f} rad"


@numba.njit(cache=True)
def still(q: np.ndarray, before: np.ndarray, set_point: np.ndarray, since: np.ndarray) -> None:
    """Where q (n,) differs from `before` (n,), put it there, and the set-point (n,) into `since` (n,)."""
    for i in range(q.shape[0]):
        if q[i] != before[i]:
            before[i], since[i] = q[i], set_point[i]
