"""Networks and their scaling."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.network import bounded_log_variance, forward, new_network, stack
from dynamics.normaliser import Normaliser


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), offset=st.floats(-100, 100), scale=st.floats(1e-3, 1e3))
def test_denormalise_undoes_normalise(seed, offset, scale):
    values = offset + scale * torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    normaliser = Normaliser.fit(values)
    normal = normaliser.normalise(values)
    back = normaliser.denormalise(normal)
    # float32 rounds each of the two steps, relative to the largest number involved
    torch.testing.assert_close(back, values, rtol=1e-6, atol=1e-6 * (abs(offset) + scale))
    # the mean itself is rounded to float32: up to 1e-7 * offset, seen in units of the scale
    slack = 1e-5 + 2e-7 * abs(offset) / scale
    assert float(normal.mean(0).abs().max()) < slack and float((normal.std(0, correction=0) - 1).abs().max()) < 1e-5 + slack


def test_a_constant_column_keeps_its_scale_and_becomes_zero():
    values = torch.tensor([[3.0, 1.0], [3.0, 2.0], [3.0, 6.0]])
    normaliser = Normaliser.fit(values)
    assert normaliser.std[0] == 1.0 and normaliser.mean[0] == 3.0
    assert (normaliser.normalise(values)[:, 0] == 0).all()
    assert torch.equal(normaliser.denormalise(normaliser.normalise(values))[:, 0], values[:, 0])
    identity = Normaliser.identity(2)
    assert torch.equal(identity.normalise(values), values)


def test_weights_start_truncated_at_two_sigma_and_biases_at_zero():
    network = new_network((100, 300, 2), torch.Generator().manual_seed(0))
    sigma = 1 / (2 * math.sqrt(100))
    weight = network["weight0"].detach()
    assert weight.abs().max() <= 2 * sigma
    # a normal truncated at two sigma has 0.7737 of the variance; 30000 draws tell it to about a percent
    assert abs(float(weight.var()) / (0.7737 * sigma**2) - 1) < 0.04
    assert not network["bias0"].any() and network["weight0"].requires_grad


def test_a_stack_of_members_computes_what_each_member_does():
    generator = torch.Generator().manual_seed(0)
    members = [new_network((3, 8, 2), generator) for _ in range(3)]
    inputs = torch.randn(5, 3, generator=generator)
    together = forward(stack(members), inputs.expand(3, -1, -1))
    torch.testing.assert_close(together, torch.stack([forward(m, inputs) for m in members]))
    assert not torch.equal(together[0], together[1])


@given(raw=st.floats(-1e4, 1e4), lower=st.floats(-12, -1), width=st.floats(0.5, 10))
def test_log_variance_stays_within_its_bounds_and_has_the_closed_form_that_rollouts_use(raw, lower, width):
    raw, low = torch.tensor(raw, dtype=torch.float64), torch.tensor(lower, dtype=torch.float64)
    high = low + width
    bounded = bounded_log_variance(raw, low, high)
    assert low <= bounded
    assert bounded <= high + math.log1p(math.exp(-width)) + 1e-12  # the second softplus lifts the upper bound by this much
    closed = 1 / (torch.exp(-high) + torch.exp(-raw)) + torch.exp(low)
    assert math.isclose(float(bounded.exp()), float(closed), rel_tol=1e-9)


def test_log_variance_rises_with_its_input_and_is_untouched_far_from_the_bounds():
    raw = torch.linspace(-20, 20, 401, dtype=torch.float64)
    bounded = bounded_log_variance(raw, torch.tensor(-10.0), torch.tensor(10.0))
    assert (bounded.diff() >= 0).all()
    assert abs(float(bounded[200])) < 1e-4
