"""Direct collocation in continuous time: trapezoidal and Hermite-Simpson (Kelly 2017, An introduction to trajectory optimization)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from planners.ipopt import SolverStatus, how_it_ended, load_casadi, numpy_functions_of_casadi, solver_options
from robots.errors import ConfigurationError, UnknownNameError
from robots.validation import checked_array

METHODS = ("trapezoidal", "hermite-simpson")
SUBSTEPS = 20
"""Runge-Kutta steps an interval when a solution is driven through the dynamics."""


@runtime_checkable
class ContinuousDynamics(Protocol):
    """A system in formulas, and what its motion pays.

    x (nx,) and u (nu,) are vectors of casadi's symbols or of NumPy: use entries, operators, and functions that both know (np.sin).
    """

    nx: int
    nu: int

    def derivative(self, x: Any, u: Any) -> Sequence[Any]:
        """Return dx/dt, nx entries."""
        ...

    def running(self, x: Any, u: Any) -> Any:
        """Return the cost per second."""
        ...

    def terminal(self, x: Any) -> Any:
        """Return the cost of ending in x."""
        ...


@dataclass(frozen=True)
class ContinuousProblem:
    """From where to where, within what."""

    dynamics: ContinuousDynamics
    start: np.ndarray
    """(nx,)"""
    duration: tuple[float, float]
    """[s] shortest and longest; alike where it is given."""
    x_min: np.ndarray
    """(nx,) -inf where there is no bound."""
    x_max: np.ndarray
    u_min: np.ndarray
    """(nu,)"""
    u_max: np.ndarray
    goal: np.ndarray | None = None
    """(nx,) NaN for entries that may end anywhere; None: all of them."""
    time_weight: float = 0.0
    """Cost per second, beside the dynamics' own."""

    def __post_init__(self) -> None:
        nx, nu = self.dynamics.nx, self.dynamics.nu
        object.__setattr__(self, "start", checked_array("start", self.start, (nx,)))
        for name, count in (("x_min", nx), ("x_max", nx), ("u_min", nu), ("u_max", nu)):
            object.__setattr__(self, name, checked_array(name, getattr(self, name), (count,), finite=False))
        goal = np.full(nx, np.nan) if self.goal is None else self.goal
        object.__setattr__(self, "goal", checked_array("goal", goal, (nx,), finite=False))
        if not ((self.x_min <= self.x_max).all() and (self.u_min <= self.u_max).all()):
            raise ConfigurationError("ContinuousProblem: expected every minimum at most its maximum, and none NaN")
        outside = np.flatnonzero((self.start < self.x_min) | (self.start > self.x_max))
        beyond = np.flatnonzero((self.goal < self.x_min) | (self.goal > self.x_max) | np.isinf(self.goal))
        for name, entries, value in (("start", outside, self.start), ("goal", beyond, self.goal)):
            if len(entries):
                i = entries[0]
                raise ConfigurationError(f"{name}: entry {i} is {value[i]}, outside its bounds [{self.x_min[i]}, {self.x_max[i]}]")
        shortest, longest = self.duration
        if not 0 < shortest <= longest < np.inf:
            raise ConfigurationError(f"duration: expected 0 < shortest <= longest, finite [s], got {self.duration}")


@dataclass(frozen=True)
class CollocationConfig:
    """How to transcribe and solve."""

    method: str = "hermite-simpson"
    """trapezoidal: commands are straight between knots; hermite-simpson: parabolas, and far smaller errors."""
    intervals: int = 50
    """N."""
    iterations: int = 500
    """Of IPOPT, at most."""
    seconds: float = 60.0
    """Time budget of IPOPT."""
    tolerance: float = 1e-8
    """IPOPT's, on scaled optimality and constraints."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("method", self.method, METHODS)
        if self.intervals < 1 or self.iterations < 1:
            raise ConfigurationError(f"CollocationConfig: expected at least 1 interval and 1 iteration, got {self.intervals} and "
                                     f"{self.iterations}")
        if not (self.seconds > 0 and self.tolerance > 0):
            raise ConfigurationError(f"CollocationConfig: expected positive seconds and tolerance, got {self.seconds} and {self.tolerance}")


@dataclass(frozen=True)
class CollocationResult:
    """What came out; where the status is not `solved` there is no plan."""

    status: SolverStatus
    message: str
    """IPOPT's words."""
    iterations: int
    times: np.ndarray | None = None
    """(N + 1,) [s]"""
    states: np.ndarray | None = None
    """(N + 1, nx) where the commands lead from the start, by Runge-Kutta in small steps."""
    actions: np.ndarray | None = None
    """(N + 1, nu) at the knots."""
    midway: np.ndarray | None = None
    """(N, nu) between the knots."""
    cost: float = np.inf
    """As transcribed."""
    defect: float = np.inf
    """Largest distance, in any entry, between `states` and the states that IPOPT was left with: what the transcription makes of the
    dynamics is worth no more than this."""


def solve_collocation(problem: ContinuousProblem, config: CollocationConfig | None = None) -> CollocationResult:
    """Return commands that minimise the cost, as transcribed; MissingExtraError without casadi.

    The first guess is a straight line from the start to the goal with commands in the middle of their bounds (zero where there are none).
    """
    config = config or CollocationConfig()
    transcription = _Transcription(load_casadi(), problem, config)
    values, cost, status, message, iterations = transcription.solve()
    if status is not SolverStatus.SOLVED:
        return CollocationResult(status, message, iterations)
    planned, actions, midway, duration = values
    states = drive(problem.dynamics, problem.start, actions, midway, duration)
    defect = float(np.abs(states - planned).max()) if np.isfinite(states).all() else np.inf
    return CollocationResult(status, message, iterations, np.linspace(0.0, duration, config.intervals + 1), states, actions, midway, cost,
                             defect)


