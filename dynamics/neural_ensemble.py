"""Neural dynamics: one network or an ensemble, deterministic or with learned noise (Chua et al. 2018; Nagabandi et al. 2018)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.checkpoint import check_tensors, load_network, network_tensors
from dynamics.dataset import TransitionData, bootstrap_counts
from dynamics.fitting import FitConfig, MemberFit, fit_epochs, make_optimiser, take_turns
from dynamics.forward import FoldedNetwork, over_raw_input
from dynamics.losses import GaussianLikelihood, SquaredError, squared_error
from dynamics.model import Prediction
from dynamics.network import Parameters, bounded_log_variance, forward, layer_count, new_network, stack
from dynamics.normaliser import Normaliser
from dynamics.state_space import StateSpace
from dynamics.workers import Workers
from episodes.split import split_by_episode
from robots.errors import ConfigurationError


@dataclass(frozen=True)
class EnsembleConfig:
    """Shape and fit of a neural dynamics model."""

    members: int = 5
    """Networks; 1 is a single net without epistemic doubt."""
    hidden: tuple[int, ...] = (200, 200, 200)
    """Widths of the hidden layers."""
    probabilistic: bool = True
    """Learn the noise (log-variance) too; otherwise the squared error alone."""
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 5e-5, 7.5e-5)
    """L2 penalty of every layer, first to last; one number serves all."""
    bootstrap: bool = True
    """Every member sees its own Poisson(1) resampling of the transitions; otherwise all see all."""
    standardise_targets: bool = True
    """Fit standardised targets (Nagabandi et al.) or targets in their own units (PETS)."""
    beyond: float = 1.0
    """How far a rollout may leave the states that were lived, as a share of their range on either side; it is stopped there. What
    a network says beyond its data is no better than chance, and one particle that flies off decides what a plan costs."""
    fit: FitConfig = FitConfig()
    """How the members are fitted."""
    variance_power: float = 0.0
    """Power, 0 to 1, of its predicted variance by which an output's likelihood counts (`losses.GaussianLikelihood`). At 0, PETS' own,
    impacts are taken for noise and their mean is not learned."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ConfigurationError(f"EnsembleConfig.members: expected at least 1, got {self.members}")
        if not 0.0 <= self.variance_power <= 1.0:
            raise ConfigurationError(f"EnsembleConfig.variance_power: expected 0 to 1, got {self.variance_power}")
        if not self.beyond >= 0.0:
            raise ConfigurationError(f"EnsembleConfig.beyond: expected a share of at least 0, got {self.beyond}")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigurationError(f"EnsembleConfig.hidden: expected positive widths, got {self.hidden}")
        if len(self.weight_decay) not in (1, len(self.hidden) + 1) or min(self.weight_decay) < 0:
            raise ConfigurationError(f"EnsembleConfig.weight_decay: expected 1 or {len(self.hidden) + 1} numbers >= 0 "
                                     f"(one a layer), got {self.weight_decay}")

    @property
    def layer_weight_decay(self) -> tuple[float, ...]:
        """One penalty for each layer."""
        layers = len(self.hidden) + 1
        return self.weight_decay * layers if len(self.weight_decay) == 1 else self.weight_decay


@dataclass(frozen=True)
class FitReport:
    """What a fit did."""

    members: tuple[MemberFit, ...]
    transitions: int
    """Used for fitting."""
    held_out_episodes: tuple[int, ...]
    """Episodes that decided when to stop; empty while there are too few."""
    seconds: float

    @property
    def training_loss(self) -> float:
        """Mean over the members."""
        return sum(m.training_loss for m in self.members) / len(self.members)

    @property
    def validation_loss(self) -> float:
        """Mean over the members; NaN where nothing was held out."""
        return sum(m.validation_loss for m in self.members) / len(self.members)


