"""The backward pass: the Riccati recursion, commands in a box, regularisation, gaps, and what it promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from planners.linear_quadratic import LinearQuadraticModel, LocalPolicy, Outcome

UNLIMITED = math.inf


def model_of(horizon: int, n: int, m: int, seed: int = 0, gaps: bool = False) -> LinearQuadraticModel:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(horizon + 1, n + m, n + m))
    hessian = root @ root.transpose(0, 2, 1) / (n + m) + 0.1 * np.eye(n + m)
    gradient = rng.normal(size=(horizon + 1, n + m))
    a = np.eye(n) + rng.normal(size=(horizon, n, n)) / (4 * n)
    return LinearQuadraticModel(a, rng.normal(size=(horizon, n, m)) / n, gradient[:-1].copy(), hessian[:-1].copy(), gradient[-1, :n].copy(),
                                hessian[-1, :n, :n].copy(), rng.normal(size=(horizon, n)) if gaps else None)


def unlimited(model: LinearQuadraticModel, **weights: float) -> LocalPolicy:
    box = np.full(model.b.shape[::2], UNLIMITED)
    return model.backward(-box, box, **weights)


def limited(model: LinearQuadraticModel, at: float, **weights: float) -> LocalPolicy:
    box = np.full(model.b.shape[::2], at)
    return model.backward(-box, box, **weights)


def play(model: LinearQuadraticModel, policy: LocalPolicy, step: float) -> tuple[float, np.ndarray]:
    """Return the model's cost of the policy from dx = 0, and the changes of the commands (H, nu)."""
    x, cost, changes = np.zeros(model.a.shape[1]), 0.0, []
    for t in range(len(model.a)):
        u = step * policy.feedforward[t] + policy.gains[t] @ x
        z = np.concatenate([x, u])
        cost += model.gradient[t] @ z + 0.5 * z @ model.hessian[t] @ z
        x = model.a[t] @ x + model.b[t] @ u + (0.0 if model.gaps is None else step * model.gaps[t])
        changes.append(u)
    return cost + model.end_gradient @ x + 0.5 * x @ model.end_hessian @ x, np.array(changes)


def by_one_large_system(model: LinearQuadraticModel) -> np.ndarray:
    """Return the best changes of the commands (H, nu) from dx = 0 by writing all states as functions of all commands."""
    horizon, n, m = model.b.shape
    moves, offset = np.zeros((n, horizon * m)), np.zeros(n)
    hessian, gradient = np.zeros((horizon * m, horizon * m)), np.zeros(horizon * m)
    for t in range(horizon + 1):
        own = np.eye(horizon * m)[t * m: (t + 1) * m]
        z, at = np.vstack([moves, own]), np.concatenate([offset, np.zeros(len(own))])
        h, g = (model.hessian[t], model.gradient[t]) if t < horizon else (model.end_hessian, model.end_gradient)
        hessian, gradient = hessian + z.T @ h @ z, gradient + z.T @ (g + h @ at)
        if t < horizon:
            moves, offset = model.a[t] @ moves + model.b[t] @ own, model.a[t] @ offset + (0.0 if model.gaps is None else model.gaps[t])
    return -np.linalg.solve(hessian, gradient).reshape(horizon, m)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("size", [(1, 1, 1), (7, 4, 2), (5, 3, 5), (3, 102, 3)])
def test_without_limits_the_policy_is_the_best_there_is(size, gaps):
    model = model_of(*size, gaps=gaps)
    policy = unlimited(model)
    cost, changes = play(model, policy, 1.0)
    np.testing.assert_allclose(changes, by_one_large_system(model), atol=1e-9)
    for step in (1.0, 0.3):
        assert policy.expected_change(step) == pytest.approx(play(model, policy, step)[0], rel=1e-9, abs=1e-9)
    if not gaps:
        assert cost == pytest.approx(0.5 * policy.slope, rel=1e-9, abs=1e-9)  # at the optimum: slope = -curvature


def test_gains_are_those_of_the_riccati_recursion():
    model = model_of(12, 5, 2)
    policy, value = unlimited(model), model.end_hessian
    for t in range(11, -1, -1):
        f = np.hstack([model.a[t], model.b[t]])
        q = model.hessian[t] + f.T @ value @ f
        gain = -np.linalg.solve(q[5:, 5:], q[5:, :5])
        np.testing.assert_allclose(policy.gains[t], gain, atol=1e-10)
        value = q[:5, :5] + q[5:, :5].T @ gain


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_clamped_commands_are_zero_and_the_others_are_not(seed):
    policy = limited(model_of(30, 4, 3, seed), 0.3)
    clamped = np.abs(policy.feedforward) == 0.3
    assert 5 < clamped.sum() < clamped.size - 5 and np.abs(policy.feedforward).max() == 0.3
    assert not policy.gains[clamped].any() and policy.gains[~clamped].any(axis=1).all()
    assert policy.slope < 0 < policy.curvature


