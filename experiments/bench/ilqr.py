"""iLQR and FDDP: the optimum reached where it is known, and what an iteration costs beside NumPy, crocoddyl, mjbatch and the least that
MuJoCo's derivatives or an ensemble's take."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from rich.console import Console

from experiments.bench import ilqr_crocoddyl, ilqr_ensemble, ilqr_mujoco
from experiments.bench.control_problems import CAR_HORIZON, CAR_OPTIMUM, CAR_PERIOD, CAR_START, ParkingCost, car, car_box, car_starts
from experiments.bench.result import Bar, BenchResult, Cell, machine
from planners.ilqr import FDDP, ILQR, ILQRConfig
from planners.linear_quadratic import LinearQuadraticModel, LocalPolicy

PARKING_BAR, PARKING_SECONDS_BAR = 1.906, 1.0
RICCATI_ERROR_BAR = 1e-9
SWEEP_BAR = 5.0
"""Times as fast as NumPy's sweep."""
SWEEPS = ((14, 7, 100), (3, 2, 200), (36, 12, 50), (48, 12, 50), (120, 12, 20))
"""States, commands, periods; a bar only for the first, an arm's."""
REPEATS = 100
COLUMNS = ("problem", "what", "ours", "NumPy", "peer", "iterations")


def bench_ilqr(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Measure in `seeds` rounds, the quickest of which counts. Parking, sweeps and crocoddyl's problems are one thread's work, whatever
    `threads` says."""
    torch.set_num_threads(1)
    rows: list[tuple[Cell, ...]] = []
    bars: list[Bar] = []
    _parking(rows, bars, seeds)
    _sweeps(rows, bars, seeds)
    for part in (ilqr_crocoddyl, ilqr_mujoco, ilqr_ensemble):
        part.add_rows(rows, bars, seeds, threads, console)
    return BenchResult("ilqr", COLUMNS, rows, bars, machine(threads))


def _parking(rows: list, bars: list, rounds: int) -> None:
    evaluator = SimpleNamespace(model=car(), cost=ParkingCost(), dtype=torch.float64)
    x0 = torch.tensor(CAR_START, dtype=torch.float64)
    for kind in (ILQR, FDDP):
        planner = kind(evaluator, car_box(), CAR_PERIOD, ILQRConfig(horizon=CAR_HORIZON, iterations=300))
        for start, actions in car_starts().items():
            plans = [planner.plan(x0, None, torch.Generator(), initial_actions=actions) for _ in range(rounds + 1)][1:]
            seconds, plan, name = min(p.report.seconds for p in plans), plans[0], f"{kind.__name__} parking, {start}"
            beyond = max(float((plan.actions.abs() - torch.tensor([0.5, 2.0])).max()), 0.0)
            rows.append((name, f"cost (best known {CAR_OPTIMUM})", plan.cost, None, None, plan.report.iterations))
            rows.append((name, "s", seconds, None, None, plan.report.iterations))
            bars += [Bar(f"{name}: J", plan.cost, PARKING_BAR, at_least=False),
                     Bar(name, seconds, PARKING_SECONDS_BAR, at_least=False, unit="s"),
                     Bar(f"{name}: beyond the limits", beyond, 0.0, at_least=False)]


def _sweeps(rows: list, bars: list, rounds: int) -> None:
    for states, commands, horizon in SWEEPS:
        model = random_model(states, commands, horizon)
        unlimited = np.full((horizon, commands), np.inf)

        def ours(model: LinearQuadraticModel = model, unlimited: np.ndarray = unlimited) -> LocalPolicy:
            return model.backward(-unlimited, unlimited)

        def theirs(model: LinearQuadraticModel = model) -> np.ndarray:
            return numpy_sweep(model)

        error = float(np.abs(ours().gains - theirs()).max())
        seconds, numpy_seconds = _quickest((ours, theirs), rounds, REPEATS)
        name = f"sweep {states} x {commands}, H={horizon}"
        rows.append((name, "ms", 1e3 * seconds, 1e3 * numpy_seconds, None, None))
        bars.append(Bar(f"{name}: error", error, RICCATI_ERROR_BAR, at_least=False))
        if (states, commands, horizon) == SWEEPS[0]:
            bars.append(Bar(f"{name} x NumPy", numpy_seconds / seconds, SWEEP_BAR, at_least=True))


def _quickest(works: tuple[Callable[[], object], ...], rounds: int, repeats: int) -> list[float]:
    """Return the least seconds of each of `works`, by turns, so that a machine that drifts slows all alike."""
    least = [np.inf] * len(works)
    for _ in range(rounds * repeats):
        for i, work in enumerate(works):
            began = time.perf_counter()
            work()
            least[i] = min(least[i], time.perf_counter() - began)
    return least


def random_model(states: int, commands: int, horizon: int) -> LinearQuadraticModel:
    """Return a convex problem of this size."""
    rng, both = np.random.default_rng(0), states + commands
    root = rng.normal(size=(horizon + 1, both, both))
    hessian, gradient = root @ root.transpose(0, 2, 1) / both + 0.1 * np.eye(both), rng.normal(size=(horizon + 1, both))
    return LinearQuadraticModel(np.eye(states) + rng.normal(size=(horizon, states, states)) / (4 * states),
                                rng.normal(size=(horizon, states, commands)) / states, gradient[:-1].copy(), hessian[:-1].copy(),
                                gradient[-1, :states].copy(), hessian[-1, :states, :states].copy())


def numpy_sweep(model: LinearQuadraticModel) -> np.ndarray:
    """Return the gains (H, nu, ndx) of the same pass in NumPy, without limits: what one writes first."""
    horizon, n, m = model.b.shape
    gains, v_x, v_xx = np.empty((horizon, m, n)), model.end_gradient, model.end_hessian
    for t in range(horizon - 1, -1, -1):
        a, b, l_x, l_u = model.a[t], model.b[t], model.gradient[t, :n], model.gradient[t, n:]
        l_xx, l_ux, l_uu = model.hessian[t, :n, :n], model.hessian[t, n:, :n], model.hessian[t, n:, n:]
        q_x, q_u = l_x + a.T @ v_x, l_u + b.T @ v_x
        q_xx, q_ux, q_uu = l_xx + a.T @ v_xx @ a, l_ux + b.T @ v_xx @ a, l_uu + b.T @ v_xx @ b
        solved = -np.linalg.solve(q_uu, np.column_stack([q_u, q_ux]))
        k, gains[t] = solved[:, 0], solved[:, 1:]
        v_x, v_xx = q_x + q_ux.T @ k, q_xx + q_ux.T @ gains[t]
        v_xx = 0.5 * (v_xx + v_xx.T)
    return gains
