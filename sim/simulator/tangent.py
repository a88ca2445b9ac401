"""Differences and steps on the tangent of a physics space in NumPy: torch's overhead would be a good part of a short rollout."""

from __future__ import annotations

import numpy as np
import torch

from dynamics.state_space import Kind, Target
from sim.simulator.physics_space import READINGS, PhysicsSpace


class TangentArithmetic:
    """What `PhysicsSpace.difference` and `integrate` do, for arrays."""

    def __init__(self, space: PhysicsSpace) -> None:
        self._space = space
        angles, moved, constant, plain, rotations, entry, at = [], [], [], [], [], 0, 0
        for channel in space.channels:
            size = 3 if channel.kind is Kind.QUATERNION else len(channel.indices)
            entries = range(entry, entry + size)
            if channel.kind is Kind.QUATERNION:
                rotations.append((at, entry))
            else:
                plain += [(at + i, entry + i, channel.kind is Kind.ANGLE) for i in range(size)]
            at += len(channel.indices)
            if channel.kind is Kind.ANGLE:
                angles += entries
            if channel.target is Target.CONSTANT:
                constant += entries
            elif channel.source != READINGS:
                moved += entries
            entry += size
        self._angles = np.array(angles, dtype=np.intp)
        self.moved = np.array(moved, dtype=np.intp)
        """Entries of the tangent that the physics depend on."""
        self.plain = np.array(plain, dtype=np.int64).reshape(-1, 3)
        """Where plain numbers are in x and in the tangent, and which of them are angles: see `kernels.subtract`."""
        self.rotations = np.array(rotations, dtype=np.int64).reshape(-1, 2)
        """Likewise, where rotations begin."""
        self.constant_rows = np.zeros((space.ndx, space.ndx))
        """(ndx, ndx) the part of A that is known: constants stay."""
        self.constant_rows[constant, constant] = 1.0

    def difference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return dx (..., ndx) that leads from x to y (..., nx)."""
        if self._space.has_quaternions:
            return self._space.difference(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))).numpy()
        dx = y - x
        if len(self._angles):
            turned = dx[..., self._angles]
            dx[..., self._angles] = turned - 2.0 * np.pi * np.round(turned / (2.0 * np.pi))
        return dx

    def step(self, x: np.ndarray, entry: int, size: float) -> np.ndarray:
        """Return the states (..., nx) that a step of `size` along one entry of the tangent leads to from x (..., nx)."""
        if self._space.has_quaternions:
            dx = torch.zeros(*x.shape[:-1], self._space.ndx, dtype=torch.float64)
            dx[..., entry] = size
            return self._space.integrate(torch.from_numpy(x), dx).numpy()
        y = x.copy()
        y[..., entry] += size
        return y
