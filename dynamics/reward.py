"""Reward and end of episode, learned beside the dynamics where only the engine knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.checkpoint import check_tensors, load_network, network_tensors
from dynamics.dataset import TransitionData
from dynamics.fitting import FitConfig, MemberFit, fit_member, make_optimiser
from dynamics.losses import RewardAndEnding
from dynamics.network import forward, new_network
from dynamics.neural_ensemble import member_seed
from dynamics.normaliser import Normaliser
from dynamics.state_space import StateSpace
from robots.errors import ConfigurationError, NumericalError


@dataclass(frozen=True)
class RewardConfig:
    """Shape and fit of the reward model."""

    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers."""
    weight_decay: float = 1e-5
    """L2 penalty on the weights."""
    fit: FitConfig = FitConfig()
    """How it is fitted."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigurationError(f"RewardConfig.hidden: expected positive widths, got {self.hidden}")


class RewardModel:
    """One network that maps (features(x), u) to the reward of the period and the probability that the episode ends there.

    It learns from lived rewards alone: it never asks the engine.
    """

    def __init__(self, state_space: StateSpace, nu: int, config: RewardConfig, seed: int) -> None:
        self.state_space, self.nu, self.config, self.seed = state_space, nu, config, seed
        self.fits = 0
        self.sees_endings = False
        """True once an episode ended for good in the data."""
        self._scale = 0.0
        self._inputs, self._reward = Normaliser.identity(self._width), Normaliser.identity(1)
        generator = torch.Generator().manual_seed(seed)
        self._network = new_network((self._width, *config.hidden, 2), generator)
        self._optimiser = make_optimiser(self._network, (config.weight_decay,) * (len(config.hidden) + 1))

    @property
    def reward_scale(self) -> float:
        """Root mean square of the rewards it was fitted to; 0 before the first fit."""
        return self._scale

    @property
    def _width(self) -> int:
        # all entries of x, not only the model's inputs: a goal does not move the robot, but it decides the reward
        return self.state_space.nx + self.state_space.nf + self.nu

    def fit(self, data: TransitionData) -> MemberFit:
        """Fit to all transitions, from the weights of the last fit.

        Raises NonFiniteError for NaN in the data (naming the episode) and NumericalError where the fit diverges; the model
        is then as it was.
        """
        data.check(self.state_space.nx, self.nu)
        before = self.tensors()
        inputs, reward = self._raw(data.x, data.u), -data.cost.unsqueeze(-1)
        self._inputs, self._reward = Normaliser.fit(inputs), Normaliser.fit(reward)
        self._scale = float(reward.square().mean().sqrt())
        self.sees_endings = bool(data.terminal.any())
        targets = torch.cat([self._reward.normalise(reward.float()), data.terminal.float().unsqueeze(-1)], dim=-1)
        generator = torch.Generator().manual_seed(member_seed(self.seed, self.fits, 0))
        try:
            loss = RewardAndEnding(2, self.sees_endings)
            report = fit_member(self._network, self._optimiser, loss, self._inputs.normalise(inputs.float()), targets,
                                torch.arange(len(data)), None, loss, self.config.fit, generator)
        except NumericalError:
            self.load_tensors(before)
            raise
        self.fits += 1
        return report

    def predict(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reward (...,) and the probability (...,) that the episode ends, for u (..., nu) in x (..., nx).

        Differentiable in x and u; the weights count as constants, so that no graph is built for them.
        """
        weights = {name: value.detach() for name, value in self._network.items()}
        output = forward(weights, self._inputs.normalise(self._raw(x, u).float()))
        reward = self._reward.denormalise(output[..., :1])[..., 0]
        return reward.to(x.dtype), torch.sigmoid(output[..., 1]).to(x.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a refit or a prediction depends on, by name."""
        state = {"input_mean": self._inputs.mean, "input_std": self._inputs.std, "reward_mean": self._reward.mean,
                 "reward_std": self._reward.std, "fits": torch.tensor(self.fits), "sees_endings": torch.tensor(self.sees_endings),
                 "reward_scale": torch.tensor(self._scale, dtype=torch.float64)}
        return {name: value.clone() for name, value in state.items()} | network_tensors(self._network, self._optimiser)

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; ShapeError names the first tensor that is missing, unknown or of another shape."""
        check_tensors(state, self.tensors())
        self._inputs = Normaliser(state["input_mean"].clone(), state["input_std"].clone())
        self._reward = Normaliser(state["reward_mean"].clone(), state["reward_std"].clone())
        self.fits, self.sees_endings = int(state["fits"]), bool(state["sees_endings"])
        self._scale = float(state["reward_scale"])
        load_network(state, self._network, self._optimiser)

    def _raw(self, x: Tensor, u: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
        x, u = x.expand(*batch, -1), u.expand(*batch, -1)
        return torch.cat([x, self.state_space.features(x), u], dim=-1)
