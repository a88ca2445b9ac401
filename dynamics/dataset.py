"""Transitions that a model learns from, cut out of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynamics.state_space import StateSpace
from episodes.episode import Episode
from robots.errors import NonFiniteError, ShapeError, StoreError


@dataclass(frozen=True)
class TransitionData:
    """n transitions of several episodes, float64."""

    x: Tensor
    """(n, nx) states."""
    u: Tensor
    """(n, nu) commands as they were applied."""
    x_next: Tensor
    """(n, nx) states one period later."""
    dt: Tensor
    """(n,) measured length of the period [s]."""
    cost: Tensor
    """(n,) what the period was charged."""
    terminal: Tensor
    """(n,) bool, True where the episode ended there for good."""
    episode: Tensor
    """(n,) index of the episode, int64."""

    def __len__(self) -> int:
        return len(self.x)

    def of_episodes(self, indices: set[int]) -> TransitionData:
        """Return the transitions of those episodes."""
        keep = torch.isin(self.episode, torch.tensor(sorted(indices), dtype=torch.long))
        return TransitionData(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    def check(self, nx: int, nu: int) -> None:
        """Raise ShapeError unless states are (nx,) and commands (nu,), NonFiniteError (naming the episode) for NaN or infinity."""
        if self.x.shape[1] != nx or self.u.shape[1] != nu:
            raise ShapeError(f"fit: expected states ({nx},) and commands ({nu},), got {tuple(self.x.shape)} and {tuple(self.u.shape)}")
        for name in ("x", "u", "x_next", "dt", "cost"):
            bad = ~getattr(self, name).isfinite().reshape(len(self), -1).all(-1)
            if bad.any():
                raise NonFiniteError(f"fit: {name} of episode {int(self.episode[bad][0])} holds NaN or infinity; leave that episode out")


def transition_data(episodes: Mapping[int, Episode], space: StateSpace) -> TransitionData:
    """Return the transitions of episodes {index: episode}; StoreError if there are none, ShapeError if they are of another state."""
    if not episodes:
        raise StoreError("no episodes to learn from: collect at least one first (reflexarc learn does)")
    columns: list[list[np.ndarray]] = [[] for _ in range(7)]
    for index, episode in episodes.items():
        x, u, x_next, dt = episode.transitions()
        if x.shape[1] != space.nx:
            raise ShapeError(f"episode {index}: its states have {x.shape[1]} entries, the state space has {space.nx}")
        terminal = np.zeros(len(x), dtype=bool)
        terminal[-1] = episode.terminated
        for column, values in zip(columns, (x, u, x_next, dt, episode.cost, terminal, np.full(len(x), index)), strict=True):
            column.append(values)
    return TransitionData(*(torch.from_numpy(np.concatenate(column)) for column in columns))


def bootstrap_counts(data: TransitionData, members: int, seed: int) -> Tensor:
    """Return how often each member sees each transition, (n, E) int64: Poisson(1), the limit of drawing with replacement.

    A transition's counts depend on the seed, its episode and its place alone: they stay as episodes are added, so that a
    member never meets what it was not to see.
    """
    counts = torch.empty(len(data), members, dtype=torch.long)
    for index in data.episode.unique().tolist():
        rows = data.episode == index
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
        counts[rows] = torch.from_numpy(rng.poisson(1.0, (int(rows.sum()), members)))
    return counts
