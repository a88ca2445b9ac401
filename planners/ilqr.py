"""iLQR and FDDP as planners: cold and warm starts, one thread, the plan with its feedback gains."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dynamics.ensemble_mean import EnsembleMean
from dynamics.neural_ensemble import NeuralEnsemble
from dynamics.workers import one_torch_thread
from planners.analytic_problem import make_trajectory_problem
from planners.evaluation import Evaluator
from planners.ilqr_solver import ILQRSolver, Solution, SolverConfig
from planners.linear_quadratic import LocalPolicy
from planners.parameterisation import Parameterisation
from planners.plan import Plan, PlanMemory, PlanReport, PlanStatus
from planners.planner import check_deadline, checked_memory, on_limit
from planners.trajectory_problem import Trajectory
from robots.command import CommandSpec
from robots.errors import ConfigurationError, NonFiniteError, ShapeError


@dataclass(frozen=True)
class ILQRConfig(SolverConfig):
    """What iLQR and FDDP are told."""

    horizon: int = 50
    """H, control periods."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Parameterisation(self.horizon)


@dataclass(frozen=True)
class _Start:
    """Where a search begins."""

    trajectory: Trajectory
    policy: LocalPolicy
    """What led there."""
    rollouts: int
    """It took to get there."""
    nonfinite: int
    """Of these, whose cost was not finite."""

    @classmethod
    def of(cls, trajectory: Trajectory, policy: LocalPolicy, in_vain: int = 0) -> _Start:
        """Return the start that one rollout is, after others in vain."""
        return cls(trajectory, policy, in_vain + 1, in_vain + int(not np.isfinite(trajectory.cost)))


