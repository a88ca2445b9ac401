"""How plans are made beside the robot."""

from __future__ import annotations

from dataclasses import dataclass

from policies.asynchronous.report import ADVICE
from robots.errors import ConfigurationError, UnknownNameError

WHEN_SPENT = ("stop", "hold")


@dataclass(frozen=True)
class AsynchronousConfig:
    """When plans begin, and what happens where none is left."""

    delay_periods: int | None = None
    """Control periods from the state to the beginning of the plan made for it, declared: one seed gives one result, whatever the computer
    does meanwhile; for simulated time. None: measured, for real time."""
    compensate: bool = True
    """Plan for where the robot will be when the plan begins; False plans for where it was seen, which shows what the delay costs."""
    quantile: float = 0.95
    """Of the measured delays: share of plans that is to be ready in time."""
    window: int = 50
    """Plans that the quantile is of."""
    rehearsals: int = 20
    """Plans made before the first episode, and before the robot moves, to learn what a plan takes; of 20 the quantile forgives one."""
    when_spent: str = "stop"
    """Where the last plan is over and no newer one has come: 'stop' raises PlanningStopped, and whoever owns the robot brakes it; 'hold'
    commands the last action on, for machines that this cannot harm."""
    patience: float = 60.0
    """Longest wait for a plan while the robot waits too: before an episode and its first command, and where the delay is declared [s]."""
    advice: str = ADVICE
    """What helps against a planner that is too slow, for the person in front of it: only what that one can change."""

    def __post_init__(self) -> None:
        if self.delay_periods is not None and self.delay_periods < 1:
            raise ConfigurationError(f"delay_periods: expected at least 1, got {self.delay_periods}; a plan without delay is a "
                                     "RecedingHorizonPolicy's")
        if not 0 < self.quantile <= 1:
            raise ConfigurationError(f"quantile: expected more than 0 and at most 1, got {self.quantile}")
        if self.window < 1 or self.rehearsals < 1:
            raise ConfigurationError(f"window and rehearsals: expected at least 1, got {self.window} and {self.rehearsals}")
        if self.rehearsals > self.window:
            raise ConfigurationError(f"rehearsals: expected at most the window of {self.window} plans, got {self.rehearsals}; lengthen the "
                                     "window or rehearse less")
        if self.when_spent not in WHEN_SPENT:
            raise UnknownNameError("answer to a spent plan", self.when_spent, WHEN_SPENT)
        if not self.patience > 0:
            raise ConfigurationError(f"patience: expected a positive number of seconds, got {self.patience}")
