"""The forward pass of rollouts is the reference's, for every model on every kind of state."""

from __future__ import annotations

import pytest
import torch

from dynamics.forward import Forward
from dynamics.model import DynamicsModel, EnsembleModel
from dynamics.propagation import make_propagation
from dynamics.rollout import Rollouts, predict_trajectory, roll_out
from robots.errors import ConfigurationError, ShapeError

TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}
"""Outputs are about 0.1; folding reorders float32 sums over inputs of up to 10 in units of their spread."""


@pytest.fixture
def model(model_name, space, small_model, smooth_data, workers):
    model = small_model(model_name, space)
    model.fit(smooth_data(space), workers)
    return model


def test_models_keep_the_protocol(model):
    assert isinstance(model, DynamicsModel) and isinstance(model, EnsembleModel)


def test_folded_network_computes_the_members_outputs(model, space, random_states):
    generator = torch.Generator().manual_seed(5)
    particles, candidates = 2 * model.members, 3
    x = random_states(space, particles * candidates, generator).float().view(particles, candidates, -1)
    u = torch.randn(candidates, model.nu, generator=generator)
    mean, variance = model.member_outputs(x, u)  # (E, P, N, no)
    forward = Forward(model.folded(), particles, candidates)
    forward.x.copy_(x)
    got, std = forward.outputs(u, rows_of_all=True)
    torch.testing.assert_close(got.reshape(mean.shape), mean, **TOLERANCE)
    stochastic = bool((variance > 0).any())
    assert forward.network.stochastic == stochastic == (std is not None)
    if stochastic:
        torch.testing.assert_close(std.expand(got.shape).reshape(mean.shape), variance.sqrt(), **TOLERANCE)
    got, std = forward.outputs(u, rows_of_all=False)
    slots = torch.arange(particles)
    own = mean[slots // 2, slots]  # (P, N, no): two slots a member
    torch.testing.assert_close(got.reshape(own.shape), own, **TOLERANCE)
    if stochastic:
        torch.testing.assert_close(std.expand(got.shape).reshape(own.shape), variance[slots // 2, slots].sqrt(), **TOLERANCE)


@pytest.mark.parametrize("propagation", ["TSinf", "TS1"])
def test_rollouts_are_the_naive_loop(model, space, random_states, propagation):
    generator = torch.Generator().manual_seed(6)
    horizon, particles, candidates = 5, 2 * model.members, 3
    x0 = random_states(space, 1, generator)[0]
    actions = torch.randn(candidates, horizon, model.nu, generator=generator)
    kind = make_propagation(propagation)
    noise = kind.noise(horizon, particles, candidates, space.no, generator, common=False)
    rollouts = Rollouts(model, kind, particles, candidates)
    x = x0.float().expand(particles, candidates, -1)
    for t, state in enumerate(rollouts.states(x0, actions, noise)):
        mean, variance = model.member_outputs(x, actions[:, t].expand(particles, -1, -1))  # (E, P, N, no)
        slots = noise.slots[t] if propagation == "TS1" else torch.arange(particles)
        member = slots // (particles // model.members)
        own = torch.arange(particles)
        x = space.advance(x, mean[member, own] + variance[member, own].sqrt() * noise.normal[t][slots])
        torch.testing.assert_close(state, x, rtol=1e-3, atol=2e-4)
    assert torch.isfinite(x).all()


def test_constant_channels_do_not_move(model, space, random_states):
    x0 = random_states(space, 1, torch.Generator().manual_seed(0))[0].float()
    states = predict_trajectory(model, make_propagation("TSinf"), model.members, x0, torch.ones(4, model.nu),
                                torch.Generator().manual_seed(1))
    at = 0
    for channel in space.channels:
        n = len(channel.indices)
        moved = not torch.equal(states[0, :, at:at + n], states[-1, :, at:at + n])
        assert moved == (channel.target != "constant"), channel.names
        at += n
    assert torch.equal(states[0], x0.expand(model.members, -1))


def test_predict_keeps_dtypes_and_parts_of_doubt(model, space, random_states):
    for dtype in (torch.float32, torch.float64):
        x = random_states(space, 3, torch.Generator().manual_seed(0)).to(dtype)
        u = torch.zeros(3, model.nu, dtype=dtype)
        prediction = model.predict(x, u)
        assert prediction.mean.shape == (3, space.nx) and prediction.mean.dtype == dtype
        assert prediction.aleatoric_std.shape == prediction.epistemic_std.shape == (3, space.no)
        torch.testing.assert_close(model.step(x, u), prediction.mean)
        assert model.step(x, u, torch.Generator().manual_seed(0)).dtype == dtype
        if model.members == 1:
            assert not prediction.epistemic_std.any()
        torch.testing.assert_close(prediction.std.square(), prediction.aleatoric_std.square() + prediction.epistemic_std.square())


def test_rollout_through_any_model_is_differentiable(model, space, random_states):
    x0 = random_states(space, 2, torch.Generator().manual_seed(0)).float()
    u = torch.zeros(2, model.nu, requires_grad=True)
    states, commands = roll_out(model, x0, lambda t, x: u, 4, torch.Generator().manual_seed(0))
    assert states.shape == (5, 2, space.nx) and commands.shape == (4, 2, model.nu)
    states[-1].square().sum().backward()
    assert u.grad.isfinite().all() and u.grad.abs().sum() > 0


def test_a_snapshot_does_not_follow_a_refit(model, space, smooth_data, workers):
    folded = model.folded()
    before = [w.clone() for w in (*folded.weights, *folded.biases)]
    model.fit(smooth_data(space, seed=9), workers)
    assert all(torch.equal(a, b) for a, b in zip(before, (*folded.weights, *folded.biases), strict=True))
    assert not torch.equal(model.folded().weights[0], folded.weights[0])


def test_rollouts_refuse_another_number_of_candidates_and_of_particles(model, space):
    kind = make_propagation("TSinf")
    rollouts = Rollouts(model, kind, model.members, 3)
    with pytest.raises(ShapeError):
        next(rollouts.states(torch.zeros(space.nx), torch.zeros(2, 4, model.nu), kind.noise(4, model.members, 2, space.no, None, True)))
    with pytest.raises(ConfigurationError):
        Rollouts(model, kind, 0, 3)
