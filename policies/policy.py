"""The `Policy` protocol: who acts."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from robots.command import Command
from robots.observation import Observation


@runtime_checkable
class Policy(Protocol):
    """Chooses commands from observations."""

    provenance: str
    """Who acts, in a word, as episodes record it."""

    def reset(self, seed: int) -> None:
        """Begin an episode; all randomness of the episode comes from `seed`."""
        ...

    def act(self, observation: Observation) -> Command:
        """Return the command for the coming control period."""
        ...
