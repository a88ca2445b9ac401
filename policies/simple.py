"""Policies without a model: random commands and scripts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robots.command import Command, CommandSpec
from robots.errors import ConfigurationError
from robots.observation import Observation
from robots.validation import checked_array


class RandomPolicy:
    """Commands uniform in the box, each held for `hold` periods."""

    provenance = "random"

    def __init__(self, command: CommandSpec, hold: int = 1) -> None:
        if hold < 1:
            raise ConfigurationError(f"RandomPolicy.hold: expected at least 1 control period, got {hold}")
        self._command, self._hold = command, hold
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._step = 0

    def act(self, observation: Observation) -> Command:
        if self._step % self._hold == 0:
            self._values = self._rng.uniform(self._command.minimum, self._command.maximum)
        self._step += 1
        return Command(self._command.mode, self._values)


class ScriptedPolicy:
    """Commands from a function of the time since the episode began [s] and the observation, clipped into the box."""

    provenance = "script"

    def __init__(self, command: CommandSpec, script: Callable[[float, Observation], np.ndarray]) -> None:
        self._command, self._script = command, script
        self._start_ns: int | None = None

    def reset(self, seed: int) -> None:
        self._start_ns = None

    def act(self, observation: Observation) -> Command:
        if self._start_ns is None:
            self._start_ns = observation.stamp_ns
        seconds = (observation.stamp_ns - self._start_ns) * 1e-9
        values = checked_array("script's command", self._script(seconds, observation), (self._command.nu,))
        return Command(self._command.mode, self._command.clip(values))


def playback(command: CommandSpec, values: np.ndarray, control_dt: float) -> ScriptedPolicy:
    """Return a policy that plays commands values (T, nu), one a period of control_dt [s]; the last one holds on."""
    values = checked_array("playback's commands", values, (None, command.nu))
    if len(values) == 0:
        raise ConfigurationError("playback: expected at least one command, got none")

    def script(seconds: float, observation: Observation) -> np.ndarray:
        return values[min(round(seconds / control_dt), len(values) - 1)]

    return ScriptedPolicy(command, script)
