"""Which episodes a model learns from and which judge it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from fractions import Fraction

from robots.errors import ConfigurationError


def split_by_episode(indices: Iterable[int], validation_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return (training, validation) numbers of episodes; every episode lies wholly on one side.

    The side of an episode depends on its number, the fraction and the seed alone: it never changes as episodes are added.
    Of every 1 / validation_fraction consecutive numbers, one drawn from the seed is for validation, so that n episodes
    have n * validation_fraction of them, up to one. A few episodes may have none: judge such a model on time steps it
    was not given, or wait.

    Raises ConfigurationError unless 0 <= validation_fraction < 1 and the numbers are at least 0.
    """
    if not 0 <= validation_fraction < 1:
        raise ConfigurationError(f"validation_fraction: expected at least 0 and below 1, got {validation_fraction}")
    fraction = Fraction(validation_fraction).limit_denominator(1_000_000)
    sides: tuple[list[int], list[int]] = ([], [])
    for index in indices:
        if index < 0:
            raise ConfigurationError(f"split_by_episode: expected numbers of episodes of at least 0, got {index}")
        sides[_is_validation(index, fraction, seed)].append(index)
    return sides


def _is_validation(index: int, fraction: Fraction, seed: int) -> bool:
    if fraction == 0:
        return False
    stratum = math.floor(index * fraction)
    start, stop = math.ceil(stratum / fraction), math.ceil((stratum + 1) / fraction)
    digest = hashlib.sha256(f"{seed}:{stratum}".encode()).digest()
    return index == start + int.from_bytes(digest[:8], "big") % (stop - start)
