"""Gradient descent on the actions, through the model: projected Adam from several starts in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.rollout import roll_out
from planners.adjoint import DifferentiableRollouts, costs_and_slopes
from planners.compiler.compiled_cost import compiled_cost
from planners.evaluation import Evaluator, particle_costs
from planners.model_planner import Found, ModelPlanner
from planners.parameterisation import Parameterisation
from planners.plan import PlanStatus
from robots.command import CommandSpec
from robots.errors import ConfigurationError

DECAY_1, DECAY_2 = 0.9, 0.999
"""Adam's (Kingma & Ba 2015)."""
LAST_STEP = 0.1
"""Share of the step length that is left in the last iteration."""


@dataclass(frozen=True)
class GradientConfig:
    """Gradient descent on the actions."""

    horizon: int = 25
    """H, control periods."""
    iterations: int = 40
    """Steps of Adam."""
    restarts: int = 6
    """Plans that descend side by side: the shifted previous one, the middle of the box, and the cheapest random ones."""
    draws: int = 60
    """Random plans that are looked at for a start."""
    step: float = 0.1
    """First step of Adam, as a share of half the command range."""
    tolerance: float = 1e-5
    """Stop when no start has improved its cost by more than this share of it ..."""
    patience: int = 5
    """... in so many steps."""
    interpolation: str = "raw"
    """Search raw actions, or knots of a 'zero', 'linear' or 'cubic' spline."""
    knots: int = 6
    """Knots of the spline."""

    def __post_init__(self) -> None:
        Parameterisation(self.horizon, self.interpolation, self.knots)
        for name, least in (("iterations", 1), ("restarts", 1), ("draws", 0), ("patience", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0.0 < self.step < math.inf or not 0.0 <= self.tolerance < math.inf:
            raise ConfigurationError(f"gradient: expected step > 0 and tolerance >= 0, got step={self.step}, tolerance={self.tolerance}")


class GradientPlanner(ModelPlanner):
    """Descends the cost of the model's mean rollout from several starts at once, and keeps the best that it came past.

    It needs a model and a cost that torch can differentiate; a jump in either shows no slope. A start whose cost or slope
    leaves the numbers goes back to its best and halves its step; one that never had a finite cost drops out. In the end all
    are judged by the evaluator, with its particles and its risk, and beside them the shifted previous plan as it was.
    """

    def __init__(self, evaluator: Evaluator, command: CommandSpec, control_dt: float, config: GradientConfig) -> None:
        super().__init__(evaluator, command, control_dt, Parameterisation(config.horizon, config.interpolation, config.knots))
        self.config = config
        model = evaluator.model
        self._cost = None
        """Where model and cost know their derivatives themselves."""
        if isinstance(model, DifferentiableRollouts) and model.particles == 1:
            cost = compiled_cost(evaluator.cost, model.state_space, len(self.lower))
            self._cost = cost if cost is not None and cost.slopes_known else None

    def search(self, x0: Tensor, nominal: Tensor | None, generator: torch.Generator, time_is_up: Callable[[], bool]) -> Found:
        config = self.config
        starts, samples, nonfinite = self._starts(x0, nominal, generator)
        descent = Descent(starts, config)
        status, iteration = PlanStatus.ITERATIONS, 0
        for iteration in range(1, config.iterations + 1):
            costs, slope = self._costs_and_slope(x0, descent.at)
            samples, nonfinite = samples + len(costs), nonfinite + int((~costs.isfinite()).sum())
            descent.move(costs, slope, config.step * LAST_STEP ** ((iteration - 1) / config.iterations))
            if descent.stalled():
                status = PlanStatus.CONVERGED
                break
            if time_is_up() and iteration < config.iterations:
                status = PlanStatus.DEADLINE
                break
        tried = self._parameters(torch.cat([starts[:1], descent.best, descent.at]))
        costs = self.evaluator.costs(x0, self.actions(tried), generator)
        samples, nonfinite = samples + len(costs), nonfinite + int((~costs.isfinite()).sum())
        cost, index = costs.min(0)
        parameters = tried[index].clone() if cost.isfinite() else None
        return Found(parameters, float(cost), status, iteration, samples, nonfinite, 1.0)

    def _starts(self, x0: Tensor, nominal: Tensor | None, generator: torch.Generator) -> tuple[Tensor, int, int]:
        """Return starts (R, K, nu) in units of the box, the previous plan first, how many plans were evaluated, and how many in vain."""
        shape = (self.parameterisation.parameters, len(self.lower))
        starts = [torch.zeros(1, *shape)]
        if nominal is not None:
            starts.insert(0, ((nominal - self.middle) / self.half_range).unsqueeze(0))
        costs = torch.empty(0)
        if self.config.draws:
            drawn = 2 * torch.rand(self.config.draws, *shape, generator=generator) - 1
            costs = self.evaluator.costs(x0, self.actions(self._parameters(drawn)), generator)
            starts.append(drawn[costs.argsort(stable=True)])
        return torch.cat(starts)[: self.config.restarts], len(costs), int((~costs.isfinite()).sum())

    @torch.enable_grad()
    def _costs_and_slope(self, x0: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the costs (R,) of the model's mean rollouts and their slope (R, K, nu) in units of the box."""
        at = at.clone().requires_grad_()
        actions = self.actions(self._parameters(at)).to(x0.dtype)
        if self._cost is not None:
            costs, slopes = costs_and_slopes(self.evaluator.model, self._cost, x0.numpy(), actions.detach().numpy())
            slope, = torch.autograd.grad(actions, at, torch.from_numpy(slopes))
            return torch.from_numpy(costs).float(), slope
        states, _ = roll_out(self.evaluator.model, x0.expand(len(at), -1), lambda t, x: actions[:, t], self.horizon)
        if not states.requires_grad:
            raise ConfigurationError(f"planner 'gradient': {type(self.evaluator.model).__name__}.step passes no gradient from the command "
                                     "to the next state; plan with one that samples, such as 'icem'")
        costs = particle_costs(self.evaluator.cost, x0, states[1:].unsqueeze(1), actions)[0]
        if not costs.requires_grad:  # a cost that looks at nothing
            return costs.float(), torch.zeros_like(at)
        slope, = torch.autograd.grad(costs.sum(), at)
        return costs.detach().float(), slope

    def _parameters(self, units: Tensor) -> Tensor:
        return self.middle + self.half_range * units


class Descent:
    """Adam on points (R, K, nu) in the box [-1, 1], each by itself."""

    def __init__(self, starts: Tensor, config: GradientConfig) -> None:
        self.at, self.best = starts.clone(), starts.clone()
        self.best_costs = torch.full((len(starts),), torch.inf)
        self._config = config
        self._mean, self._square = torch.zeros_like(starts), torch.zeros_like(starts)
        self._age = torch.zeros(len(starts))
        """(R,) steps since the point last began anew."""
        self._length = torch.ones(len(starts))
        """(R,) share of the step that the point dares."""
        self._idle = torch.zeros(len(starts))
        """(R,) steps without an improvement worth the name."""

    def move(self, costs: Tensor, slope: Tensor, step: float) -> None:
        """Take a step from points that cost (R,) along their slope (R, K, nu)."""
        sound = costs.isfinite() & slope.isfinite().all(-1).all(-1)
        needed = torch.where(self.best_costs.isfinite(), self._config.tolerance * self.best_costs.abs(), 0.0)
        self._idle = torch.where(costs < self.best_costs - needed, 0.0, self._idle + 1)
        better = costs < self.best_costs
        self.best = torch.where(_each(better), self.at, self.best)
        self.best_costs = torch.where(better, costs, self.best_costs)
        slope = torch.where(_each(sound), slope, 0.0)
        self._age = torch.where(sound, self._age + 1, 0.0)
        self._length = torch.where(sound, self._length, self._length / 2)
        self._mean = torch.where(_each(sound), DECAY_1 * self._mean + (1 - DECAY_1) * slope, 0.0)
        self._square = torch.where(_each(sound), DECAY_2 * self._square + (1 - DECAY_2) * slope.square(), 0.0)
        age = _each(self._age.clamp_min(1.0))
        direction = self._mean / (1 - DECAY_1**age) / ((self._square / (1 - DECAY_2**age)).sqrt() + 1e-12)
        moved = (self.at - step * _each(self._length) * direction).clamp(-1.0, 1.0)
        self.at = torch.where(_each(sound), moved, self.best)

    def stalled(self) -> bool:
        """Return whether no point that has a finite cost still improves."""
        return bool((self._idle[self.best_costs.isfinite()] >= self._config.patience).all())


def _each(of_points: Tensor) -> Tensor:
    return of_points[:, None, None]
