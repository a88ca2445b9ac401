"""`reflexarc distil`: a network that reaches as a run's planner does, fast enough to answer in every servo period."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from dynamics.matmul import enable_fast_float32
from experiments.arm_reaching import (
    FINAL_PERIODS,
    ArmReachingConfig,
    distil_reaching,
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
from robots.arms.arm import Arm
from robots.errors import StoreError

if TYPE_CHECKING:
    from experiments.arm_cli import Distil

NETWORK = "network."
"""What the names of a distilled network's tensors begin with in a checkpoint."""


def distil_command(options: Distil) -> int:
    """Distil a run's planner, and keep the network as a run of its own."""
    enable_fast_float32()
    parent = ArmRun.open(options.run_directory)
    if parent.config.distilled:
        raise StoreError(f"{parent.path} is a distilled network already; name the run that it was distilled from: {parent.config.parent}")
    arm, config, console = CLIENTS[parent.config.robot].arm(), parent.config.reaching, make_console()
    tensors, episodes = parent.learned().tensors, list(parent.store())
    model = reaching_model(arm, config)
    run = ArmRun.create(run_path(options.runs, options.name, f"{parent.path.name}-distilled"),
                        replace(parent.config, parent=str(parent.path), data=(), distilled=True))
    model.load_tensors({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    with run.locked(), distillation_bar(console) as progress:
        policy, report = distil_reaching(arm, config, model, episodes, progress)
        run.save([], network_tensors(policy))
    console.print(f"{words(report)}\nkept: {run.path}\nLet it act with: reflexarc check --policy {run.path} --robot {run.config.robot} "
                  f"--address ADDRESS, then reflexarc deploy {run.path} with the certificate", highlight=False, markup=False)
    return 0


def network_tensors(policy: NeuralPolicy) -> dict[str, Tensor]:
    """Return a network's tensors as a checkpoint keeps them."""
    return {NETWORK + name: value for name, value in policy.tensors().items()}


def kept_network(run: ArmRun, arm: Arm) -> FastNetwork:
    """Return the network that a run keeps; StoreError where it keeps none."""
    policy, tensors = new_network(arm, run.config.reaching), run.distilled().tensors
    policy.load_tensors({name.removeprefix(NETWORK): value for name, value in tensors.items() if name.startswith(NETWORK)})
    return FastNetwork(policy)


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


def reach_at_servo_rate(client: BridgeClient, config: ArmReachingConfig, network: FastNetwork, seed: int,
                        steps: int) -> tuple[float, ServoRun]:
    """Let `network` answer every measurement for as long as `steps` control periods, to the goal that `seed` draws; how far from it the
    end effector was in the last periods [m], and how the network acted.
    """
    robot = reaching_robot(client, config.reaching, client.arm.spec.control_dt)
    run = act_at_servo_rate(robot, network, steps * config.reaching.period, seed)
    last = run.time > run.time[-1] - FINAL_PERIODS * config.reaching.period
    misses = [np.linalg.norm(seen.extra["miss"]) for seen, counts in zip(run.observations, last, strict=True) if counts]
    return float(np.mean(misses)), run
