"""`reflexarc distil`: a network that reaches as a run's planner does, fast enough to answer in every servo period."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from dynamics.catalog import LearnedModel
from dynamics.matmul import enable_fast_float32
from experiments.arm_reaching import (
    FINAL_PERIODS,
    ArmReachingConfig,
    distil_reaching,
    gate_of,
    gated,
    new_network,
    reaching_model,
    reaching_robot,
)
from experiments.arm_robots import CLIENTS
from experiments.arm_run import ArmRun, run_path
from experiments.progress import make_console
from hw_bridge.client import BridgeClient
from hw_bridge.servo_rate import ServoRun, act_at_servo_rate
from policies.distillation import DistillationReport
from policies.fast_network import FastNetwork
from policies.neural_policy import NeuralPolicy
from policies.uncertainty_gate import UncertaintyGate
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, HardwareError, StoreError

if TYPE_CHECKING:
    from experiments.arm_cli import Distil

NETWORK, MODEL, USUAL = "network.", "model.", "gate.usual"
"""What the tensors of a distilled run's checkpoint are called: of the network, of the model that judges it, and what is usual there."""


@dataclass(frozen=True)
class Reflex:
    """A network that reaches, behind the doubt of the model that it was taught with."""

    policy: NeuralPolicy
    model: LearnedModel
    gate: UncertaintyGate

    @cached_property
    def network(self) -> FastNetwork:
        """The policy, compiled."""
        return FastNetwork(self.policy)

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it as a checkpoint keeps it."""
        named = ((NETWORK, self.policy), (MODEL, self.model))
        return {prefix + name: value for prefix, part in named for name, value in part.tensors().items()} | {USUAL: self.gate.usual.clone()}


def distil_command(options: Distil) -> int:
    """Distil a run's planner, and keep the network as a run of its own."""
    enable_fast_float32()
    parent = ArmRun.open(options.run_directory)
    if parent.config.distilled:
        raise StoreError(f"{parent.path} is a distilled network already; name the run that it was distilled from: {parent.config.parent}")
    arm, config, console = CLIENTS[parent.config.robot].arm(), parent.config.reaching, make_console()
    tensors, episodes = parent.learned().tensors, list(parent.store())
    model = reaching_model(arm, config)
    path = run_path(options.runs, options.name, f"{parent.path.name}-distilled")
    if (path / "config.json").exists():
        raise ConfigurationError(f"{path} already holds a run; give this one another name: --name NAME")
    model.load_tensors(_part(tensors, MODEL))
    with distillation_bar(console) as progress:
        policy, report = distil_reaching(arm, config, model, episodes, progress)
    run = ArmRun.create(path, replace(parent.config, parent=str(parent.path), data=(), distilled=True))
    run.save([], Reflex(policy, model, gate_of(model, episodes, config.gate)).tensors())
    console.print(f"{words(report)}\nkept: {run.path}\nLet it act with: reflexarc check --policy {run.path} --robot {run.config.robot} "
                  f"--address ADDRESS, then reflexarc deploy {run.path} with the certificate", highlight=False, markup=False)
    return 0


def kept_reflex(run: ArmRun, arm: Arm) -> Reflex:
    """Return what a distilled run keeps; StoreError where it keeps nothing."""
    config, tensors = run.config.reaching, run.distilled().tensors
    policy, model = new_network(arm, config), reaching_model(arm, config)
    policy.load_tensors(_part(tensors, NETWORK))
    model.load_tensors(_part(tensors, MODEL))
    return Reflex(policy, model, UncertaintyGate(model, tensors[USUAL], config.gate))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def words(report: DistillationReport) -> str:
    """Return in a line how well the network does."""
    return (f"the planner was asked in {report.states} imagined states, {report.seconds:.0f} s; where the network itself went it differed "
            f"by {report.errors[-1]:.0%} of half the range before the last round of teaching")


@contextmanager
def distillation_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A context with a bar that a `distil` can move."""
    with Progress(TextColumn("distilling"), BarColumn(), TextColumn("{task.completed} of {task.total} states"), TimeRemainingColumn(),
                  console=console, transient=True) as bar:
        task = bar.add_task("distilling", total=None)
        yield lambda done, planned: bar.update(task, completed=done, total=planned)


def reach_at_servo_rate(client: BridgeClient, config: ArmReachingConfig, reflex: Reflex, seed: int,
                        steps: int) -> tuple[float, ServoRun]:
    """Let `reflex` answer every measurement for as long as `steps` control periods, to the goal that `seed` draws; how far from it the
    end effector was in the last periods [m], and how the network acted. The gate judges once a control period.
    """
    robot = reaching_robot(client, config.reaching, client.arm.spec.control_dt)
    every = round(config.reaching.period / client.arm.spec.control_dt)
    policy = gated(reflex.network, reflex.gate, robot, every)
    run = act_at_servo_rate(robot, policy, steps * config.reaching.period, seed)
    with suppress(HardwareError):
        client.wish("hold")  # nobody acts any more
    last = run.time > run.time[-1] - FINAL_PERIODS * config.reaching.period
    misses = [np.linalg.norm(seen.extra["miss"]) for seen, counts in zip(run.observations, last, strict=True) if counts]
    return float(np.mean(misses)), run
