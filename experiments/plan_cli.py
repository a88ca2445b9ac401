"""The subcommand that plans through the simulator: plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

_OWN = "(default: the task's own)"
Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_OWN)]


@dataclass(frozen=True)
class Plan:
    """Control a simulated machine by planning through its simulator: nothing is learned. Prints the score and how the planning went.

    The planner sees the machine's model and what is observed, never the machine itself. The score is what the task pays. Without
    --budget-ms the simulation waits for every plan, and one seed gives one result, bit for bit, on any number of cores; with it every
    plan ends in time, with as many candidates and rounds as this computer manages, and the result is this computer's.

    Examples: `reflexarc plan dmc:cheetah-run --budget-ms 20 --video cheetah.mp4`, `reflexarc plan cartpole --planner mppi`,
    `reflexarc plan dmc:walker-walk --planner cem --search momentum=0.2`, `reflexarc list planning-tasks`,
    `reflexarc plan dmc:cartpole-swingup --asynchronous --budget-ms 15`,
    `reflexarc plan dmc:cheetah-run --randomise mass=0.8..1.3 friction=0.5..1.5 --risk cvar:0.5 --machine mass=1.3`.
    """

    task: tyro.conf.Positional[str]
    """Task by name (`reflexarc list planning-tasks`)."""
    planner: str = "icem"
    """Planner by name (`reflexarc list planners`)."""
    budget_ms: Annotated[float | None, tyro.conf.arg(metavar="MS", help_behavior_hint="(default: as long as it takes)")] = None
    """Time a plan may take [ms]."""
    asynchronous: bool = False
    """Plan in a process beside the machine, which lives in real time and does not wait: plans are made for where it will be once they are
    ready, and act late where the planner is slower than the control period. The score is what planning in real time is worth here."""
    delay_periods: Number = None
    """With --asynchronous: declare that every plan takes so many control periods, instead of living in real time; one seed then gives one
    result on any computer. Not with --budget-ms."""
    uncompensated: bool = False
    """With --asynchronous: plan from where the machine was seen, not from where it will be, to see what that costs."""
    horizon: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="(default: the task's own)")] = None
    """How far plans look ahead [s]."""
    search: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE [NAME=VALUE ...]", help_behavior_hint="(optional)")] = ()
    """Any setting of the planner, as in --search population=128 interpolation=cubic knots=6."""
    substeps: Number = None
    """Physics steps in a control period of the model planned through: fewer are coarser and faster. The machine keeps its own."""
    integrator: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=_OWN)] = None
    """Integrator of the model planned through: euler, rk4, implicit, implicitfast."""
    softened: bool = False
    """Soften the contacts of the model planned through, for planners that use derivatives."""
    cold_starts: Annotated[bool | None, tyro.conf.arg(metavar="True|False", help_behavior_hint=_OWN)] = None
    """Look for the forces of contacts anew in every physics step of the model planned through: the same to the solver's tolerance, and
    faster where contacts are few."""
    randomise: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=LOW..HIGH [...]", help_behavior_hint="(optional)")] = ()
    """Plan for --variants models whose properties are multiplied by factors drawn from these ranges, as in --randomise mass=0.8..1.2
    friction=0.5..1.5: mass, friction (of contacts), frictionloss and damping (of joints), stiffness, armature, gain (of actuators)."""
    variants: int = 4
    """Models that are drawn; every plan is rolled out through each, so that a budget takes fewer plans."""
    risk: str = "mean"
    """What counts of a plan's costs over the variants: mean, worst, cvar:SHARE (the mean of the worst share) or exponential:THETA."""
    machine: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FACTOR [...]", help_behavior_hint="(optional)")] = ()
    """Alter the machine that is controlled, as in --machine mass=1.3: the planner is not told."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the task's own)")] = None
    """Control periods of an episode."""
    episodes: int = 1
    """Episodes, each with a seed of its own."""
    seed: int = 0
    """Seed of the first start and of the planner."""
    gap: bool = False
    """Solve one plan of the first episode again by iCEM with 30 000 candidates, and tell the gap."""
    video: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    """Film the first episode (MP4)."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    """Write all figures here."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all cores)")] = None
    """Cores to use."""

    def run(self) -> int:
        from experiments.plan import plan_command

        return plan_command(self)