def drive(dynamics: ContinuousDynamics, start: np.ndarray, actions: np.ndarray, midway: np.ndarray, duration: float) -> np.ndarray:
    """Return the states (N + 1, nx) at the knots when commands, parabolas through (N + 1, nu) and (N, nu), drive the system."""
    step = duration / len(midway) / SUBSTEPS

    def derivative(x: np.ndarray, k: int, s: float) -> np.ndarray:
        u = (2 * s - 1) * (s - 1) * actions[k] + 4 * s * (1 - s) * midway[k] + s * (2 * s - 1) * actions[k + 1]
        return np.array([float(entry) for entry in dynamics.derivative(x, u)])

    states = [np.asarray(start, dtype=np.float64)]
    with np.errstate(all="ignore"):  # what diverges is reported as an infinite defect
        for k in range(len(midway)):
            x = states[-1]
            for s in np.arange(SUBSTEPS) / SUBSTEPS:
                half, whole = s + 0.5 / SUBSTEPS, s + 1.0 / SUBSTEPS
                a = derivative(x, k, s)
                b = derivative(x + step / 2 * a, k, half)
                c = derivative(x + step / 2 * b, k, half)
                x = x + step / 6 * (a + 2 * b + 2 * c + derivative(x + step * c, k, whole))
            states.append(x)
    return np.array(states)


class _Transcription:
    """The problem as IPOPT sees it: states and commands at knots, for Hermite-Simpson also midway, and the duration."""

    def __init__(self, casadi: Any, problem: ContinuousProblem, config: CollocationConfig) -> None:
        self.problem, self.config = problem, config
        self.points = 2 * config.intervals + 1 if config.method == "hermite-simpson" else config.intervals + 1
        nx, nu = problem.dynamics.nx, problem.dynamics.nu
        states, actions = casadi.SX.sym("x", nx, self.points), casadi.SX.sym("u", nu, self.points)
        duration = casadi.SX.sym("T")
        h = duration / config.intervals
        with numpy_functions_of_casadi():
            x, u = casadi.SX.sym("x", nx), casadi.SX.sym("u", nu)
            rates = list(problem.dynamics.derivative(x, u))
            if len(rates) != nx:
                raise ConfigurationError(f"dynamics: expected a derivative of {nx} entries, got {len(rates)}")
            both = casadi.Function("f", [x, u], [casadi.vertcat(*rates), problem.dynamics.running(x, u)])
            f, running = both.map(self.points)(states, actions)
            cost = problem.dynamics.terminal(states[:, -1]) + problem.time_weight * duration
        if config.method == "trapezoidal":
            cost += h / 2 * casadi.sum2(running[:, :-1] + running[:, 1:])
            gaps = states[:, 1:] - states[:, :-1] - h / 2 * (f[:, 1:] + f[:, :-1])
        else:
            (xa, xm, xb), (fa, fm, fb), (ra, rm, rb) = (
                (v[:, 0:self.points - 1:2], v[:, 1::2], v[:, 2::2]) for v in (states, f, running))
            cost += h / 6 * casadi.sum2(ra + 4 * rm + rb)
            gaps = casadi.vertcat(xb - xa - h / 6 * (fa + 4 * fm + fb), xm - (xa + xb) / 2 - h / 8 * (fa - fb))
        options = solver_options(config.iterations, config.tolerance) | {"ipopt.max_wall_time": config.seconds}
        unknowns = casadi.vertcat(casadi.vec(states), casadi.vec(actions), duration)
        self._solver = casadi.nlpsol("collocation", "ipopt", {"x": unknowns, "f": cost, "g": casadi.vec(gaps)}, options)

    def solve(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, float], float, SolverStatus, str, int]:
        """Return (states, actions, midway, duration), the cost, and how it ended."""
        problem, n = self.problem, self.points
        low, high = np.tile(problem.x_min, (n, 1)), np.tile(problem.x_max, (n, 1))
        low[0] = high[0] = problem.start
        bound = ~np.isnan(problem.goal)
        low[-1, bound] = high[-1, bound] = problem.goal[bound]
        end = np.where(bound, problem.goal, problem.start)
        states = problem.start + np.linspace(0.0, 1.0, n)[:, None] * (end - problem.start)
        limited = np.isfinite(problem.u_min) & np.isfinite(problem.u_max)
        with np.errstate(invalid="ignore"):
            middle = np.where(limited, (problem.u_min + problem.u_max) / 2, np.clip(0.0, problem.u_min, problem.u_max))
        found = self._solver(x0=_joined(states, np.tile(middle, (n, 1)), np.mean(problem.duration)),
                             lbx=_joined(low, np.tile(problem.u_min, (n, 1)), problem.duration[0]),
                             ubx=_joined(high, np.tile(problem.u_max, (n, 1)), problem.duration[1]), lbg=0.0, ubg=0.0)
        values = np.array(found["x"]).ravel()
        states = values[:states.size].reshape(states.shape)
        actions = np.clip(values[states.size:-1].reshape(n, -1), problem.u_min, problem.u_max)
        if self.config.method == "trapezoidal":
            split = states, actions, (actions[:-1] + actions[1:]) / 2, float(values[-1])
        else:
            split = states[::2], actions[::2], actions[1::2], float(values[-1])
        return split, float(found["f"]), *how_it_ended(self._solver)


def _joined(states: np.ndarray, actions: np.ndarray, duration: float) -> np.ndarray:
    """Return the unknowns in IPOPT's order."""
    return np.concatenate([states.ravel(), actions.ravel(), [duration]])