def test_the_value_function_is_not_regularised():
    """Two periods: the gain of the first is that of the exact value of playing the second's regularised policy."""
    model, weight = model_of(2, 3, 2), 0.7
    policy = unlimited(model, control_weight=weight)
    f, q = np.dstack([model.a, model.b]), [None, None]
    q[1] = model.hessian[1] + f[1].T @ model.end_hessian @ f[1]
    gain = -np.linalg.solve(q[1][3:, 3:] + weight * np.eye(2), q[1][3:, :3])
    np.testing.assert_allclose(policy.gains[1], gain, atol=1e-12)
    closed = np.vstack([np.eye(3), gain])
    q[0] = model.hessian[0] + f[0].T @ (closed.T @ q[1] @ closed) @ f[0]
    np.testing.assert_allclose(policy.gains[0], -np.linalg.solve(q[0][3:, 3:] + weight * np.eye(2), q[0][3:, :3]), atol=1e-12)


def test_state_regularisation_pulls_towards_the_old_states():
    model, weight = model_of(1, 3, 2), 0.7
    dearer = replace(model, end_hessian=model.end_hessian + weight * np.eye(3))
    ours, expected = unlimited(model, state_weight=weight), unlimited(dearer)
    np.testing.assert_allclose(ours.gains, expected.gains, atol=1e-12)
    np.testing.assert_allclose(ours.feedforward, expected.feedforward, atol=1e-12)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3)])
def test_the_pass_is_the_recursion_written_down(weights):
    control, state = weights
    model, box = model_of(9, 6, 3, gaps=True), np.full((9, 3), UNLIMITED)
    policy = model.backward(-box, box, control, state)
    v_x, v_xx = model.end_gradient, model.end_hessian
    for t in range(8, -1, -1):
        a, b = model.a[t], model.b[t]
        v_x, f = v_x + v_xx @ model.gaps[t], np.hstack([a, b])
        q_xu, q = model.gradient[t] + f.T @ v_x, model.hessian[t] + f.T @ v_xx @ f
        q_x, q_u, q_xx, q_ux, q_uu = q_xu[:6], q_xu[6:], q[:6, :6], q[6:, :6], q[6:, 6:]
        regular = q_uu + control * np.eye(3) + state * b.T @ b
        k, gain = -np.linalg.solve(regular, q_u), -np.linalg.solve(regular, q_ux + state * b.T @ a)
        np.testing.assert_allclose(policy.feedforward[t], k, atol=1e-10)
        np.testing.assert_allclose(policy.gains[t], gain, atol=1e-10)
        v_x = q_x + gain.T @ (q_uu @ k + q_u) + q_ux.T @ k
        v_xx = q_xx + gain.T @ q_uu @ gain + gain.T @ q_ux + q_ux.T @ gain


def test_a_pass_compiled_for_its_size_is_the_same():
    model, box = model_of(9, 2, 1), np.full((9, 1), 0.4)
    general, sized = (model.backward(-box, box, for_size=on) for on in (False, True))
    np.testing.assert_allclose(sized.gains, general.gains, atol=1e-12)
    np.testing.assert_allclose(sized.feedforward, general.feedforward, atol=1e-12)


@pytest.mark.parametrize("n", [3, 100])
def test_failures_are_told_apart(n):
    model = model_of(4, n, 2)
    bent = model.hessian.copy()
    bent[2, n:, n:] -= 1e3 * np.eye(2)
    assert unlimited(replace(model, hessian=bent)).outcome is Outcome.INDEFINITE
    assert unlimited(replace(model, hessian=bent), control_weight=2e3).outcome is Outcome.FINE
    for name in ("a", "b", "gradient", "hessian", "end_gradient", "end_hessian"):
        for value in (math.nan, math.inf):
            broken = getattr(model, name).copy()
            broken.flat[-1] = value
            assert unlimited(replace(model, **{name: broken})).outcome is Outcome.NON_FINITE, (name, value)


def test_how_the_derivatives_lie_in_memory_is_nobodys_business():
    model = model_of(12, 4, 2)
    same = replace(model, hessian=np.broadcast_to(model.hessian[0], model.hessian.shape))
    lying = replace(same, a=np.asfortranarray(model.a), gradient=np.asfortranarray(model.gradient))
    plain = replace(same, hessian=same.hessian.copy())
    one, other = unlimited(plain), unlimited(lying)
    assert one.outcome == other.outcome == Outcome.FINE
    np.testing.assert_array_equal(one.gains, other.gains)
    np.testing.assert_array_equal(one.feedforward, other.feedforward)
    half = unlimited(replace(plain, gradient=model.gradient.astype(np.float32)))
    np.testing.assert_allclose(half.feedforward, one.feedforward, rtol=1e-4, atol=1e-5)
