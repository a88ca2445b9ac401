"""Control-limited iLQR as steps: linearise, sweep backwards, search along the policy, regularise (Tassa et al. 2012, 2014)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from dynamics.feedback_rollout import lone_rollouts_pay
from planners.linear_quadratic import LinearQuadraticModel, LocalPolicy, Outcome
from planners.plan import PlanStatus
from planners.trajectory_problem import Trajectory, TrajectoryProblem
from robots.errors import ConfigurationError, UnknownNameError

LIGHT = 1e-5
"""Up to this regularisation small steps mean that there is little to gain; above, they may be short because they were made so."""
LINE_SEARCHES = ("auto", "together", "full-first", "one-by-one")
ROUND_OFF = 1e-14
"""Of the cost: a step that promises less cannot show it."""


@dataclass(frozen=True)
class SolverConfig:
    """How iLQR iterates; defaults as Tassa et al. 2012."""

    iterations: int = 100
    """Line searches at most."""
    regularise: str = "control"
    """'control': Q_uu + mu I; 'state': V_xx + mu I inside Q_uu and Q_ux, which keeps new states near the old ones."""
    convexify: bool = True
    """Where a sweep finds no smallest value, leave out the concave part of the cost in the state before anything is regularised."""
    regularisation_factor: float = 1.6
    """What mu is multiplied or divided by, compounding."""
    regularisation_min: float = 1e-6
    """Smallest mu; below it is zero."""
    regularisation_max: float = 1e10
    """Above it the search gives up."""
    step_lengths: int = 11
    """Step lengths tried, from 1 evenly in their logarithm down to `step_min`."""
    step_min: float = 1e-3
    """Shortest step."""
    line_search: str = "auto"
    """Which step lengths are rolled out in one batch. 'together': all, and the best is taken. 'full-first': the full step alone, the others
    together where it is not accepted. 'one-by-one': each alone, until one is accepted. 'auto': 'full-first' for a model whose
    `lone_rollouts_pay` (learned ensembles), 'together' for any other."""
    compile_for_size: bool = False
    """Compile the backward pass for this number of states and commands alone: takes seconds, once for every size, and is kept on disk;
    more than halves the pass for few states. Where model and cost are formulas it is compiled in one with them, in every process."""
    improvement_min: float = 0.0
    """Share of the expected decrease above which a step is accepted."""
    ascent_max: float = 2.0
    """While gaps close: how many times an expected increase the true one may be (Mastalli et al. 2020)."""
    feedforward_tolerance: float = 1e-4
    """Converged where the mean over time of max |k| / (|u| + 1) is below."""
    cost_tolerance: float = 1e-7
    """Converged where the cost falls by less than this share of it."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ConfigurationError(f"iterations: expected at least 1, got {self.iterations}")
        if self.line_search not in LINE_SEARCHES:
            raise UnknownNameError("line_search", self.line_search, LINE_SEARCHES)
        if self.regularise not in ("control", "state"):
            raise ConfigurationError(f"regularise: expected 'control' or 'state', got {self.regularise!r}")
        if not self.regularisation_factor > 1:
            raise ConfigurationError(f"regularisation_factor: expected more than 1, got {self.regularisation_factor}")
        if not 0 < self.regularisation_min < self.regularisation_max < np.inf:
            raise ConfigurationError("regularisation_min and _max: expected 0 < min < max, "
                                     f"got {self.regularisation_min} and {self.regularisation_max}")
        if self.step_lengths < 1 or not 0 < self.step_min < 1:
            raise ConfigurationError("step_lengths and step_min: expected at least 1 and a number between 0 and 1, "
                                     f"got {self.step_lengths} and {self.step_min}")
        if not 0 <= self.improvement_min < 1 or not self.ascent_max >= 1:
            raise ConfigurationError("improvement_min and ascent_max: expected 0 <= improvement_min < 1 and ascent_max >= 1, "
                                     f"got {self.improvement_min} and {self.ascent_max}")
        if not (self.feedforward_tolerance >= 0 and self.cost_tolerance >= 0):
            raise ConfigurationError("feedforward_tolerance and cost_tolerance: expected numbers of at least 0, "
                                     f"got {self.feedforward_tolerance} and {self.cost_tolerance}")

    @cached_property
    def steps(self) -> np.ndarray:
        """(N,) step lengths, the longest first."""
        return np.logspace(0.0, np.log10(self.step_min), self.step_lengths)


