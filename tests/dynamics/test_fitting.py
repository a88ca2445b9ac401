"""Fits: what is learned, what is refused, and that one seed gives one result."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest
import torch

from dynamics.catalog import make_model, model_members
from dynamics.fitting import FitConfig, fit_member, make_optimiser
from dynamics.metrics import evaluate_model
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble, per_nominal_period
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers
from robots.errors import ConfigurationError, NonFiniteError, NumericalError, ShapeError, UnknownNameError

LINE = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
"""A state of two plain numbers."""


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def data_of(template, x, u, x_next, dt=0.1, episode_length=30):
    """Return transitions of the given tensors."""
    n = len(x)
    return replace(template, x=x, u=u, x_next=x_next, dt=torch.full((n,), dt, dtype=torch.float64),
                   cost=torch.zeros(n, dtype=torch.float64), terminal=torch.zeros(n, dtype=torch.bool),
                   episode=torch.arange(n) // episode_length)


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="probabilistic-ensemble"):
        make_model("probabilistic-ensembel", LINE, 1, 0.1, EnsembleConfig(), 0)
    assert model_members("probabilistic-ensemble", EnsembleConfig(members=3)) == 3 and model_members("linear", EnsembleConfig()) == 1


def test_every_model_learns_something_on_every_state_space(model_name, space, small_model, smooth_data, workers):
    model, lived = small_model(model_name, space, epochs=20, validation_fraction=0), smooth_data(space, 540)
    data, fresh = lived.of_episodes(set(range(12))), lived.of_episodes(set(range(12, 18)))

    def error() -> float:
        target = space.target(fresh.x, fresh.x_next)
        return float((model.member_outputs(fresh.x, fresh.u)[0].mean(0) - target).square().mean().sqrt() / target.square().mean().sqrt())

    heard = []
    report = model.fit(data, workers, heard.append)
    assert error() < 0.9
    assert report.transitions == 360 and len(heard) == model.members and math.isfinite(report.training_loss) and model.fits == 1


def test_same_seed_same_weights_at_any_thread_count(model_name, space, small_model, smooth_data):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    results = []
    for threads, torch_threads in ((1, 1), (2, 1), (2, 2), (1, 2)):
        torch.set_num_threads(torch_threads)
        pool = Workers(threads)
        model = small_model(model_name, space, seed=3)
        model.fit(smooth_data(space, 300), pool)
        results.append(model.tensors())
        pool.close()
    assert all(same_tensors(results[0], other) for other in results[1:])
    other_seed = small_model(model_name, space, seed=4)
    if model_name != "linear":
        assert not torch.equal(other_seed.tensors()["member0.weight0"], small_model(model_name, space, seed=3).tensors()["member0.weight0"])


def test_a_restored_model_continues_bit_for_bit(model_name, space, small_model, smooth_data, workers):
    model, twin = small_model(model_name, space, seed=1), small_model(model_name, space, seed=1)
    first, more = smooth_data(space, 120), smooth_data(space, 240)
    twin.fit(smooth_data(space, 60, seed=8), workers)  # what it held before must leave no trace
    model.fit(first, workers)
    saved = model.tensors()
    twin.load_tensors(saved)
    assert same_tensors(twin.tensors(), saved)
    model.fit(more, workers), twin.fit(more, workers)
    assert not same_tensors(model.tensors(), saved)
    assert same_tensors(model.tensors(), twin.tensors())


def test_a_fresh_checkpoint_also_clears_the_optimiser(small_model, smooth_data, workers):
    model = small_model("probabilistic", LINE)
    fresh = model.tensors()
    model.fit(smooth_data(LINE), workers)
    model.load_tensors(fresh)
    assert same_tensors(model.tensors(), fresh)


def test_checkpoints_of_another_configuration_are_refused_and_change_nothing(model_name, small_model):
    model = small_model(model_name, LINE)
    state, before = model.tensors(), model.tensors()
    name = "coefficients" if model_name == "linear" else "member0.weight1"
    for wrong in ({k: v for k, v in state.items() if k != name}, state | {name: torch.zeros(3, 3)},
                  state | {"member7.weight0": torch.zeros(2, 2)}, state | {name + ".exp_avg": torch.zeros(1)}):
        with pytest.raises(ShapeError, match="another configuration"):
            model.load_tensors({k: v + 1 for k, v in wrong.items()})
    assert same_tensors(model.tensors(), before)


def test_data_that_are_not_finite_are_refused_by_episode(model_name, space, small_model, smooth_data, workers):
    model, data = small_model(model_name, space), smooth_data(space)
    before = model.tensors()
    for name in ("x", "u", "x_next", "dt"):
        values = getattr(data, name).clone()
        values[70] = math.nan  # the third episode of thirty
        with pytest.raises(NonFiniteError, match=f"{name} of episode 2"):
            model.fit(replace(data, **{name: values}), workers)
    with pytest.raises(ShapeError):
        model.fit(replace(data, u=data.u[:, :1]), workers)
    assert same_tensors(model.tensors(), before)


def test_differences_are_scaled_from_the_measured_to_the_nominal_period(model_name, small_model, smooth_data, workers):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 2, generator=generator, dtype=torch.float64)
    u = torch.rand(600, 2, generator=generator, dtype=torch.float64) * 2 - 1
    data = data_of(smooth_data(LINE), x, u, x + 0.2 * u, dt=0.2)  # velocities u, observed every 0.2 s
    model = small_model(model_name, LINE, control_dt=0.05, epochs=40, learning_rate=1e-2)
    model.fit(data, workers)
    change = model.member_outputs(x, u)[0].mean(0)
    assert float((change - 0.05 * u).square().mean().sqrt()) < 0.005  # a tenth of the true change; without scaling it is 0.1 off


def test_absolute_outputs_are_not_scaled_and_equal_periods_keep_every_bit():
    space = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,), target="absolute")])
    targets = torch.tensor([[0.3, 5.0], [0.1, 4.0]], dtype=torch.float64)
    scaled = per_nominal_period(space, targets, torch.tensor([0.2, 0.1]), 0.1)
    torch.testing.assert_close(scaled, torch.tensor([[0.15, 5.0], [0.1, 4.0]], dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.equal(per_nominal_period(space, targets, torch.full((2,), 0.1 * (1 + 1e-12), dtype=torch.float64), 0.1), targets)


def nonlinear(x, u):
    """Return the next states of a system that no linear model fits."""
    p, v = x[..., 0], x[..., 1]
    return torch.stack([p + 0.1 * v, v + 0.3 * torch.sin(3 * p) * v + 0.3 * u[..., 0] * u[..., 1]], dim=-1)


def test_an_ensemble_learns_a_nonlinear_system_that_a_linear_model_cannot(smooth_data, small_model, workers):
    generator = torch.Generator().manual_seed(0)
    x, u = (torch.rand(1500, 2, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    data = data_of(smooth_data(LINE), x[:1200], u[:1200], nonlinear(x, u)[:1200], episode_length=1200)
    errors = {}
    for name in ("linear", "deterministic-ensemble", "probabilistic-ensemble"):
        model = small_model(name, LINE, epochs=60, batch_size=64, learning_rate=5e-3)
        model.fit(data, workers)
        with torch.no_grad():
            predicted = model.predict(x[1200:], u[1200:]).mean
        errors[name] = float((predicted - nonlinear(x, u)[1200:])[:, 1].square().mean().sqrt())
    # the likelihood weighs outputs by their certainty, so that the mean of the harder one comes later
    assert errors["deterministic-ensemble"] < 0.2 * errors["linear"] and errors["probabilistic-ensemble"] < 0.6 * errors["linear"], errors


def noise_of(p):
    return 0.05 + 0.2 * p.abs()


@pytest.fixture(scope="module")
def noisy(smooth_data, workers):
    """A probabilistic ensemble fitted to p' = 0.8 p + 0.3 u + noise(p) on -1 <= p <= 1, and a lived trajectory of it."""
    space = StateSpace([Channel("q", ("p",), (0,))])
    generator = torch.Generator().manual_seed(0)
    x, u = (torch.rand(4000, n, generator=generator, dtype=torch.float64) * 2 - 1 for n in (1, 2))

    def advance(x, u):
        return 0.8 * x + 0.3 * u[..., :1] + noise_of(x) * torch.randn(x.shape, generator=generator, dtype=torch.float64)

    config = EnsembleConfig(4, (24, 24), weight_decay=(1e-5,), fit=FitConfig(learning_rate=5e-3, batch_size=200, epochs=80))
    model = NeuralEnsemble(space, 2, 0.1, config, 0)
    model.fit(data_of(smooth_data(LINE), x, u, advance(x, u), episode_length=4000), workers)
    lived = [torch.zeros(1, dtype=torch.float64)]
    applied = torch.rand(1500, 2, generator=generator, dtype=torch.float64) * 2 - 1
    for command in applied:
        lived.append(advance(lived[-1], command).clamp(-1, 1))
    return model, torch.stack(lived), applied


