"""The ensemble's mean by compiled kernels: gradients as autograd's in float64, rollouts as torch's, the same bits however it is shared."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynamics import fused_mean
from dynamics.ensemble_mean import EnsembleMean
from dynamics.feedback_rollout import roll_out_feedback
from dynamics.fitting import FitConfig
from dynamics.forward import FoldedNetwork
from dynamics.fused_mean import FusedMean, compile_mean, mean_kernel
from dynamics.kernels.compiled import processor_features
from dynamics.kernels.few_rows import ROWS
from dynamics.linearize import linearize
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers

pytestmark = pytest.mark.skipif(mean_kernel() is None, reason="this processor has no fused multiply-adds")
NU = 2
STEPS = np.logspace(0, -3, 11)
LOWER, UPPER = np.array([-0.1, -math.inf]), np.array([0.05, math.inf])


def ensemble_of(space: StateSpace, hidden: tuple[int, ...] = (16, 12), members: int = 3, nu: int = NU, seed: int = 0) -> NeuralEnsemble:
    config = EnsembleConfig(members=members, hidden=hidden, weight_decay=(0.0,), fit=FitConfig(epochs=2, batch_size=32))
    return NeuralEnsemble(space, nu, 0.1, config, seed)


def plain(nx: int) -> StateSpace:
    return StateSpace([Channel("q", tuple(f"x{i}" for i in range(nx)), tuple(range(nx)))])


def exact_gradients(network: FoldedNetwork, inputs: np.ndarray) -> np.ndarray:
    """Return the gradients (T, no, d) float64 of the members' mean output by raw inputs (T, d), by autograd."""
    weights, biases, no = [w.double() for w in network.weights], [b.double() for b in network.biases], network.state_space.no

    def mean(row: torch.Tensor) -> torch.Tensor:
        hidden = row.expand(network.members, 1, -1)
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = torch.baddbmm(bias, torch.nn.functional.silu(hidden) if layer else hidden, weight)
        return hidden[..., :no].mean(0)[0]

    return torch.func.vmap(torch.func.jacrev(mean))(torch.from_numpy(inputs).double()).numpy()


def policy_of(nx: int, nu: int, horizon: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return states, actions, feedforward and gains of no particular policy."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(horizon + 1, nx)), 0.1 * rng.normal(size=(horizon, nu)), 0.1 * rng.normal(size=(horizon, nu)),
            0.1 * rng.normal(size=(horizon, nu, nx)))


def rolled_out(mean: EnsembleMean, x0: np.ndarray, steps: np.ndarray, horizon: int = 8) -> tuple[np.ndarray, np.ndarray]:
    states, actions, feedforward, gains = policy_of(len(x0), NU, horizon)
    return roll_out_feedback(mean, x0, states, actions, steps, feedforward, gains, LOWER, UPPER)


# no hidden layer a whole number of registers, a single one, and more outputs than inputs of the first layer
@pytest.mark.parametrize(("hidden", "nx", "nu"), [((200, 200, 200, 200), 18, 6), ((5,), 3, 1), ((70, 33), 7, 2), ((3, 40, 64), 1, 1)])
@pytest.mark.parametrize("periods", [1, ROWS + 1])
def test_gradients_are_those_of_float64(hidden, nx, nu, periods):
    network = ensemble_of(plain(nx), hidden, nu=nu).folded()
    inputs = np.random.default_rng(0).normal(size=(periods, nx + nu)).astype(np.float32)
    exact = exact_gradients(network, inputs)
    found = FusedMean(network, mean_kernel(), None).gradients(inputs[:, :nx], inputs[:, nx:])[..., : nx + nu].sum(0).reshape(exact.shape)
    assert np.abs(found - exact).max() < 3e-6 * np.abs(exact).max()  # tens of roundings


