"""The box-constrained quadratic program: what every choice of active bounds, and SciPy, find too."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from planners.riccati import solve_box_qp


def solve(hessian, gradient, lower, upper, warm=None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the solution, the indices off the bounds, and whether there is a minimum."""
    m = len(gradient)
    x, free = np.zeros(m) if warm is None else np.array(warm, dtype=float), np.zeros(m, np.bool_)
    found = solve_box_qp(hessian, gradient, lower, upper, x, free, np.full((m, m), math.nan), *np.full((3, m), math.nan))
    return x, np.flatnonzero(free), found


def by_enumeration(hessian, gradient, lower, upper) -> float:
    """Return the least value over all choices of bounds to lie on (which are feasible)."""
    best = math.inf
    for sides in itertools.product((-1, 0, 1), repeat=len(gradient)):
        x = np.where(np.array(sides) < 0, lower, np.where(np.array(sides) > 0, upper, 0.0))
        free = np.array(sides) == 0
        if free.any():
            held = gradient[free] + hessian[np.ix_(free, ~free)] @ x[~free]
            x[free] = -np.linalg.solve(hessian[np.ix_(free, free)], held)
        if (x >= lower - 1e-12).all() and (x <= upper + 1e-12).all():
            best = min(best, 0.5 * x @ hessian @ x + gradient @ x)
    return best


def problem(seed: int, m: int, condition: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(m, m)))
    hessian = turn @ np.diag(np.logspace(0, math.log10(condition), m)) @ turn.T
    return 0.5 * (hessian + hessian.T), 3 * rng.normal(size=m), -rng.random(m), rng.random(m)


@settings(max_examples=150, deadline=None)
@example(seed=346, m=2, condition=1e4)  # comes to lie within round-off of a bound
@given(seed=st.integers(0, 10**6), m=st.integers(1, 5), condition=st.sampled_from([1.0, 30.0, 1e4]))
def test_solutions_are_the_best_of_all_active_sets(seed, m, condition):
    hessian, gradient, lower, upper = problem(seed, m, condition)
    warm = np.random.default_rng(seed + 1).normal(size=m)
    for start in (None, warm):
        x, free, _ = solve(hessian, gradient, lower, upper, start)
        assert (x >= lower).all() and (x <= upper).all()
        value, best = 0.5 * x @ hessian @ x + gradient @ x, by_enumeration(hessian, gradient, lower, upper)
        assert value == pytest.approx(best, rel=1e-9, abs=1e-9)
        slope = hessian @ x + gradient
        held = np.setdiff1d(np.arange(m), free)
        np.testing.assert_allclose(slope[free], 0.0, atol=1e-8 * condition)
        assert ((x[held] == lower[held]) | (x[held] == upper[held])).all()  # exactly
        assert (slope[held] * (x[held] - (lower + upper)[held] / 2) <= 0).all()  # would leave the box


def test_solutions_are_scipys():
    for seed in range(20):
        hessian, gradient, lower, upper = problem(seed, 8, 100.0)
        root = np.linalg.cholesky(hessian)
        theirs = lsq_linear(root.T, -np.linalg.solve(root, gradient), (lower, upper), tol=1e-14, method="bvls").x
        np.testing.assert_allclose(solve(hessian, gradient, lower, upper)[0], theirs, atol=1e-8)


def test_without_limits_it_is_newtons_step():
    hessian, gradient, _, _ = problem(0, 6, 1e6)
    unlimited = np.full(6, math.inf)
    x, free, found = solve(hessian, gradient, -unlimited, unlimited)
    assert found and free.tolist() == list(range(6))
    np.testing.assert_allclose(x, -np.linalg.solve(hessian, gradient), rtol=1e-9)


def test_negative_curvature_is_told_where_it_matters():
    gradient, one = np.array([1.0, -1.0]), np.ones(2)
    assert not solve(np.diag([1.0, -1.0]), gradient * 0.1, -one, one)[2]
    assert not solve(np.diag([1.0, 0.0]), gradient * 0.1, -one, one)[2]
    rounded = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-16]])
    assert not solve(rounded, gradient, -one * 9, one * 9)[2]
    x, free, _ = solve(np.diag([1.0, -1.0]), 2 * gradient, -one, one, warm=[0.0, 1.0])  # on the bound that it falls towards
    assert x.tolist() == [-1.0, 1.0] and len(free) == 0
