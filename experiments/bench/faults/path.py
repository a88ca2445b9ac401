"""The path that the policy of the fault matrix drives: from wherever the arm stands into a swing of all joints about its home."""

from __future__ import annotations

import numpy as np

AMPLITUDE = 0.25
"""Of every joint's swing [rad]: more than the supervisor's tracking error, so that an encoder that is stuck comes out."""
PERIOD = 2.5
"""Of the swing [s]; the phases of the joints are drawn, so that the arm never stands."""
APPROACH_SPEED = 0.4
"""From where the arm stands to its home [rad/s], on average."""
RAMP = 1.2
"""How long the swing takes to reach its amplitude [s]."""


class SwingPath:
    """Joint positions over time. The same seed, the same swing."""

    def __init__(self, here: np.ndarray, home: np.ndarray, seed: int) -> None:
        """`here`, `home` (nv,) [rad]: where the path begins, and what it swings about."""
        self._here, self._way = here.copy(), home - here
        self._approach = max(float(np.abs(self._way).max()) / APPROACH_SPEED, RAMP)
        self._phase = np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, len(home))

    @property
    def settled(self) -> float:
        """When the swing is whole and about home [s]."""
        return self._approach

    def at(self, t: float) -> np.ndarray:
        """Return the joint positions (nv,) [rad] `t` seconds after the beginning."""
        swing = AMPLITUDE * np.sin(2.0 * np.pi * t / PERIOD + self._phase)
        return self._here + _smooth(t / self._approach) * self._way + _smooth(t / RAMP) * swing


def _smooth(s: float) -> float:
    s = min(max(s, 0.0), 1.0)
    return s**3 * (10.0 - 15.0 * s + 6.0 * s * s)
