"""iLQR through a learned ensemble: what an iteration takes and what of it, and how often it plans anew on a cart-pole and an arm."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from dynamics.dataset import TransitionData, transition_data
from dynamics.ensemble_mean import EnsembleMean
from dynamics.feedback_rollout import roll_out_feedback
from dynamics.fitting import FitConfig
from dynamics.forward import FoldedNetwork
from dynamics.kernel_choice import trusted_kernel
from dynamics.linearize import linearize
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers
from experiments.bench.result import Bar
from experiments.config import SETTINGS
from planners.analytic_cost import AnalyticCost, CostFormulas
from planners.catalog import make_planner
from planners.cost_expansion import expand_cost
from planners.ilqr import ILQRConfig
from planners.ilqr_solver import ILQRSolver, SolverConfig
from planners.linear_quadratic import LocalPolicy
from planners.trajectory_problem import TrajectoryProblem
from policies.episode_loop import EpisodeSource, run_episode
from policies.receding_horizon import RecedingHorizonPolicy
from policies.simple import RandomPolicy
from robots.command import CommandSpec
from sim.catalog import make_task

ITERATION_BAR = 8.0
"""[ms] of an iteration whose full step is taken."""
ERROR_BAR = 1e-5
"""Of a Jacobian's entries against float64's, relative to the largest."""
PLANS_BAR = 50.0
"""Plans a second."""
MEMBERS, HIDDEN, STATES, COMMANDS, HORIZON = 5, (200,) * 4, 18, 6, 50
STATE_WEIGHT = 10.0
TRANSITIONS, UPDATES = 4000, 150
"""That the ensemble learns from, and gradient steps of its fit."""
ITERATIONS, REPEATS, PEER_REPEATS = 5, 20, 1


@dataclass(frozen=True)
class Control:
    """A task to be controlled through a model of what happened under random commands."""

    task: str
    episodes: int
    """Of random commands, every other one with held ones."""
    updates: int
    """Gradient steps of the fit."""
    horizon: int
    iterations: int
    """A plan at most."""


CONTROLS = (Control("cartpole", episodes=10, updates=1000, horizon=25, iterations=3),
            Control("reacher7", episodes=20, updates=1000, horizon=30, iterations=1))
"""Horizons as the tasks' own settings have them, and so are the ensembles."""
SEED = 1000
"""Of the controlled episode; the random ones have 0, 1, ..."""


def add_rows(rows: list, bars: list, rounds: int, threads: int | None, console: Console) -> None:
    """Add what an iteration through the ensemble takes, and how many plans a second control has, each the best of `rounds`."""
    workers = Workers(threads)
    try:
        _iteration(rows, bars, rounds, workers)
        for control in CONTROLS:
            console.print(f"{control.task}: an ensemble learns from {control.episodes} random episodes ...", style="dim")
            _control(rows, bars, rounds, control, workers)
    finally:
        workers.close()


