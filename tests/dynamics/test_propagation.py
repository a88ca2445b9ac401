"""Propagated distributions are those of the model: moments by Monte Carlo, and how the ways differ."""

from __future__ import annotations

import pytest
import torch

from dynamics.linear import LinearConfig, LinearModel
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.propagation import PROPAGATIONS, make_propagation
from dynamics.rollout import Rollouts, predict_trajectory
from dynamics.state_space import Channel, StateSpace
from robots.errors import ConfigurationError, UnknownNameError

SPACE = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
A = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=torch.float64)
B = torch.tensor([[0.1], [0.5]], dtype=torch.float64)
NOISE = torch.tensor([0.1, 0.2], dtype=torch.float64)
X0 = torch.tensor([1.0, -0.5], dtype=torch.float64)
HORIZON, PARTICLES = 6, 20_000


def linear_gaussian() -> LinearModel:
    model = LinearModel(SPACE, 1, 0.1, LinearConfig())
    change = torch.cat([(A - torch.eye(2)).T, B.T, torch.zeros(1, 2, dtype=torch.float64)])
    model.load_tensors({"coefficients": change, "std": NOISE, "fits": torch.tensor(1)})
    return model


def moments(actions: torch.Tensor, diagonal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the exact mean and covariance; `diagonal`: correlations are dropped at every step, as MM does."""
    mean, covariance = X0, torch.zeros(2, 2, dtype=torch.float64)
    for u in actions.double():
        mean, covariance = A @ mean + B @ u, A @ covariance @ A.T + torch.diag(NOISE**2)
        if diagonal:
            covariance = covariance.diagonal().diag()
    return mean, covariance


@pytest.mark.parametrize("name", sorted(PROPAGATIONS))
def test_moments_of_a_linear_gaussian_model(name):
    particles = 1 if name == "E" else PARTICLES
    actions = torch.randn(HORIZON, 1, generator=torch.Generator().manual_seed(0))
    states = predict_trajectory(linear_gaussian(), make_propagation(name), particles, X0, actions, torch.Generator().manual_seed(1))
    last = states[-1].double()
    mean, covariance = moments(actions, diagonal=name == "MM")
    if name == "E":
        torch.testing.assert_close(last[0], mean, rtol=0, atol=1e-6)
        return
    # five standard errors: sigma / sqrt(P) of the mean, about sqrt(2 / P) of a variance; MM redraws at each of H steps
    steps = HORIZON if name == "MM" else 1
    spread = covariance.diagonal().sqrt()
    error = 5 * (steps / PARTICLES) ** 0.5
    assert ((last.mean(0) - mean).abs() < error * spread).all()
    assert ((last.T.cov() - covariance).abs() < 2**0.5 * error * torch.outer(spread, spread)).all()


def test_moment_matching_with_few_particles_does_not_shrink_the_variance():
    actions, total = torch.zeros(HORIZON, 1), torch.zeros(2, dtype=torch.float64)
    repeats = 3000
    generator = torch.Generator().manual_seed(0)
    kind, model = make_propagation("MM"), linear_gaussian()
    rollouts = Rollouts(model, kind, 3, repeats)  # many plans of three particles each
    noise = kind.noise(HORIZON, 3, repeats, 2, generator, common=False)
    for state in rollouts.states(X0, actions.expand(repeats, -1, -1), noise):
        total = state.double()
    _, covariance = moments(actions, diagonal=True)
    # within a plan three redrawn particles vary, in expectation, as the fitted Gaussian; 3000 heavy-tailed plans tell it to some percent
    ratio = total.var(0).mean(0) / covariance.diagonal()
    assert ((ratio > 0.85) & (ratio < 1.15)).all(), ratio


def drifting(drifts: torch.Tensor, probabilistic: bool = False) -> NeuralEnsemble:
    """Return an ensemble whose members predict constant changes drifts (E,) of p, and none of v."""
    members = len(drifts)
    model = NeuralEnsemble(SPACE, 1, 0.1, EnsembleConfig(members, (4,), probabilistic, (0.0,)), 0)
    tensors = model.tensors()
    for i, drift in enumerate(drifts.tolist()):
        for name in tensors:
            if name.startswith(f"member{i}.") and "variance" not in name:
                tensors[name].zero_()
        tensors[f"member{i}.bias1"][0] = drift
    model.load_tensors(tensors)
    return model


def test_members_that_keep_their_particles_spread_quadratically_and_shuffled_ones_linearly():
    drifts = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]) * 0.1
    horizon, particles = 16, 1000
    variance = float(drifts.var(correction=0))
    actions = torch.zeros(horizon, 1)
    for name, growth in (("TSinf", horizon**2), ("TS1", horizon)):
        states = predict_trajectory(drifting(drifts), make_propagation(name), particles, torch.zeros(2), actions,
                                    torch.Generator().manual_seed(0))
        last = states[-1, :, 0]
        # members are dealt equally at every step, so that the mean is exact
        assert abs(float(last.mean()) - horizon * float(drifts.mean())) < 1e-4
        # the variance of a thousand particles is known to sqrt(2 / 1000); five of these. TSinf has no chance in it at all
        assert abs(float(last.var(correction=0)) / (growth * variance) - 1) < (1e-4 if name == "TSinf" else 0.23), name


def test_trajectory_sampling_one_deals_every_member_equally_within_every_plan():
    noise = make_propagation("TS1").noise(40, 10, 3, 2, torch.Generator().manual_seed(0), common=True)
    assert noise.slots.shape == (40, 10)
    assert torch.equal(noise.slots.sort(1).values, torch.arange(10).expand(40, -1))
    assert len({tuple(row) for row in noise.slots.tolist()}) > 30


@pytest.mark.parametrize("name", ["TS1", "TSinf"])
def test_deterministic_members_draw_no_noise(name):
    model, kind = drifting(torch.tensor([0.2, 0.2])), make_propagation(name)
    actions = torch.zeros(5, 1)
    noisy = predict_trajectory(model, kind, 4, torch.zeros(2), actions, torch.Generator().manual_seed(0))
    quiet = predict_trajectory(model, kind, 4, torch.zeros(2), actions)
    assert torch.equal(noisy, quiet)
    probabilistic = drifting(torch.tensor([0.2, 0.2]), probabilistic=True)
    assert not torch.equal(predict_trajectory(probabilistic, kind, 4, torch.zeros(2), actions, torch.Generator().manual_seed(0)), quiet)


def test_distribution_sampling_turns_disagreement_into_noise():
    drifts = torch.tensor([-0.1, 0.3])
    states = predict_trajectory(drifting(drifts), make_propagation("DS"), PARTICLES, torch.zeros(2), torch.zeros(4, 1),
                                torch.Generator().manual_seed(0))
    last = states[-1, :, 0]
    assert abs(float(last.mean()) - 0.4) < 5 * 0.4 / PARTICLES**0.5
    assert abs(float(last.var()) / (4 * 0.04) - 1) < 5 * (2 / PARTICLES) ** 0.5
    assert not states[-1, :, 1].any()


@pytest.mark.parametrize(("name", "particles", "members"),
                         [("E", 2, 1), ("DS", 0, 1), ("TS1", 7, 5), ("TSinf", 4, 5), ("TSinf", 0, 1), ("MM", 1, 1)])
def test_particle_counts_that_do_not_fit_are_refused(name, particles, members):
    with pytest.raises(ConfigurationError, match="particle"):
        make_propagation(name).check(particles, members)


def test_an_unknown_propagation_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="TSinf"):
        make_propagation("TSinfinite")


@pytest.mark.parametrize("name", sorted(PROPAGATIONS))
def test_portions_of_candidates_meet_their_own_noise(name):
    kind = make_propagation(name)
    own = kind.noise(3, 4, 6, 2, torch.Generator().manual_seed(0), common=False)
    shared = kind.noise(3, 4, 6, 2, torch.Generator().manual_seed(0), common=True)
    if own.normal is None:
        assert name == "E"
        return
    portion = own.candidates(slice(2, 5))
    assert torch.equal(portion.normal, own.normal[:, :, 2:5])
    assert shared.candidates(slice(2, 5)).normal is shared.normal and shared.normal.shape[2] == 1
    assert kind.noise(3, 4, 6, 2, None, True).normal is None
