"""States as free numbers, for solvers that know vectors only: rotations as rotation vectors from a reference."""

from __future__ import annotations

import numpy as np
import torch

from dynamics.state_space import StateSpace

SMALL = 1e-2
"""[rad] below it formulas are their series, which err by 1e-12."""


Blocks = list[np.ndarray]
"""Derivatives (H, 3, 3) of each rotation in turn; plain numbers have a slope of one, and everything else none."""


class RotationCoordinates:
    """Coordinates (..., ndx) of states (..., nx): plain numbers and angles as they are, each rotation as the vector [rad] that turns the
    reference's into it, in the turned body's own frame.

    One to one within half a turn of the reference, smooth within a whole one.
    """

    def __init__(self, space: StateSpace) -> None:
        self._space = space
        self._turning = [slice(tangent, tangent + 3) for _, tangent, *_ in space.quaternions]
        self._rotations = np.concatenate([np.arange(at, at + 4) for at, *_ in space.quaternions] or [np.arange(0)])
        self.plain_states = np.setdiff1d(np.arange(space.nx), self._rotations)
        """Entries of a state that are coordinates themselves ..."""
        self.plain = np.setdiff1d(np.arange(space.ndx), [i for turning in self._turning for i in range(turning.start, turning.stop)])
        """... and which these are."""
        self._reference = np.zeros((1, space.nx))

    def refer_to(self, states: np.ndarray) -> None:
        """Take the rotations of states (H, nx) for references."""
        self._reference = np.zeros_like(states)
        self._reference[:, self._rotations] = states[:, self._rotations]

    def of(self, states: np.ndarray) -> np.ndarray:
        """Return the coordinates (H, ndx) of states (H, nx)."""
        found = self._space.difference(torch.from_numpy(self._reference), torch.from_numpy(states)).numpy()
        found[:, self.plain] = states[:, self.plain_states]  # angles with all their turns
        return found

    def states(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the states (H, nx) at coordinates (H, ndx)."""
        return self._space.integrate(torch.from_numpy(self._reference), torch.from_numpy(coordinates)).numpy()

    def slopes(self, coordinates: np.ndarray) -> Blocks:
        """Return the derivatives of the state, on its tangent, by its coordinates (H, ndx); those of `integrate` by its step too."""
        return [right_jacobian(coordinates[:, turning]) for turning in self._turning]

    def difference_slopes(self, differences: np.ndarray) -> tuple[Blocks, Blocks]:
        """Return the derivatives of difference(x, y) by y, and, but for their sign, by x, where it is `differences` (H, ndx)."""
        return [np.linalg.inv(block) for block in self.slopes(differences)], [np.linalg.inv(block) for block in self.slopes(-differences)]

    def times(self, matrices: np.ndarray, blocks: Blocks) -> np.ndarray:
        """Return matrices (H, k, ndx or more) times derivatives."""
        found = matrices.copy()
        for turning, block in zip(self._turning, blocks, strict=True):
            found[..., turning] = np.einsum("tki,tij->tkj", matrices[..., turning], block)
        return found

    def into(self, blocks: Blocks, matrices: np.ndarray) -> np.ndarray:
        """Return derivatives times matrices (H, ndx or more, k)."""
        return self.times(matrices.transpose(0, 2, 1), [block.transpose(0, 2, 1) for block in blocks]).transpose(0, 2, 1)


def right_jacobian(rotation: np.ndarray) -> np.ndarray:
    """Return the matrices (..., 3, 3) J with exp(v + dv) = exp(v) exp(J dv) to first order, of rotation vectors v (..., 3) [rad].

    The left Jacobian is that of -v. (Sola et al. 2018, A micro Lie theory for state estimation in robotics, eq. 143.)
    """
    x, y, z = np.moveaxis(rotation, -1, 0)
    none = np.zeros_like(x)
    cross = np.stack([none, -z, y, z, none, -x, -y, x, none], axis=-1).reshape(*rotation.shape, 3)
    angle = np.linalg.norm(rotation, axis=-1)[..., None, None]
    safe = np.maximum(angle, SMALL)
    first = np.where(angle < SMALL, 1 / 2 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    second = np.where(angle < SMALL, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    return np.eye(3) - first * cross + second * cross @ cross