def _iteration(rows: list, bars: list, rounds: int, workers: Workers) -> None:
    ensemble = chain_ensemble(workers)
    mean, cost, limit = EnsembleMean(ensemble, workers), SpringCost(), np.full(COMMANDS, 2.0)
    problem, nothing = TrajectoryProblem(mean, cost, -limit, limit), LocalPolicy.nothing(HORIZON, STATES, COMMANDS)
    x0 = np.random.default_rng(0).uniform(-1, 1, STATES)
    start = problem.play(x0, np.zeros((HORIZON, COMMANDS)))
    default, together = (SolverConfig(iterations=ITERATIONS, compile_for_size=True, line_search=search) for search in ("auto", "together"))
    solution = ILQRSolver(problem, default, x0, start, nothing).solve()
    along, steps = solution.trajectory, default.steps
    states, actions = along.states, along.actions
    local = problem.model_along(along)
    policy = local.backward(-limit - actions, limit - actions)

    def roll_out(count: int) -> None:
        roll_out_feedback(mean, x0, states, actions, steps[:count], policy.feedforward, policy.gains, -limit, limit)

    works = {
        f"ms an iteration, {solution.rollouts / solution.iterations:.2g} steps tried":
            lambda: ILQRSolver(problem, default, x0, start, nothing).solve(),
        f"ms an iteration, {len(steps)} steps tried": lambda: ILQRSolver(problem, together, x0, start, nothing).solve(),
        "ms, Jacobians": lambda: linearize(mean, states[:-1], actions),
        "ms, rollout of 1 step": lambda: roll_out(1),
        f"ms, rollouts of {len(steps)} steps": lambda: roll_out(len(steps)),
        "ms, sweep": lambda: local.backward(-limit - actions, limit - actions),
        "ms, cost": lambda: (expand_cost(cost, mean.state_space, states, actions), problem.costs(states[None], actions[None])),
    }
    seconds = _quickest(list(works.values()), rounds * REPEATS)
    counts = [solution.iterations, ILQRSolver(problem, together, x0, start, nothing).solve().iterations]
    seconds[:2] = (least / count for least, count in zip(seconds, counts, strict=False))
    name = f"ensemble {MEMBERS} x {len(HIDDEN)}x{HIDDEN[0]}, {STATES} states, H={HORIZON}"
    rows += [(name, what, 1e3 * least, None, None, count)
             for what, least, count in zip(works, seconds, [*counts, *[None] * (len(works) - 2)], strict=True)]
    bars.append(Bar(f"{name}: iteration", 1e3 * seconds[0], ITERATION_BAR, at_least=False, unit="ms"))

    kernel = trusted_kernel("float32")
    if kernel is not None:
        share = jacobian_gflop() / seconds[2] / kernel.measured_peak(workers.threads)
        rows.append((name, "Jacobians, of the float32 peak", share, None, None, None))
    network, inputs = ensemble.folded(), torch.from_numpy(np.concatenate([states[:-1], actions], axis=1))
    (peer,) = _quickest([lambda: jacobians_by_autograd(network, inputs.float())], PEER_REPEATS)
    rows.append((name, "ms, torch.func.vmap(jacrev)", 1e3 * peer, None, None, None))
    exact = jacobians_by_autograd(network, inputs.double()).numpy()
    found = np.concatenate(linearize(mean, states[:-1], actions), axis=2)
    changes = exact - np.eye(STATES, STATES + COMMANDS)
    error = float(np.abs(found - exact).max() / np.abs(changes).max())
    bars.append(Bar(f"{name}: Jacobians' error against float64", error, ERROR_BAR, at_least=False))


class SpringCost(AnalyticCost):
    """(10 |x|^2 + |u|^2) / 2 a period and 10 |x|^2 / 2 at the end: to rest."""

    @property
    def formulas(self) -> CostFormulas:
        return CostFormulas(_spring_running, _spring_end, _spring_running_derivatives, _spring_end_derivatives)

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"state": self.terminal(x), "effort": 0.5 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return 0.5 * STATE_WEIGHT * x.square().sum(-1)


def _spring_end(x: np.ndarray) -> float:
    return 0.5 * STATE_WEIGHT * (x * x).sum()


def _spring_running(x: np.ndarray, u: np.ndarray) -> float:
    return 0.5 * (STATE_WEIGHT * (x * x).sum() + (u * u).sum())


