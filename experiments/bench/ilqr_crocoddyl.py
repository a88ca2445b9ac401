"""Our solver on crocoddyl's own action models, beside crocoddyl: iterations, final cost, and what an iteration takes."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.bench.action_models import described_problems, problem_of
from experiments.bench.peers.running import peer_is_installed, run_peer
from experiments.bench.result import Bar
from planners.ilqr_solver import ILQRSolver, Solution, SolverConfig
from planners.linear_quadratic import LocalPolicy

SPEED_BAR = 2.5
"""Times as fast as crocoddyl's iteration."""
TIMED = "unicycle, near"
"""The problem whose speed has a bar."""
COMPILED = {"unicycle"}
"""Kinds that are formulas here too; of the others, which are torch, only iterations and costs are compared."""
SAME = 1.01
TOLERANCE = 1e-6
"""Share of the final cost: iterations are counted until it is so near, whatever either side's stopping rule wants."""
REPEATS = 100
CONFIG = SolverConfig(line_search="one-by-one", compile_for_size=True, feedforward_tolerance=1e-9, cost_tolerance=1e-12)


def add_rows(rows: list, bars: list, rounds: int, threads: int | None, console: Console) -> None:
    """Add a row for every problem, and bars where crocoddyl is installed; one thread's work."""
    with tempfile.TemporaryDirectory() as folder:
        problems, file = described_problems(), Path(folder) / "problems.json"
        file.write_text(json.dumps(problems))
        installed = peer_is_installed("crocoddyl", console)
        found = [_Solved(described) for described in problems]
        peers: list[dict] = []
        for _ in range(rounds):  # by turns, so that a machine that drifts slows both alike
            for described, solved in zip(problems, found, strict=True):
                if described["kind"] in COMPILED:
                    solved.measure()
            if installed:
                peers.append(run_peer("crocoddyl", "crocoddyl_problems.py", file, "--repeats", REPEATS))
    for described, solved in zip(problems, found, strict=True):
        name, theirs, seconds = described["name"], None, None
        if installed:
            theirs = peers[0][name]
            seconds = min(peer[name]["seconds_per_iteration"] for peer in peers)
            bars += [Bar(f"{name}: cost over crocoddyl's", _over(solved.cost, theirs["cost"]), SAME, at_least=False),
                     Bar(f"{name}: iterations over crocoddyl's", solved.iterations / theirs["iterations"], SAME, at_least=False)]
            if name == TIMED:
                bars.append(Bar(f"{name}: iteration x crocoddyl", seconds / solved.seconds, SPEED_BAR, at_least=True))
        rows.append((name, "cost", solved.cost, None, None if theirs is None else theirs["cost"], solved.iterations))
        if described["kind"] in COMPILED:
            rows.append((name, "ms an iteration", 1e3 * solved.seconds, None, None if seconds is None else 1e3 * seconds,
                         solved.iterations))


class _Solved:
    """One problem from where no command leads."""

    def __init__(self, described: dict) -> None:
        self._problem, self._x0 = problem_of(described), np.array(described["x0"])
        horizon, nu = described["horizon"], self._problem.nu
        self._nothing = LocalPolicy.nothing(horizon, self._problem.space.ndx, nu)
        self._start = self._problem.play(self._x0, np.zeros((horizon, nu)))
        self.cost = self._solve(CONFIG.iterations).trajectory.cost
        self.iterations = next(n for n in range(1, CONFIG.iterations + 1)
                               if self._solve(n).trajectory.cost <= self.cost + TOLERANCE * abs(self.cost))
        self.seconds = np.inf
        """Least of an iteration."""

    def measure(self) -> None:
        config = replace(CONFIG, iterations=self.iterations)
        config.steps  # noqa: B018 (kept from here on)
        for _ in range(REPEATS):
            began = time.perf_counter()
            ILQRSolver(self._problem, config, self._x0, self._start, self._nothing).solve()
            self.seconds = min(self.seconds, (time.perf_counter() - began) / self.iterations)

    def _solve(self, iterations: int) -> Solution:
        config = replace(CONFIG, iterations=iterations)
        return ILQRSolver(self._problem, config, self._x0, self._start, self._nothing).solve()


def _over(ours: float, theirs: float) -> float:
    """Return how many times theirs ours is, where both may be negative: 1 is equal, above 1 is worse."""
    return 1.0 + (ours - theirs) / abs(theirs)
