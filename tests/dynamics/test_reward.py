"""The reward model learns rewards and endings from what was lived."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dynamics.fitting import FitConfig
from dynamics.reward import RewardConfig, RewardModel
from dynamics.state_space import Channel, StateSpace
from robots.errors import ConfigurationError, NonFiniteError, ShapeError

SPACE = StateSpace([Channel("q", ("a",), (0,), "angle"), Channel("dq", ("v",), (0,)),
                    Channel("goal", ("g",), (0,), target="constant", model_input=False)])
CONFIG = RewardConfig((32, 32), fit=FitConfig(learning_rate=5e-3, batch_size=100, epochs=60, largest_updates=5000))


def reward_of(x, u):
    return torch.cos(x[..., 0]) - (x[..., 1] - x[..., 2]).square() - 0.1 * u[..., 0].square()


def lived(smooth_data, n=2000, endings=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1
    u = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 2 - 1
    template = smooth_data(StateSpace([Channel("q", ("p",), (0,))]))
    return replace(template, x=x, u=u, x_next=x, dt=torch.full((n,), 0.1, dtype=torch.float64), cost=-reward_of(x, u),
                   terminal=(x[:, 1] > 0.3) & endings, episode=torch.arange(n) // 50)


@pytest.fixture(scope="module")
def model(smooth_data):
    model = RewardModel(SPACE, 2, CONFIG, 0)
    model.fit(lived(smooth_data))
    return model


def test_rewards_and_endings_are_learned_and_depend_on_goals_the_dynamics_do_not_read(model, smooth_data):
    fresh = lived(smooth_data, 500, seed=1)
    reward, ends = model.predict(fresh.x, fresh.u)
    assert float((reward - reward_of(fresh.x, fresh.u)).square().mean().sqrt()) < 0.1 * float(reward_of(fresh.x, fresh.u).std())
    clear = (fresh.x[:, 1] - 0.3).abs() > 0.1
    assert ((ends[clear] > 0.5) == fresh.terminal[clear]).double().mean() > 0.98
    assert reward.dtype == torch.float64 and model.predict(fresh.x.float(), fresh.u.float())[0].dtype == torch.float32


def test_predictions_are_differentiable_in_states_and_commands_and_free_of_graphs_otherwise(model):
    x, u = torch.tensor([[0.2, 0.1, 0.0]], requires_grad=True), torch.tensor([[0.3, 0.0]], requires_grad=True)
    reward, ends = model.predict(x, u)
    gradient = torch.autograd.grad(reward.sum(), (x, u), retain_graph=True)
    true = torch.autograd.grad(reward_of(x, u).sum(), (x, u))
    assert float(torch.cat([g - t for g, t in zip(gradient, true, strict=True)], -1).abs().max()) < 0.3
    assert torch.autograd.grad(ends.sum(), x)[0].abs().sum() > 0
    with torch.enable_grad():
        assert not model.predict(x.detach(), u.detach())[0].requires_grad


def test_nothing_ends_where_no_episode_ended(smooth_data):
    model = RewardModel(SPACE, 2, replace(CONFIG, fit=FitConfig(epochs=1)), 0)
    model.fit(lived(smooth_data, 200, endings=False))
    assert not model.sees_endings


def test_a_restored_model_continues_bit_for_bit_and_others_are_refused(smooth_data):
    config = replace(CONFIG, fit=FitConfig(epochs=2))
    model, twin = RewardModel(SPACE, 2, config, 0), RewardModel(SPACE, 2, config, 0)
    model.fit(lived(smooth_data, 200))
    twin.load_tensors(model.tensors())
    model.fit(lived(smooth_data, 300)), twin.fit(lived(smooth_data, 300))
    assert all(torch.equal(a, b) for a, b in zip(model.tensors().values(), twin.tensors().values(), strict=True))
    with pytest.raises(ShapeError, match="another configuration"):
        RewardModel(SPACE, 2, RewardConfig((8,)), 0).load_tensors(model.tensors())


def test_data_that_are_not_finite_are_refused_by_episode(smooth_data):
    data = lived(smooth_data, 200)
    for name in ("cost", "x"):
        values = getattr(data, name).clone()
        values[120] = math.nan
        with pytest.raises(NonFiniteError, match="episode 2"):
            RewardModel(SPACE, 2, CONFIG, 0).fit(replace(data, **{name: values}))
    with pytest.raises(ConfigurationError):
        RewardConfig(())