class NeuralEnsemble:
    """E networks that map (features(x), u) to the change of the state, with mean and variance; refits start from the last weights."""

    def __init__(self, state_space: StateSpace, nu: int, control_dt: float, config: EnsembleConfig, seed: int) -> None:
        self.state_space, self.nu, self.control_dt, self.config, self.seed = state_space, nu, control_dt, config, seed
        self.members = config.members
        self.fits = 0
        """Fits so far."""
        self.changes = 0
        """How often the weights were changed, by a fit or by `load_tensors`: a snapshot is still true where this is the same."""
        generator = torch.Generator().manual_seed(seed)
        no, width = state_space.no, state_space.nf + nu
        widths = (width, *config.hidden, 2 * no if config.probabilistic else no)
        self._members: list[Parameters] = []
        for _ in range(config.members):
            parameters = new_network(widths, generator)
            if config.probabilistic:
                parameters["variance_max"] = torch.full((no,), 0.5, requires_grad=True)
                parameters["variance_min"] = torch.full((no,), -10.0, requires_grad=True)
            self._members.append(parameters)
        self._inputs, self._outputs = Normaliser.identity(width), Normaliser.identity(no)
        self._lived = state_space.unbounded()
        """Bounds (nx,) each of what rollouts may reach, by what was lived."""
        self._optimisers = [make_optimiser(m, config.layer_weight_decay) for m in self._members]

    def fit(self, data: TransitionData, workers: Workers, progress: Callable[[MemberFit], None] | None = None) -> FitReport:
        """Fit to all transitions, from the weights of the last fit, and say how it went.

        Raises NonFiniteError for NaN in the data (naming the episode) and NumericalError where the fit diverges; the model
        is then as it was, and after any other error, too.
        """
        started = time.perf_counter()
        data.check(self.state_space.nx, self.nu)
        before = self.tensors()
        try:
            reports, used, held_out = self._fit_members(data, workers, progress)
        except BaseException:  # also Ctrl-C
            self.load_tensors(before)
            raise
        self.fits += 1
        self.changes += 1
        return FitReport(tuple(reports), used, tuple(sorted(held_out)), time.perf_counter() - started)

    def _fit_members(self, data: TransitionData, workers: Workers,
                     progress: Callable[[MemberFit], None] | None) -> tuple[list[MemberFit], int, set[int]]:
        """Fit all members and return what each did, how many transitions they learned from, and the held-out episodes."""
        config = self.config.fit
        episodes = sorted(set(data.episode.tolist()))
        held_out: set[int] = set()
        later = [index for index in episodes if index >= config.validation_from]
        if later and config.validation_fraction > 0:
            held_out = set(split_by_episode(later, config.validation_fraction, self.seed)[1])
        if len(held_out) == len(episodes):
            held_out = set()
        training = data.of_episodes(set(episodes) - held_out)
        self._lived = self.state_space.bounds_around(torch.cat([training.x, training.x_next]), self.config.beyond)
        inputs, targets = self._features(training), self._targets(training)
        self._inputs = Normaliser.fit(inputs)
        self._outputs = Normaliser.fit(targets) if self.config.standardise_targets else Normaliser.identity(self.state_space.no)
        inputs, targets = self._inputs.normalise(inputs.float()), self._outputs.normalise(targets.float())
        validation_pair = None
        if held_out:
            validation_data = data.of_episodes(held_out)
            validation_pair = (self._inputs.normalise(self._features(validation_data).float()),
                               self._outputs.normalise(self._targets(validation_data).float()))
        counts = bootstrap_counts(training, self.members, self.seed) if self.config.bootstrap and self.members > 1 else None
        no = self.state_space.no
        loss = GaussianLikelihood(no, self.config.variance_power) if self.config.probabilistic else SquaredError(no)
        everything = torch.arange(len(training))

        def fit_one(member: int) -> Iterator[MemberFit]:
            rows = everything if counts is None else everything.repeat_interleave(counts[:, member])
            generator = torch.Generator().manual_seed(member_seed(self.seed, self.fits, member))
            yield from fit_epochs(self._members[member], self._optimisers[member], loss, inputs, targets, rows if len(rows) else everything,
                                  validation_pair, squared_error, config, generator)

        reports = take_turns([fit_one(member) for member in range(self.members)], workers)
        for report in reports:
            if progress is not None:
                progress(report)
        return reports, len(training), held_out

    def paired_outputs(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return each member's output mean and variance (E, n, no) in its own states x (E, n, nx); differentiable in x and u."""
        inputs = self._inputs.normalise(torch.cat([self.state_space.features(x), u], dim=-1))
        weights = {name: value.detach() for name, value in stack(self._members).items()}
        raw = forward(weights, inputs)  # (E, n, no or 2 no)
        no = self.state_space.no
        mean = self._outputs.denormalise(raw[..., :no])
        if not self.config.probabilistic:
            return mean, torch.zeros_like(mean)
        log_variance = bounded_log_variance(raw[..., no:], weights["variance_min"], weights["variance_max"])
        return mean, log_variance.exp() * self._outputs.std.square()

    def member_outputs(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return every member's output mean and variance (E, ..., no) in states x (..., nx); differentiable."""
        batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
        x, u = (v.float().expand(*batch, v.shape[-1]).reshape(-1, v.shape[-1]) for v in (x, u))
        mean, variance = self.paired_outputs(x.expand(self.members, *x.shape), u.expand(self.members, *u.shape))
        shape = (self.members, *batch, self.state_space.no)
        return mean.reshape(shape), variance.reshape(shape)

    def predict(self, x: Tensor, u: Tensor) -> Prediction:
        """Return the ensemble's mean next state, its mean noise, and the spread of the members' means."""
        return ensemble_prediction(self.state_space, x, *self.member_outputs(x, u))

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a next state (..., nx): a random member's draw for every row with `generator`, else the ensemble's mean."""
        mean, variance = self.member_outputs(x, u)
        if generator is None:
            return self.state_space.advance(x, mean.mean(0))
        member = torch.randint(self.members, mean.shape[1:-1], generator=generator)
        pick = member[None, ..., None].expand(1, *mean.shape[1:])
        noise = torch.randn(mean.shape[1:], generator=generator)
        return self.state_space.advance(x, mean.gather(0, pick)[0] + variance.gather(0, pick)[0].sqrt() * noise)

    @torch.no_grad()
    def folded(self) -> FoldedNetwork:
        """Return a snapshot of the weights with both normalisers folded in (computed in float64)."""
        stacked = {name: value.double() for name, value in stack(self._members).items()}
        layers, no = layer_count(self._members[0]), self.state_space.no
        weights, biases = [stacked[f"weight{i}"] for i in range(layers)], [stacked[f"bias{i}"] for i in range(layers)]
        scaled = weights[0] / self._inputs.std.double().unsqueeze(-1)
        biases[0] = biases[0] - (self._inputs.mean.double() @ scaled).unsqueeze(1)  # (E, 1, h)
        weights[0] = over_raw_input(self.state_space, self.nu, scaled)
        scale, shift = torch.ones(weights[-1].shape[-1], dtype=torch.float64), torch.zeros(weights[-1].shape[-1], dtype=torch.float64)
        scale[:no], shift[:no] = self._outputs.std.double(), self._outputs.mean.double()
        weights[-1], biases[-1] = weights[-1] * scale, biases[-1] * scale + shift
        bounds = None
        if self.config.probabilistic:
            bounds = ((-stacked["variance_max"]).exp().float(), stacked["variance_min"].exp().float())
        return FoldedNetwork(self.state_space, self.nu, tuple(w.float() for w in weights), tuple(b.float() for b in biases), bounds,
                             self._outputs.std.clone(), None, (self._lived[0].clone(), self._lived[1].clone()))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a refit or a prediction depends on, by name: weights, normalisers, Adam's moments."""
        state = {"input_mean": self._inputs.mean, "input_std": self._inputs.std,
                 "output_mean": self._outputs.mean, "output_std": self._outputs.std, "state_min": self._lived[0],
                 "state_max": self._lived[1], "fits": torch.tensor(self.fits)}
        state = {name: value.clone() for name, value in state.items()}
        for i, (parameters, optimiser) in enumerate(zip(self._members, self._optimisers, strict=True)):
            state |= network_tensors(parameters, optimiser, f"member{i}.")
        return state

    def load_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; ShapeError names the first tensor that is missing, unknown or of another shape."""
        check_tensors(state, self.tensors())
        self._inputs = Normaliser(state["input_mean"].clone(), state["input_std"].clone())
        self._outputs = Normaliser(state["output_mean"].clone(), state["output_std"].clone())
        self._lived = state["state_min"].clone(), state["state_max"].clone()
        self.fits = int(state["fits"])
        for i, (parameters, optimiser) in enumerate(zip(self._members, self._optimisers, strict=True)):
            load_network(state, parameters, optimiser, f"member{i}.")
        self.changes += 1

    def _features(self, data: TransitionData) -> Tensor:
        return torch.cat([self.state_space.features(data.x), data.u], dim=-1)

    def _targets(self, data: TransitionData) -> Tensor:
        return per_nominal_period(self.state_space, self.state_space.target(data.x, data.x_next), data.dt, self.control_dt)


def member_seed(seed: int, fit: int, member: int) -> int:
    """Return the seed of one member's minibatches in one fit."""
    return (seed * 1_000_003 + fit * 1_009 + member) % (2**63)


def per_nominal_period(space: StateSpace, targets: Tensor, dt: Tensor, control_dt: float) -> Tensor:
    """Return targets (n, no) with differences scaled from the measured periods dt (n,) to the nominal control_dt [s]."""
    scale = (control_dt / dt).unsqueeze(-1)
    scale = torch.where((scale - 1).abs() < 1e-9, torch.ones_like(scale), scale)
    return torch.where(space.absolute_outputs, targets, targets * scale)


def ensemble_prediction(space: StateSpace, x: Tensor, mean: Tensor, variance: Tensor) -> Prediction:
    """Return the prediction of members' output means and variances (E, ..., no) in states x (..., nx)."""
    return Prediction(space.advance(x, mean.mean(0)), variance.mean(0).sqrt(), mean.std(0, correction=0))
