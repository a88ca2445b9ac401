"""A plan by sampling through MuJoCo beside judo's, at equal rollouts, and beside the raw steps of the same model."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from rich.console import Console
from torch import Tensor

from dynamics.workers import checked_threads
from experiments.bench.peers.running import peer_file, peer_is_installed, run_peer
from experiments.bench.result import Bar, BenchResult, Cell, machine
from experiments.bench.suite_models import suite_xml
from planners.cost import Cost
from planners.mppi import MPPI, MPPIConfig
from robots.command import CommandMode, CommandSpec
from robots.errors import NumericalError
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel
from sim.tasks.half_cheetah import SCENE as CHEETAH
from sim.tasks.reacher import SCENE as ARM

COLUMNS = ("model", "rollouts", "periods", "plan [ms]", "raw steps [ms]", "share of raw", "overhead [us]", "judo [ms]", "x judo", "cost",
           "judo's cost")
KNOTS = 4
PLANS = 120
REPEATS = 3
"""Measurements of every seed, ours and judo's in turn: each lives the same episode again, so of every plan the fastest counts, and what
else the computer does in between does not."""
RAW_EVERY = 4
"""Plans from one measurement of the raw steps to the next."""
PUSH = 0.5
"""Standard deviation of the velocities that the controlled model begins with: from rest, nothing to do would cost least."""
SPREAD = 0.1
"""Standard deviation of the draws, in the commands' own units as judo has it."""
JUDO_CARTPOLE = "judo/models/xml/cartpole.xml"
"""In judo's package."""
RATIO_BARS = {"cart-pole (judo's)": 4.0}
OTHER_RATIO, SHARE_BAR, OVERHEAD_BAR, COST_BAR = 1.3, 0.95, 50.0, 1.0
"""Times faster than judo on the other models; share of the raw steps a second; what Python adds to a plan [us]; cost over judo's."""


class SquaresCost(Cost):
    """|x|^2 + 0.1 |u|^2, as peers/judo_mpc.py charges it."""

    pure = True

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"state": x.square().sum(-1), "effort": 0.1 * u.square().sum(-1)}

    def running(self, x: Tensor, u: Tensor) -> Tensor:
        return x.square().sum(-1) + 0.1 * u.square().sum(-1)

    def terminal(self, x: Tensor) -> Tensor:
        return x.square().sum(-1)


@dataclass(frozen=True)
class Size:
    """A model, and how many rollouts a plan makes through it, of one physics step a period."""

    name: str
    xml: str
    """MJCF."""
    rollouts: int
    periods: int


@dataclass(frozen=True)
class Measured:
    """What planning took, and what it was for."""

    plans: Sequence[float]
    """Seconds of every plan."""
    raw: Sequence[float]
    """Seconds of MuJoCo's own rollouts of the same commands from the same states, of some plans."""
    trimmed: Sequence[float]
    """Seconds of these through the model without idle work, as plans are rolled out: what a plan takes longer is its overhead."""
    cost: float
    """Paid by the model that was controlled, summed over the periods."""


