"""The `Robot` protocol: one loop drives simulators and hardware alike."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from robots.command import Command
from robots.observation import Observation
from robots.spec import RobotSpec


@runtime_checkable
class Robot(Protocol):
    """A machine that is reset, commanded and observed, one control period at a time."""

    spec: RobotSpec

    def reset(self, seed: int) -> Observation:
        """Bring the robot to a start pose drawn with `seed` and return the first observation.

        In a simulator the same seed gives the same start, bit for bit.
        """
        ...

    def send(self, command: Command) -> Command:
        """Hand over the command for the coming period and return what is truly applied (clipped to the limits)."""
        ...

    def tick(self) -> Observation:
        """Let one control period pass (physics in a simulator, the deadline on hardware) and observe."""
        ...

    def close(self) -> None:
        """Release the engine or the wire. Calling it twice does no harm."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
