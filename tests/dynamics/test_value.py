"""Returns are summed as defined, and the value model learns them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dynamics.fitting import FitConfig
from dynamics.state_space import Channel, StateSpace
from dynamics.value import ValueConfig, ValueModel, discounted_returns
from robots.errors import ConfigurationError, NumericalError, ShapeError

SPACE = StateSpace([Channel("q", ("a",), (0,), "angle"), Channel("dq", ("v",), (0,))])
CONFIG = ValueConfig(0.5, (32,), fit=FitConfig(learning_rate=1e-2, batch_size=50, epochs=80, largest_updates=3000))


def worth_of(x):
    return torch.sin(x[..., 0]) + 0.5 * x[..., 1]


def lived(smooth_data, n=1000, terminal=True, seed=0):
    """Return episodes of one period each, so that the return is the period's reward where they end for good."""
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    return replace(smooth_data(StateSpace([Channel("q", ("p",), (0,))])), x=x, u=torch.zeros(n, 1), x_next=x, dt=torch.full((n,), 0.1),
                   cost=-worth_of(x), terminal=torch.full((n,), terminal), episode=torch.arange(n))


@pytest.fixture(scope="module")
def model(smooth_data, workers):  # workers: torch on one core, so that small fits are quick on a busy machine
    model = ValueModel(SPACE, CONFIG, 0)
    model.fit(lived(smooth_data))
    return model


def test_returns_of_an_ended_and_a_cut_episode_by_hand():
    reward = torch.tensor([1.0, 2.0, 4.0, 8.0, 3.0, 1.0, 5.0, 7.0, 1.0], dtype=torch.float64)
    terminal = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0, 0], dtype=torch.bool)
    episode = torch.tensor([4, 4, 4, 2, 2, 2, 2, 2, 2])
    returns, known = discounted_returns(reward, terminal, episode, 0.5)
    # Ended: nothing follows. Cut: 1 / (1 - 0.5) = 2 periods count, whose mean (7 + 1) / 2 = 4 goes on for ever, worth 4 * 2 = 8.
    assert returns.tolist() == [3.0, 4.0, 4.0, 10.96875, 5.9375, 5.875, 9.75, 9.5, 5.0]
    assert known.tolist() == [True, True, True, True, True, True, False, False, False]  # 6 periods: the first half


def test_what_is_known_of_a_long_cut_episode_stops_two_horizons_before_the_cut():
    known = discounted_returns(torch.ones(30), torch.zeros(30, dtype=torch.bool), torch.zeros(30), 0.5)[1]
    assert int(known.sum()) == 26 and known[:26].all()


def test_a_constant_reward_is_worth_the_same_everywhere_in_a_cut_episode():
    returns = discounted_returns(torch.full((40,), 3.0, dtype=torch.float64), torch.zeros(40, dtype=torch.bool), torch.zeros(40), 0.9)[0]
    torch.testing.assert_close(returns, torch.full((40,), 30.0, dtype=torch.float64))


def test_the_value_is_learned_keeps_the_dtype_and_is_differentiable(model, smooth_data):
    x = lived(smooth_data, 300, seed=1).x
    assert float((model.predict(x) - worth_of(x)).square().mean().sqrt()) < 0.05 * float(worth_of(x).std())
    assert model.predict(x).dtype == torch.float64 and model.predict(x.float()[:, None]).dtype == torch.float32
    assert model.predict(x[:, None]).shape == (300, 1)
    at = torch.tensor([[0.1, 0.2]], requires_grad=True)
    assert float(torch.autograd.grad(model.predict(at).sum(), at)[0][0, 1]) == pytest.approx(0.5, abs=0.1)


def test_it_is_zero_before_the_first_fit_and_stays_as_it_was_where_no_return_is_known(model, smooth_data):
    fresh, x = ValueModel(SPACE, CONFIG, 0), lived(smooth_data, 5).x
    assert torch.equal(fresh.predict(x), torch.zeros(5, dtype=torch.float64))
    before = fresh.tensors()
    assert fresh.fit(lived(smooth_data, 20, terminal=False)) is None  # cut after a single period each
    assert fresh.fits == 0 and all(torch.equal(value, before[name]) for name, value in fresh.tensors().items())


def test_tensors_come_back_bit_for_bit_and_a_refit_goes_on_the_same(model, smooth_data):
    other = ValueModel(SPACE, CONFIG, 0)
    other.load_tensors(model.tensors())
    twin = ValueModel(SPACE, CONFIG, 0)
    twin.load_tensors(model.tensors())
    x = lived(smooth_data, 50, seed=3).x
    assert other.fits == model.fits == 1 and torch.equal(other.predict(x), model.predict(x))
    for one in (other, twin):
        one.fit(lived(smooth_data, 100, seed=4))
    assert torch.equal(other.predict(x), twin.predict(x)) and not torch.equal(other.predict(x), model.predict(x))
    with pytest.raises(ShapeError, match="another configuration"):
        ValueModel(SPACE, replace(CONFIG, hidden=(8,)), 0).load_tensors(model.tensors())


def test_a_fit_that_diverges_leaves_the_model_as_it_was(model, smooth_data):
    broken = ValueModel(SPACE, CONFIG, 0)
    broken.load_tensors(model.tensors())
    data = lived(smooth_data, 50)
    with pytest.raises(NumericalError):
        broken.fit(replace(data, cost=torch.full((50,), torch.nan, dtype=torch.float64)))
    assert all(torch.equal(value, model.tensors()[name]) for name, value in broken.tensors().items())


@pytest.mark.parametrize("discount", [0.0, 1.0, float("nan")])
def test_a_discount_outside_its_range_is_refused(discount):
    with pytest.raises(ConfigurationError, match="discount"):
        ValueConfig(discount)