def test_noise_that_depends_on_the_state_is_recovered(noisy):
    model, _, _ = noisy
    p = torch.linspace(-0.9, 0.9, 19).unsqueeze(-1)
    with torch.no_grad():
        std = model.predict(p, torch.zeros(19, 2)).aleatoric_std
    # about 200 transitions shape each point, so that a deviation is known to some 10 %; smoothing rounds the kink at zero
    ratio = std / noise_of(p)
    assert float((ratio - 1).abs().max()) < 0.4 and float((ratio - 1).abs().mean()) < 0.12, ratio


def test_stated_intervals_cover_what_they_say_on_data_of_the_same_kind(noisy):
    metrics = evaluate_model(*noisy)
    for level, share in metrics.coverage.items():
        # 1500 outcomes: sqrt(p (1 - p) / n) = 0.013 at most; three of these and some error of the fit
        assert abs(share - level) < 0.06, metrics.coverage
    assert metrics.calibration_error < 0.04


def test_doubt_that_more_data_would_remove_grows_away_from_the_data(noisy):
    model, _, _ = noisy
    with torch.no_grad():
        near, far = (model.predict(torch.tensor([[p]]), torch.zeros(1, 2)).epistemic_std.item() for p in (0.0, 5.0))
    assert far > 5 * near


