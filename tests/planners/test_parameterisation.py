"""Plans by knots: linear maps that keep constants and move in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from planners.parameterisation import INTERPOLATIONS, Parameterisation
from robots.errors import ConfigurationError, UnknownNameError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("horizon", "knots"), [(12, 4), (25, 6), (7, 7), (5, 2)])
def test_constant_parameters_are_constant_actions_also_shifted(interpolation, horizon, knots):
    p = Parameterisation(horizon, interpolation, knots)
    constant = torch.tensor([0.7, -2.0]).expand(p.parameters, 2)
    torch.testing.assert_close(p.actions(constant), torch.tensor([0.7, -2.0]).expand(horizon, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(p.shifted(constant), constant, rtol=0, atol=1e-5)


def test_raw_is_the_identity_and_shifts_exactly_with_the_last_action_repeated():
    p = Parameterisation(6)
    actions = torch.randn(3, 6, 2, generator=seeded())
    assert torch.equal(p.actions(actions), actions)
    shifted = p.shifted(actions)
    assert torch.equal(shifted[:, :-1], actions[:, 1:]) and torch.equal(shifted[:, -1], actions[:, -1])


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_splines_start_at_the_first_knot_end_at_the_last_and_draw_straight_lines(interpolation):
    p = Parameterisation(25, interpolation, 5)
    knots = torch.randn(5, 1, generator=seeded())
    actions = p.actions(knots)
    torch.testing.assert_close(actions[[0, 6, 12, 18, 24]], knots, rtol=0, atol=1e-5)  # evenly laid knots are met
    torch.testing.assert_close(p.actions(torch.linspace(-1, 1, 5).unsqueeze(-1))[:, 0], torch.linspace(-1, 1, 25), rtol=0, atol=1e-5)


def test_zero_order_knots_hold_equally_long():
    actions = Parameterisation(12, "zero", 4).actions(torch.arange(4.0).unsqueeze(-1))[:, 0]
    assert actions.tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 3 + [3.0] * 3


def test_cubic_splines_are_smooth_where_linear_ones_bend():
    knots = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]).unsqueeze(-1)
    bend = {name: float(Parameterisation(101, name, 5).actions(knots)[:, 0].diff().diff().abs().max()) for name in ("linear", "cubic")}
    assert bend["cubic"] < 0.2 * bend["linear"]


@pytest.mark.parametrize("interpolation", ["zero", "linear", "cubic"])
def test_shifting_is_the_best_fit_to_the_actions_of_a_period_later(interpolation):
    p = Parameterisation(25, interpolation, 6)
    knots = torch.randn(6, 1, generator=seeded(), dtype=torch.float64)
    actions = p.actions(knots)
    later = torch.cat([actions[1:], actions[-1:]])
    best = np.linalg.lstsq(p.actions(torch.eye(6, dtype=torch.float64)).numpy(), later.numpy(), rcond=None)[0]
    np.testing.assert_allclose(p.shifted(knots).numpy(), best, atol=1e-9)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_shifted_smooth_plans_are_a_period_ahead(interpolation):
    p = Parameterisation(25, interpolation, 6)
    knots = torch.sin(torch.linspace(0, 2, 6)).unsqueeze(-1)
    before, after = p.actions(knots), p.actions(p.shifted(knots))
    # a period changes a smooth plan by up to 2/24 = 0.083; what the knots cannot follow is a small part of it
    assert float((after[:-1] - before[1:]).abs().max()) < 0.02 < float((before[:-1] - before[1:]).abs().max())


def test_bad_parameterisations_are_refused():
    for horizon, name, knots in ((0, "raw", 6), (5, "linear", 6), (5, "cubic", 1)):
        with pytest.raises(ConfigurationError):
            Parameterisation(horizon, name, knots)
    with pytest.raises(UnknownNameError, match="linear"):
        Parameterisation(5, "lineal", 3)


@pytest.mark.parametrize("interpolation", ["raw", "zero", "linear", "cubic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_actions_are_actions_of_clipped_parameters_clipped(interpolation, dtype):
    parameterisation = Parameterisation(9, interpolation, 4)
    lower, upper = torch.tensor([-0.5, -1.0]), torch.tensor([0.4, 2.0])
    given = torch.randn(6, parameterisation.parameters, 2, generator=torch.Generator().manual_seed(0))
    given[3, 1, 1] = torch.nan
    clipped = given.clamp(lower, upper)
    clipped[0] = clipped[1]
    expected = parameterisation.actions(clipped).clamp(lower, upper)
    first = given[1].clone()
    found = torch.full((6, 9, 2), torch.inf, dtype=dtype)
    parameterisation.bounded(given, lower.numpy(), upper.numpy(), found, first)
    torch.testing.assert_close(given, clipped, rtol=0, atol=0, equal_nan=True)
    whole = torch.arange(6) != 3
    torch.testing.assert_close(found[whole].float(), expected[whole], rtol=1e-6, atol=1e-7)
    assert found[3].isnan().any() and not found[3, :, 0].isnan().any()


@pytest.mark.parametrize("interpolation", ["raw", "zero", "linear", "cubic"])
def test_continued_parameters_are_shifted_ones_clipped(interpolation):
    parameterisation = Parameterisation(9, interpolation, 4)
    lower, upper = np.array([-0.5, -1.0], np.float32), np.array([0.4, 2.0], np.float32)
    given = torch.randn(parameterisation.parameters, 2, generator=torch.Generator().manual_seed(0))
    before = given.clone()
    found = parameterisation.continued(given, lower, upper)
    torch.testing.assert_close(found, parameterisation.shifted(given).clamp(torch.from_numpy(lower), torch.from_numpy(upper)))
    assert found.dtype == torch.float32 and torch.equal(given, before)
