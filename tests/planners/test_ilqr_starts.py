"""Where a search begins: the old plan's policy from the measured state, other planners' plans, states that no actions lead to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from planners.ilqr import FDDP, ILQR
from planners.plan import PlanMemory, PlanStatus
from tests.planners.ilqr_parts import BODY, TURNED, UPRIGHT, Torch, Weights, body, plain, plan, planner_of, seeded, tumble


def test_a_warm_start_from_a_disturbed_state_beats_a_cold_one():
    before = plan(body(), TURNED)
    pushed = BODY.integrate(before.states[1], torch.full((6,), 0.1, dtype=torch.float64))
    warm, cold = (plan(body(iterations=1), pushed, previous) for previous in (before, None))
    assert warm.cost < 0.95 * cold.cost and warm.report.iterations == cold.report.iterations == 1
    assert warm.cost <= 1.05 * plan(body(), pushed).cost


def test_the_old_feedback_is_played_from_the_measured_state_before_anything_else():
    """With no time at all the plan is at least as good as the shifted actions with, and without, their feedback."""
    before = plan(body(iterations=3), TURNED)
    pushed = BODY.integrate(before.states[1], torch.full((6,), 0.1, dtype=torch.float64))
    planner = body(iterations=1, step_lengths=1, improvement_min=0.99)
    assert before.memory.feedforward.shape == before.actions.shape
    shifted = torch.cat([before.actions[1:], before.actions[-1:]])
    blind = planner.problem.play(pushed.numpy(), shifted.numpy()).cost
    x, u_all = pushed, []
    for t in range(25):
        gains = before.gains[t + 1] if t < 24 else torch.zeros(3, 6, dtype=torch.float64)
        about = before.states[t + 1]
        u_all.append((shifted[t] + gains @ BODY.difference(about, x)).clamp(-1.5, 1.5))
        x = tumble(x, u_all[-1])
    seeing = planner.problem.play(pushed.numpy(), torch.stack(u_all).numpy()).cost
    start = planner._start(pushed.numpy(), before, None, None)
    assert seeing < blind and start.trajectory.cost <= seeing * (1 + 1e-12) and start.rollouts > 1
    np.testing.assert_allclose(start.policy.gains[:-1], before.gains[1:].numpy())


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_a_plan_that_leads_out_of_the_numbers_from_where_the_state_is_now_is_forgotten(kind):
    """Beyond 2 the model knows nothing; what was good for x = -2 leads there from 1.5, whatever its feedback says of it."""
    model = Torch(plain(1), 1, lambda x, u: torch.where((x + u).abs() > 2, math.nan, x + u))
    cost = Weights(lambda x, u: 0.1 * u.square().sum(-1), lambda x: x.square().sum(-1))
    planner = planner_of(kind, model, cost, 1.0, horizon=4)
    before = plan(planner, np.array([-2.0]))
    blind = replace(before, gains=None, memory=PlanMemory(torch.ones(4, 1, dtype=torch.float64)))
    found, afresh = plan(planner, np.array([1.5]), blind), plan(planner, np.array([1.5]))
    assert torch.equal(found.actions, afresh.actions) and found.cost == afresh.cost and found.status is afresh.status
    assert found.report.samples == afresh.report.samples + 1 and found.report.nonfinite == afresh.report.nonfinite + 1


def test_plans_of_other_planners_and_older_ones_are_a_start_too():
    before = plan(body(), TURNED)
    old = replace(before, states=None, memory=PlanMemory(before.memory.mean))  # as RecedingHorizonPolicy hands on an older plan
    foreign = replace(old, gains=None)
    for previous in (old, foreign):
        assert plan(body(iterations=1), before.states[1], previous).cost < plan(body(iterations=1), before.states[1]).cost


def test_infeasible_starts_reach_the_same_cost():
    expected = plan(body(feedforward_tolerance=1e-8, cost_tolerance=1e-12), TURNED).cost
    line = torch.stack([BODY.integrate(TURNED, s * BODY.difference(TURNED, UPRIGHT)) for s in torch.linspace(0, 1, 26)])
    noise = torch.randn(26, 6, generator=seeded(), dtype=torch.float64)
    for states in (line, BODY.integrate(line, 0.3 * noise), None):
        found = plan(body(FDDP, feedforward_tolerance=1e-8, cost_tolerance=1e-12), TURNED, initial_states=states)
        assert found.cost == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(found.states[1:], tumble(found.states[:-1], found.actions))
        assert torch.equal(found.states[0], TURNED)


@pytest.mark.parametrize("iterations", [1, 2])
def test_plans_that_still_had_gaps_are_played_before_they_are_returned(iterations):
    states = BODY.integrate(TURNED.expand(26, 7), torch.randn(26, 6, generator=seeded(), dtype=torch.float64))
    found = plan(body(FDDP, iterations=iterations, step_lengths=2, step_min=0.1, improvement_min=0.9), TURNED, initial_states=states)
    torch.testing.assert_close(found.states[1:], tumble(found.states[:-1], found.actions))
    assert found.cost == pytest.approx(body().problem.play(TURNED.numpy(), found.actions.numpy()).cost)


def test_fddp_plans_where_the_first_rollout_runs_away():
    model = Torch(plain(1), 1, lambda x, u: x + 0.5 * (x**3 + u))
    cost = Weights(lambda x, u: x[..., 0] ** 2 + 1e-3 * u[..., 0] ** 2, lambda x: 10 * x[..., 0] ** 2)
    away = plan(planner_of(ILQR, model, cost, horizon=12), np.array([2.0]))
    assert away.status is PlanStatus.NO_FINITE_COST and away.actions is None
    found = plan(planner_of(FDDP, model, cost, horizon=12), np.array([2.0]))
    assert found.status is PlanStatus.CONVERGED and abs(float(found.states[-1])) < 0.1