def test_a_refit_starts_from_the_last_weights(smooth_data, small_model, workers):
    model = small_model("probabilistic", LINE)
    model.fit(smooth_data(LINE), workers)
    still = small_model("probabilistic", LINE, learning_rate=1e-9)
    still.load_tensors(model.tensors())
    still.fit(smooth_data(LINE), workers)
    for name, value in model.tensors().items():
        if name.startswith("member") and name.count(".") == 1:
            torch.testing.assert_close(still.tensors()[name], value, rtol=0, atol=1e-6)


def pull(parameters, inputs, targets):
    return (parameters["weight0"] - 10.0).square().sum()


def held(parameters, inputs, targets):
    return (parameters["weight0"] - 1.0).square().sum()


def test_early_stopping_keeps_what_the_held_out_data_like_best():
    weight = {"weight0": torch.zeros(1, 1, requires_grad=True)}
    zeros = torch.zeros(4, 1)
    report = fit_member(weight, make_optimiser(weight, (0.0,)), pull, zeros, zeros, torch.arange(4), (zeros, zeros), held,
                        FitConfig(learning_rate=0.1, epochs=100, patience=5, last_learning_rate=1.0), torch.Generator().manual_seed(0))
    assert abs(weight["weight0"].item() - 1.0) < 0.1  # passes 1 in steps of a tenth on its way to 10
    assert report.validation_loss == pytest.approx((weight["weight0"].item() - 1) ** 2)
    assert 10 <= report.epochs <= 20  # ten to arrive, five to lose patience, and Adam's first steps