def _typical(repeats: Sequence[Sequence[float]]) -> float:
    """Return the median over what was repeated, the first sixth aside, of the fastest of each [s]."""
    fastest = [min(seconds) for seconds in zip(*repeats, strict=True)]
    return statistics.median(fastest[len(fastest) // 6:])


def bench_plan_sim(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Return the time of a plan by MPPI with one round of sampling, in control of the model that it plans through, and what the model then
    pays; medians over `seeds`. Like judo's, the plans are not rolled out once more to be explained."""
    judo = peer_is_installed("judo", console)
    rows: list[tuple[Cell, ...]] = []
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in _sizes(judo):
            file = Path(folder) / "model.xml"
            file.write_text(size.xml)
            ours, theirs = [], []
            for seed in range(seeds):
                told = ("--rollouts", size.rollouts, "--steps", size.periods, "--nodes", KNOTS, "--plans", PLANS, "--threads",
                        checked_threads(threads), "--push", PUSH, "--seed", seed)
                rounds = [(_measure(size, threads, seed), run_peer("judo", "judo_mpc.py", file, *told) if judo else None)
                          for _ in range(REPEATS)]
                lived, judos = zip(*rounds, strict=True)
                _check_repeats(size.name, seed, [m.cost for m in lived], [m["cost"] for m in judos] if judo else [])
                ours.append((*(_typical([getattr(m, name) for m in lived]) for name in ("plans", "raw", "trimmed")), lived[0].cost))
                if judo:
                    theirs.append((_typical([m["seconds"] for m in judos]), judos[0]["cost"]))
            plan, raw, trimmed, cost = (statistics.median(figures) for figures in zip(*ours, strict=True))
            peer, peer_cost = (statistics.median(figures) for figures in zip(*theirs, strict=True)) if theirs else (None, None)
            rows.append((size.name, size.rollouts, size.periods, 1e3 * plan, 1e3 * raw, raw / plan, 1e6 * (plan - trimmed),
                         None if peer is None else 1e3 * peer, None if peer is None else peer / plan, cost, peer_cost))
            bars.append(Bar(f"{size.name}: share of the raw steps", raw / plan, SHARE_BAR, at_least=True))
            if peer is not None and peer_cost is not None:
                bars += [Bar(f"{size.name}: x judo", peer / plan, RATIO_BARS.get(size.name, OTHER_RATIO), at_least=True),
                         Bar(f"{size.name}: cost over judo's", cost / peer_cost, COST_BAR, at_least=False)]
            console.print(f"{size.name}: {1e3 * plan:.3f} ms a plan", highlight=False)
    bars.append(Bar(f"{rows[0][0]}: overhead of a plan", rows[0][6], OVERHEAD_BAR, at_least=False, unit="us"))
    return BenchResult("plan-sim", COLUMNS, rows, bars, machine(threads))


def _check_repeats(name: str, seed: int, *sides: Sequence[float]) -> None:
    """Raise NumericalError where an episode of one seed was not the same each time, so that the fastest times are of different plans."""
    for costs in sides:
        if len(set(costs)) > 1:
            raise NumericalError(f"{name}, seed {seed}: expected the same cost of every repeat, got {costs}")


def _sizes(judo: bool) -> list[Size]:
    sizes = [Size("half-cheetah", mujoco.MjSpec.from_file(str(CHEETAH.path)).to_xml(), 64, 100),
             Size("walker", suite_xml("walker"), 64, 100),
             Size("humanoid", suite_xml("humanoid"), 64, 100),
             Size("7-DoF arm", mujoco.MjSpec.from_file(str(ARM.path)).to_xml(), 64, 100)]
    return [Size("cart-pole (judo's)", peer_file("judo", JUDO_CARTPOLE).read_text(), 32, 25), *sizes] if judo else sizes


def _measure(size: Size, threads: int | None, seed: int) -> Measured:
    machine_model = mujoco.MjModel.from_xml_string(size.xml)
    model = SimulatorModel(machine_model, PhysicsSpace(machine_model), 1, threads)
    limited = machine_model.actuator_ctrllimited.astype(bool)
    low, high = (np.where(limited, machine_model.actuator_ctrlrange[:, i], sign) for i, sign in enumerate((-1.0, 1.0)))
    command = CommandSpec(CommandMode.ACTUATOR, tuple(map(str, range(machine_model.nu))), low, high, "actuator input")
    config = MPPIConfig(horizon=size.periods, population=size.rollouts, iterations=1, interpolation="linear", knots=KNOTS,
                        std=SPREAD / float((high - low).max() / 2))
    evaluator = _Watched(model, SquaresCost())
    planner = MPPI(evaluator, command, machine_model.opt.timestep, config)
    planner.explains = False
    raw, trimmed = (_RawSteps(stepped, size, model.threads) for stepped in (machine_model, model.trimmed))
    controlled, cost = mujoco.MjData(machine_model), 0.0
    controlled.qvel[:] = np.random.default_rng(seed).normal(0.0, PUSH, machine_model.nv)
    generator, previous, plans, steps, fewer = torch.Generator().manual_seed(seed), None, [], [], []
    for period in range(PLANS):
        x0 = torch.from_numpy(np.concatenate([controlled.qpos, controlled.qvel]))
        started = time.perf_counter()
        previous = planner.plan(x0, previous, generator)
        plans.append(time.perf_counter() - started)
        if period % RAW_EVERY == 0:
            steps.append(raw.seconds(controlled, evaluator.rolled_out.numpy()))
            fewer.append(trimmed.seconds(controlled, evaluator.rolled_out.numpy()))
        controlled.ctrl[:] = previous.action_at(0.0)
        mujoco.mj_step(machine_model, controlled)
        cost += float(np.square(controlled.qpos).sum() + np.square(controlled.qvel).sum() + 0.1 * np.square(controlled.ctrl).sum())
    return Measured(plans, steps, fewer, cost)


class _Watched(SimulatorEvaluator):
    """Remembers the plans (N, H, nu) that it rolled out last."""

    rolled_out: Tensor

    def costs(self, x0: Tensor, actions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.rolled_out = actions  # the planner's own room, until its next plan
        return super().costs(x0, actions, generator)


class _RawSteps:
    """MuJoCo's own threaded rollouts of a size."""

    def __init__(self, model: mujoco.MjModel, size: Size, threads: int) -> None:
        self._batch, self._periods = Batch(model, size.rollouts, threads), size.periods
        self._start = self._batch.state.copy()
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._record = int(mujoco.mjtState.mjSTATE_QPOS | mujoco.mjtState.mjSTATE_QVEL)
        self._out = {self._record: np.empty((size.rollouts, size.periods, model.nq + model.nv))}

    def seconds(self, start: mujoco.MjData, commands: np.ndarray) -> float:
        """Return what the rollouts of commands (N, H, nu) from `start` take."""
        commands = np.ascontiguousarray(commands, dtype=np.float64)
        self._batch.state[:] = self._start
        self._qpos[:], self._qvel[:] = start.qpos, start.qvel
        started = time.perf_counter()
        self._batch.rollout(self._periods, control=commands, record=[self._record], out=self._out)
        return time.perf_counter() - started
