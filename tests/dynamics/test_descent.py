"""The compiled descent computes what autograd and torch's Adam compute."""

from __future__ import annotations

import math

import pytest
import torch

from dynamics.descent import AutogradDescent, CompiledDescent, make_descent
from dynamics.fitting import FitConfig, MemberFit, make_optimiser, take_turns
from dynamics.gradient import compiled as gradient
from dynamics.gradient.compiled import compile_epoch
from dynamics.gradient.epoch import CHUNK_ROWS
from dynamics.kernels.compiled import has_bfloat16, processor_features
from dynamics.losses import GaussianLikelihood, HeadLoss, RewardAndEnding, SquaredError
from dynamics.network import new_network
from dynamics.workers import Workers
from robots.errors import NumericalError, UnknownNameError

NETWORKS = {
    "gaussian": ((5, 40, 40, 40, 8), GaussianLikelihood(4)),
    "gaussian, more outputs than lanes": ((24, 200, 33, 36), GaussianLikelihood(18)),
    "gaussian, no hidden layer": ((3, 2), GaussianLikelihood(1)),
    "gaussian, weighted by its variance": ((24, 200, 33, 36), GaussianLikelihood(18, variance_power=0.5)),
    "squared error": ((3, 17, 2), SquaredError(2)),
    "reward": ((7, 33, 50, 2), RewardAndEnding(2, False)),
    "reward and ending": ((7, 33, 50, 2), RewardAndEnding(2, True)),
}
ROWS = 75  # no multiple of a tile
BFLOAT16 = has_bfloat16(processor_features())


@pytest.fixture(autouse=True)
def compiled():
    if compile_epoch(2, SquaredError.head, "float32") is None:
        pytest.skip("this processor has no fused multiply-adds that the kernels use")


