"""The compiled kernel computes what torch computes, whatever the block, the thread, the model and the way of propagation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from llvmlite import ir

from dynamics import kernel_choice
from dynamics.forward import FoldedNetwork
from dynamics.fused import FusedRollouts, PackedNetwork, supports
from dynamics.kernel_choice import KERNELS, available_kernels, probed_error, trusted_kernel
from dynamics.kernels import compiled
from dynamics.kernels.code import Code
from dynamics.kernels.compiled import best_tile, compile_kernel, load, processor_features
from dynamics.kernels.functions import LARGEST_ANGLE, exp, silu, sine_cosine
from dynamics.propagation import make_propagation
from dynamics.rollout import Rollouts
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers
from robots.errors import NonFiniteError, ShapeError, UnknownNameError

pytestmark = pytest.mark.skipif(not available_kernels(), reason="this processor has no fused multiply-adds")
HORIZON, CANDIDATES = 6, 45  # one whole block of rows and a part
# of the state's largest entry, after HORIZON steps: float32 differs by the order of sums; bfloat16 has 8 bits
TOLERANCE = {"float32": 5e-6, "bfloat16": 2e-3}


@pytest.fixture(scope="module", params=[name for name in KERNELS if name in available_kernels()])
def kernel(request):
    return trusted_kernel(request.param)


@pytest.fixture(scope="module")
def model(model_name, space, small_model, smooth_data, workers):
    model = small_model(model_name, space)
    model.fit(smooth_data(space), workers)
    return model


def rolled_out(network, kernel, propagation, particles, x0, actions, noise, workers):
    rollouts = FusedRollouts(PackedNetwork(network, kernel), propagation, particles, len(actions), actions.shape[1], workers)
    return rollouts.states(x0, actions, noise)


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize(("name", "particles"), [("E", 1), ("DS", 4), ("TS1", 4), ("TSinf", 4)])
def test_rollouts_are_those_of_torch(kernel, model, space, random_states, workers, name, particles, common):
    propagation, generator = make_propagation(name), torch.Generator().manual_seed(0)
    particles *= model.members if name.startswith("TS") else 1
    network = model.folded()
    if space.has_quaternions:
        assert not supports(network, propagation)
        return
    noise = propagation.noise(HORIZON, particles, CANDIDATES, space.no, generator, common)
    x0 = random_states(space, 1, generator)[0].float()
    actions = torch.rand(CANDIDATES, HORIZON, model.nu, generator=generator) * 2 - 1
    reference = torch.stack([x.clone() for x in Rollouts(model, propagation, particles, CANDIDATES).states(x0, actions, noise)])
    states = rolled_out(network, kernel, propagation, particles, x0, actions, noise, workers)
    assert states.shape == (HORIZON, particles, CANDIDATES, space.nx)
    assert float((states - reference).abs().max()) <= TOLERANCE[kernel.name] * float(reference.abs().max())


def test_a_plan_costs_the_same_bits_alone_and_among_others(kernel, small_model, smooth_data):
    space = StateSpace([Channel("q", ("a",), (0,), "angle"), Channel("dq", ("v",), (0,))])
    one, two = Workers(1), Workers()
    model = small_model("probabilistic-ensemble", space)
    model.fit(smooth_data(space), one)
    propagation, generator = make_propagation("TS1"), torch.Generator().manual_seed(0)
    noise = propagation.noise(HORIZON, 6, 100, space.no, generator, common=True)
    x0, actions = torch.tensor([0.3, -1.0]), torch.rand(100, HORIZON, 2, generator=generator)
    network = model.folded()
    whole = rolled_out(network, kernel, propagation, 6, x0, actions, noise, two)
    assert torch.equal(whole, rolled_out(network, kernel, propagation, 6, x0, actions, noise, one))
    assert torch.equal(whole[:, :, 37:38], rolled_out(network, kernel, propagation, 6, x0, actions[37:38], noise, two))
    one.close()
    two.close()


@pytest.mark.parametrize("name", ["E", "DS", "TS1", "TSinf", "MM"])
@pytest.mark.parametrize("compiled", [True, False])
def test_rollouts_stop_where_nothing_was_lived(compiled, name, small_model, smooth_data, workers):
    space = StateSpace([Channel("q", ("p",), (0,)), Channel("q", ("a",), (1,), "angle"), Channel("q", ("along",), (2,), model_input=False),
                        Channel("dq", ("v",), (0,))])
    model = small_model("probabilistic-ensemble", space)
    data = smooth_data(space)
    model.fit(data, workers)
    network = model.folded()
    lower, upper = network.state_bounds
    for i, bounded in enumerate([True, False, False, True]):
        lived = torch.cat([data.x[:, i], data.x_next[:, i]])
        width = model.config.beyond * (lived.max() - lived.min())
        expected = (lived.min() - width, lived.max() + width) if bounded else (-torch.inf, torch.inf)
        assert (float(lower[i]), float(upper[i])) == pytest.approx(tuple(map(float, expected)))
    network.biases[-1][..., :4] += 1e3  # every output leads far away
    propagation, kernel = make_propagation(name), trusted_kernel("float32")
    if compiled and not supports(network, propagation):
        assert name == "MM"
        return
    particles = {"E": 1}.get(name, 4)
    generator = torch.Generator().manual_seed(0)
    noise = propagation.noise(3, particles, 9, space.no, generator, True)
    x0, actions = torch.zeros(4), torch.zeros(9, 3, 2)
    if compiled:
        states = rolled_out(network, kernel, propagation, particles, x0, actions, noise, workers)
    else:
        states = torch.stack([x.clone() for x in Rollouts(model, propagation, particles, 9, network).states(x0, actions, noise)])
    assert torch.equal(states[..., [0, 3]], upper[[0, 3]].expand(3, particles, 9, 2))
    assert (states[-1][..., 2] > 2e3).all() and (name == "MM" or (states[-1][..., 1] > 2e3).all())  # MM wraps angles


@pytest.mark.parametrize("hidden", [(1,), (7, 8, 9), (130, 20), (64,) * 5])
def test_any_width_and_depth(kernel, hidden, workers):
    space = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
    generator = torch.Generator().manual_seed(1)
    widths = (2 + 1, *hidden, 2)
    weights = tuple(torch.randn(3, a, b, generator=generator) / a**0.5 for a, b in itertools.pairwise(widths))
    biases = tuple(torch.randn(3, 1, b, generator=generator) for b in widths[1:])
    network = FoldedNetwork(space, 1, weights, biases, None, torch.ones(2), None)
    propagation = make_propagation("TSinf")
    x0, actions = torch.randn(2, generator=generator), torch.randn(33, 1, 1, generator=generator)
    noise = propagation.noise(1, 3, 33, 2, None, True)
    states = rolled_out(network, kernel, propagation, 3, x0, actions, noise, workers)
    value = torch.cat([x0.expand(3, 33, 2), actions[:, 0].expand(3, -1, -1)], -1).double()
    for n, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        value = value @ weight.double() + bias.double()
        value = torch.nn.functional.silu(value) if n < len(hidden) else value
    expected = x0 + value
    error = 1e-6 if kernel.name == "float32" else 1e-2
    assert float((states[0] - expected).abs().max()) <= error * float(expected.abs().max())


def test_rollouts_are_repeatable_and_see_new_plans(kernel, small_model, workers):
    space = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
    model, propagation = small_model("probabilistic-ensemble", space), make_propagation("E")
    rollouts = FusedRollouts(PackedNetwork(model.folded(), kernel), propagation, 1, 3, 4, workers)
    noise = propagation.noise(4, 1, 3, 2, None, True)
    first, second = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    before = rollouts.states(torch.zeros(2), first, noise).clone()
    assert not torch.equal(before, rollouts.states(torch.zeros(2), second, noise))
    assert torch.equal(before, rollouts.states(torch.zeros(2), first, noise))
    with pytest.raises(ShapeError, match="3 candidates and 4 periods"):
        rollouts.states(torch.zeros(2), first[:2], noise)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["weights", "biases"])
def test_weights_that_are_not_finite_are_refused(kernel, small_model, bad, kind):
    space = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
    network = small_model("probabilistic-ensemble", space).folded()
    getattr(network, kind)[1][0, 0, 0] = bad
    with pytest.raises(NonFiniteError, match=f"{kind} of layer 1"):
        PackedNetwork(network, kernel)


def test_states_that_are_not_numbers_stay_so(kernel, small_model, workers):
    space = StateSpace([Channel("q", ("a",), (0,), "angle"), Channel("dq", ("v",), (0,))])
    model, propagation = small_model("probabilistic-ensemble", space), make_propagation("TSinf")
    generator = torch.Generator().manual_seed(0)
    noise = propagation.noise(2, 2, 40, 2, generator, True)
    rollouts = FusedRollouts(PackedNetwork(model.folded(), kernel), propagation, 2, 40, 2, workers)
    actions = torch.zeros(40, 2, 2)
    actions[7, 0, 1] = math.nan
    spoilt = rollouts.states(torch.zeros(2), actions, noise).isnan()
    assert spoilt[:, :, 7].all() and not spoilt[:, :, :7].any() and not spoilt[:, :, 8:].any()
    for x0 in (torch.tensor([math.nan, 0.0]), torch.tensor([math.inf, 0.0]), torch.tensor([2 * LARGEST_ANGLE, 0.0])):
        assert not rollouts.states(x0, torch.zeros(40, 2, 2), noise).isfinite().all(-1).any()


@pytest.fixture(scope="module")
def functions():
    """Return exp, silu, sine and cosine as functions of arrays."""
    features = processor_features()
    tile = best_tile(features)
    module = ir.Module("functions")
    writers = {"exp": exp, "silu": silu, "sine": lambda code, x: sine_cosine(code, x)[0],
               "cosine": lambda code, x: sine_cosine(code, x)[1]}
    for name, write in writers.items():
        code = Code(module, name, 3, tile.lanes)
        source, target, count = code.arguments

        def each(i, code=code, source=source, target=target, write=write):
            code.store(write(code, code.load(source, code.vector, i)), target, i)

        code.repeat(0, count, each)
        code.finish()
    loaded = load(module, features, {name: 3 for name in writers})

    def function(name):
        def run(x):
            x = np.ascontiguousarray(x, np.float32)
            padded = np.zeros(-(-len(x) // tile.lanes) * tile.lanes, np.float32)
            padded[: len(x)] = x
            result = np.empty_like(padded)
            loaded[name](padded.ctypes.data, result.ctypes.data, len(padded) // tile.lanes)
            return result[: len(x)]
        return run

    return {name: function(name) for name in writers}


def test_functions_within_a_few_roundings(functions):
    x = np.concatenate([np.linspace(-30, 30, 100_001), np.logspace(-30, 1, 1000), -np.logspace(-30, 1, 1000)]).astype(np.float32)
    exact = x.astype(np.float64)
    roundings = np.finfo(np.float32).eps
    np.testing.assert_allclose(functions["exp"](x), np.exp(exact), rtol=16 * roundings)  # x log2 e is rounded: 30 * 2^-24
    np.testing.assert_allclose(functions["silu"](x), exact / (1 + np.exp(-exact)), rtol=16 * roundings, atol=1e-37)
    angles = np.concatenate([x, np.linspace(-1000, 1000, 100_001)]).astype(np.float32)
    np.testing.assert_allclose(functions["sine"](angles), np.sin(angles.astype(np.float64)), rtol=0, atol=2 * roundings)
    np.testing.assert_allclose(functions["cosine"](angles), np.cos(angles.astype(np.float64)), rtol=0, atol=2 * roundings)
    turned = np.linspace(-0.99 * LARGEST_ANGLE, 0.99 * LARGEST_ANGLE, 100_001).astype(np.float32)
    np.testing.assert_allclose(functions["sine"](turned), np.sin(turned.astype(np.float64)), rtol=0, atol=1e-5)


def test_functions_at_the_ends(functions):
    ends = np.array([math.nan, math.inf, -math.inf, 3e38, -3e38], np.float32)
    for name in ("sine", "cosine"):
        assert np.isnan(functions[name](ends)).all()
    assert np.isnan(functions["silu"](ends[:1])).all() and np.isnan(functions["exp"](ends[:1])).all()
    assert functions["silu"](ends[1:2])[0] == math.inf
    assert np.isfinite(functions["exp"](ends[3:])).all()


def test_a_processor_without_the_instructions():
    assert best_tile(frozenset({"sse2"})) is None
    assert best_tile(frozenset({"avx2"})) is None  # without fma
    assert best_tile(frozenset({"avx2", "fma"})).lanes == 8
    assert best_tile(frozenset({"avx512f", "avx2", "fma"})).lanes == 16


def test_the_kernel_of_smaller_registers_computes_the_same(monkeypatch):
    features = processor_features()
    small = frozenset(name for name in features if not name.startswith("avx512"))
    monkeypatch.setattr(compiled, "processor_features", lambda: small)
    kernel = compile_kernel("float32")
    assert kernel.tile.lanes == 8
    assert probed_error(kernel) < 1e-6
    assert compile_kernel("bfloat16") is None


def test_a_kernel_that_rounds_too_coarsely_is_not_trusted(monkeypatch, caplog):
    monkeypatch.setattr(kernel_choice, "probed_error", lambda kernel: math.nan)
    trusted_kernel.cache_clear()
    with caplog.at_level("WARNING"):
        assert trusted_kernel("float32") is None
    assert "relative error" in caplog.text
    trusted_kernel.cache_clear()


def test_an_unknown_kernel_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="float32"):
        trusted_kernel("float16")


def test_the_peak_is_that_of_a_processor(kernel):
    assert 1 < kernel.measured_peak(1) < 10_000
