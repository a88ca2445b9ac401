"""The simplest model that can be fitted: ridge regression of the change of the state, with constant noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.checkpoint import check_tensors
from dynamics.dataset import TransitionData
from dynamics.fitting import MemberFit
from dynamics.forward import FoldedNetwork, over_raw_input
from dynamics.model import Prediction
from dynamics.neural_ensemble import FitReport, ensemble_prediction, per_nominal_period
from dynamics.state_space import StateSpace
from dynamics.workers import Workers
from robots.errors import ConfigurationError


@dataclass(frozen=True)
class LinearConfig:
    """Fit of the linear model."""

    ridge: float = 1e-6
    """Penalty on the squared coefficients, relative to the inputs' mean square."""

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise ConfigurationError(f"LinearConfig.ridge: expected a positive number, got {self.ridge}")


class LinearModel:
    """target = W' [features(x), u, 1] + noise, solved in closed form in float64: the baseline that a network must beat."""

    members = 1

    def __init__(self, state_space: StateSpace, nu: int, control_dt: float, config: LinearConfig, seed: int = 0) -> None:
        self.state_space, self.nu, self.control_dt, self.config = state_space, nu, control_dt, config
        self.fits = 0
        self._coefficients = torch.zeros(state_space.nf + nu + 1, state_space.no, dtype=torch.float64)
        self._std = torch.ones(state_space.no, dtype=torch.float64)

    def fit(self, data: TransitionData, workers: Workers | None = None, progress: Callable[[MemberFit], None] | None = None) -> FitReport:
        """Solve the ridge regression over all transitions; NonFiniteError (naming the episode) if the data hold NaN."""
        started = time.perf_counter()
        data.check(self.state_space.nx, self.nu)
        targets = per_nominal_period(self.state_space, self.state_space.target(data.x, data.x_next), data.dt, self.control_dt)
        inputs = self._inputs(data.x, data.u)
        gram = inputs.T @ inputs
        penalty = self.config.ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        self._coefficients = torch.linalg.solve(gram + penalty, inputs.T @ targets)
        residual = targets - inputs @ self._coefficients
        self._std = residual.square().mean(0).sqrt().clamp_min(1e-9)
        self.fits += 1
        report = MemberFit(1, 1, float(residual.square().mean()), float("nan"))
        if progress is not None:
            progress(report)
        return FitReport((report,), len(data), (), time.perf_counter() - started)

    def member_outputs(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output mean and variance (1, ..., no) in states x (..., nx)."""
        mean = (self._inputs(x.double(), u.double()) @ self._coefficients).to(x.dtype).unsqueeze(0)
        return mean, self._std.square().to(x.dtype).expand_as(mean)

    def paired_outputs(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output mean and variance (1, n, no) in states x (1, n, nx)."""
        mean, variance = self.member_outputs(x[0], u[0])
        return mean, variance

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """Return the mean next state and the residuals' spread; there is no epistemic part."""
        return ensemble_prediction(self.state_space, x, *self.member_outputs(x, u))

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a next state (..., nx), drawn with `generator`, or the mean."""
        mean, variance = (value[0] for value in self.member_outputs(x, u))
        if generator is not None:
            mean = mean + variance.sqrt() * torch.randn(mean.shape, dtype=mean.dtype, generator=generator)
        return self.state_space.advance(x, mean)

    def folded(self) -> FoldedNetwork:
        """Return the coefficients as a network of one layer."""
        weight = over_raw_input(self.state_space, self.nu, self._coefficients[:-1]).float().unsqueeze(0)
        no = self.state_space.no
        return FoldedNetwork(self.state_space, self.nu, (weight,), (self._coefficients[-1].float().view(1, 1, no),), None,
                             torch.ones(no), self._std.float().view(1, 1, no))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a prediction depends on, by name."""
        return {"coefficients": self._coefficients.contiguous().clone(), "std": self._std.clone(), "fits": torch.tensor(self.fits)}

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; ShapeError names the first tensor that is missing, unknown or of another shape."""
        check_tensors(state, self.tensors())
        self._coefficients, self._std, self.fits = state["coefficients"].clone(), state["std"].clone(), int(state["fits"])

    def _inputs(self, x: Tensor, u: Tensor) -> Tensor:
        features = self.state_space.features(x)
        batch = torch.broadcast_shapes(features.shape[:-1], u.shape[:-1])
        one = torch.ones(*batch, 1, dtype=features.dtype)
        return torch.cat([features.expand(*batch, -1), u.expand(*batch, -1), one], dim=-1)
