"""Taking up a plan after several periods: what is shifted is the whole of it, feedback included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamics.feedback_rollout import roll_out_feedback
from dynamics.workers import Workers
from planners.cem import CEM, CEMConfig
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.ilqr import ILQR, ILQRConfig
from planners.plan import PlanStatus
from policies.receding_horizon import RecedingHorizonPolicy
from policies.warm_start import warm_start
from tests.policies.asynchronous_parts import COMMAND, DT, HORIZON, SPACE, PositionCost, Slider, slider

PUSH = 4.0
"""An unstable machine: what is only shifted in time is soon far off."""


def ilqr(horizon=HORIZON, **options):
    evaluator = PlanEvaluator(slider(PUSH), PositionCost(), EvaluationConfig("TSinf", 1, kernel="torch"), Workers(1))
    return ILQR(evaluator, COMMAND, DT, ILQRConfig(horizon=horizon, **options))


def planned(planner, x, previous=None, deadline=None):
    return planner.plan(torch.tensor(x, dtype=torch.float64), previous, torch.Generator(), deadline)


@pytest.mark.parametrize("periods", [1, 2, 5, HORIZON - 5])
def test_a_plan_taken_up_later_begins_as_its_feedback_policy_does_from_the_measured_state(periods):
    planner = ilqr()
    plan = planned(planner, [1.0, 0.2])
    assert plan.status is PlanStatus.CONVERGED and plan.gains.abs().min(0).values.max() > 0.1
    x = plan.states[periods].numpy() + np.array([0.3, -0.5])
    left = HORIZON - periods
    arrays = [v.numpy()[periods:] for v in (plan.states, plan.actions, plan.gains)]
    _, expected = roll_out_feedback(slider(PUSH), x, arrays[0], arrays[1], np.zeros(1), np.zeros((left, 1)), arrays[2],
                                    COMMAND.minimum.copy(), COMMAND.maximum.copy())
    begun = planned(planner, x, warm_start(plan, periods, planner), deadline=-1.0)  # time for nothing but the start
    assert begun.status is PlanStatus.DEADLINE and begun.report.iterations == 0
    np.testing.assert_allclose(begun.actions[:left], expected[0], atol=1e-8)
    assert np.abs(expected[0] - arrays[1]).max() > 0.5, "the feedback has something to do"


def test_steps_that_were_found_and_not_made_are_taken_along():
    planner = ilqr()
    plan = planned(planner, [1.0, 0.2])
    feedforward = torch.arange(1.0, HORIZON + 1.0, dtype=torch.float64).unsqueeze(-1)
    plan.memory.feedforward.copy_(feedforward)
    shifted = warm_start(plan, 4, planner)
    assert shifted.memory.feedforward[:, 0].tolist() == [*range(4, HORIZON + 1), 0, 0, 0]
    assert torch.equal(shifted.gains[: HORIZON - 3], plan.gains[3:]) and not shifted.gains[HORIZON - 3 :].any()
    assert torch.equal(shifted.states[: HORIZON - 2], plan.states[3:]) and shifted.states.shape == plan.states.shape
    assert torch.equal(shifted.memory.mean[: HORIZON - 3], plan.memory.mean[3:])


def test_what_is_spent_or_of_one_period_is_not_shifted_further():
    planner = ilqr()
    plan = planned(planner, [1.0, 0.2])
    assert warm_start(plan, 1, planner) is plan and warm_start(None, 1, planner) is None and warm_start(plan, HORIZON, planner) is None
    short = ilqr(horizon=1)
    plan = planned(short, [1.0, 0.2])
    later = warm_start(plan, 5, short)
    assert later.states.shape == plan.states.shape and not later.gains.any() and planned(short, [0.5, 0.0], later).actions is not None


def test_planners_without_gains_are_shifted_as_before():
    evaluator = PlanEvaluator(slider(), PositionCost(), EvaluationConfig("TSinf", 1, kernel="torch"), Workers(1))
    planner = CEM(evaluator, COMMAND, DT, CEMConfig(horizon=HORIZON, population=12, elites=3, iterations=1))
    plan = planned(planner, [1.0, 0.2])
    shifted = warm_start(plan, 3, planner)
    assert shifted.gains is None and shifted.states is None and shifted.memory.feedforward is None
    assert torch.equal(shifted.memory.mean[: HORIZON - 2], plan.memory.mean[2:])


def test_a_policy_that_plans_every_few_periods_begins_near_the_best_plan_after_a_kick():
    class OnlyTheFirst(ILQR):
        """Has time for its first plan; of all later ones, for the start."""

        def plan(self, x0, previous, generator, deadline=None, **options):
            plans.append(super().plan(x0, previous, generator, None if previous is None else -1.0))
            return plans[-1]

    plans, planner = [], ilqr()
    planner.__class__ = OnlyTheFirst
    policy, robot = RecedingHorizonPolicy(planner, SPACE, COMMAND, "ilqr", replan_every=3), Slider(PUSH, kicks={2: 0.8})
    observation = robot.reset(0)
    for _ in range(4):
        robot.send(policy.act(observation))
        observation = robot.tick()
    best = planned(ilqr(), plans[1].states[0].tolist()).cost
    assert len(plans) == 2 and best <= plans[1].cost < 1.05 * best
