"""Metrics: a perfect model has no errors, and honest noise covers what it says."""

from __future__ import annotations

import math

import pytest
import torch

from dynamics.linear import LinearConfig, LinearModel
from dynamics.metrics import evaluate_model
from dynamics.state_space import Channel, StateSpace

SPACE = StateSpace([Channel("q", ("p",), (0,), "angle", model_input=False), Channel("dq", ("v",), (0,))])


def model_of(std: float, bias: float = 0.0) -> LinearModel:
    """Return p += 0.1 v + bias, v += 0.2 u - 0.1 v + bias with noise of `std`."""
    model = LinearModel(SPACE, 1, 0.1, LinearConfig())
    model.load_tensors({"coefficients": torch.tensor([[0.1, -0.1], [0.0, 0.2], [bias, bias]], dtype=torch.float64),
                        "std": torch.full((2,), std, dtype=torch.float64), "fits": torch.tensor(1)})
    return model


def lived(steps: int, std: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(steps, 1, generator=generator, dtype=torch.float64)
    x = [torch.tensor([0.5, 0.0], dtype=torch.float64)]
    for command in u:
        change = torch.stack([0.1 * x[-1][1], 0.2 * command[0] - 0.1 * x[-1][1]])
        x.append(x[-1] + change + std * torch.randn(2, generator=generator, dtype=torch.float64))
    return torch.stack(x), u


def test_a_perfect_model_has_no_errors():
    metrics = evaluate_model(model_of(1e-9), *lived(80, 0.0))
    assert metrics.normalised_rmse < 1e-5 and max(metrics.one_step_rmse.values()) < 1e-6
    assert set(metrics.k_step_rmse) == {1, 5, 10, 25} and max(metrics.k_step_rmse.values()) < 1e-4


def test_a_wrong_model_has_the_errors_it_makes():
    x, u = lived(200, 0.0)
    metrics = evaluate_model(model_of(0.1, bias=0.05), x, u)
    assert metrics.one_step_rmse == pytest.approx({"p": 0.05, "v": 0.05}, rel=1e-5)
    change = SPACE.difference(x[:-1], x[1:])
    assert metrics.normalised_rmse == pytest.approx(float((0.05 / change.std(0, correction=0)).square().mean().sqrt()), rel=1e-5)
    assert metrics.k_step_rmse[25] > 3 * metrics.k_step_rmse[1]


def test_known_noise_is_covered_as_stated_and_has_the_gaussian_likelihood():
    n, std = 4000, 0.1
    x, u = lived(n, std)
    metrics = evaluate_model(model_of(std), x, u)
    for level, share in metrics.coverage.items():
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / (2 * n)), level
    # entropy of the noise; the mean of n chi-squares over two has the standard error sqrt(1 / (2 * 2 n))
    assert abs(metrics.negative_log_likelihood - (0.5 * math.log(2 * math.pi * math.e) + math.log(std))) < 4 * math.sqrt(1 / (4 * n))
    assert evaluate_model(model_of(3 * std), x, u).coverage[0.5] > 0.9
    assert evaluate_model(model_of(std / 3), x, u).coverage[0.9] < 0.6


def test_episodes_shorter_than_k_have_no_k_step_error():
    assert set(evaluate_model(model_of(0.1), *lived(7, 0.1)).k_step_rmse) == {1, 5}
