"""A planner as a policy: when it plans, from what, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynamics.state_space import Channel, StateSpace
from planners.parameterisation import Parameterisation
from planners.plan import Plan, PlanMemory, PlanReport, PlanStatus
from policies.policy import Policy
from policies.receding_horizon import RecedingHorizonPolicy
from robots.command import CommandMode, CommandSpec
from robots.errors import ConfigurationError, NumericalError
from robots.observation import NO_POSE, Observation

SPACE = StateSpace([Channel("q", ("p",), (0,))])
COMMAND = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([0.0]), np.array([1000.0]), "N")


class CountingPlanner:
    """Plans 10 n + t for period t of its n-th plan, and notes what it was given."""

    horizon = 6

    def __init__(self) -> None:
        self.calls: list[tuple[float, Plan | None, float | None]] = []
        self.draws: list[float] = []
        self.fails = False
        self.parameterisation = Parameterisation(self.horizon)

    def plan(self, x0, previous, generator, deadline=None):
        self.calls.append((float(x0[0]), previous, deadline))
        self.draws.append(float(torch.rand(1, generator=generator)))
        report = PlanReport(0.0, 1, 1, int(self.fails), 1.0)
        if self.fails:
            return Plan(None, None, None, math.inf, PlanStatus.NO_FINITE_COST, report, 0.1)
        actions = 10.0 * len(self.calls) + torch.arange(6.0).unsqueeze(-1)
        return Plan(actions, None, None, 0.0, PlanStatus.ITERATIONS, report, 0.1, PlanMemory(actions, (actions + 100).unsqueeze(0)))


def seen(p: float = 0.0) -> Observation:
    return Observation(0, np.array([p]), np.zeros(1), np.zeros(1), NO_POSE)


def policy_of(replan_every: int = 1, **options: object) -> tuple[CountingPlanner, RecedingHorizonPolicy]:
    planner = CountingPlanner()
    return planner, RecedingHorizonPolicy(planner, SPACE, COMMAND, "counting", replan_every, **options)


def play(policy: RecedingHorizonPolicy, periods: int) -> list[float]:
    return [float(policy.act(seen(t)).values[0]) for t in range(periods)]


@pytest.mark.parametrize(("replan_every", "expected", "planned_at"), [
    (1, [10, 20, 30, 40, 50], [0, 1, 2, 3, 4]), (2, [10, 11, 20, 21, 30], [0, 2, 4]), (5, [10, 11, 12, 13, 14], [0])])
def test_a_plan_is_played_until_it_is_time_to_plan_again(replan_every, expected, planned_at):
    planner, policy = policy_of(replan_every)
    assert isinstance(policy, Policy)
    assert play(policy, 5) == expected
    assert [x0 for x0, _, _ in planner.calls] == planned_at


@pytest.mark.parametrize("replan_every", [1, 2, 4])
def test_the_warm_start_looks_as_if_it_had_been_planned_one_period_ago(replan_every):
    planner, policy = policy_of(replan_every)
    play(policy, replan_every + 1)
    assert planner.calls[0][1] is None
    previous = planner.calls[1][1]
    # the planner itself shifts by one more, to what the first plan had for the present period
    moved = [min(10 + t + replan_every - 1, 15) for t in range(6)]
    assert previous.memory.mean.flatten().tolist() == moved
    assert previous.memory.elites.flatten().tolist() == [100 + m for m in moved]
    assert float(planner.parameterisation.shifted(previous.memory.mean)[0, 0]) == 10 + replan_every


def test_a_spent_plan_is_no_warm_start_and_neither_is_one_of_another_episode():
    planner, policy = policy_of(6)
    assert play(policy, 7) == [10, 11, 12, 13, 14, 15, 20]
    assert planner.calls[1][1] is None
    planner, policy = policy_of(1)
    play(policy, 2), policy.reset(0), play(policy, 1)
    assert planner.calls[1][1] is not None and planner.calls[2][1] is None


def test_a_planner_whose_plans_cannot_be_shifted_starts_afresh_when_several_periods_passed():
    planner, policy = policy_of(2)
    del planner.parameterisation
    play(policy, 3)
    assert planner.calls[1][1] is None


def test_randomness_comes_from_the_seed_of_the_episode():
    planner, policy = policy_of()
    for seed in (3, 3, 4):
        policy.reset(seed), play(policy, 2)
    assert planner.draws[0:2] == planner.draws[2:4] != planner.draws[4:6]
    assert planner.draws[0] != planner.draws[1]


def test_without_a_plan_nothing_is_commanded_and_the_next_period_plans_again():
    planner, policy = policy_of(3)
    planner.fails = True
    for _ in range(2):
        with pytest.raises(NumericalError, match="no finite cost"):
            policy.act(seen())
    planner.fails = False
    assert policy.act(seen()).values[0] == 30.0 and planner.calls[2][1] is None


def test_planning_time_is_told_only_where_it_was_planned():
    _, policy = policy_of(2)
    assert policy.plan_seconds is None
    policy.act(seen())
    assert policy.plan_seconds >= 0
    policy.act(seen())
    assert policy.plan_seconds is None


def test_the_hook_runs_before_every_plan_and_the_deadline_is_handed_on():
    planner, policy = policy_of(2, deadline=0.25)
    heard = []
    policy.before_plan = lambda: heard.append(len(planner.calls))
    play(policy, 4)
    assert heard == [0, 1] and [deadline for *_, deadline in planner.calls] == [0.25, 0.25]


def test_commands_are_clipped_into_the_box():
    planner = CountingPlanner()
    tight = CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([0.0]), np.array([0.1]), "N")
    assert RecedingHorizonPolicy(planner, SPACE, tight, "counting").act(seen()).values.tolist() == [0.1]


@pytest.mark.parametrize("options", [{"replan_every": 0}, {"replan_every": 7}, {"deadline": 0.0}, {"deadline": math.nan}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        policy_of(**options)
