"""Likelihoods that count by a power of the predicted variance (beta-NLL)."""

from __future__ import annotations

import pytest
import torch

from dynamics.dataset import TransitionData
from dynamics.fitting import FitConfig
from dynamics.losses import GaussianLikelihood, SquaredError
from dynamics.network import new_network
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, StateSpace
from robots.errors import ConfigurationError

ROWS, OUTPUTS = 40, 3


def gradient_of_the_means(power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients (OUTPUTS,) of the last layer's biases of the means: by the likelihood and by squared errors."""
    generator = torch.Generator().manual_seed(0)
    parameters = new_network((4, 2 * OUTPUTS), generator)
    parameters["weight0"].data[:, OUTPUTS:] = 0.0  # one variance for all rows
    parameters["bias0"].data[OUTPUTS:] = torch.tensor([-3.0, 0.0, -1.0])
    bounds = {"variance_max": torch.full((OUTPUTS,), 20.0), "variance_min": torch.full((OUTPUTS,), -20.0)}  # that bend nothing
    inputs, targets = torch.randn(ROWS, 4, generator=generator), torch.randn(ROWS, OUTPUTS, generator=generator)
    found = []
    for loss in (GaussianLikelihood(OUTPUTS, power), SquaredError(OUTPUTS)):
        found.append(torch.autograd.grad(loss(parameters | bounds, inputs, targets), parameters["bias0"])[0][:OUTPUTS])
    return found[0], found[1]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_means_gradient_is_that_of_squared_errors_times_variance_to_the_power_less_one(power):
    by_likelihood, by_squares = gradient_of_the_means(power)
    variance = torch.tensor([-3.0, 0.0, -1.0]).exp()
    torch.testing.assert_close(by_likelihood, by_squares * variance ** (power - 1.0), rtol=1e-4, atol=1e-6)


def impacts() -> tuple[TransitionData, torch.Tensor]:
    """Return transitions of a mass that flies freely but for a stop at 1, which turns its speed round, and which of them are impacts."""
    generator = torch.Generator().manual_seed(3)
    x = torch.stack([2.2 * torch.rand(600, generator=generator, dtype=torch.float64) - 1.1,
                     torch.randn(600, generator=generator, dtype=torch.float64)], dim=1)
    u = torch.randn(600, 1, generator=generator, dtype=torch.float64)
    hit = (x[:, 0] > 1.0) & (x[:, 1] > 0.0)
    speed = torch.where(hit, -x[:, 1], x[:, 1] + 0.02 * u[:, 0])
    x_next = torch.stack([x[:, 0] + 0.02 * speed, speed], dim=1)
    n = len(x)
    data = TransitionData(x, u, x_next, torch.full((n,), 0.02, dtype=torch.float64), torch.zeros(n, dtype=torch.float64),
                          torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.long))
    return data, hit


def test_rare_impacts_are_learned_instead_of_being_taken_for_noise(workers):
    data, hit = impacts()
    assert 10 <= int(hit.sum()) <= 60
    errors = {}
    for power in (0.0, 0.5):
        config = EnsembleConfig(members=2, hidden=(64, 64), weight_decay=(1e-5,), bootstrap=False, variance_power=power,
                                fit=FitConfig(batch_size=64, epochs=300, largest_updates=3000, validation_fraction=0.0))
        model = NeuralEnsemble(StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))]), 1, 0.02, config, seed=1)
        model.fit(data, workers)
        predicted = model.step(data.x[hit], data.u[hit])[:, 1]
        missed = (predicted - data.x_next[hit, 1]).detach().square().mean().sqrt()
        errors[power] = float(missed / (data.x_next[hit, 1] - data.x[hit, 1]).square().mean().sqrt())
    assert errors[0.5] < 0.7 * errors[0.0], errors


def test_a_power_outside_zero_and_one_is_refused():
    for power in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigurationError, match="variance_power"):
            EnsembleConfig(variance_power=power)