def _spring_end_derivatives(x: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> None:
    for i in range(len(x)):
        gradient[i], hessian[i, i] = STATE_WEIGHT * x[i], STATE_WEIGHT


def _spring_running_derivatives(x: np.ndarray, u: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> None:
    for i in range(len(x)):
        gradient[i], hessian[i, i] = STATE_WEIGHT * x[i], STATE_WEIGHT
    for i in range(len(u)):
        gradient[len(x) + i], hessian[len(x) + i, len(x) + i] = u[i], 1.0


def chain_ensemble(workers: Workers) -> NeuralEnsemble:
    """Return an ensemble that learned how masses on a chain of springs move, of which the first COMMANDS are pushed."""
    masses, period = STATES // 2, 0.05
    space = StateSpace([Channel("q", tuple(f"p{i}" for i in range(masses)), tuple(range(masses))),
                        Channel("dq", tuple(f"v{i}" for i in range(masses)), tuple(range(masses)))])
    generator = torch.Generator().manual_seed(0)
    x, u = (4 * torch.rand(TRANSITIONS, n, generator=generator, dtype=torch.float64) - 2 for n in (STATES, COMMANDS))
    p, v = x.split(masses, dim=1)
    stretched = torch.diff(p, dim=1, prepend=torch.zeros(TRANSITIONS, 1), append=torch.zeros(TRANSITIONS, 1))
    v = v + period * (torch.diff(5.0 * torch.tanh(stretched), dim=1) - 0.2 * v + torch.nn.functional.pad(4.0 * u, (0, masses - COMMANDS)))
    data = TransitionData(x, u, torch.cat([p + period * v, v], dim=1), torch.full((TRANSITIONS,), period, dtype=torch.float64),
                          torch.zeros(TRANSITIONS, dtype=torch.float64), torch.zeros(TRANSITIONS, dtype=torch.bool),
                          torch.arange(TRANSITIONS) // 100)
    config = EnsembleConfig(members=MEMBERS, hidden=HIDDEN, weight_decay=(0.0,), fit=FitConfig(batch_size=256, largest_updates=UPDATES))
    ensemble = NeuralEnsemble(space, COMMANDS, period, config, seed=0)
    ensemble.fit(data, workers)
    return ensemble


def jacobian_gflop() -> float:
    """Return the multiplications and additions of the Jacobians [1e9]: all rows forwards, then back once for every output."""
    widths = (STATES + COMMANDS, *HIDDEN, STATES)
    row = 2 * sum(a * b for a, b in pairwise(widths[:-1]))
    return MEMBERS * HORIZON * (row + STATES * row) / 1e9


def jacobians_by_autograd(network: FoldedNetwork, inputs: Tensor) -> Tensor:
    """Return the Jacobians (T, nx, nx + nu) of the mean step at [x, u] (T, nx + nu), in the inputs' dtype; for plain states."""
    weights, biases = ([parameter.to(inputs.dtype) for parameter in parameters] for parameters in (network.weights, network.biases))
    nx = network.state_space.nx

    def step(row: Tensor) -> Tensor:
        hidden = row.expand(network.members, 1, -1)
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = torch.baddbmm(bias, torch.nn.functional.silu(hidden) if layer else hidden, weight)
        return row[:nx] + hidden[:, 0, :nx].mean(0)

    return torch.func.vmap(torch.func.jacrev(step))(inputs)


def _control(rows: list, bars: list, rounds: int, control: Control, workers: Workers) -> None:
    task = make_task(control.task)
    with task.robot() as robot:
        command = robot.spec.command(None)
        source = EpisodeSource(robot, task.state_space, command, task.cost, task.name)
        ensemble = learned(control, source, workers)
        evaluator = SimpleNamespace(model=ensemble, cost=task.cost, dtype=torch.float64, workers=workers)
        config = ILQRConfig(horizon=control.horizon, iterations=control.iterations)
        planner = make_planner("ilqr", evaluator, command, robot.spec.control_dt, config)
        policy = RecedingHorizonPolicy(planner, task.state_space, command, "ilqr")
        iterations: list[int] = []
        quickest, slow, score = np.inf, np.inf, np.nan
        for _ in range(rounds):
            episode = run_episode(source, policy, task.episode_steps, seed=SEED, trial=0, provenance="ilqr",
                                  watch=lambda *_: iterations.append(0 if policy.plan is None else policy.plan.report.iterations))
            seconds = episode.plan_seconds[1:]  # the first compiles, and starts cold
            if seconds.mean() < quickest:
                quickest, slow = float(seconds.mean()), float(np.quantile(seconds, 0.95))
            score = -float(episode.cost.sum())
    size = f"{ensemble.members} x {len(ensemble.config.hidden)}x{ensemble.config.hidden[0]}"
    name, mean_iterations = f"{control.task}, ensemble {size}, H={control.horizon}", statistics.mean(filter(None, iterations))
    rows += [(name, "plans a second", 1 / quickest, None, None, mean_iterations),
             (name, "ms, the slowest 5 % of plans", 1e3 * slow, None, None, mean_iterations),
             (name, f"return, after {control.episodes} random episodes", score, None, None, None)]
    bars.append(Bar(f"{control.task}: plans a second at {mean_iterations:.2g} iterations", 1 / quickest, PLANS_BAR, at_least=True))


def learned(control: Control, source: EpisodeSource, workers: Workers) -> NeuralEnsemble:
    """Return an ensemble as the task's settings have it, fitted for few steps to few random episodes."""
    steps = make_task(control.task).episode_steps
    command: CommandSpec = source.command
    episodes = {n: run_episode(source, RandomPolicy(command, 8 if n % 2 else 1), steps, seed=n, trial=n, provenance="random")
                for n in range(control.episodes)}
    config = SETTINGS[control.task].ensemble
    config = replace(config, fit=FitConfig(batch_size=256, learning_rate=2e-3, epochs=1000, largest_updates=control.updates,
                                           products=config.fit.products))
    ensemble = NeuralEnsemble(source.state_space, command.nu, source.robot.spec.control_dt, config, seed=0)
    ensemble.fit(transition_data(episodes, source.state_space), workers)
    return ensemble


def _quickest(works: list[Callable[[], object]], repeats: int) -> list[float]:
    """Return the least seconds of each of `works`, by turns, so that a machine that drifts slows all alike."""
    least = [np.inf] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            began = time.perf_counter()
            work()
            least[i] = min(least[i], time.perf_counter() - began)
    return least
