"""The fast network does what the policy does, to rounding, and never leaves the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamics.state_space import Channel, Kind, StateSpace
from policies.fast_network import FastNetwork
from policies.neural_policy import NeuralPolicy
from policies.policy import Policy
from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError
from robots.observation import NO_POSE, Observation

LINEAR = StateSpace([Channel("q", ("a", "b"), (0, 1)), Channel("dq", ("a_rate", "b_rate"), (0, 1))])
ANGLES = StateSpace([Channel("q", ("a",), (0,), Kind.ANGLE), Channel("q", ("b",), (1,)), Channel("dq", ("a_rate", "b_rate"), (0, 1)),
                     Channel("goal", ("goal",), (0,), Kind.ANGLE, model_input=False)])


def make_policy(space: StateSpace, hidden: tuple[int, ...] = (64, 64), nu: int = 2, scale: float = 3.0, seed: int = 0) -> NeuralPolicy:
    """Return a policy with large weights, biases and a true standardisation, so that every part of it counts."""
    command = CommandSpec(CommandMode.JOINT_POSITION, tuple(map(str, range(nu))), np.full(nu, -1.0), np.full(nu, 0.7), "rad")
    policy = NeuralPolicy(space, command, hidden, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in policy.parameters.items():
            value.mul_(scale) if name.startswith("weight") else value.normal_(generator=generator)
    policy.standardise(2.0 + 3.0 * torch.randn(200, space.nx, generator=generator))
    return policy


def exact(policy: NeuralPolicy, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return policy.action(torch.from_numpy(x).float()).double().numpy()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("space", [LINEAR, ANGLES], ids=["linear", "angles"])
@pytest.mark.parametrize(("hidden", "nu"), [((64, 64), 2), ((64, 64), 7), ((1,), 1), ((17, 200, 33), 19)])
def test_it_equals_torch_to_rounding(space, hidden, nu, compiled):
    policy = make_policy(space, hidden, nu)
    fast = FastNetwork(policy, compiled=compiled)
    assert not (fast.compiled and not compiled)
    x = 2.0 + 3.0 * np.random.default_rng(0).normal(size=(100, space.nx))
    wanted = exact(policy, x)
    assert wanted.std(axis=0).min() > 0.01  # an output that never moves would prove nothing
    assert np.abs(np.array([fast.action(row) for row in x]) - wanted).max() < 2e-5


@pytest.mark.parametrize("compiled", [True, False])
def test_however_sure_it_is_it_stays_inside_the_box(compiled):
    generator = np.random.default_rng(0)
    for seed in range(20):
        policy = make_policy(LINEAR, (8,), 6, scale=1e4, seed=seed)
        low, high = np.sort(generator.normal(size=(2, 6)) * 10.0 ** generator.integers(-3, 4, 6), axis=0)
        policy.command = CommandSpec(CommandMode.JOINT_POSITION, policy.command.names, low, high, "rad")
        fast = FastNetwork(policy, compiled=compiled)
        actions = np.array([fast.action(row) for row in generator.normal(size=(30, 4)) * 1e6])
        assert (actions >= low).all() and (actions <= high).all()
        nearest = np.where(actions > (low + high) / 2, high, low)
        assert (np.abs(actions - nearest) < 1e-3 * (high - low)).mean() > 0.9  # it is sure indeed


@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_not_a_number_does_not_become_one(compiled):
    fast = FastNetwork(make_policy(ANGLES), compiled=compiled)
    for i in range(4):
        x = np.zeros(5)
        x[i] = np.nan
        assert np.isnan(fast.action(x)).all()
    assert np.isfinite(fast.action(np.zeros(5))).all()  # and it recovers


def test_an_action_is_its_own_and_depends_on_the_state_alone():
    fast = FastNetwork(make_policy(LINEAR))
    first = fast.action(np.ones(4))
    kept = first.copy()
    fast.action(-np.ones(4))
    assert (first == kept).all() and (fast.action(np.ones(4)) == kept).all() and first.dtype == np.float64


def test_it_acts_as_a_policy():
    policy = make_policy(LINEAR)
    fast = FastNetwork(policy)
    assert isinstance(fast, Policy) and fast.provenance == policy.provenance
    observation = Observation(0, [0.3, -0.2], [1.0, 0.5], [0.0, 0.0], NO_POSE)
    fast.reset(0)
    command, wanted = fast.act(observation), policy.act(observation)
    assert command.mode == wanted.mode and np.allclose(command.values, wanted.values, atol=2e-5)


def test_rotations_are_refused():
    space = StateSpace([Channel("ee_pose", ("w", "x", "y", "z"), (3, 4, 5, 6), Kind.QUATERNION)])
    with pytest.raises(ConfigurationError, match="quaternion"):
        FastNetwork(make_policy(space))
