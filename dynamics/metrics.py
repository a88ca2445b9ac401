"""How good a model is: one step, k steps, likelihood, and whether its doubt is honest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.model import EnsembleModel
from dynamics.propagation import TrajectorySamplingInfinity
from dynamics.rollout import Rollouts

COVERAGE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Probabilities of the central intervals whose coverage is measured."""


@dataclass(frozen=True)
class ModelMetrics:
    """Errors of a model on transitions it has not learned from."""

    one_step_rmse: dict[str, float]
    """Root mean square error of the mean for every output, in its own unit."""
    normalised_rmse: float
    """The same relative to how much each output varies, root mean square over outputs: 1 is no better than the mean change."""
    negative_log_likelihood: float
    """Mean over transitions and outputs [nat]."""
    coverage: dict[float, float]
    """For each probability, the share of outcomes inside the model's central interval of that probability."""
    k_step_rmse: dict[int, float]
    """For each k, the error of the mean of TSinf particles k steps ahead, relative to the outputs' spread along the episode."""

    @property
    def calibration_error(self) -> float:
        """Mean distance between stated and measured coverage."""
        return sum(abs(level - share) for level, share in self.coverage.items()) / len(self.coverage)


@torch.no_grad()
def evaluate_model(model: EnsembleModel, x: Tensor, u: Tensor, *, k_steps: tuple[int, ...] = (1, 5, 10, 25),
                   starts: int = 20) -> ModelMetrics:
    """Return the metrics of `model` on one episode of states x (T + 1, nx) and applied commands u (T, nu)."""
    space = model.state_space
    states, following = x[:-1], x[1:]
    target = space.target(states, following).double()
    mean, variance = (value.double() for value in model.member_outputs(states, u))  # (E, T, no)
    centre, total = mean.mean(0), variance.mean(0) + mean.var(0, correction=0)
    error = target - centre
    rmse = error.square().mean(0).sqrt()
    spread = target.std(0, correction=0)
    varies = spread > 1e-9
    relative = (rmse[varies] / spread[varies]).square().mean().sqrt() if varies.any() else torch.tensor(0.0)
    stochastic = bool((variance > 0).any()) or model.members > 1
    floor = total.clamp_min(1e-18)
    likelihood = 0.5 * (math.log(2 * math.pi) + floor.log() + error.square() / floor).mean() if stochastic else torch.tensor(math.nan)
    standard = error.abs() / floor.sqrt()
    coverage = {level: float((standard <= math.sqrt(2) * _inverse_erf(level)).double().mean()) if stochastic else math.nan
                for level in COVERAGE_LEVELS}
    return ModelMetrics(dict(zip(space.output_names, rmse.tolist(), strict=True)), float(relative), float(likelihood), coverage,
                        _k_step_errors(model, x, u, k_steps, starts))


def _inverse_erf(probability: float) -> float:
    return float(torch.erfinv(torch.tensor(probability, dtype=torch.float64)))


def _k_step_errors(model: EnsembleModel, x: Tensor, u: Tensor, k_steps: tuple[int, ...], starts: int) -> dict[int, float]:
    """Roll the model along the lived commands from several starts and compare after k steps."""
    space, steps = model.state_space, len(u)
    usable = [k for k in k_steps if k <= steps]
    if not usable:
        return {}
    longest = max(usable)
    first = torch.linspace(0, steps - longest, min(starts, steps - longest + 1)).round().long().unique()
    origin = x.mean(0, keepdim=True)
    spread = space.difference(origin, x)[:, space.output_tangents].std(0, correction=0)
    varies = spread > 1e-9
    if not varies.any():
        return {}
    propagation = TrajectorySamplingInfinity()
    rollouts = Rollouts(model, propagation, model.members, len(first))
    actions = torch.stack([u[s:s + longest] for s in first.tolist()]).float()
    noise = propagation.noise(longest, model.members, len(first), space.no, None, True)
    errors = {}
    for t, state in enumerate(rollouts.states(x[first].float(), actions, noise)):
        if t + 1 in usable:
            lived = x[first + t + 1].to(state.dtype)
            miss = space.difference(lived, state)[..., space.output_tangents].mean(0)  # (N, no)
            errors[t + 1] = float((miss[:, varies].double() / spread[varies]).square().mean().sqrt())
    return errors