@dataclass(frozen=True)
class Solution:
    """Where the search ended."""

    trajectory: Trajectory
    policy: LocalPolicy
    """Gains of the last backward pass, and what of its feedforward was not yet made."""
    status: PlanStatus
    iterations: int
    rollouts: int
    nonfinite: int
    """Rollouts whose cost was not finite."""


class Regularisation:
    """The weight mu and its compounding change (Tassa et al. 2012); it starts at zero."""

    def __init__(self, config: SolverConfig) -> None:
        self._config = config
        self.weight, self._change = 0.0, 1.0

    @property
    def exhausted(self) -> bool:
        """Whether the largest weight was passed."""
        return self.weight > self._config.regularisation_max

    def increase(self) -> None:
        factor = self._config.regularisation_factor
        self._change = max(factor, self._change * factor)
        self.weight = max(self._config.regularisation_min, self.weight * self._change)

    def decrease(self) -> None:
        factor = self._config.regularisation_factor
        self._change = min(1 / factor, self._change / factor)
        self.weight *= self._change
        if self.weight < self._config.regularisation_min:
            self.weight = 0.0


class ILQRSolver:
    """Improves one trajectory from x0; made anew for every search."""

    def __init__(self, problem: TrajectoryProblem, config: SolverConfig, x0: np.ndarray, start: Trajectory, policy: LocalPolicy) -> None:
        """`policy`: what led to `start`; it stands until the first backward pass."""
        self._problem, self._config, self._x0 = problem, config, x0
        self._line_search = config.line_search
        if self._line_search == "auto":
            self._line_search = "full-first" if lone_rollouts_pay(problem.model) else "together"
        self.trajectory = start
        """The best so far."""
        self._policy, self._unmade = policy, 1.0
        """Of the last backward pass, and the share of its feedforward that no step has made."""
        self._regularisation = Regularisation(config)
        self._unlimited: tuple[np.ndarray, np.ndarray] | None = None
        """By how much commands may change where nothing limits them."""
        if np.isinf(problem.lower).all() and np.isinf(problem.upper).all():
            self._unlimited = room_for_change(start.actions, problem.lower, problem.upper)
        self._rollouts = self._nonfinite = 0

    def solve(self, deadline: float | None = None) -> Solution:
        """Iterate until a stopping rule holds; no round is begun that would, at the pace so far, pass `deadline`.

        `deadline`: of time.perf_counter [s]; where it has passed already the start is returned.
        """
        model: LinearQuadraticModel | None = None
        clock = time.perf_counter if deadline is not None else float  # 0.0: the smallest problems feel a look at a clock
        status = None if deadline is None or clock() < deadline else PlanStatus.DEADLINE
        iterations, convex, derivatives_s, search_s = 0, False, 0.0, None
        while status is None:
            began = clock()
            if model is None:
                model, convex = self._problem.model_along(self.trajectory), False
                derivatives_s = clock() - began
            policy = self._backward(model)
            if policy.outcome is Outcome.NON_FINITE:
                status = PlanStatus.NON_FINITE_DERIVATIVES
            elif policy.outcome is Outcome.INDEFINITE and self._config.convexify and not convex:
                model, convex = model.convexified(), True
            elif policy.outcome is Outcome.INDEFINITE:
                self._regularisation.increase()
                if self._regularisation.exhausted:
                    status = PlanStatus.INDEFINITE
            else:
                self._policy, self._unmade = policy, 1.0
                if self._is_stationary(policy):
                    status = PlanStatus.CONVERGED
                else:
                    iterations += 1
                    swept = clock()
                    status, moved = self._step(policy)
                    search_s = clock() - swept
                    model = None if moved else model
                    if status is None and iterations == self._config.iterations:
                        status = PlanStatus.ITERATIONS
            if status is None and deadline is not None:
                # derivatives outlive a sweep that fails; before the first search it is taken to last as long as they did
                coming = (derivatives_s if model is None else 0.0) + (derivatives_s if search_s is None else search_s)
                if clock() + coming > deadline:
                    status = PlanStatus.DEADLINE
        policy = self._policy if self._unmade == 1.0 else self._policy.shortened(self._unmade)
        return Solution(self.trajectory, policy, status, iterations, self._rollouts, self._nonfinite)

    def _backward(self, model: LinearQuadraticModel) -> LocalPolicy:
        weight = self._regularisation.weight
        lowest, highest = self._unlimited or room_for_change(self.trajectory.actions, self._problem.lower, self._problem.upper)
        by_control, by_state = (weight, 0.0) if self._config.regularise == "control" else (0.0, weight)
        return model.backward(lowest, highest, by_control, by_state, self._config.compile_for_size)

    def _is_stationary(self, policy: LocalPolicy) -> bool:
        if self.trajectory.gaps is not None or self._regularisation.weight > LIGHT:
            return False
        return (relative_size(policy.feedforward, self.trajectory.actions) < self._config.feedforward_tolerance
                or abs(policy.expected_change(1.0)) < ROUND_OFF * abs(self.trajectory.cost))

    def _step(self, policy: LocalPolicy) -> tuple[PlanStatus | None, bool]:
        """Move along the policy; return how the search ended, if it did, and whether a step was made."""
        before = self.trajectory
        if not self._search(policy):
            self._regularisation.increase()
            return (PlanStatus.NO_DESCENT if self._regularisation.exhausted else None), False
        light = self._regularisation.weight <= LIGHT
        self._regularisation.decrease()
        little = before.cost - self.trajectory.cost < self._config.cost_tolerance * abs(before.cost)
        return (PlanStatus.CONVERGED if little and light and before.gaps is None else None), True

    def _batches(self, about: Trajectory) -> Iterator[np.ndarray]:
        """Yield the step lengths that are rolled out together; while there are gaps to close, the full step alone first."""
        steps = self._config.steps
        if self._line_search == "one-by-one":
            yield from (steps[i: i + 1] for i in range(len(steps)))
        elif len(steps) > 1 and (self._line_search == "full-first" or about.gaps is not None):
            yield from (steps[:1], steps[1:])
        else:
            yield steps

    def _search(self, policy: LocalPolicy) -> bool:
        """Take the best step along the policy that lowers the cost as it should, the longest while there are gaps to close."""
        about = self.trajectory
        for steps in self._batches(about):
            tried = self._problem.roll_out(self._x0, about, policy, steps)
            self._rollouts += len(steps)
            costs, best = tried.costs.tolist(), None
            self._nonfinite += costs.count(np.inf)
            for i, cost in enumerate(costs):
                if not self._is_accepted(cost - about.cost, policy.expected_change(float(steps[i]))):
                    continue
                if best is None or cost < costs[best]:
                    best = i
                if about.gaps is not None:
                    break
            if best is not None:
                left = 1.0 - float(steps[best])
                self.trajectory = tried.one(best, None if about.gaps is None or left == 0.0 else left * about.gaps)
                self._policy, self._unmade = policy, left
                return True
        return False

    def _is_accepted(self, change: float, expected: float) -> bool:
        if not np.isfinite(change):
            return False
        if self.trajectory.gaps is not None and expected > 0.0 and change <= self._config.ascent_max * expected:
            return True
        return change < self._config.improvement_min * min(expected, 0.0)


@numba.njit(cache=True)
def room_for_change(actions: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the most (H, nu) by which actions (H, nu) may change between lower and upper (nu,)."""
    lowest, highest = np.empty_like(actions), np.empty_like(actions)
    for t in range(len(actions)):
        for i in range(actions.shape[1]):
            lowest[t, i], highest[t, i] = lower[i] - actions[t, i], upper[i] - actions[t, i]
    return lowest, highest


@numba.njit(cache=True)
def relative_size(change: np.ndarray, of: np.ndarray) -> float:
    """Return the mean over time of max |change| / (|of| + 1), of arrays (H, nu)."""
    total = 0.0
    for t in range(len(of)):
        largest = 0.0
        for i in range(of.shape[1]):
            largest = max(largest, abs(change[t, i]) / (abs(of[t, i]) + 1.0))
        total += largest
    return total / len(of)
