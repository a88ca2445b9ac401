"""Every task that is planned through the simulator has a cost that is compiled, derivatives included, and charges what torch does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from planners.compiler.compiled_cost import CompiledCost
from planners.cost_expansion import expand_cost
from sim.catalog import make_task
from sim.simulator.planning_task import PLANNING_TASKS, make_problem
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel

SAME_COST = ("dmc:cartpole-balance", "dmc:reacher-easy", "dmc:walker-run", "dmc:humanoid-run", "dmc:humanoid-walk", "dmc:walker-stand")
"""Of a class and a machine that another name tests."""


@pytest.mark.parametrize("name", [name for name in PLANNING_TASKS if name not in SAME_COST])
def test_a_tasks_cost_is_compiled(name):
    with make_task(name).robot() as robot:
        robot.reset(0)
        problem = make_problem(name, robot, 1)
    cost, space, nu = problem.cost, problem.model.state_space, problem.model.nu
    compiled, rng = CompiledCost(cost, space, nu), np.random.default_rng(0)
    states, actions = rng.normal(size=(1, 13, space.nx)), rng.uniform(-1, 1, size=(1, 12, nu))
    for start, *_ in space.quaternions:
        states[..., start:start + 4] /= np.linalg.norm(states[..., start:start + 4], axis=-1, keepdims=True)
    x, u = torch.from_numpy(states), torch.from_numpy(actions)
    expected = float(cost.running(x[0, :-1], u[0]).sum() + cost.terminal(x[0, -1]))
    assert compiled.totals(states[:, 0], states[:, 1:], actions)[0] == pytest.approx(expected, rel=1e-12)
    found, theirs = compiled.expand(states[0], actions[0]), expand_cost(cost, space, states[0], actions[0])
    for a, b in zip(found, (theirs.gradient, theirs.hessian, theirs.end_gradient, theirs.end_hessian), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


@pytest.mark.parametrize("variants", [0, 2])
def test_the_simulators_evaluator_charges_and_explains_as_torch_does(variants):
    with make_task("pendulum").robot() as robot:
        robot.reset(0)
        problem = make_problem("pendulum", robot, 2)
    model = problem.model
    if variants:
        heavier = copy.copy(model._model)
        heavier.body_mass[:] *= 1.5
        model = SimulatorModel(model._model, model.state_space, model.substeps, 2, [model._model, heavier])
    compiled, by_torch = SimulatorEvaluator(model, problem.cost, "worst"), SimulatorEvaluator(model, problem.cost, "worst")
    by_torch._compiled = None
    x0 = torch.zeros(model.state_space.nx, dtype=torch.float64)
    actions = 3 * torch.randn(9, 15, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    actions[4, 3] = torch.nan
    found, expected = compiled.costs(x0, actions), by_torch.costs(x0, actions)
    assert found[4] == torch.inf
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    ours, theirs = compiled.explain(x0, actions[0]), by_torch.explain(x0, actions[0])
    assert ours.cost_by_term == pytest.approx(theirs.cost_by_term, rel=1e-12)
    np.testing.assert_allclose(ours.states, theirs.states, rtol=1e-12)
    np.testing.assert_allclose(ours.states_std, theirs.states_std, rtol=1e-9, atol=1e-12)