def problem(widths: tuple[int, ...], loss: HeadLoss, seed: int = 0):
    """Return a network with biases of any size, inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    parameters = new_network(widths, generator)
    for name, value in parameters.items():
        if name.startswith("bias"):
            value.data.normal_(0.0, 0.2, generator=generator)
    if isinstance(loss, GaussianLikelihood):
        parameters["variance_max"] = torch.linspace(-0.5, 0.5, loss.outputs).requires_grad_()
        parameters["variance_min"] = torch.linspace(-2.0, -3.0, loss.outputs).requires_grad_()
    inputs, targets = (torch.randn(ROWS, n, generator=generator) for n in (widths[0], loss.outputs))
    if isinstance(loss, RewardAndEnding):
        targets[:, 1] = (targets[:, 1] > 0.3).float()
    return parameters, inputs, targets


def copy_of(parameters):
    return {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}


def decay_of(widths):
    return tuple(1e-2 * (n + 1) for n in range(len(widths) - 1))


def one_step(parameters, widths, loss, inputs, targets, products="float32") -> tuple[CompiledDescent, float]:
    descent = make_descent(parameters, make_optimiser(parameters, decay_of(widths)), loss, inputs, targets, ROWS, products)
    assert isinstance(descent, CompiledDescent)
    return descent, descent.epoch(torch.arange(ROWS), [ROWS], [1e-3])


def relative_error(value, reference) -> float:
    return float((value - reference).abs().max() / reference.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("registers", ["own", "small"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_and_its_gradient_are_autograds(name, registers, monkeypatch):
    widths, loss = NETWORKS[name]
    if registers == "small":
        small = frozenset(feature for feature in processor_features() if not feature.startswith("avx512"))
        monkeypatch.setattr(gradient, "processor_features", lambda: small)
        assert compile_epoch(len(widths) - 1, loss.head, "float32").tile.lanes == 8
        assert compile_epoch(len(widths) - 1, loss.head, "bfloat16") is None
    parameters, inputs, targets = problem(widths, loss)
    exact = {k: v.detach().double().requires_grad_() for k, v in parameters.items()}
    value = loss(exact, inputs.double(), targets.double())
    value.backward()
    descent, measured = one_step(parameters, widths, loss, inputs, targets)
    assert measured == pytest.approx(value.item(), rel=2e-6)
    for key, parameter in exact.items():
        if parameter.grad is not None and parameter.grad.abs().max() > 0:
            # sums of at most 200 products that float32 rounds to 6e-8 each, through at most four layers
            assert relative_error(descent.gradient(key), parameter.grad) < 5e-6, key
        else:
            assert not descent.gradient(key).any(), key


@pytest.mark.parametrize("name", ["gaussian", "reward and ending"])
def test_a_batch_of_several_chunks_has_the_gradient_of_the_whole(name):
    widths, loss = NETWORKS[name]
    parameters, inputs, targets = problem(widths, loss)
    times = 2 * CHUNK_ROWS // ROWS + 1  # the same rows again and again: three chunks, the last one not full
    whole, value = one_step(copy_of(parameters), widths, loss, inputs, targets)
    many = make_descent(parameters, make_optimiser(parameters, decay_of(widths)), loss, inputs, targets, times * ROWS, "float32")
    many.epoch(torch.arange(ROWS), [ROWS], [0.0])  # what a batch before left is not added
    assert many.epoch(torch.arange(ROWS).repeat(times), [times * ROWS], [0.0]) == pytest.approx(value, rel=2e-6)
    for key in parameters:
        if whole.gradient(key).any():
            assert relative_error(many.gradient(key), whole.gradient(key)) < 5e-6, key


def test_the_gradient_is_the_central_difference():
    widths, loss = NETWORKS["gaussian"]
    parameters, inputs, targets = problem(widths, loss)
    inputs, targets = inputs.double(), targets.double()
    exact = {k: v.detach().double() for k, v in parameters.items()}
    descent, _ = one_step(parameters, widths, loss, inputs.float(), targets.float())
    generator = torch.Generator().manual_seed(1)
    for key, value in exact.items():
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        step = 1e-5  # in float64 its error is about step^2, and that of rounding 1e-16 / step
        ahead, behind = (float(loss(exact | {key: value + sign * step * direction}, inputs, targets)) for sign in (1, -1))
        along = float((descent.gradient(key).double() * direction).sum())
        assert along == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_are_those_of_torchs_adam_and_moments_come_back(name):
    widths, loss = NETWORKS[name]
    parameters, inputs, targets = problem(widths, loss)
    twin = copy_of(parameters)
    optimisers = [make_optimiser(p, decay_of(widths)) for p in (parameters, twin)]
    generator = torch.Generator().manual_seed(2)
    for _ in range(2):  # the second from the moments of the first
        ours = make_descent(parameters, optimisers[0], loss, inputs, targets, 40, "float32")
        theirs = AutogradDescent(twin, optimisers[1], loss, inputs, targets)
        order = torch.randperm(ROWS, generator=generator)[:61]
        losses = [descent.epoch(order, [40, 3, 18], [1e-2, 5e-3, 2e-3]) for descent in (ours, theirs)]
        ours.publish()
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert not ours.padding.any()
    for key, value in parameters.items():
        # a hundredth of a step: it divides by the root of a mean square, which enlarges what rounding does to small gradients
        torch.testing.assert_close(value, twin[key], rtol=0, atol=1e-4)
        if twin[key].grad is None:  # bounds that the loss does not know
            continue
        own, other = (optimiser.state[p] for optimiser, p in zip(optimisers, (value, twin[key]), strict=True))
        assert own["step"] == other["step"] == 6
        for moment in ("exp_avg", "exp_avg_sq"):
            assert relative_error(own[moment], other[moment]) < 1e-4


@pytest.mark.skipif(not BFLOAT16, reason="this processor has no bfloat16 products")
def test_bfloat16_products_are_near_and_spare_the_first_and_the_last_layer():
    widths, loss = NETWORKS["gaussian"]
    parameters, inputs, targets = problem(widths, loss)
    twin = copy_of(parameters)
    exact, value = one_step(parameters, widths, loss, inputs, targets)
    rounded, near = one_step(twin, widths, loss, inputs, targets, "bfloat16")
    assert near == pytest.approx(value, rel=1e-3)
    errors = [relative_error(rounded.gradient(key), exact.gradient(key)) for key in parameters]
    assert 1e-4 < max(errors) < 0.02  # a factor is rounded to 2^-9
    shallow = NETWORKS["reward"]
    results = []
    for products in ("float32", "bfloat16"):  # one layer in the middle
        parameters, inputs, targets = problem(*shallow)
        results.append(one_step(parameters, *shallow, inputs, targets, products)[0].gradient("weight1"))
    assert 1e-5 < relative_error(results[1], results[0]) < 0.02


@pytest.mark.skipif(not BFLOAT16, reason="this processor has no bfloat16 products")
@pytest.mark.parametrize("name", ["gaussian", "reward and ending"])
def test_an_odd_row_is_paired_with_nothing_of_the_batch_before(name):
    widths, loss = NETWORKS[name]
    gradients = []
    for products in ("float32", "bfloat16"):
        parameters, inputs, targets = problem(widths, loss)
        descent = make_descent(parameters, make_optimiser(parameters, decay_of(widths)), loss, inputs, targets, 4, products)
        descent.epoch(torch.arange(7), [4, 3], [0.0, 0.0])
        gradients.append(descent.gradient("weight1"))
    assert relative_error(*gradients) < 0.03  # rounding; what a fourth row adds is some 0.3


def test_what_is_not_a_number_is_told():
    widths, loss = NETWORKS["squared error"]
    for wrong in (math.nan, math.inf):
        parameters, inputs, targets = problem(widths, loss)
        targets[3, 1] = wrong
        assert not math.isfinite(one_step(parameters, widths, loss, inputs, targets)[1])
    widths, loss = NETWORKS["gaussian"]
    parameters, inputs, targets = problem(widths, loss)
    inputs[2, 2] = math.nan
    assert not math.isfinite(one_step(parameters, widths, loss, inputs, targets)[1])


def counted(epochs: int, heard: list[tuple[int, int]], number: int, fails: bool = False):
    for epoch in range(1, epochs + 1):
        heard.append((number, epoch))
        if fails and epoch == 2:
            raise NumericalError("left the numbers")
        yield MemberFit(epoch, epoch, float(number), math.nan)


def test_fits_take_turns_and_report_in_order():
    workers, heard = Workers(1), []
    reports = take_turns([counted(epochs, heard, number) for number, epochs in enumerate((3, 1, 2))], workers)
    assert heard == [(0, 1), (1, 1), (2, 1), (0, 2), (2, 2), (0, 3)]
    assert [(report.training_loss, report.epochs) for report in reports] == [(0.0, 3), (1.0, 1), (2.0, 2)]
    with pytest.raises(NumericalError):
        take_turns([counted(3, heard, number, fails=number == 1) for number in range(3)], workers)
    workers.close()


def test_unknown_products_are_refused():
    with pytest.raises(UnknownNameError, match="bfloat16"):
        FitConfig(products="float16")
