"""Direct multiple shooting as a planner: states and commands of the whole horizon at once, by IPOPT (Bock and Plitt 1984)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynamics.workers import one_torch_thread
from planners.evaluation import Evaluator
from planners.ipopt import SolverStatus, how_it_ended, load_casadi, solver_options
from planners.parameterisation import Parameterisation
from planners.plan import Plan, PlanMemory, PlanReport, PlanStatus
from planners.planner import check_deadline, checked_memory, checked_state, on_limit
from planners.shooting_program import ShootingProgram
from planners.trajectory_problem import Trajectory, TrajectoryProblem
from robots.command import CommandSpec
from robots.errors import ConfigurationError, UnknownNameError

STATUSES = {
    SolverStatus.SOLVED: PlanStatus.CONVERGED,
    SolverStatus.ITERATION_LIMIT: PlanStatus.ITERATIONS,
    SolverStatus.TIME_LIMIT: PlanStatus.DEADLINE,
    SolverStatus.INFEASIBLE: PlanStatus.INFEASIBLE,
    SolverStatus.NOT_FINITE: PlanStatus.NON_FINITE_DERIVATIVES,
    SolverStatus.FAILED: PlanStatus.NO_DESCENT,
}


@dataclass(frozen=True)
class MultipleShootingConfig:
    """What the planner is told."""

    horizon: int = 50
    """H, control periods."""
    iterations: int = 200
    """Of IPOPT, at most."""
    tolerance: float = 1e-8
    """IPOPT's, on scaled optimality and on how far states may be from where the model leads."""
    state_bounds: tuple[tuple[str, float, float], ...] = ()
    """(name of an entry of the state, smallest, largest), kept by every state after the start."""
    goal: tuple[tuple[str, float], ...] = ()
    """(name of an entry of the state, value) at the end of the horizon."""
    kept_to: float = 1e-4
    """How far the states may be beyond bounds and goal when the actions are played through the model."""

    def __post_init__(self) -> None:
        Parameterisation(self.horizon)
        if self.iterations < 1:
            raise ConfigurationError(f"iterations: expected at least 1, got {self.iterations}")
        for name in ("tolerance", "kept_to"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigurationError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name, smallest, largest in self.state_bounds:
            if not smallest <= largest:
                raise ConfigurationError(f"state_bounds of {name!r}: expected smallest <= largest, got {smallest} and {largest}")


class MultipleShooting:
    """Follows the model's mean in float64. MissingExtraError without casadi.

    The actions found are played through the model: states, cost and status are of that, not of what IPOPT was left with. Without bounds
    on the states any actions are a plan, and the better of the start and the result is returned; with them, a plan that does not keep
    them is none.
    """

    def __init__(self, evaluator: Evaluator, command: CommandSpec, control_dt: float, config: MultipleShootingConfig) -> None:
        self.evaluator, self.config, self.control_dt = evaluator, config, control_dt
        self.horizon = config.horizon
        self.parameterisation = Parameterisation(config.horizon)
        self.problem = TrajectoryProblem(evaluator.model, evaluator.cost, command.minimum.copy(), command.maximum.copy())
        self._deadline = np.inf
        self._program = ShootingProgram(self.problem, self.horizon)
        self._coordinates = self._program.coordinates
        self._low, self._high = self._bounds(self.problem.space.names)
        self._solver = self._program.solver(load_casadi(), solver_options(config.iterations, config.tolerance),
                                            lambda: time.perf_counter() > self._deadline)

    def plan(self, x0: Tensor, previous: Plan | None, generator: torch.Generator, deadline: float | None = None) -> Plan:
        """See `Planner.plan`; nothing is random, and the deadline is looked at before every iteration."""
        started = time.perf_counter()
        check_deadline(deadline)
        x = checked_state(x0, self.problem.space.nx, torch.float64).numpy()
        with one_torch_thread():
            start = self.problem.play(x, self._initial_actions(previous))
            self._deadline = np.inf if deadline is None else started + deadline
            states = start.states[1:] if np.isfinite(start.states).all() else np.tile(x, (self.horizon, 1))
            self._program.begin(x, states)
            low, high = np.tile(self.problem.lower, (self.horizon, 1)), np.tile(self.problem.upper, (self.horizon, 1))
            guess = np.clip(self._coordinates.of(states), self._low, self._high)
            found = self._solver.solve(self._program.joined(guess, start.actions),
                                       self._program.joined(self._low, low), self._program.joined(self._high, high))
            ended, _, iterations = how_it_ended(self._solver.ipopt)
            states, actions = self._program.split(found)
            played = self.problem.play(x, np.clip(actions, self.problem.lower, self.problem.upper))
            kept = [trajectory for trajectory in (played, start) if np.isfinite(trajectory.cost) and self._is_kept(trajectory)]
            best = min(kept, key=lambda trajectory: trajectory.cost, default=None)
            defect = 0.0
            if best is played:
                defect = float(np.abs(self._coordinates.of(played.states[1:]) - self._coordinates.of(states[1:])).max())
            status = STATUSES[ended]
            nonfinite = sum(not np.isfinite(trajectory.cost) for trajectory in (played, start))
            if best is None and nonfinite == 2:
                status = PlanStatus.NO_FINITE_COST
            elif best is None and status not in (PlanStatus.DEADLINE, PlanStatus.ITERATIONS):
                status = PlanStatus.INFEASIBLE
            return self._finish(best, status, iterations, nonfinite, defect, started)

    def _initial_actions(self, previous: Plan | None) -> np.ndarray:
        memory = checked_memory(previous, (self.horizon, self.problem.nu))
        if memory is None:
            return self.problem.middle(self.horizon)
        return np.clip(self.parameterisation.shifted(memory.mean.double()).numpy(), self.problem.lower, self.problem.upper)

    def _finish(self, best: Trajectory | None, status: PlanStatus, iterations: int, nonfinite: int, defect: float,
                started: float) -> Plan:
        if best is None:
            report = PlanReport(time.perf_counter() - started, iterations, 2, nonfinite, 0.0)
            return Plan.without_actions(status, report, self.control_dt)
        by_term, limits = self.problem.cost_by_term(best), on_limit(best.actions[0], self.problem.lower, self.problem.upper)
        report = PlanReport(time.perf_counter() - started, iterations, 2, nonfinite, 1.0, by_term, limits, defect=defect)
        actions = torch.from_numpy(best.actions)
        return Plan(actions, torch.from_numpy(best.states), None, best.cost, status, report, self.control_dt, PlanMemory(actions))

    def _bounds(self, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds (H, ndx) of the coordinates after the start; UnknownNameError for an entry that the state lacks,
        ConfigurationError for one of a rotation."""
        plain = dict(zip((names[i] for i in self._coordinates.plain_states), self._coordinates.plain, strict=True))
        low, high = (np.full((self.horizon, self.problem.space.ndx), side) for side in (-np.inf, np.inf))
        for name, *_ in (*self.config.state_bounds, *self.config.goal):
            if name not in names:
                raise UnknownNameError("entry of the state", name, names)
            if name not in plain:
                raise ConfigurationError(f"{name!r} is one of four entries of a rotation, none of which can be bounded by itself; charge "
                                         "the rotation in the cost")
        for name, smallest, largest in self.config.state_bounds:
            low[:, plain[name]], high[:, plain[name]] = smallest, largest
        for name, value in self.config.goal:
            i = plain[name]
            if not low[-1, i] <= value <= high[-1, i]:
                raise ConfigurationError(f"goal: {name!r} is to end at {value}, outside its bounds [{low[-1, i]}, {high[-1, i]}]")
            low[-1, i] = high[-1, i] = value
        return low, high

    def _is_kept(self, trajectory: Trajectory) -> bool:
        plain, slack = self._coordinates.plain, self.config.kept_to
        states = trajectory.states[1:, self._coordinates.plain_states]
        return bool((states >= self._low[:, plain] - slack).all() and (states <= self._high[:, plain] + slack).all())
