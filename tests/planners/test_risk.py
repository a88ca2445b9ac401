"""Risk measures: ordered, monotone, and the textbook's."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planners.risk import ConditionalValueAtRisk, Exponential, Mean, Worst, make_risk

costs = st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), min_size=1, max_size=12).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64))
EPS = 1e-9


@given(costs, st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_mean_is_below_cvar_is_below_worst_and_smaller_shares_are_worse(c, a, b):
    small, large = sorted((a, b))
    mean, worst = Mean()(c), Worst()(c)
    assert mean.shape == (3,)
    values = [mean, ConditionalValueAtRisk(large)(c), ConditionalValueAtRisk(small)(c), worst]
    assert all((low <= high + EPS).all() for low, high in pairwise(values))
    torch.testing.assert_close(ConditionalValueAtRisk(1.0)(c), mean)


@given(costs, st.floats(0.01, 3.0), st.floats(0.01, 3.0))
def test_exponential_utility_rises_with_theta_between_best_and_worst(c, a, b):
    small, large = sorted((a, b))
    values = [c.amin(0), Exponential(-large)(c), Exponential(-small)(c), Mean()(c), Exponential(small)(c), Exponential(large)(c),
              Worst()(c)]
    assert all((low <= high + 1e-6).all() for low, high in pairwise(values))


@given(costs, st.floats(0, 50), st.sampled_from(["mean", "worst", "cvar:0.3", "exponential:0.5", "exponential:-0.5"]))
def test_risk_never_falls_when_costs_rise_and_moves_with_a_constant(c, rise, name):
    risk = make_risk(name)
    higher = c.clone()
    higher[0] += rise
    assert (risk(higher) >= risk(c) - EPS).all()
    torch.testing.assert_close(risk(c + rise), risk(c) + rise)
    torch.testing.assert_close(risk(c.flip(0)), risk(c))


def test_cvar_counts_whole_particles_rounded_up():
    c = torch.arange(10.0).view(10, 1)
    assert make_risk("cvar:0.2")(c).item() == 8.5 and make_risk("cvar:0.21")(c).item() == 8.0 and make_risk("cvar:0.3")(c).item() == 8.0


def test_exponential_utility_of_a_gaussian_is_mean_plus_half_theta_variance():
    c = 2.0 + 0.5 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert Exponential(1.5)(c).item() == pytest.approx(2.0 + 0.75 * 0.25, abs=0.01)
    assert math.isfinite(Exponential(10.0)(torch.tensor([[1e4], [2e4]])).item())
