"""Linearisations are the derivatives of `step` on the tangent, and feedback rollouts do what their policy says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynamics.analytic import AnalyticModel
from dynamics.catalog import make_model
from dynamics.ensemble_mean import EnsembleMean
from dynamics.feedback_rollout import FeedbackRollouts, roll_out_feedback
from dynamics.linear import LinearConfig, LinearModel
from dynamics.linearize import LinearizableModel, linearize
from dynamics.model import DynamicsModel
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, StateSpace
from experiments.bench.control_problems import car, unicycle
from robots.errors import ConfigurationError

NU = 2


def states_of(space: StateSpace, n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, space.nx))
    for start, *_ in space.quaternions:
        x[:, start:start + 4] /= np.linalg.norm(x[:, start:start + 4], axis=1, keepdims=True)
    return x


def random_linear(space: StateSpace, seed: int = 0) -> LinearModel:
    model, generator = LinearModel(space, NU, 0.1, LinearConfig()), torch.Generator().manual_seed(seed)
    change = 0.2 * torch.randn(space.nf + NU + 1, space.no, generator=generator, dtype=torch.float64)
    model.load_tensors({"coefficients": change, "std": torch.ones(space.no, dtype=torch.float64), "fits": torch.tensor(1)})
    return model


def assert_derivatives(model: DynamicsModel, x: np.ndarray, u: np.ndarray, width: float, tolerance: float) -> None:
    """Central differences of `width` err by width^2 and by the step's own round-off over `width`."""
    a, b = linearize(model, x, u)
    space, states, commands = model.state_space, torch.as_tensor(x), torch.as_tensor(u)
    assert a.shape == (len(x), space.ndx, space.ndx) and b.shape == (len(x), space.ndx, model.nu) and a.dtype == b.dtype == np.float64
    reached = model.step(states, commands)
    for i, column in enumerate(np.concatenate([a, b], axis=2).transpose(2, 0, 1)):
        change = torch.zeros(len(x), space.ndx + model.nu, dtype=torch.float64)
        change[:, i] = width
        ahead, behind = (space.difference(reached, model.step(space.integrate(states, sign * change[:, :space.ndx]),
                                                              commands + sign * change[:, space.ndx:])) for sign in (1, -1))
        np.testing.assert_allclose(column, ((ahead - behind) / (2 * width)).detach().numpy(), atol=tolerance)


def test_derivatives_are_finite_differences_on_every_state_space(space):
    assert_derivatives(random_linear(space), states_of(space, 5), np.random.default_rng(1).normal(size=(5, NU)), 1e-5, 1e-8)


def test_an_ensembles_derivatives_are_those_of_its_mean(space):
    model = make_model("probabilistic-ensemble", space, NU, 0.1, EnsembleConfig(members=3, hidden=(16, 16), weight_decay=(0.0,)), 0)
    # steps are float32
    assert_derivatives(model, states_of(space, 4), np.random.default_rng(1).normal(size=(4, NU)), 1e-2, 1e-3)


@pytest.mark.parametrize("model", [car(), unicycle()])
def test_formulas_have_the_derivatives_they_state(model):
    assert isinstance(model, LinearizableModel) and isinstance(model, FeedbackRollouts)
    rng = np.random.default_rng(0)
    assert_derivatives(model, rng.normal(size=(20, model.state_space.nx)), 0.4 * rng.normal(size=(20, 2)), 1e-5, 1e-8)


def test_rotations_are_no_formulas():
    space = StateSpace([Channel("q", ("w", "x", "y", "z"), (0, 1, 2, 3), "quaternion")])
    with pytest.raises(ConfigurationError, match="quaternion"):
        AnalyticModel(space, 1, lambda x, u, out: None, lambda x, u, a, b: None)


