"""The line search: which steps are rolled out together, which is taken, and what is never taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from planners.ilqr import ILQR, ILQRConfig
from planners.plan import Plan
from robots.errors import UnknownNameError
from tests.planners.ilqr_parts import BODY, TURNED, UPRIGHT, Torch, Weights, body, plain, plan, planner_of, same_plan


@pytest.mark.parametrize("config", [{"regularise": "state"}, {"line_search": "one-by-one"}, {"line_search": "full-first"},
                                    {"step_lengths": 1}, {"improvement_min": 0.1}])
def test_every_way_to_search_ends_at_the_same_cost(config):
    assert plan(body(**config), TURNED).cost == pytest.approx(plan(body(), TURNED).cost, rel=1e-5)


def test_steps_that_run_away_are_not_taken():
    model = Torch(plain(1), 1, lambda x, u: torch.where(u.abs() > 0.5, math.nan, x + u))
    found = plan(planner_of(ILQR, model, Weights(lambda x, u: 0 * x[..., 0], lambda x: (x[..., 0] - 9) ** 2), horizon=4), np.zeros(1))
    assert found.report.nonfinite > 0 and found.actions.abs().max() <= 0.5 and found.cost < 81


def search(kind: str, iterations: int = 1, x0=TURNED, **config) -> Plan:
    return plan(body(line_search=kind, iterations=iterations, **config), x0)


def test_each_kind_of_search_rolls_out_what_it_says():
    """Near upright a full step is accepted, from TURNED only a shorter one."""
    near = BODY.integrate(UPRIGHT, torch.full((6,), 0.05, dtype=torch.float64))
    kinds = ("together", "full-first", "one-by-one")
    assert [search(kind, x0=near).report.samples for kind in kinds] == [1 + 11, 1 + 1, 1 + 1]
    together, first, one_by_one = (search(kind) for kind in kinds)
    assert [together.report.samples, first.report.samples] == [1 + 11, 1 + 1 + 10] and 3 <= one_by_one.report.samples < 1 + 11
    assert torch.equal(first.actions, together.actions), "of the shorter steps, which are one batch, the best is taken"


def test_an_accepted_full_step_is_taken_where_a_shorter_one_would_be_cheaper():
    """The cost is steeper than its curvature says: a full step overshoots by little, half of one is nearly exact."""
    cost = Weights(lambda x, u: torch.log(torch.cosh(3.0 * (u[..., 0] - 0.5))), lambda x: 0.0 * x[..., 0])
    model = Torch(plain(1), 1, lambda x, u: x)
    first, together = (plan(planner_of(ILQR, model, cost, horizon=1, line_search=kind, iterations=1, step_lengths=3, step_min=0.25),
                            np.zeros(1), initial_actions=torch.tensor([[0.5 + 1.05 / 3]])) for kind in ("full-first", "together"))
    assert first.report.samples == 2 and together.report.samples == 4 and together.cost < first.cost


@pytest.mark.parametrize(("pay", "as_if"), [(True, "full-first"), (False, "together"), (None, "together")])
def test_the_model_says_whether_the_full_step_is_tried_alone(pay, as_if):
    model, cost = Torch(plain(1), 1, lambda x, u: x + u), Weights(lambda x, u: u[..., 0] ** 2, lambda x: (x[..., 0] - 1) ** 4)
    if pay is not None:
        model.lone_rollouts_pay = pay
    by_default, asked = (plan(planner_of(ILQR, model, cost, **config), np.zeros(1)) for config in ({}, {"line_search": as_if}))
    assert same_plan(by_default, asked) and by_default.report.samples == asked.report.samples
    other = {"full-first": "together", "together": "full-first"}[as_if]
    assert plan(planner_of(ILQR, model, cost, line_search=other), np.zeros(1)).report.samples != asked.report.samples


def test_an_unknown_search_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"line_search 'all'.*together"):
        ILQRConfig(line_search="all")
