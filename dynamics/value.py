"""What is worth reaching: the discounted return that followed a state, learned from lived episodes.

A planner that sees 20 periods ahead drives a balancing cart to the end of its rail, because falling comes in the 30th.
The value of the plan's last state tells it. It is the value of what was done so far, not of the best that could be done,
so it errs on the cautious side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.checkpoint import check_tensors, load_network, network_tensors
from dynamics.dataset import TransitionData
from dynamics.fitting import FitConfig, MemberFit, fit_member, make_optimiser
from dynamics.losses import SquaredError, squared_error
from dynamics.network import forward, new_network
from dynamics.neural_ensemble import member_seed
from dynamics.normaliser import Normaliser
from dynamics.state_space import StateSpace
from robots.errors import ConfigurationError, NumericalError


@dataclass(frozen=True)
class ValueConfig:
    """Shape and fit of the value model."""

    discount: float = 0.97
    """Weight of a reward against the one a period earlier; 1 / (1 - discount) periods count."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    weight_decay: float = 1e-4
    """L2 penalty on the weights."""
    fit: FitConfig = FitConfig(batch_size=64, epochs=60, largest_updates=1000)
    """How it is fitted."""

    def __post_init__(self) -> None:
        if not 0.0 < self.discount < 1.0:
            raise ConfigurationError(f"ValueConfig.discount: expected 0 < discount < 1, got {self.discount}")


class ValueModel:
    """One network that maps [x, features(x)] to the discounted return that followed."""

    def __init__(self, state_space: StateSpace, config: ValueConfig, seed: int) -> None:
        self.state_space, self.config, self.seed = state_space, config, seed
        self.fits = 0
        width = state_space.nx + state_space.nf
        self._inputs, self._value = Normaliser.identity(width), Normaliser.identity(1)
        self._network = new_network((width, *config.hidden, 1), torch.Generator().manual_seed(seed))
        self._optimiser = make_optimiser(self._network, (config.weight_decay,) * (len(config.hidden) + 1))

    def fit(self, data: TransitionData) -> MemberFit | None:
        """Fit to the states whose return is known: all of an episode that ended for good, and those far from a cut.

        Returns None where there is no such state. NumericalError if the fit diverges; the model is then as it was.
        """
        returns, known = discounted_returns(-data.cost, data.terminal, data.episode, self.config.discount)
        if not known.any():
            return None
        before = self.tensors()
        inputs, targets = self._raw(data.x[known]), returns[known].unsqueeze(-1)
        self._inputs, self._value = Normaliser.fit(inputs), Normaliser.fit(targets)
        generator = torch.Generator().manual_seed(member_seed(self.seed, self.fits, 0))
        try:
            report = fit_member(self._network, self._optimiser, SquaredError(1), self._inputs.normalise(inputs.float()),
                                self._value.normalise(targets.float()), torch.arange(len(inputs)), None, squared_error,
                                self.config.fit, generator)
        except NumericalError:
            self.load_tensors(before)
            raise
        self.fits += 1
        return report

    def predict(self, x: Tensor) -> Tensor:
        """Return the discounted return (...,) that follows states x (..., nx); 0 before the first fit. Differentiable in x."""
        if self.fits == 0:
            return x.new_zeros(x.shape[:-1])
        weights = {name: value.detach() for name, value in self._network.items()}
        output = forward(weights, self._inputs.normalise(self._raw(x).float()))
        return self._value.denormalise(output)[..., 0].to(x.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a refit or a prediction depends on, by name."""
        state = {"input_mean": self._inputs.mean, "input_std": self._inputs.std, "value_mean": self._value.mean,
                 "value_std": self._value.std, "fits": torch.tensor(self.fits)}
        return {name: value.clone() for name, value in state.items()} | network_tensors(self._network, self._optimiser)

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; ShapeError names the first tensor that is missing, unknown or of another shape."""
        check_tensors(state, self.tensors())
        self._inputs = Normaliser(state["input_mean"].clone(), state["input_std"].clone())
        self._value = Normaliser(state["value_mean"].clone(), state["value_std"].clone())
        self.fits = int(state["fits"])
        load_network(state, self._network, self._optimiser)

    def _raw(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.state_space.features(x)], dim=-1)


def discounted_returns(reward: Tensor, terminal: Tensor, episode: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """Return sum_k discount^k reward[t + k] along each episode (n,), and where it is known (n,) bool.

    Rows of an episode stand together, in order. Where an episode was cut, what would have followed counts as the mean
    reward of its last periods, and the return is called known only 2 / (1 - discount) periods before the cut, or in the
    first half of a shorter episode.
    """
    returns, known = torch.zeros_like(reward), torch.zeros(len(reward), dtype=torch.bool)
    horizon = 1.0 / (1.0 - discount)
    for index in episode.unique().tolist():
        rows = torch.nonzero(episode == index)[:, 0]
        length, ended = len(rows), bool(terminal[rows[-1]])
        later = 0.0 if ended else float(reward[rows[-int(min(length, horizon)):]].mean()) * horizon
        backwards = []
        for earned in reversed(reward[rows].tolist()):
            later = earned + discount * later
            backwards.append(later)
        returns[rows] = torch.tensor(backwards[::-1], dtype=reward.dtype)
        known[rows if ended else rows[: max(length - int(2 * horizon), length // 2)]] = True
    return returns, known
