"""Who is compared on what: the tasks, the planners, and the settings that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from planners.catalog import planner_config_type
from planners.sampling import SamplingConfig
from robots.errors import ConfigurationError, UnknownNameError

BUDGET_MS = 20.0
"""Of a plan, where time is equal."""
ROLLOUTS = 64
"""Over the horizon, of a plan, where rollouts are equal."""
KNOTS = ("interpolation=linear", "knots=6")
"""What planners search that draw whole plans without a colour of their own."""
MOST_BY_TREE = 2
"""Commands of a machine for a tree of actions: with more, one node has about as many actions as a plan has rollouts."""


@dataclass(frozen=True)
class PlannedTask:
    """A task, and how much of its episode is lived."""

    task: str
    steps: int
    """Control periods from the start."""
    rewarded: bool = True
    """True: every control period pays 0 to 1; False: it costs, without a bound."""


_TASKS = (
    PlannedTask("dmc:cartpole-swingup", 500),
    PlannedTask("dmc:acrobot-swingup", 500),
    PlannedTask("dmc:reacher-easy", 250),
    PlannedTask("dmc:cheetah-run", 250),
    PlannedTask("dmc:walker-walk", 250),
    PlannedTask("dmc:hopper-stand", 250),
    PlannedTask("dmc:humanoid-stand", 250),
    PlannedTask("reacher7", 150, rewarded=False),
    PlannedTask("pusher7", 150, rewarded=False),
)
TASKS = {entry.task: entry for entry in _TASKS}
"""The easiest first."""


@dataclass(frozen=True)
class Entrant:
    """A planner, and how its effort is set."""

    planner: str
    settings: tuple[str, ...] = ()
    """Of every task and both comparisons, 'NAME=VALUE'."""
    rounds: int = 1
    """Of sampling, where rollouts are equal; for planners that sample."""
    effort: str = "iterations"
    """The setting that a planner which does not sample works longer by."""
    paced: bool = False
    """True where the search is laid out for its effort from the start (steps that shrink, candidates that are halved), so that a planner
    told of more than its time takes would never come to its end: at equal time it is told of as much as fits."""

    @property
    def samples(self) -> bool:
        """Whether the planner draws whole plans."""
        return issubclass(planner_config_type(self.planner), SamplingConfig)

    def for_rollouts(self, rollouts: int) -> tuple[str, ...]:
        """Return the settings of a planner that samples for so many rollouts a plan."""
        population = max(rollouts // self.rounds, 2)
        fitting = (f"elites={max(2, population // 4)}",) if self._has("elites") else ()
        if self._has("kept"):  # an elite is tried again in every round
            population, fitting = population - 1, (*fitting, "decay=1.0")
        return (*self.settings, f"population={population}", f"iterations={self.rounds}", *fitting)

    def with_effort(self, effort: int) -> tuple[str, ...]:
        """Return the settings of a planner that does not sample for so much effort."""
        return (*self.settings, f"{self.effort}={effort}")

    def _has(self, name: str) -> bool:
        return name in {field.name for field in dataclasses.fields(planner_config_type(self.planner))}


_ENTRANTS = (
    Entrant("random-shooting", KNOTS),
    Entrant("cem", KNOTS, rounds=4),
    Entrant("icem", rounds=4),
    Entrant("mppi", KNOTS, rounds=2),
    Entrant("cma-es", KNOTS, rounds=4),
    Entrant("gradient", (*KNOTS, "restarts=2", "draws=8"), paced=True),
    Entrant("ilqr"),
    Entrant("fddp"),
    Entrant("collocation"),
    Entrant("puct", ("levels=[3]", "hold=5"), effort="simulations"),
    Entrant("gumbel", ("levels=[3]", "hold=5"), effort="simulations", paced=True),
)
ENTRANTS = {entrant.planner: entrant for entrant in _ENTRANTS}
UNBOUNDED = 100_000
"""Effort of a planner that does not sample where time ends it."""


def why_not(entrant: Entrant, commands: int) -> tuple[str, str] | None:
    """Return why a planner is not for a machine of so many commands, in a few words and in a sentence; None where it is."""
    if entrant.effort == "simulations" and commands > MOST_BY_TREE:
        return (f"{MOST_BY_TREE} commands at most", f"a tree takes discrete actions, here of {MOST_BY_TREE} commands at most; 3 values of "
                f"{commands} commands are {3**commands} actions at every node")
    return None


def chosen_tasks(names: Sequence[str]) -> list[PlannedTask]:
    """Return the tasks of these names, all without any; UnknownNameError lists the known ones."""
    return [TASKS[name] for name in _known("task of this benchmark", names, TASKS)]


def chosen_entrants(names: Sequence[str]) -> list[Entrant]:
    """Return the planners of these names, all without any; UnknownNameError lists the known ones."""
    return [ENTRANTS[name] for name in _known("planner of this benchmark", names, ENTRANTS)]


def _known(kind: str, names: Sequence[str], table: dict[str, object]) -> list[str]:
    for name in names:
        if name not in table:
            raise UnknownNameError(kind, name, table)
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{kind}: every name once, got {', '.join(names)}")
    return [name for name in table if not names or name in names]
