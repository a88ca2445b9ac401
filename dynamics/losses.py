"""Losses of a perceptron's outputs, in torch; each also says which compiled head computes it, and with which numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dynamics.gradient.compiled import VARIANCE_BOUND_PENALTY, Head
from dynamics.network import Parameters, bounded_log_variance, forward

Loss = Callable[[Parameters, Tensor, Tensor], Tensor]
"""loss(parameters, inputs (n, in), targets (n, targets)) -> scalar."""


@dataclass(frozen=True)
class HeadLoss:
    """A loss that has a compiled gradient; called, it computes the same in torch."""

    outputs: int
    """Targets, and outputs of each group."""

    head = Head.SQUARED_LOGISTIC
    """The compiled gradient."""
    output_groups = 1
    """Outputs stand in so many groups of `outputs` each."""

    @property
    def row_share(self) -> float:
        """Weight of a row's loss, times the number of rows: a mean over outputs, unless said otherwise."""
        return 1.0 / self.outputs

    @property
    def weights(self) -> Tensor:
        """(2, outputs) of the squared errors and of the cross-entropies in the compiled head."""
        return torch.stack([torch.ones(self.outputs), torch.zeros(self.outputs)])

    def __call__(self, parameters: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar, of inputs (n, in) and targets (n, outputs)."""
        raise NotImplementedError


@dataclass(frozen=True)
class GaussianLikelihood(HeadLoss):
    """Twice the mean negative log-likelihood without its constant, mean[(mu - y)^2 exp(-l) + l], and a penalty on the bounds of l."""

    head = Head.GAUSSIAN
    output_groups = 2

    def __call__(self, parameters: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        mean, raw = forward(parameters, inputs).chunk(2, dim=-1)
        log_variance = bounded_log_variance(raw, parameters["variance_min"], parameters["variance_max"])
        likelihood = ((mean - targets).square() * torch.exp(-log_variance) + log_variance).mean()
        return likelihood + VARIANCE_BOUND_PENALTY * (parameters["variance_max"] - parameters["variance_min"]).sum()


@dataclass(frozen=True)
class SquaredError(HeadLoss):
    """The mean squared error of the outputs."""

    def __call__(self, parameters: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(parameters, inputs, targets)


@dataclass(frozen=True)
class RewardAndEnding(HeadLoss):
    """Squared error of the first output, a reward, and cross-entropy of the second, the log-odds of an ending, if there are any."""

    sees_endings: bool = False
    """Whether endings count."""

    @property
    def row_share(self) -> float:
        return 1.0  # a sum over outputs

    @property
    def weights(self) -> Tensor:
        return torch.tensor([[1.0, 0.0], [0.0, float(self.sees_endings)]])

    def __call__(self, parameters: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        output = forward(parameters, inputs)
        loss = (output[..., 0] - targets[..., 0]).square().mean()
        if self.sees_endings:
            loss = loss + binary_cross_entropy_with_logits(output[..., 1], targets[..., 1])
        return loss


def squared_error(parameters: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of a network's means, its first outputs; the held-out score of every network, because
    a likelihood jumps with a single surprise."""
    return (forward(parameters, inputs)[..., : targets.shape[-1]] - targets).square().mean()