class ILQR:
    """Iterative LQR in a box of commands (Tassa et al. 2014): linearises along the plan, and plans feedback gains with it.

    Follows the model's mean in float64. It takes the model and the cost as they are at the call: a refit is planned with at once.
    """

    feasibility_driven = False

    def __init__(self, evaluator: Evaluator, command: CommandSpec, control_dt: float, config: ILQRConfig) -> None:
        self.evaluator, self.config, self.control_dt = evaluator, config, control_dt
        self.horizon = config.horizon
        self.parameterisation = Parameterisation(config.horizon)
        model = evaluator.model
        self._snapshot = EnsembleMean(model, getattr(evaluator, "workers", None)) if isinstance(model, NeuralEnsemble) else None
        self.problem = make_trajectory_problem(self._snapshot or model, evaluator.cost, command.minimum.copy(), command.maximum.copy())

    def plan(self, x0: Tensor, previous: Plan | None, generator: torch.Generator, deadline: float | None = None, *,
             initial_actions: Tensor | None = None, initial_states: Tensor | None = None) -> Plan:
        """See `Planner.plan`; nothing is random, and no iteration is begun that would, at the pace so far, pass the deadline.

        A previous plan is shifted and its feedback policy rolled out from x0; `initial_actions` (H, nu) are a start instead, of
        which nothing is older. FDDP also starts from `initial_states` (H + 1, nx), which need not follow from any actions.
        The plan's gains are those of the last linearisation; memory of iLQR is the actions, shifted when it is next used.
        """
        started = time.perf_counter()
        check_deadline(deadline)
        x = self._checked("x0", x0, (self.problem.space.nx,))
        with one_torch_thread():
            if self._snapshot is not None:
                self._snapshot.refresh()
            start = self._start(x, previous, initial_actions, initial_states)
            if not np.isfinite(start.trajectory.cost):
                report = PlanReport(time.perf_counter() - started, 0, start.rollouts, start.nonfinite, 0.0)
                return Plan.without_actions(PlanStatus.NO_FINITE_COST, report, self.control_dt)
            solver = ILQRSolver(self.problem, self.config, x, start.trajectory, start.policy)
            solution = solver.solve(None if deadline is None else started + deadline)
            return self._finish(x, solution, start, started)

    def _start(self, x0: np.ndarray, previous: Plan | None, initial_actions: Tensor | None,
               initial_states: Tensor | None) -> _Start:
        """Return where to begin; afresh where all that the previous plan leads to leaves the numbers."""
        problem, shape = self.problem, (self.horizon, self.problem.nu)
        nothing, rollouts = LocalPolicy.nothing(self.horizon, problem.space.ndx, problem.nu), 0
        memory = checked_memory(previous, shape)
        if initial_states is not None and not self.feasibility_driven:
            raise ConfigurationError("initial_states: iLQR's states follow from its actions; give initial_actions, or use fddp")
        if initial_actions is None and initial_states is None and memory is not None:
            warm = self._warm(x0, previous, memory)
            if np.isfinite(warm.trajectory.cost):
                return warm
            rollouts = warm.rollouts
        actions = problem.middle(self.horizon)
        if initial_actions is not None:
            actions = np.clip(self._checked("initial_actions", initial_actions, shape), problem.lower, problem.upper)
        if not self.feasibility_driven:
            return _Start.of(problem.play(x0, actions), nothing, rollouts)
        states = np.tile(x0, (self.horizon + 1, 1))
        if initial_states is not None:
            states = self._checked("initial_states", initial_states, states.shape).copy()
            states[0] = x0
        return _Start.of(problem.with_gaps(states, actions), nothing, rollouts)

    def _warm(self, x0: np.ndarray, previous: Plan, memory: PlanMemory) -> _Start:
        """Return the best of what the shifted policy leads to from the measured x0: with all steps still unmade, and without feedback."""
        problem = self.problem
        actions = np.clip(self.parameterisation.shifted(memory.mean.double()).numpy(), problem.lower, problem.upper)
        best, policy = problem.play(x0, actions), LocalPolicy.nothing(self.horizon, problem.space.ndx, problem.nu)
        if previous.gains is None or previous.states is None or memory.feedforward is None:
            return _Start.of(best, policy)
        states = previous.states.double().numpy()
        last = problem.play(states[-1], actions[-1:]).states[1:]
        about = Trajectory(np.concatenate([states[1:], last]), actions, np.inf)
        policy = replace(policy, feedforward=_shifted(memory.feedforward), gains=_shifted(previous.gains))
        steps = np.concatenate([[0.0], self.config.steps]) if policy.feedforward.any() else np.zeros(1)
        tried = problem.roll_out(x0, about, policy, steps)
        nonfinite = int(not np.isfinite(best.cost)) + int(np.isinf(tried.costs).sum())
        cheapest = int(tried.costs.argmin())
        if tried.costs[cheapest] <= best.cost:
            best = tried.one(cheapest)
        return _Start(best, replace(policy, feedforward=np.zeros_like(actions)), 1 + len(steps), nonfinite)

    def _finish(self, x0: np.ndarray, solution: Solution, start: _Start, started: float) -> Plan:
        trajectory, policy, problem = solution.trajectory, solution.policy, self.problem
        rollouts, nonfinite = start.rollouts + solution.rollouts, start.nonfinite + solution.nonfinite
        status = solution.status
        if trajectory.gaps is not None:  # nothing drives through gaps: play what was found, with its feedback
            about = replace(trajectory, gaps=None)
            trajectory = problem.roll_out(x0, about, policy.shortened(0.0), np.zeros(1)).one(0)
            rollouts, nonfinite = rollouts + 1, nonfinite + int(not np.isfinite(trajectory.cost))
            if not np.isfinite(trajectory.cost):
                report = PlanReport(time.perf_counter() - started, solution.iterations, rollouts, nonfinite, 0.0)
                return Plan.without_actions(PlanStatus.NO_FINITE_COST, report, self.control_dt)
        by_term, limits = problem.cost_by_term(trajectory), on_limit(trajectory.actions[0], problem.lower, problem.upper)
        report = PlanReport(time.perf_counter() - started, solution.iterations, rollouts, nonfinite, 1.0, by_term, limits)
        actions, states, gains, feedforward = (torch.from_numpy(v) for v in (trajectory.actions, trajectory.states, policy.gains,
                                                                            policy.feedforward))
        return Plan(actions, states, None, trajectory.cost, status, report, self.control_dt, PlanMemory(actions, feedforward=feedforward),
                    gains)

    def _checked(self, name: str, value: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """Return `value` as float64; ShapeError or NonFiniteError, as from every planner."""
        if value.shape != shape:
            raise ShapeError(f"{name}: expected {shape}, got {tuple(value.shape)}")
        if not value.isfinite().all():
            raise NonFiniteError(f"{name}: expected finite numbers, got {value.tolist()}")
        return value.detach().to(torch.float64).numpy()


class FDDP(ILQR):
    """Feasibility-driven DDP (Mastalli et al. 2020): starts from states that no actions lead to, and closes the gaps as it improves.

    A cold start takes the state to stay where it is, so that an unstable system does not run away before the first iteration.
    """

    feasibility_driven = True


def _shifted(values: Tensor) -> np.ndarray:
    """Return values (H, ...) of one period later; zero at the end."""
    values = values.double().numpy()
    return np.concatenate([values[1:], np.zeros_like(values[:1])])