def test_updates_never_exceed_their_limit():
    weight = {"weight0": torch.zeros(1, 1, requires_grad=True)}
    zeros = torch.zeros(64, 1)
    for limit in (3, 16, 19):
        report = fit_member(weight, make_optimiser(weight, (0.0,)), pull, zeros, zeros, torch.arange(64), None, pull,
                            FitConfig(learning_rate=0.1, epochs=100, batch_size=4, largest_updates=limit), torch.Generator().manual_seed(0))
        assert report.updates == limit


def test_a_fit_that_diverges_leaves_the_model_as_it_was(smooth_data, small_model, workers):
    model = small_model("deterministic-ensemble", LINE)
    model.fit(smooth_data(LINE), workers)
    before = model.tensors()
    data = smooth_data(LINE)
    spoiled = replace(data, x_next=data.x_next.clone())
    spoiled.x_next[3] = 1e300  # finite in float64, infinite in float32
    with pytest.raises(NumericalError, match="learning rate or look at"):
        model.fit(spoiled, workers)
    assert same_tensors(model.tensors(), before)
    model.fit(data, workers)
    assert all(v.isfinite().all() for v in model.tensors().values())


def test_held_out_episodes_decide_when_to_stop_and_are_never_learned_from(smooth_data, small_model, workers):
    data = smooth_data(LINE, 900)  # 30 episodes
    model = small_model("deterministic", LINE, validation_fraction=0.25, validation_from=8)
    report = model.fit(data, workers)
    assert report.held_out_episodes and min(report.held_out_episodes) >= 8
    assert report.transitions == 900 - 30 * len(report.held_out_episodes) and math.isfinite(report.validation_loss)
    fewer = small_model("deterministic", LINE, validation_fraction=0.25, validation_from=8)
    earlier = fewer.fit(data.of_episodes(set(range(20))), workers)
    assert set(earlier.held_out_episodes) == {e for e in report.held_out_episodes if e < 20}
    held_out = torch.isin(data.episode, torch.tensor(report.held_out_episodes))
    spoiled = replace(data, x_next=torch.where(held_out[:, None], data.x_next + 50, data.x_next))
    other = small_model("deterministic", LINE, validation_fraction=0.25, validation_from=8)
    other.fit(spoiled, workers)
    assert torch.equal(other.tensors()["output_mean"], model.tensors()["output_mean"])


def test_data_that_would_all_be_held_out_are_learned_from(smooth_data, small_model, workers):
    data = smooth_data(LINE)
    for index in range(8, 40):
        one = replace(data, episode=torch.full_like(data.episode, index))
        report = small_model("deterministic", LINE, validation_fraction=0.25, epochs=1).fit(one, workers)
        assert report.transitions == len(data)


def test_predictions_carry_no_graph_to_the_weights(model_name, smooth_data, small_model):
    model = small_model(model_name, LINE)
    assert not model.member_outputs(torch.zeros(3, 2), torch.zeros(3, 2))[0].requires_grad


@pytest.mark.parametrize("change", [{"members": 0}, {"hidden": ()}, {"hidden": (0,)}, {"weight_decay": (1e-4, 1e-4)},
                                    {"weight_decay": (-1.0,)}])
def test_bad_shapes_of_networks_are_refused(change):
    with pytest.raises(ConfigurationError):
        EnsembleConfig(**change)


@pytest.mark.parametrize("change", [{"learning_rate": 0}, {"batch_size": 0}, {"epochs": 0}, {"patience": 0}, {"largest_updates": 0},
                                    {"validation_fraction": 1.0}, {"learning_rate": math.nan}])
def test_bad_fits_are_refused(change):
    with pytest.raises(ConfigurationError):
        FitConfig(**change)