def test_jacobians_and_rollouts_are_those_of_torch_on_every_space(space):
    ensemble = ensemble_of(space)
    ours, torchs = EnsembleMean(ensemble), EnsembleMean(ensemble, compiled=False)
    rng = np.random.default_rng(1)
    x, u = rng.normal(size=(9, space.nx)), rng.normal(size=(9, NU))
    for start, *_ in space.quaternions:
        x[:, start:start + 4] /= np.linalg.norm(x[:, start:start + 4], axis=1, keepdims=True)
    for found, expected in zip(linearize(ours, x, u), linearize(torchs, x, u), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    if space.has_quaternions:
        return
    for steps in (STEPS, STEPS[:1]):
        for found, expected in zip(rolled_out(ours, x[0], steps), rolled_out(torchs, x[0], steps), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_feedback_turns_angles_the_short_way():
    space = StateSpace([Channel("q", ("a",), (0,), "angle")])
    mean, unlimited = EnsembleMean(ensemble_of(space, nu=1)), np.array([math.inf])
    _, commands = roll_out_feedback(mean, np.array([3.0]), np.full((2, 1), -3.0), np.zeros((1, 1)), np.ones(1), np.zeros((1, 1)),
                                    np.full((1, 1, 1), -1.0), -unlimited, unlimited)
    assert commands[0, 0, 0] == pytest.approx(2 * math.pi - 6.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_do_not_depend_on_threads_nor_on_what_is_beside(threads):
    ensemble, rng = ensemble_of(plain(5), (70, 33)), np.random.default_rng(0)
    alone, workers = EnsembleMean(ensemble), Workers(threads)
    try:
        shared = EnsembleMean(ensemble, workers)
        x, u = rng.normal(size=(20, 5)), rng.normal(size=(20, NU))
        jacobians = linearize(shared, x, u)
        for whole, found in zip(jacobians, linearize(alone, x, u), strict=True):
            np.testing.assert_array_equal(whole, found)
        for t in (0, 7, 19):
            for whole, found in zip(jacobians, linearize(alone, x[t:t + 1], u[t:t + 1]), strict=True):
                np.testing.assert_array_equal(whole[t:t + 1], found)
        together = rolled_out(shared, x[0], STEPS)
        for n in range(len(STEPS)):
            for whole, found in zip(together, rolled_out(alone, x[0], STEPS[n:n + 1]), strict=True):
                np.testing.assert_array_equal(whole[n:n + 1], found)
    finally:
        workers.close()


def test_gradients_begun_during_a_rollout_are_those_of_its_trajectory_or_made_anew(workers):
    ensemble = ensemble_of(plain(5), (70, 33))
    alone, shared = EnsembleMean(ensemble), EnsembleMean(ensemble, workers)
    other = np.random.default_rng(0).normal(size=(2 * ROWS, 5 + NU))

    def along(horizon: int) -> tuple[np.ndarray, np.ndarray]:
        reached, commands = rolled_out(shared, np.ones(5), np.ones(1), horizon)
        return reached[0, :-1], commands[0]

    def assert_same(x: np.ndarray, u: np.ndarray) -> None:
        for found, expected in zip(linearize(shared, x, u), linearize(alone, x, u), strict=True):
            np.testing.assert_array_equal(found, expected)

    for horizon in (2 * ROWS, ROWS, 3 * ROWS + 1):
        assert_same(*along(horizon))
        along(horizon)
        assert_same(other[:, :5], other[:, 5:])
    along(2 * ROWS)
    x, u = along(2 * ROWS)  # while the first one's may still be under way
    x[ROWS - 1] += 1.0
    assert_same(x, u)
    along(2 * ROWS)
    ensemble.load_tensors(ensemble_of(plain(5), (70, 33), seed=1).tensors())
    shared.refresh(), alone.refresh()
    assert_same(x, u)


def test_what_diverges_is_not_finite_and_leaves_the_others_alone():
    mean = EnsembleMean(ensemble_of(plain(5)))
    for bad in (math.nan, math.inf, 1e300):
        reached, _ = rolled_out(mean, np.array([0.0, bad, 0.0, 0.0, 0.0]), STEPS)
        assert not np.isfinite(reached[:, 1:]).all(-1).any()
    states, actions, feedforward, gains = policy_of(5, NU, 8)
    steps = np.array([1.0, 0.0])
    clean = roll_out_feedback(mean, np.zeros(5), states, actions, np.zeros(1), np.zeros_like(feedforward), gains, LOWER, UPPER)[0]
    feedforward[2, 1] = 1e300
    spoilt = roll_out_feedback(mean, np.zeros(5), states, actions, steps, feedforward, gains, LOWER, UPPER)[0]
    assert not np.isfinite(spoilt[0, 3:]).all(-1).any()
    np.testing.assert_array_equal(spoilt[1], clean[0])
    assert not np.isfinite(linearize(mean, np.full((1, 5), math.nan), np.zeros((1, NU)))[0]).all()


def test_the_kernel_of_smaller_registers_computes_the_same():
    small = compile_mean(frozenset(name for name in processor_features() if not name.startswith("avx512")))
    assert small.panels.lanes == 8
    network = ensemble_of(plain(5), (70, 33)).folded()
    inputs = np.random.default_rng(0).normal(size=(8, 5 + NU)).astype(np.float32)
    exact = exact_gradients(network, inputs)
    mean = FusedMean(network, small, None)
    found = mean.gradients(inputs[:, :5], inputs[:, 5:])[..., : inputs.shape[1]].sum(0).reshape(exact.shape)
    assert np.abs(found - exact).max() < 3e-6 * np.abs(exact).max()
    x0, (states, actions, feedforward, gains) = np.zeros(5), policy_of(5, NU, 8)
    given = (x0, states, actions, STEPS, feedforward, gains, LOWER, UPPER)
    for ours, theirs in zip(mean.roll_out_feedback(*given), FusedMean(network, mean_kernel(), None).roll_out_feedback(*given), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_without_the_instructions_torch_does_the_work(monkeypatch):
    assert compile_mean(frozenset({"sse2"})) is None
    ensemble = ensemble_of(plain(3))
    expected = rolled_out(EnsembleMean(ensemble, compiled=False), np.ones(3), STEPS)
    monkeypatch.setattr(fused_mean, "processor_features", frozenset)
    for found, same in zip(rolled_out(EnsembleMean(ensemble), np.ones(3), STEPS), expected, strict=True):
        np.testing.assert_array_equal(found, same)


def test_a_snapshot_is_taken_again_only_where_weights_were_changed(monkeypatch):
    ensemble, other = ensemble_of(plain(3)), ensemble_of(plain(3), seed=1)
    taken = []
    monkeypatch.setattr(NeuralEnsemble, "folded", lambda self, folded=NeuralEnsemble.folded: taken.append(1) or folded(self))
    mean = EnsembleMean(ensemble)
    mean.refresh()
    assert len(taken) == 1
    before = rolled_out(mean, np.ones(3), STEPS)[0]
    ensemble.load_tensors(other.tensors())
    mean.refresh()
    after = rolled_out(mean, np.ones(3), STEPS)[0]
    np.testing.assert_array_equal(after, rolled_out(EnsembleMean(other), np.ones(3), STEPS)[0])
    assert not np.allclose(after, before, atol=1e-3)


def test_a_refit_is_followed(smooth_data, workers):
    space = plain(3)
    ensemble = ensemble_of(space)
    mean = EnsembleMean(ensemble)
    ensemble.fit(smooth_data(space), workers)
    mean.refresh()
    x, u = torch.ones(3, dtype=torch.float64), torch.ones(NU, dtype=torch.float64)
    torch.testing.assert_close(mean.step(x, u), ensemble.step(x, u), atol=1e-5, rtol=0)
