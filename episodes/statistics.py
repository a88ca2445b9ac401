"""What states and commands a set of episodes visited: mean, spread and range of every entry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from episodes.episode import Episode
from robots.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class EntryStatistics:
    """Statistics of n entries over `count` rows, in the entries' own units."""

    names: tuple[str, ...]
    count: int
    mean: np.ndarray
    """(n,)"""
    std: np.ndarray
    """(n,) standard deviation of the rows as a whole population (divided by `count`)."""
    minimum: np.ndarray
    """(n,)"""
    maximum: np.ndarray
    """(n,)"""


@dataclass(frozen=True, eq=False)
class EpisodeStatistics:
    """What a set of episodes visited."""

    episodes: int
    steps: int
    """Control periods, all episodes together."""
    state: EntryStatistics
    """Over every time stamp."""
    command: EntryStatistics
    """Over every applied command."""


def statistics(episodes: Iterable[Episode]) -> EpisodeStatistics:
    """Return the statistics of `episodes`, read one at a time.

    Raises ConfigurationError if there are none or if their states or commands have different names.
    """
    count, state, command = 0, None, None
    for episode in episodes:
        count += 1
        state = _merged(state, _of_rows(episode.state_names, episode.x))
        command = _merged(command, _of_rows(episode.command_names, episode.applied))
    if state is None or command is None:
        raise ConfigurationError("statistics: expected at least one episode, got none")
    return EpisodeStatistics(count, command.count, state, command)


def _of_rows(names: tuple[str, ...], rows: np.ndarray) -> EntryStatistics:
    return EntryStatistics(names, len(rows), rows.mean(0), rows.std(0), rows.min(0), rows.max(0))


def _merged(a: EntryStatistics | None, b: EntryStatistics) -> EntryStatistics:
    """Return the statistics of both sets of rows (Chan, Golub and LeVeque 1979, the pairwise update of mean and variance)."""
    if a is None:
        return b
    if a.names != b.names:
        raise ConfigurationError(f"statistics: expected episodes of one kind, got entries {a.names} and {b.names}")
    count = a.count + b.count
    shift = b.mean - a.mean
    variance = (a.count * a.std**2 + b.count * b.std**2) / count + shift**2 * (a.count * b.count / count**2)
    return EntryStatistics(a.names, count, a.mean + shift * (b.count / count), np.sqrt(variance),
                           np.minimum(a.minimum, b.minimum), np.maximum(a.maximum, b.maximum))