def policy_about(model: DynamicsModel, horizon: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return x0, states, actions, feedforward and gains of some policy about states that follow from the actions."""
    rng, space = np.random.default_rng(seed), model.state_space
    actions, x0 = 0.1 * rng.normal(size=(horizon, model.nu)), states_of(space, 1, seed)[0]
    x, states = torch.as_tensor(x0), [x0]
    for u in actions:
        x = model.step(x, torch.as_tensor(u))
        states.append(x.numpy())
    return x0, np.stack(states), actions, 0.1 * rng.normal(size=actions.shape), 0.1 * rng.normal(size=(horizon, model.nu, space.ndx))


LOWER, UPPER = np.array([-0.1, -math.inf]), np.array([0.05, math.inf])
STEPS = np.array([1.0, 0.3, 0.0])


def test_rollouts_follow_their_policy_on_every_state_space(space):
    model = random_linear(space)
    x0, states, actions, feedforward, gains = policy_about(model, 6)
    start = model.state_space.integrate(torch.as_tensor(x0), torch.full((space.ndx,), 0.05, dtype=torch.float64)).numpy()
    reached, commands = roll_out_feedback(model, start, states, actions, STEPS, feedforward, gains, LOWER, UPPER)
    assert reached.shape == (3, 7, space.nx) and commands.shape == (3, 6, NU)
    for n, step in enumerate(STEPS):
        x = start
        for t in range(6):
            away = space.difference(torch.as_tensor(states[t]), torch.as_tensor(x)).numpy()
            u = np.clip(actions[t] + step * feedforward[t] + gains[t] @ away, LOWER, UPPER)
            np.testing.assert_allclose(commands[n, t], u, atol=1e-12)
            x = model.step(torch.as_tensor(x), torch.as_tensor(u)).numpy()
            np.testing.assert_allclose(reached[n, t + 1], x, atol=1e-12)
    assert commands[..., 0].min() == -0.1 and commands[..., 0].max() == 0.05


def test_compiled_rollouts_are_those_of_step_after_step():
    class Plain:
        """The same step, and nothing else."""

        state_space, nu, step = car().state_space, 2, staticmethod(car().step)

    x0, states, actions, feedforward, gains = policy_about(car(), 40)
    given = (x0 + 0.1, states, actions, STEPS, feedforward, gains, LOWER, UPPER)
    for ours, plain in zip(roll_out_feedback(car(), *given), roll_out_feedback(Plain(), *given), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-12)


def test_compiled_rollouts_turn_angles_the_short_way():
    def turn(x, u, out):
        out[0] = x[0] + u[0]

    def jacobian(x, u, a, b):
        a[0, 0] = b[0, 0] = 1.0

    model = AnalyticModel(StateSpace([Channel("q", ("a",), (0,), "angle")]), 1, turn, jacobian)
    unlimited = np.array([math.inf])
    _, commands = roll_out_feedback(model, np.array([3.0]), np.full((2, 1), -3.0), np.zeros((1, 1)), np.ones(1), np.zeros((1, 1)),
                                    np.full((1, 1, 1), -1.0), -unlimited, unlimited)
    assert commands[0, 0, 0] == pytest.approx(2 * math.pi - 6.0)


def test_gaps_stay_open_by_what_the_step_leaves(space):
    model = random_linear(space)
    x0, _, actions, feedforward, _ = policy_about(model, 5)
    guess = torch.as_tensor(states_of(space, 6, seed=5))
    guess[0] = torch.as_tensor(x0)
    gaps = space.difference(guess[1:], model.step(guess[:-1], torch.as_tensor(actions)))
    nothing, unlimited = np.zeros((5, NU, space.ndx)), np.full(NU, math.inf)
    reached, commands = roll_out_feedback(model, x0, guess.numpy(), actions, STEPS, feedforward, nothing, -unlimited, unlimited,
                                          gaps.numpy())
    led_to = model.step(torch.as_tensor(reached[:, :-1]), torch.as_tensor(commands))
    still_open = space.difference(torch.as_tensor(reached[:, 1:]), led_to).numpy()
    np.testing.assert_allclose(still_open, (1 - STEPS)[:, None, None] * gaps.numpy(), atol=1e-10)
    np.testing.assert_allclose(space.difference(guess, torch.as_tensor(reached[2])).numpy(), 0.0, atol=1e-10)  # no step: the guess


@pytest.mark.parametrize("probabilistic", [True, False])
def test_the_mean_by_hand_is_the_ensembles_own(space, probabilistic):
    config = EnsembleConfig(members=3, hidden=(16, 12), weight_decay=(0.0,), probabilistic=probabilistic)
    ensemble = NeuralEnsemble(space, NU, 0.1, config, seed=0)
    mean, x, u = EnsembleMean(ensemble), states_of(space, 5), np.random.default_rng(1).normal(size=(5, NU))
    states, commands = torch.as_tensor(x), torch.as_tensor(u)
    torch.testing.assert_close(mean.step(states, commands), ensemble.step(states, commands), atol=1e-5, rtol=0)
    torch.testing.assert_close(mean.step(states[0], commands[0]), ensemble.step(states[0], commands[0]), atol=1e-5, rtol=0)
    for ours, theirs in zip(linearize(mean, x, u), linearize(ensemble, x, u), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)  # float32
    ensemble.load_tensors(NeuralEnsemble(space, NU, 0.1, config, seed=1).tensors())
    before = mean.step(states, commands)
    mean.refresh()
    torch.testing.assert_close(mean.step(states, commands), ensemble.step(states, commands), atol=1e-5, rtol=0)
    assert not torch.allclose(mean.step(states, commands), before, atol=1e-3)
