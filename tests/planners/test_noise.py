"""Draws have the distribution they claim."""

from __future__ import annotations

import math

import pytest
import torch

from planners.noise import coloured_noise, truncated_normal


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_truncated_normals_stay_within_two_sigma_and_have_the_right_moments():
    draws = truncated_normal((400, 1000), seeded()).double()
    assert draws.abs().max() <= 2.0 + 1e-6 and draws.abs().max() > 1.99
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    variance = 1 - 4 * density / math.erf(math.sqrt(2))
    # 400000 draws: five standard errors
    assert abs(float(draws.mean())) < 5 * 0.88 / 632 and abs(float(draws.var()) - variance) < 5 * 1.0 / 632


@pytest.mark.parametrize("steps", [1, 2, 3, 24, 25])
@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, 2.0, 3.5])
def test_coloured_noise_has_unit_variance_at_every_step(steps, beta):
    noise = coloured_noise(20_000, steps, 2, beta, seeded())
    assert noise.shape == (20_000, steps, 2)
    # 40000 independent draws a step: five standard errors of a variance, sqrt(2 / 40000) each
    assert float((noise.square().mean((0, 2)) - 1).abs().max()) < 0.036
    assert float(noise.mean((0, 2)).abs().max()) < 0.025
    assert abs(float((noise[..., 0] * noise[..., 1]).mean())) < 0.036  # commands are independent


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 3.0])
def test_the_spectrum_falls_with_the_asked_slope(beta):
    steps = 128
    power = torch.fft.rfft(coloured_noise(4000, steps, 1, beta, seeded())[..., 0]).abs().square().mean(0)
    frequency = torch.fft.rfftfreq(steps)
    x, y = frequency[1:-1].log(), power[1:-1].log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    assert slope == pytest.approx(-beta, abs=0.05)


def test_draws_come_from_the_generator_alone():
    torch.manual_seed(0)
    a = coloured_noise(3, 8, 1, 1.0, seeded(4)), truncated_normal((3,), seeded(4))
    torch.manual_seed(1)
    b = coloured_noise(3, 8, 1, 1.0, seeded(4)), truncated_normal((3,), seeded(4))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
