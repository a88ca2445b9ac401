"""A simulated robot on the wall's clock: one that does not wait until a planner is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from robots.command import Command
from robots.observation import Observation
from robots.robot import Robot


class PacedRobot:
    """Lives every control period of `robot` for as long as it lasts, at a real time factor of 1, from the first command of an episode on.

    A period that the computer does not get done in its time lasts longer, and is counted: time is never caught up with.
    """

    def __init__(self, robot: Robot, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._robot, self._clock, self._sleep = robot, clock, sleep
        self.spec = robot.spec
        self._ends: float | None = None
        """When the period ends [s]; None before the first command of an episode."""
        self.overruns: list[float] = []
        """By how much periods of this episode were too long [s]."""

    def reset(self, seed: int) -> Observation:
        self._ends, self.overruns = None, []
        return self._robot.reset(seed)

    def send(self, command: Command) -> Command:
        if self._ends is None:
            self._ends = self._clock() + self.spec.control_dt
        return self._robot.send(command)

    def tick(self) -> Observation:
        observation = self._robot.tick()
        if self._ends is None:
            return observation
        late = self._clock() - self._ends
        if late < 0:
            self._sleep(-late)
        else:
            self.overruns.append(late)
        self._ends += self.spec.control_dt + max(late, 0.0)
        return observation

    def close(self) -> None:
        self._robot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
