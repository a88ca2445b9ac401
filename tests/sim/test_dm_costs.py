"""Costs that tell the way: where a task pays nothing, or no less for a machine that is about to fall, its cost still says which state is
better."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sim.catalog import make_task
from sim.simulator.dm_costs import RewardCost
from sim.simulator.planning_task import make_problem


def cost_and_state(name: str, **entries: float) -> tuple[RewardCost, Tensor]:
    """Return the cost of a task, and a state that stands still with some entries set."""
    with make_task(name).robot() as robot:
        robot.reset(0)
        cost = make_problem(name, robot, 1).cost
    x = torch.zeros(len(cost._names), dtype=torch.float64)
    for entry, value in entries.items():
        x[cost.entry(entry)] = value
    return cost, x


STANDING = {"dmc:hopper-stand": {"torso_centre_1": 0.9, "foot_centre_1": 0.1, "torso_upright": 1.0},
            "dmc:humanoid-stand": {"head_height": 1.5, "torso_upright": 1.0}}
LYING = {"dmc:hopper-stand": {"torso_centre_1": 0.1, "foot_centre_1": 0.05, "torso_upright": 0.0},
         "dmc:humanoid-stand": {"head_height": 0.1, "torso_upright": 0.0}}
UP = {"dmc:hopper-stand": "torso_centre_1", "dmc:humanoid-stand": "head_height"}
AHEAD = {"dmc:hopper-stand": "torso_centre_0", "dmc:humanoid-stand": "torso_place_0"}


@pytest.mark.parametrize("name", STANDING)
def test_who_stands_earns_all_of_both(name):
    cost, x = cost_and_state(name, **STANDING[name])
    assert float(cost.reward(x, None)) == pytest.approx(1.0) == float(cost.paid(x, None))


@pytest.mark.parametrize("name", STANDING)
def test_who_lies_is_paid_nothing_and_told_to_rise_and_to_turn_upright(name):
    cost, x = cost_and_state(name, **LYING[name])
    assert float(cost.paid(x, None)) < 1e-6
    x.requires_grad_()
    slope, = torch.autograd.grad(cost.reward(x, None), x)
    assert slope[cost.entry(UP[name])] > 0.05 and slope[cost.entry("torso_upright")] > 0.01


@pytest.mark.parametrize("name", STANDING)
def test_who_is_about_to_fall_is_paid_as_well_and_told_so(name):
    cost, x = cost_and_state(name, **STANDING[name])
    leaning = x.clone()
    leaning[cost.entry(AHEAD[name])] += 0.3
    assert float(cost.paid(leaning, None)) == float(cost.paid(x, None))
    assert float(cost.reward(leaning, None)) < float(cost.reward(x, None)) - 0.02
