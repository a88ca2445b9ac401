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
        """(2, outputs) numbers of the compiled head: of the squared errors and of the cross-entropies, unless said otherwise."""
        return torch.stack([torch.ones(self.outputs), torch.zeros(self.outputs)])

    def __call__(self, parameters: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar, of inputs (n, in) and targets (n, outputs)."""
        raise NotImplementedError


@dataclass(frozen=True)
class GaussianLikelihood(HeadLoss):
    """Twice the mean negative log-likelihood without its constant, mean[(mu - y)^2 exp(-l) + l], and a penalty on the bounds of l.

    Every term counts by exp(p l), through which no gradient flows (beta-NLL, Seitzer et al. 2022, https://arxiv.org/abs/2203.09168).
    """

    variance_power: float = 0.0
    """p: 0 is the likelihood, whose mean stops learning what is taken for noise; at 1 the mean learns as from squared errors."""

    head = Head.GAUSSIAN
    output_groups = 2

    @property
    def weights(self) -> Tensor:
        return torch.stack([torch.ones(self.outputs), torch.full((self.outputs,), self.variance_power)])

    def __call__(self, parameters: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        mean, raw = forward(parameters, inputs).chunk(2, dim=-1)
        log_variance = bounded_log_variance(raw, parameters["variance_min"], parameters["variance_max"])
        surprise = (mean - targets).square() * torch.exp(-log_variance) + log_variance
        likelihood = (surprise * torch.exp(self.variance_power * log_variance.detach())).mean()
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
