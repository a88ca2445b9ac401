"""The command `reflexarc`."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.arm_cli import Calibrate, Check, Deploy, Distil, Reach, Retrain, Twin
from experiments.arm_log_cli import Delays, Record, Replay, Sysid
from experiments.bench_cli import Bench
from experiments.plan_cli import Plan
from experiments.termination import EXIT_CODE, Terminated
from robots.errors import ReflexarcError, UserError

_RUNS = Path("runs")
_OWN = "(default: the task's own)"
Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_OWN)]
Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=_OWN)]
Threads = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all cores)")]
File = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: task, seed and time)")]


@dataclass(frozen=True)
class List:
    """Show what there is by name: tasks of every engine, models, planners, algorithms, arms that can be driven.

    Examples: `reflexarc list`, `reflexarc list tasks --engine pybullet`, `reflexarc list planners`.
    """

    what: tyro.conf.Positional[Literal["all", "tasks", "models", "planners", "planning-tasks", "propagations", "risks", "algorithms",
                                         "benchmarks", "robots"]] = "all"
    """What to show."""
    engine: Literal["any", "mujoco", "dm_control", "gymnasium", "pybullet"] = "any"
    """Only tasks of this engine (mujoco: our own)."""

    def run(self) -> int:
        from experiments.listing import print_listing

        print_listing(self.what, None if self.engine == "any" else self.engine)
        return 0


@dataclass(frozen=True)
class Learn:
    """Let a robot that knows nothing learn a task: random data, fit a model, plan through it, refit, again.

    Everything is kept in runs/NAME: episodes (Parquet), checkpoints, TensorBoard metrics, a report with videos. Stop it
    with Ctrl-C, or kill it; `reflexarc resume runs/NAME` goes on to the same result.

    Examples: `reflexarc learn cartpole`, `reflexarc learn gym:InvertedPendulum-v5 --trials 10`,
    `reflexarc learn dmc:reacher-easy --seed 3 --planner cem`, `reflexarc learn cartpole --algorithm 2.0`.
    """

    task: tyro.conf.Positional[str]
    """Task by name: cartpole, dmc:reacher-easy, gym:InvertedPendulum-v5, bullet:panda-reach, ... (`reflexarc list tasks`)."""
    seed: int = 0
    """Seed of everything random: the same seed gives the same run, bit for bit."""
    name: Name = None
    """Name of the run."""
    runs: Path = _RUNS
    """Folder that runs are kept in."""
    algorithm: Text = None
    """0.5 (random data, one fit, plans played blind), 1.0 (aggregate), 1.5 (replan every period: MPC, the default), or
    2.0 (a neural policy by backpropagation through the model)."""
    model: Text = None
    """Dynamics model: probabilistic-ensemble (default), deterministic-ensemble, probabilistic, deterministic, linear."""
    planner: Text = None
    """Planner: icem (default), cem, mppi, cma-es, gradient, ... (`reflexarc list planners`)."""
    mode: Text = None
    """Command mode where a robot has several: joint_torque, joint_position, ..."""
    trials: Number = None
    """Trials in all, random ones included."""
    random_trials: Number = None
    """Trials with random commands at the start."""
    steps: Number = None
    """Control periods of a trial."""
    refit_every: Number = None
    """Fit again after this many control periods within a trial, beside the fit before every trial."""
    replan_every: Number = None
    """Control periods between plans."""
    horizon: Number = None
    """Control periods that a plan looks ahead."""
    population: Number = None
    """Candidate plans an iteration."""
    iterations: Number = None
    """Iterations a plan."""
    elites: Number = None
    """Best candidates that shape the next iteration (cem, icem)."""
    interpolation: Text = None
    """Search raw actions (raw) or the knots of a spline: zero, linear, cubic."""
    knots: Number = None
    """Knots of the spline."""
    search: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE [NAME=VALUE ...]", help_behavior_hint="(optional)")] = ()
    """Any other setting of the planner, as in --search sigma=0.3 covariance=diagonal, or levels=[3,5]."""
    propagation: Text = None
    """How uncertainty travels: E, DS, TS1, TSinf (default), MM."""
    particles: Number = None
    """Rollouts of every plan: for TS1 and TSinf a multiple of the members, for E one."""
    risk: Text = None
    """What counts of a plan's particles: mean, worst, cvar:0.2, exponential:1.0."""
    kernel: Text = None
    """What computes rollouts: auto (default), float32 or bfloat16 (compiled for this processor), torch, cuda."""
    members: Number = None
    """Networks of an ensemble."""
    hidden: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]", help_behavior_hint=_OWN)] = None
    """Widths of the model's hidden layers, as in --hidden 200 200 200."""
    epochs: Number = None
    """Passes over the data at most, a fit."""
    threads: Threads = None
    """Cores to use. The result does not depend on it."""
    report: bool = True
    """Write report.html with videos at the end."""

    def run(self) -> int:
        from experiments.commands import learn_command

        return learn_command(self)


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped or killed, to the result it would have had, bit for bit.

    Example: `reflexarc resume runs/cartpole-seed0-20261120-140000`.
    """

    run_directory: tyro.conf.Positional[Path]
    """The run's folder."""
    threads: Threads = None
    """Cores to use; the result does not depend on it."""
    report: bool = True
    """Write report.html with videos at the end."""

    def run(self) -> int:
        from experiments.commands import resume_command

        return resume_command(self)


