"""mjbatch's published example of iLQR, a cart with two poles that is swung up, and the same problem by our iLQR."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from experiments.bench.peers.running import ENVIRONMENTS, peer_is_installed, run_peer
from experiments.bench.result import Bar
from planners.cost import Cost
from planners.cost_expansion import CostExpansion
from planners.ilqr import ILQR, ILQRConfig
from robots.command import CommandMode, CommandSpec
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel

PEER, STARTS = "mjbatch", 5
"""Environment, and numbers of first commands that are tried: mjbatch publishes the first. Where the search ends is chance, for both."""
EXAMPLES = ENVIRONMENTS / PEER / "source" / "examples"
CART, RATE, EFFORT, END = 0.1, 0.01, 0.2, 100.0
"""Weights of the example's cost."""
ITERATIONS, COST_TOLERANCE = 300, 1e-4
"""Where the example stops."""


class SwingUpCost(Cost):
    """Poles upright, the cart in the middle, little motion and effort; a hundred times so at the end. With derivatives in closed form."""

    _state = np.array([2 * CART, 0.0, 0.0, 2 * RATE, 2 * RATE, 2 * RATE])

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"state": self.terminal(x) / END, "effort": EFFORT * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        upright = (1.0 - torch.cos(x[..., 1:3])).sum(-1)
        return END * (upright + CART * x[..., 0].square() + RATE * x[..., 3:].square().sum(-1))

    def expand(self, states: np.ndarray, actions: np.ndarray) -> CostExpansion:
        """See `ExpandableCost`."""
        horizon, slope, curvature = len(actions), self._state * states, np.tile(self._state, (len(states), 1))
        slope[:, 1:3], curvature[:, 1:3] = np.sin(states[:, 1:3]), np.cos(states[:, 1:3])
        hessian = np.zeros((horizon, 7, 7))
        hessian[:, range(6), range(6)], hessian[:, 6, 6] = curvature[:-1], 2 * EFFORT
        return CostExpansion(np.hstack([slope[:-1], 2 * EFFORT * actions]), hessian, END * slope[-1], END * np.diag(curvature[-1]))


@dataclass(frozen=True)
class Run:
    """How one search went."""

    iterations: int
    cost: float
    seconds: float


def add_mjbatch_rows(rows: list, bars: list, threads: int | None, console: Console) -> None:
    """Add rows and bars; nothing where the example is not installed, which is said in a line.

    The published start counts by what our search has reached once it has made as many iterations as the example, and all starts
    by their medians.
    """
    if not peer_is_installed(PEER, console):
        return
    if not EXAMPLES.exists():
        console.print(f"no examples of mjbatch in {EXAMPLES}: nothing to compare with (`make bench-peers` fetches them)", highlight=False)
        return
    told = run_peer(PEER, "mjbatch_swingup.py", "--examples", EXAMPLES, "--starts", STARTS)
    theirs = [Run(run["iterations"], run["cost"], run["seconds"]) for run in told["runs"]]
    machine, x0 = mujoco.MjModel.from_xml_path(told["xml"]), torch.tensor(told["start"], dtype=torch.float64)
    starts = [torch.tensor(run["actions"], dtype=torch.float64) for run in told["runs"]]
    swing_up(machine, told["substeps"], x0, starts[0], 2, threads)  # compiled
    ours = [swing_up(machine, told["substeps"], x0, start, ITERATIONS, threads) for start in starts]
    published = swing_up(machine, told["substeps"], x0, starts[0], theirs[0].iterations, threads)
    for name, mine, peer in (("published start", published, theirs[0]), (f"median of {STARTS} starts", _median(ours), _median(theirs))):
        name = f"two-pole cart, {name}"
        rows += [(name, "cost", mine.cost, None, peer.cost, mine.iterations),
                 (name, "s", mine.seconds, None, peer.seconds, mine.iterations)]
        bars += [Bar(f"{name}: cost over mjbatch's", mine.cost / peer.cost, 1.0, at_least=False),
                 Bar(f"{name}: iterations over mjbatch's", mine.iterations / peer.iterations, 1.0, at_least=False),
                 Bar(f"{name}: seconds over mjbatch's", mine.seconds / peer.seconds, 1.0, at_least=False)]


def swing_up(machine: mujoco.MjModel, substeps: int, x0: Tensor, actions: Tensor, iterations: int, threads: int | None) -> Run:
    """Return how our search goes from first commands `actions` (H, 1), with at most as many iterations."""
    model = SimulatorModel(machine, PhysicsSpace(machine), substeps, threads)
    low, high = machine.actuator_ctrlrange.T.copy()
    command = CommandSpec(CommandMode.ACTUATOR, ("slide",), low, high, "share of the largest force")
    config = ILQRConfig(horizon=len(actions), iterations=iterations, regularise="state", regularisation_factor=5.0, convexify=False,
                        feedforward_tolerance=0.0, cost_tolerance=COST_TOLERANCE)
    planner = ILQR(SimulatorEvaluator(model, SwingUpCost()), command, substeps * machine.opt.timestep, config)
    plan = planner.plan(x0, None, torch.Generator(), initial_actions=actions)
    return Run(plan.report.iterations, plan.cost, plan.report.seconds)


def _median(runs: list[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*((run.iterations, run.cost, run.seconds) for run in runs), strict=True)))
