"""The convex part of a matrix is convex, changes nothing that is convex already, and is no further away than it must be."""

from __future__ import annotations

import numpy as np

from planners.convex import convex_part


def symmetric(count: int, n: int, seed: int = 0) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(count, n, n))
    return a + a.swapaxes(-1, -2)


def test_no_direction_bends_down_and_what_does_not_is_kept():
    given = symmetric(20, 6)
    found = convex_part(given)
    np.testing.assert_array_equal(found, found.swapaxes(-1, -2))
    assert np.linalg.eigvalsh(found).min() > -1e-12
    taken = found - given  # minus the concave part: as far as the negative eigenvalues, and at right angles to what is left
    np.testing.assert_allclose(np.linalg.norm(taken, axis=(1, 2)),
                               np.linalg.norm(np.minimum(np.linalg.eigvalsh(given), 0.0), axis=1), rtol=1e-10)
    np.testing.assert_allclose((taken * found).sum((1, 2)), 0.0, atol=1e-10)
    np.testing.assert_allclose(convex_part(found), found, atol=1e-12)


def test_entries_that_are_coupled_to_none_are_taken_by_themselves():
    given = np.zeros((3, 5, 5))
    given[:, 1:4, 1:4], given[:, 0, 0], given[:, 4, 4] = symmetric(3, 3, 1), -2.0, 3.0
    found = convex_part(given)
    assert (found[:, 0, 0] == 0.0).all() and (found[:, 4, 4] == 3.0).all()
    np.testing.assert_array_equal(found[:, 1:4, 1:4], convex_part(given[:, 1:4, 1:4]))


def test_what_is_no_number_is_left_for_others_to_find():
    given = symmetric(2, 3)
    given[1, 0, 0] = np.nan
    assert convex_part(given) is given