@dataclass(frozen=True)
class Evaluate:
    """Let a policy act on a robot without learning, and say what it earns.

    Examples: `reflexarc evaluate dmc:cheetah-run --policy random`, `reflexarc evaluate cartpole --policy runs/NAME --episodes 10`,
    `reflexarc evaluate bullet:panda-reach --policy random --video panda.mp4`.
    """

    task: tyro.conf.Positional[str]
    """Task by name (`reflexarc list tasks`)."""
    policy: str = "random"
    """'random', or the folder of a run whose model (and planner or policy) acts."""
    episodes: int = 5
    """Episodes to live."""
    steps: Number = None
    """Control periods an episode."""
    seed: int = 1000
    """Seed of the first episode; the others follow."""
    mode: Text = None
    """Command mode of the random policy, where a robot has several."""
    video: File = None
    """Write the best episode's video here (MP4)."""
    keep: File = None
    """Keep the episodes in this folder (Parquet)."""
    json: File = None
    """Write all figures here."""
    threads: Threads = None
    """Cores to use; the result does not depend on it."""

    def run(self) -> int:
        from experiments.commands import evaluate_command

        return evaluate_command(self)


@dataclass(frozen=True)
class Report:
    """Write a run's report.html again: curves, predictions against what was lived, calibration, cost, timing, videos.

    Example: `reflexarc report runs/NAME`.
    """

    run_directory: tyro.conf.Positional[Path]
    """The run's folder."""
    videos: bool = True
    """Render the first and the best trial."""

    def run(self) -> int:
        from experiments.commands import report_command

        return report_command(self)


@dataclass(frozen=True)
class Demo:
    """The whole circle in a few minutes, with a report to look at: the twin of an arm that knows nothing learns to reach, its planner is
    distilled into a network, a payload spoils it, and it learns anew from what was recorded. 'cartpole': a cart-pole learns to swing up.

    Example: `reflexarc demo`, `reflexarc demo cartpole`. Stopped half way, it goes on where it was.
    """

    name: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="{arm,cartpole}")]] = "arm"
    """What is shown."""
    seed: int = 0
    """Seed of everything random."""
    runs: Path = _RUNS
    """Folder that runs are kept in."""
    threads: Threads = None
    """Cores to use."""

    def run(self) -> int:
        if self.name == "arm":
            from experiments.arm_demo import arm_demo_command

            return arm_demo_command(self)
        from experiments.commands import demo_command

        return demo_command(self)


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Learn, tyro.conf.subcommand("learn")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Twin, tyro.conf.subcommand("twin")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Deploy, tyro.conf.subcommand("deploy")]
    | Annotated[Record, tyro.conf.subcommand("record")]
    | Annotated[Reach, tyro.conf.subcommand("reach")]
    | Annotated[Retrain, tyro.conf.subcommand("retrain")]
    | Annotated[Distil, tyro.conf.subcommand("distil")]
    | Annotated[Replay, tyro.conf.subcommand("replay")]
    | Annotated[Sysid, tyro.conf.subcommand("sysid")]
    | Annotated[Delays, tyro.conf.subcommand("delays")]
)


def _parse(arguments: list[str]) -> Command:
    """Return the command that `arguments` ask for; what the command `twin` does not know is the twin's own."""
    parse = partial(tyro.cli, Command, prog="reflexarc", args=arguments, config=(tyro.conf.OmitArgPrefixes,),
                    description="Learn how a robot moves, plan through what you learned, keep what it lived through.")
    if arguments[:1] != ["twin"]:
        return parse()
    command, further = parse(return_unknown_args=True)
    return replace(command, further=tuple(further))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a bar was missed or a computation failed, 2 the user's mistake, 130 stopped,
    143 told to end (SIGTERM) while learning."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    command = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        code = command.run()
    except UserError as error:
        print(f"reflexarc: {error}", file=sys.stderr)
        code = 2
    except ReflexarcError as error:
        print(f"reflexarc: {error}", file=sys.stderr)
        code = 1
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except Terminated:
        print("\nreflexarc: told to end", file=sys.stderr)
        code = EXIT_CODE
    except KeyboardInterrupt:
        print("\nreflexarc: stopped", file=sys.stderr)
        code = 130
    sys.exit(code)
