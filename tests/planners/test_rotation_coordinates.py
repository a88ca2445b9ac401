"""States as free numbers: back and forth, their slopes, and those of differences of states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamics.state_space import Channel, StateSpace, quaternion_exp
from planners.rotation_coordinates import SMALL, RotationCoordinates, right_jacobian

SPACE = StateSpace([
    Channel("q", ("a",), (0,), "angle"), Channel("q", tuple("wxyz"), (1, 2, 3, 4), "quaternion"), Channel("dq", ("v",), (0,)),
    Channel("goal", ("gw", "gx", "gy", "gz"), (0, 1, 2, 3), "quaternion", "constant", False)])
STEP = 1e-6


def states(n: int, seed: int = 0) -> np.ndarray:
    x = 4.0 * np.random.default_rng(seed).normal(size=(n, SPACE.nx))  # angles of several turns
    for start, *_ in SPACE.quaternions:
        x[:, start:start + 4] /= np.linalg.norm(x[:, start:start + 4], axis=1, keepdims=True)
    return x


def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return SPACE.difference(torch.from_numpy(x), torch.from_numpy(y)).numpy()


def moved(x: np.ndarray, dx: np.ndarray) -> np.ndarray:
    return SPACE.integrate(torch.from_numpy(x), torch.from_numpy(dx)).numpy()


def test_coordinates_lead_back_to_the_state_and_plain_numbers_are_their_own():
    coordinates, x = RotationCoordinates(SPACE), states(30)
    coordinates.refer_to(states(30, seed=1))
    z = coordinates.of(x)
    assert z.shape == (30, SPACE.ndx) == (30, 8) and np.array_equal(z[:, coordinates.plain], x[:, coordinates.plain_states])
    assert coordinates.plain.tolist() == [0, 4] and coordinates.plain_states.tolist() == [0, 5]
    np.testing.assert_allclose(difference(coordinates.states(z), x), 0.0, atol=1e-12)
    np.testing.assert_array_equal(coordinates.states(z)[:, 0], x[:, 0])
    coordinates.refer_to(x)
    assert np.abs(coordinates.of(x)[:, 1:4]).max() < 1e-7


def test_slopes_are_those_of_the_state_by_its_coordinates():
    coordinates, x = RotationCoordinates(SPACE), states(20)
    coordinates.refer_to(states(20, seed=1))
    z = coordinates.of(x)
    unit = np.eye(SPACE.ndx)
    slopes = coordinates.times(np.tile(unit, (20, 1, 1)), coordinates.slopes(z))
    for i in range(SPACE.ndx):
        there, back = (difference(x, coordinates.states(z + sign * STEP * unit[i])) for sign in (1, -1))
        np.testing.assert_allclose(slopes[:, :, i], (there - back) / (2 * STEP), atol=1e-8)
    assert np.abs(slopes[0] - unit).max() > 0.1
    matrices = np.random.default_rng(0).normal(size=(20, SPACE.ndx, 3))
    np.testing.assert_allclose(coordinates.into(coordinates.slopes(z), matrices), slopes @ matrices, atol=1e-12)


def test_difference_slopes_are_those_by_either_state():
    coordinates, x, y = RotationCoordinates(SPACE), states(20), states(20, seed=1)
    away, unit = difference(x, y), np.eye(SPACE.ndx)
    by_end, by_start = (coordinates.times(np.tile(unit, (20, 1, 1)), blocks) for blocks in coordinates.difference_slopes(away))
    for i, step in enumerate(STEP * unit):
        expected = difference(x, moved(y, step)) - difference(x, moved(y, -step))
        np.testing.assert_allclose(by_end[:, :, i], expected / (2 * STEP), atol=1e-7)
        expected = difference(moved(x, step), y) - difference(moved(x, -step), y)
        np.testing.assert_allclose(by_start[:, :, i], -expected / (2 * STEP), atol=1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.999 * SMALL, 1.001 * SMALL, 1.0, 3.0])
def test_the_right_jacobian_is_that_of_the_exponential_map(angle):
    v = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    v = angle * v / v.norm()
    found = right_jacobian(v.numpy())
    summed, term, cross = np.eye(3), np.eye(3), np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    for k in range(1, 40):  # J = sum (-[v])^k / (k + 1)!
        term = term @ -cross / (k + 1)
        summed = summed + term
    np.testing.assert_allclose(found, summed, atol=1e-12)
    ahead = quaternion_exp(v + 1e-6)
    np.testing.assert_allclose(ahead, moved_rotation(v, found @ np.full(3, 1e-6)), atol=1e-11)


def moved_rotation(v: torch.Tensor, by: np.ndarray) -> torch.Tensor:
    turn = StateSpace([Channel("q", tuple("wxyz"), (0, 1, 2, 3), "quaternion")])
    return turn.integrate(quaternion_exp(v), torch.from_numpy(by))
