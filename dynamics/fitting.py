"""Fitting of one ensemble member: minibatches, Adam, early stopping on held-out episodes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.descent import make_descent
from dynamics.losses import Loss
from dynamics.network import Parameters
from dynamics.workers import Workers
from robots.errors import ConfigurationError, NumericalError, UnknownNameError

PRODUCTS = ("float32", "bfloat16")
"""Kinds of matrix products."""


@dataclass(frozen=True)
class FitConfig:
    """How a network is fitted."""

    learning_rate: float = 1e-3
    """Adam's first step; it falls along half a cosine to `last_learning_rate` of itself within every fit."""
    last_learning_rate: float = 0.03
    """Share of the first step that is left at the end: what a constant step stirs up settles."""
    batch_size: int = 128
    """Transitions a gradient step."""
    epochs: int = 40
    """Passes over the data at most; exactly, where no episode is held out."""
    largest_updates: int = 2000
    """Gradient steps a fit at most."""
    patience: int = 20
    """Epochs without a better held-out score before the fit stops."""
    validation_fraction: float = 0.1
    """Share of episodes that are held out for early stopping."""
    validation_from: int = 8
    """First episode that may be held out: the first few are needed whole, and no episode ever changes sides."""
    products: str = "float32"
    """Matrix products between hidden layers: "float32", or "bfloat16" with sums and weights kept in float32, where the processor has
    it."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "epochs", "largest_updates", "patience", "validation_from"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"FitConfig.{name}: expected a positive number, got {getattr(self, name)}")
        if self.products not in PRODUCTS:
            raise UnknownNameError("kind of products", self.products, PRODUCTS)
        if not 0.0 < self.last_learning_rate <= 1.0:
            raise ConfigurationError(f"FitConfig.last_learning_rate: expected 0 < share <= 1, got {self.last_learning_rate}")
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ConfigurationError(f"FitConfig.validation_fraction: expected 0 <= fraction < 1, got {self.validation_fraction}")


@dataclass(frozen=True)
class MemberFit:
    """What the fit of one member did."""

    epochs: int
    updates: int
    training_loss: float
    """Mean over the last epoch's batches."""
    validation_loss: float
    """Best held-out score, NaN where nothing was held out."""


def make_optimiser(parameters: Parameters, weight_decay: tuple[float, ...]) -> torch.optim.Adam:
    """Return Adam over the parameters, with weight decay (an L2 penalty lambda |W|^2 / 2) per layer, on weights only.

    `fit_member` sets its steps.
    """
    groups = []
    for name, value in parameters.items():
        decay = weight_decay[int(name.removeprefix("weight"))] if name.startswith("weight") else 0.0
        groups.append({"params": [value], "weight_decay": decay})
    return torch.optim.Adam(groups, fused=True)


def fit_member(parameters: Parameters, optimiser: torch.optim.Adam, loss: Loss, inputs: Tensor, targets: Tensor, rows: Tensor,
               held_out: tuple[Tensor, Tensor] | None, score: Loss, config: FitConfig, generator: torch.Generator) -> MemberFit:
    """Fit one member in place to inputs (n, in) and targets (n, out) at `rows` (m,), which may repeat.

    With `held_out` inputs and targets the parameters that `score` best are kept. Raises NumericalError if the loss or a
    parameter leaves the numbers; parameters and optimiser are then spoilt, and the caller puts back what it had.
    """
    *_, last = fit_epochs(parameters, optimiser, loss, inputs, targets, rows, held_out, score, config, generator)
    return last


def fit_epochs(parameters: Parameters, optimiser: torch.optim.Adam, loss: Loss, inputs: Tensor, targets: Tensor, rows: Tensor,
               held_out: tuple[Tensor, Tensor] | None, score: Loss, config: FitConfig, generator: torch.Generator) -> Iterator[MemberFit]:
    """Do what `fit_member` does, an epoch whenever the next report is asked for; the parameters are whole after the last one."""
    best: Parameters | None = None
    best_score, waited, updates = math.inf, 0, 0
    if held_out is not None:
        best, best_score = _copy(parameters), _score(score, parameters, held_out)
    batches = max(1, round(len(rows) / config.batch_size))
    planned = min(config.epochs * batches, config.largest_updates)
    sizes = [len(batch) for batch in rows.tensor_split(batches)]
    descent = make_descent(parameters, optimiser, loss, inputs, targets, max(sizes), config.products)
    for epoch in range(1, config.epochs + 1):
        order = rows[torch.randperm(len(rows), generator=generator)]
        steps = sizes[: config.largest_updates - updates]
        rates = [_learning_rate(config, update / planned) for update in range(updates, updates + len(steps))]
        mean_loss = descent.epoch(order[: sum(steps)], steps, rates)
        updates += len(steps)
        last = epoch == config.epochs or updates >= config.largest_updates
        if held_out is not None or last:
            descent.publish()
        if not math.isfinite(mean_loss) or (last and not all(bool(value.isfinite().all()) for value in parameters.values())):
            raise NumericalError(f"fitting left the numbers in epoch {epoch} (loss {mean_loss}); lower the learning rate or look at "
                                 "the data")
        if held_out is not None:
            held_out_score = _score(score, parameters, held_out)
            if held_out_score < best_score:
                best, best_score, waited = _copy(parameters), held_out_score, 0
            else:
                waited += 1
        last = last or waited >= config.patience
        if last and best is not None:
            _restore(parameters, best)
        yield MemberFit(epoch, updates, mean_loss, best_score if held_out is not None else math.nan)
        if last:
            return


def take_turns(fits: Sequence[Iterator[MemberFit]], workers: Workers) -> list[MemberFit]:
    """Run fits to their ends and return their last reports, in order.

    A thread that is free takes the fit that has waited longest for its next epoch: seven members on two threads are done
    after seven halves of a fit, not four wholes. Who does which epoch changes no result.
    """
    waiting = deque(enumerate(fits))
    reports: dict[int, MemberFit] = {}

    def work(_: int) -> None:
        while True:
            try:
                number, fit = waiting.popleft()  # a deque's ends are safe between threads
            except IndexError:  # what is left is in other hands
                return
            report = next(fit, None)
            if report is not None:
                reports[number] = report
                waiting.append((number, fit))

    workers.map(work, range(workers.threads))
    return [reports[number] for number in range(len(fits))]


def _learning_rate(config: FitConfig, progress: float) -> float:
    """Return Adam's step when a share `progress` of the planned updates is done."""
    last = config.last_learning_rate
    return config.learning_rate * (last + (1.0 - last) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def _score(score: Loss, parameters: Parameters, held_out: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        value = float(score(parameters, *held_out))
    return value if math.isfinite(value) else math.inf


def _copy(parameters: Parameters) -> Parameters:
    return {name: value.detach().clone() for name, value in parameters.items()}


def _restore(parameters: Parameters, values: Parameters) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
