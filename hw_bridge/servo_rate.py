"""A fast policy in every servo period: it answers each new measurement before the next one comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policies.policy import Policy
from robots.command import Command
from robots.observation import Observation


class ServoRobot(Protocol):
    """What can be commanded in every servo period."""

    def reset(self, seed: int) -> Observation: ...

    def newest(self, after: int) -> tuple[int, Observation]: ...

    def post(self, command: Command) -> None: ...


@dataclass(frozen=True)
class ServoRun:
    """How a policy acted."""

    time: np.ndarray
    """(n,) when the arm was measured [s], on the host's monotonic clock."""
    observations: tuple[Observation, ...]
    """Every `keep`-th of them."""
    answered: int
    """Servo periods whose measurement was answered."""
    missed: int
    """Servo periods that went by while the one before was being answered: the command before stood."""
    answer_99_s: float
    """99 of 100 answers took no longer, from the measurement seen to the command given away [s]."""


def act_at_servo_rate(robot: ServoRobot, policy: Policy, seconds: float, seed: int, keep: int = 10,
                      watch: Callable[[Observation], None] = lambda observation: None) -> ServoRun:
    """Let `policy` answer every measurement for `seconds`, from a start drawn with `seed`; `watch` sees what is kept."""
    robot.reset(seed)
    policy.reset(seed)
    kept, stamps, durations = [], [], []
    tick, observation = robot.newest(-1)
    ends = time.monotonic() + seconds
    first = tick
    while time.monotonic() < ends:
        began = time.perf_counter()
        robot.post(policy.act(observation))
        durations.append(time.perf_counter() - began)
        if (len(durations) - 1) % keep == 0:
            kept.append(observation)
            stamps.append(observation.stamp_ns * 1e-9)
            watch(observation)
        tick, observation = robot.newest(tick)
    slow = float(np.percentile(durations, 99)) if durations else float("nan")
    return ServoRun(np.array(stamps), tuple(kept), len(durations), tick - first - len(durations), slow)
