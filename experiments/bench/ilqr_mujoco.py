"""iLQR through MuJoCo: an iteration beside nothing but its derivatives and its line search."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import mujoco
import numba
import numpy as np
import torch
from mujoco.batch import Batch
from numba import types
from rich.console import Console
from torch import Tensor

from dynamics.workers import checked_threads
from experiments.bench.ilqr_mjbatch import add_mjbatch_rows
from experiments.bench.result import Bar
from experiments.bench.suite_models import suite_xml
from planners.cost import Cost
from planners.cost_expansion import CostExpansion
from planners.ilqr import ILQR, ILQRConfig
from robots.command import CommandMode, CommandSpec
from sim.simulator.engine import Simulations, library
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.planning_copy import PlanningCopy
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel
from sim.tasks.cartpole import SCENE as CARTPOLE
from sim.tasks.half_cheetah import SCENE as CHEETAH
from sim.tasks.reacher import SCENE as ARM

RATIO_BAR, ARM_BAR = 1.25, 5.0
"""Times the derivatives and line search alone; ms of an iteration with the arm over 100 periods."""
ITERATIONS, REPEATS = 6, 12
STATE_WEIGHT, CONTROL_WEIGHT, END = 1.0, 0.1, 10.0


class TrackingCost(Cost):
    """(|x - goal|^2 + 0.1 |u|^2) / 2 a period, and ten times the first at the end; with derivatives in closed form."""

    def __init__(self, goal: np.ndarray, controls: int, horizon: int) -> None:
        self._goal, self._weights = goal, np.array([STATE_WEIGHT] * len(goal) + [CONTROL_WEIGHT] * controls)
        self._hessian, self._end_hessian = np.tile(np.diag(self._weights), (horizon, 1, 1)), END * STATE_WEIGHT * np.eye(len(goal))

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"state": self.terminal(x) / END, "effort": 0.5 * CONTROL_WEIGHT * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return 0.5 * END * STATE_WEIGHT * (x - torch.from_numpy(self._goal)).square().sum(-1)

    def expand(self, states: np.ndarray, actions: np.ndarray) -> CostExpansion:
        """See `ExpandableCost`."""
        gradient, end_gradient = _gradients(states, actions, self._goal, self._weights)
        return CostExpansion(gradient, self._hessian, end_gradient, self._end_hessian)

    def totals(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """See `TotalCost`."""
        return _totals(states, actions, self._goal)


@numba.njit(cache=True)
def _gradients(states: np.ndarray, actions: np.ndarray, goal: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (horizon, nu), nx = actions.shape, len(goal)
    gradient = np.empty((horizon, nx + nu))
    for t in range(horizon):
        for i in range(nx):
            gradient[t, i] = weights[i] * (states[t, i] - goal[i])
        for i in range(nu):
            gradient[t, nx + i] = weights[nx + i] * actions[t, i]
    return gradient, END * weights[:nx] * (states[horizon] - goal)


@numba.njit(cache=True)
def _totals(states: np.ndarray, actions: np.ndarray, goal: np.ndarray) -> np.ndarray:
    totals = np.zeros(len(states))
    for sample in range(len(states)):
        for t in range(states.shape[1]):
            away = 0.0
            for i in range(states.shape[2]):
                away += (states[sample, t, i] - goal[i]) ** 2
            totals[sample] += 0.5 * STATE_WEIGHT * away * (END if t == actions.shape[1] else 1.0)
        for t in range(actions.shape[1]):
            for i in range(actions.shape[2]):
                totals[sample] += 0.5 * CONTROL_WEIGHT * actions[sample, t, i] ** 2
    return totals


@dataclass(frozen=True)
class Size:
    """A model that MuJoCo differentiates, of one physics step a period, and how many periods are planned."""

    name: str
    model: mujoco.MjModel
    horizon: int


def add_rows(rows: list, bars: list, rounds: int, threads: int | None, console: Console) -> None:
    """Add the rows and bars of `bench ilqr` that are about MuJoCo; `rounds` of measurement, the quickest of which counts."""
    for size in sizes():
        ours, floor, iterations = measure(size, rounds, checked_threads(threads))
        name = f"{size.name}, H={size.horizon}"
        rows.append((name, "ms an iteration", 1e3 * ours, None, None, iterations))
        rows.append((name, "ms of derivatives and line search alone", 1e3 * floor, None, None, None))
        bars.append(Bar(f"{name}: iteration over derivatives and line search", ours / floor, RATIO_BAR, at_least=False))
        if (size.name, size.horizon) == ("7-DoF arm", 100):
            ours, _, iterations = measure(size, rounds, checked_threads(threads), full_step_first=True)
            rows.append((name, "ms an iteration, full step first", 1e3 * ours, None, None, iterations))
            bars.append(Bar(f"{name}: iteration, full step first", 1e3 * ours, ARM_BAR, at_least=False, unit="ms"))
    add_mjbatch_rows(rows, bars, threads, console)


def sizes() -> list[Size]:
    """Return the problems. Models that integrate by Runge-Kutta are planned through a copy that does not."""
    implicit = PlanningCopy(integrator="implicitfast")
    cartpole, arm = (implicit.of(scene.load(), scene.load().opt.timestep)[0] for scene in (CARTPOLE, ARM))
    return [Size("cart-pole", cartpole, 50), Size("cheetah", CHEETAH.load(), 50),
            Size("walker", mujoco.MjModel.from_xml_string(suite_xml("walker")), 50),
            Size("7-DoF arm", arm, 50), Size("7-DoF arm", arm, 100)]


def measure(size: Size, rounds: int, threads: int, full_step_first: bool = False) -> tuple[float, float, int]:
    """Return the seconds of an iteration, those of its derivatives and its rollouts alone, and how many iterations were measured.

    `full_step_first`: the other steps are tried only where the full one does not lower the cost.
    """
    machine, horizon = size.model, size.horizon
    space = PhysicsSpace(machine)
    model = _Timed(machine, space, 1, threads)
    x0 = np.concatenate([machine.qpos0, np.zeros(machine.nv)])
    goal = x0 + 0.1 * np.random.default_rng(0).normal(size=len(x0))
    config = ILQRConfig(horizon=horizon, iterations=ITERATIONS, feedforward_tolerance=0.0, cost_tolerance=0.0,
                        line_search="full-first" if full_step_first else "together")
    planner = ILQR(SimulatorEvaluator(model, TrackingCost(goal, machine.nu, horizon)), box_of(machine), machine.opt.timestep, config)
    start, actions = torch.from_numpy(x0), torch.zeros(horizon, machine.nu, dtype=torch.float64)
    plan = planner.plan(start, None, torch.Generator(), initial_actions=actions)
    floor = _Floor(machine, plan.states.numpy(), plan.actions.numpy(), config.step_lengths, threads)
    floor.seconds()
    quickest, least = np.full(plan.report.iterations, np.inf), np.inf
    for _ in range(rounds * REPEATS):  # by turns, so that a machine that drifts slows both alike
        model.marks.clear()
        planner.plan(start, None, torch.Generator(), initial_actions=actions)
        for i, seconds in enumerate(model.iterations()):
            quickest[i] = min(quickest[i], seconds)
        least = min(least, floor.seconds())
    whole = quickest[np.isfinite(quickest)]
    return float(whole.mean()), least, len(whole)


class _Timed(SimulatorModel):
    """Notes when iLQR asks for derivatives and for a line search."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.marks: list[tuple[str, float]] = []

    def linearize(self, *given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.marks.append(("derivatives", time.perf_counter()))
        return super().linearize(*given)

    def roll_out_feedback(self, *given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(given[3]) > 1:  # steps: one alone begins or ends a search
            self.marks.append(("search", time.perf_counter()))
        return super().roll_out_feedback(*given)

    def iterations(self) -> list[float]:
        """Return the seconds of each iteration that another followed; NaN for one that searched again, with more regularisation."""
        asked = [i for i, (what, _) in enumerate(self.marks) if what == "derivatives"]
        return [self.marks[b][1] - self.marks[a][1] if b <= a + 2 else np.nan for a, b in pairwise(asked)]


def box_of(model: mujoco.MjModel) -> CommandSpec:
    """Return the limits of a model's actuators, 1 where it has none."""
    limited = model.actuator_ctrllimited.astype(bool)
    low, high = (np.where(limited, model.actuator_ctrlrange[:, i], sign) for i, sign in enumerate((-1.0, 1.0)))
    return CommandSpec(CommandMode.ACTUATOR, tuple(map(str, range(model.nu))), low, high, "actuator input")


class _Floor:
    """Derivatives and rollouts and nothing else: `mjd_transitionFD` for every period, as MuJoCo's manual shows it for `mjb_apply`, and
    one plan as often as there are step lengths by MuJoCo's own `Batch.rollout`."""

    def __init__(self, model: mujoco.MjModel, states: np.ndarray, actions: np.ndarray, samples: int, threads: int) -> None:
        library()
        n, self._given = 2 * model.nv + model.na, (states[:-1], actions)
        self._simulations = Simulations(model, len(actions), threads)
        self._a, self._b = np.empty((len(actions), n, n)), np.empty((len(actions), n, model.nu))
        self._job = np.array([self._a.ctypes.data, self._a[0].nbytes, self._b.ctypes.data, self._b[0].nbytes])
        pointer = types.intp
        signature = types.void(pointer, pointer, types.float64, types.int32, pointer, pointer, pointer, pointer)
        transition = types.ExternalFunction("mjd_transitionFD", signature)

        @numba.cfunc(types.void(pointer, pointer, types.int32, types.CPointer(types.int64)))
        def differentiate(model: int, data: int, period: int, job: types.CPointer) -> None:
            transition(model, data, 1e-6, 0, job[0] + period * job[1], job[2] + period * job[3], 0, 0)

        self._function = differentiate
        self._batch = Batch(model, samples, min(threads, samples))
        self._batch.qpos, self._batch.qvel = states[0, :model.nq], states[0, model.nq:]
        self._start = self._batch.state.copy()
        self._control = np.tile(actions, (samples, 1, 1))
        self._record = int(mujoco.mjtState.mjSTATE_QPOS | mujoco.mjtState.mjSTATE_QVEL)
        self._out = {self._record: np.empty((samples, len(actions), model.nq + model.nv))}

    def seconds(self) -> float:
        """Return what one round of both takes."""
        began = time.perf_counter()
        self._simulations.begin(*self._given)
        self._simulations.run(self._function.address, self._job.ctypes.data, len(self._a))
        self._batch.state[:] = self._start
        self._batch.rollout(self._control.shape[1], control=self._control, record=[self._record], out=self._out)
        return time.perf_counter() - began
