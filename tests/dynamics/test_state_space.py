"""States: differences and steps invert each other on every kind of channel."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.state_space import (
    Channel,
    Kind,
    StateSpace,
    Target,
    quaternion_exp,
    quaternion_log,
    quaternion_multiply,
    rotation_matrix,
    wrap_angle,
)
from robots.errors import ConfigurationError, ShapeError, UnknownNameError
from robots.observation import NO_POSE, Observation

seeds = st.integers(0, 2**31 - 1)


def angle_distance(space: StateSpace, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(space.difference(x, y).abs().max())


def constants_of(space: StateSpace, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return y with the constant channels of x."""
    y, at = y.clone(), 0
    for channel in space.channels:
        n = len(channel.indices)
        if channel.target is Target.CONSTANT:
            y[..., at:at + n] = x[..., at:at + n]
        at += n
    return y


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_integrate_undoes_difference_and_advance_undoes_target(space, random_states, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = random_states(space, 4, generator), random_states(space, 4, generator)
    # 1e-12: float64 rounding of numbers up to ten
    assert angle_distance(space, space.integrate(x, space.difference(x, y)), y) < 1e-12
    target = space.target(x, y)
    assert target.shape == (4, space.no)
    assert angle_distance(space, space.advance(x, target), constants_of(space, x, y)) < 1e-12


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_difference_undoes_integrate_for_steps_below_half_a_turn(space, random_states, seed):
    generator = torch.Generator().manual_seed(seed)
    x = random_states(space, 4, generator)
    dx = torch.rand(4, space.ndx, generator=generator, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(space.difference(x, space.integrate(x, dx)), dx, rtol=0, atol=1e-12)


def test_a_state_is_no_step_from_itself_a_turn_later(space, random_states):
    x = random_states(space, 3, torch.Generator().manual_seed(0))
    assert angle_distance(space, x, x) < 1e-12
    y, at = x.clone(), 0
    for channel in space.channels:
        if channel.kind is Kind.ANGLE:
            y[:, at] += 2 * math.pi
        elif channel.kind is Kind.QUATERNION:
            y[:, at:at + 4] *= -1
        at += len(channel.indices)
    assert angle_distance(space, x, y) < 1e-12
    torch.testing.assert_close(space.features(x), space.features(y), rtol=0, atol=1e-12)


def test_small_differences_of_angles_keep_their_float32_digits():
    space = StateSpace([Channel("q", ("a",), (0,), Kind.ANGLE)])
    x, y = torch.tensor([0.0]), torch.tensor([1e-6])
    assert float(space.difference(x, y)) == float(y)  # adding and subtracting pi would leave an error of 2e-7


def test_features_are_linear_entries_then_sines_then_cosines_then_rotations():
    space = StateSpace([Channel("q", ("a", "b"), (0, 1), Kind.ANGLE), Channel("dq", ("v",), (0,)),
                        Channel("dq", ("no",), (1,), model_input=False), Channel("q", ("w", "x", "y", "z"), (2, 3, 4, 5), Kind.QUATERNION)])
    half = math.sqrt(0.5)
    x = torch.tensor([0.3, 2.0, 5.0, 9.0, half, 0.0, 0.0, half], dtype=torch.float64)  # a quarter turn about z
    expected = [5.0, math.sin(0.3), math.sin(2.0), math.cos(0.3), math.cos(2.0), 0, -1, 0, 1, 0, 0, 0, 0, 1]
    torch.testing.assert_close(space.features(x), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (space.nx, space.ndx, space.nf, space.no) == (8, 7, 14, 7)
    assert space.output_names == ("a", "b", "v", "no", "w_x", "w_y", "w_z")


def test_differences_are_the_last_features_and_see_no_common_shift():
    space = StateSpace([Channel("q", ("tip", "body"), (0, 1), model_input=False), Channel("q", ("a",), (2,), Kind.ANGLE),
                        Channel("dq", ("v",), (0,))], [("tip", "body"), ("v", "tip")])
    x = torch.tensor([0.5, 0.2, 0.3, 4.0], dtype=torch.float64)
    expected = torch.tensor([4.0, math.sin(0.3), math.cos(0.3), 0.3, 3.5], dtype=torch.float64)
    torch.testing.assert_close(space.features(x), expected, rtol=0, atol=1e-12)
    assert (space.nf, space.no) == (5, 4)
    moved = x + torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(space.features(moved)[3:], expected[3:], rtol=0, atol=1e-12)


def test_what_is_read_in_a_difference_is_bounded_by_what_was_lived():
    channels = [Channel("q", ("tip",), (0,)), Channel("q", ("body", "far"), (1, 2), model_input=False)]
    x = torch.tensor([[0.0, 1.0, 0.0], [2.0, 5.0, 1.0]], dtype=torch.float64)
    smallest, largest = StateSpace(channels, [("tip", "body")]).bounds_around(x, 0.5)
    assert smallest.tolist() == [-1.0, -1.0, -math.inf] and largest.tolist() == [3.0, 7.0, math.inf]
    smallest, _ = StateSpace(channels).bounds_around(x, 0.5)
    assert smallest.tolist() == [-1.0, -math.inf, -math.inf]


@given(st.floats(-50, 50))
def test_wrapped_angles_are_within_half_a_turn_and_point_the_same_way(angle):
    wrapped = float(wrap_angle(torch.tensor(angle, dtype=torch.float64)))
    assert abs(wrapped) <= math.pi + 1e-12
    assert math.isclose(math.sin(wrapped), math.sin(angle), abs_tol=1e-12)
    assert math.isclose(math.cos(wrapped), math.cos(angle), abs_tol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, scale=st.sampled_from([1e-30, 1e-14, 1e-7, 1e-3, 1.0, 3.1]))
def test_quaternion_log_inverts_exp(seed, scale):
    direction = torch.nn.functional.normalize(torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=0)
    q = quaternion_exp(scale * direction)
    assert math.isclose(float(q.norm()), 1.0, abs_tol=1e-14)
    torch.testing.assert_close(quaternion_log(q), scale * direction, rtol=1e-9, atol=1e-15)


def test_products_of_quaternions_are_products_of_rotations(random_states):
    generator = torch.Generator().manual_seed(3)
    p, q = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(rotation_matrix(quaternion_multiply(p, q)), rotation_matrix(p) @ rotation_matrix(q), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_identity(dtype):
    v = torch.zeros(3, dtype=dtype, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(quaternion_exp, v)
    torch.testing.assert_close(jacobian, torch.cat([torch.zeros(1, 3), 0.5 * torch.eye(3)]).to(dtype))
    q = torch.tensor([1.0, 0, 0, 0], dtype=dtype)
    jacobian = torch.autograd.functional.jacobian(quaternion_log, q)
    torch.testing.assert_close(jacobian, torch.cat([torch.zeros(3, 1), 2 * torch.eye(3)], dim=1).to(dtype))


def test_advance_and_target_have_finite_difference_derivatives(space, random_states):
    generator = torch.Generator().manual_seed(1)
    x, y = random_states(space, 2, generator)
    output = 0.3 * torch.randn(space.no, generator=generator, dtype=torch.float64)
    for start, *_ in space.quaternions:  # derivatives are stated for unit quaternions: keep them out of the perturbation
        x[start:start + 4] = y[start:start + 4] = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda o: space.advance(x, o), output.requires_grad_())
    linear = torch.ones(space.nx, dtype=torch.bool)
    for start, *_ in space.quaternions:
        linear[start:start + 4] = False
    assert torch.autograd.gradcheck(lambda v: space.target(x, torch.where(linear, v, y)), y.clone().requires_grad_())


def test_dtypes_of_states_are_kept_whatever_the_output_has(space, random_states):
    x = random_states(space, 3, torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64):
        for output_dtype in (torch.float32, torch.float64):
            assert space.advance(x.to(dtype), torch.zeros(3, space.no, dtype=output_dtype)).dtype == dtype
        assert space.features(x.to(dtype)).dtype == space.difference(x.to(dtype), x.to(dtype)).dtype == dtype


def test_inputs_are_left_as_they_were(space, random_states):
    x, y = random_states(space, 2, torch.Generator().manual_seed(0))
    before = x.clone(), y.clone()
    space.advance(x, space.target(x, y)), space.integrate(x, space.difference(x, y)), space.features(x)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_leading_dimensions_broadcast(space, random_states):
    x = random_states(space, 3, torch.Generator().manual_seed(0))
    output = torch.full((4, 1, space.no), 0.1, dtype=torch.float64)
    moved = space.advance(x, output)
    assert moved.shape == (4, 3, space.nx)
    assert torch.equal(moved[2, 1], space.advance(x[1], output[0, 0]))


def test_json_round_trip(space, random_states):
    again = StateSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert again.channels == space.channels and again.names == space.names and again.output_names == space.output_names
    assert again.differences == space.differences
    x, y = random_states(space, 2, torch.Generator().manual_seed(0))
    assert torch.equal(again.target(x, y), space.target(x, y)) and torch.equal(again.features(x), space.features(x))


@pytest.mark.parametrize("build", [
    lambda: Channel("q", (), ()), lambda: Channel("q", ("a",), (0, 1)), lambda: Channel("q", ("a",), (-1,)),
    lambda: Channel("q", ("a", "b", "c"), (0, 1, 2), Kind.QUATERNION),
    lambda: Channel("q", ("a", "b", "c", "d"), (0, 1, 2, 3), Kind.QUATERNION, Target.ABSOLUTE),
    lambda: StateSpace([]), lambda: StateSpace([Channel("q", ("a",), (0,)), Channel("dq", ("a",), (0,))]),
    lambda: StateSpace([Channel("goal", ("g",), (0,), target=Target.CONSTANT)]),
    lambda: StateSpace([Channel("q", ("a", "b"), (0, 1))], [("a", "a")]),
    lambda: StateSpace([Channel("q", ("a", "b"), (0, 1)), Channel("q", ("c",), (2,), Kind.ANGLE)], [("a", "c")]),
])
def test_bad_channels_are_refused(build):
    with pytest.raises(ConfigurationError):
        build()


def test_a_difference_of_an_unknown_entry_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="tip"):
        StateSpace([Channel("q", ("tip", "body"), (0, 1))], [("tip", "bodies")])


def test_states_are_cut_out_of_observations_in_order():
    space = StateSpace([Channel("dq", ("v",), (1,)), Channel("q", ("b", "a"), (2, 0)), Channel("goal", ("g",), (0,), target="constant")])
    observation = Observation(0, np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0]), np.zeros(2), NO_POSE, extra={"goal": np.array([6.0])})
    assert space.state(observation).tolist() == [5.0, 3.0, 1.0, 6.0]
    with pytest.raises(ShapeError, match="'dq'"):
        space.state(Observation(0, np.zeros(3), np.zeros(1), np.zeros(1), NO_POSE, extra={"goal": np.zeros(1)}))
    with pytest.raises(UnknownNameError, match="goal"):
        space.state(Observation(0, np.zeros(3), np.zeros(2), np.zeros(2), NO_POSE))
