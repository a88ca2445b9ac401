"""iLQR and FDDP promise what every planner does: one start, one plan; nothing hidden; bad input refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from planners.catalog import make_planner, planner_config_type
from planners.ilqr import FDDP, ILQR, ILQRConfig
from planners.planner import Planner
from robots.errors import ConfigurationError, NonFiniteError, ShapeError
from tests.planners.ilqr_parts import DT, TURNED, X0, Weights, body, box, plain, plan, planner_of, same_plan, scalar, seeded


@pytest.mark.parametrize("kind", [ILQR, FDDP])
def test_one_start_gives_one_plan_at_any_thread_count(kind):
    before, plans = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            first = plan(body(kind, iterations=4), TURNED)
            plans.append((first, plan(body(kind, iterations=2), first.states[1], first)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(same_plan(a, b) for a, b in zip(*plans, strict=True))


def test_models_are_asked_on_one_thread():
    before, seen = torch.get_num_threads(), set()

    def step(x, u):
        seen.add(torch.get_num_threads())
        return x + u

    try:
        torch.set_num_threads(2)
        plan(scalar(lambda x, u: x[..., 0] ** 2 + u[..., 0] ** 2, step), np.ones(1))
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_learned_ensembles_are_followed_as_they_are_at_the_call():
    config = EnsembleConfig(members=2, hidden=(8,), weight_decay=(0.0,))
    ensemble, other = (NeuralEnsemble(plain(2), 1, DT, config, seed) for seed in (0, 1))
    cost = Weights(lambda x, u: (x - 1.0).square().sum(-1) + 1e-3 * u.square().sum(-1), lambda x: (x - 1.0).square().sum(-1))
    planner = planner_of(ILQR, ensemble, cost, 2.0)
    first = plan(planner)
    assert first.cost < planner.problem.play(X0.numpy(), np.zeros((10, 1))).cost
    torch.testing.assert_close(first.states[1:], ensemble.step(first.states[:-1], first.actions).detach(), atol=1e-5, rtol=0)
    ensemble.load_tensors(other.tensors())
    after = plan(planner)
    torch.testing.assert_close(after.states[1:], other.step(after.states[:-1], after.actions).detach(), atol=1e-5, rtol=0)
    assert not torch.allclose(after.states, first.states, atol=1e-3)


@pytest.mark.parametrize("name", ["ilqr", "fddp"])
def test_they_are_planners_by_name(name, double_integrator, QuadraticCost):
    evaluator = SimpleNamespace(model=double_integrator(), cost=QuadraticCost(), dtype=torch.float64)
    assert planner_config_type(name) is ILQRConfig
    planner = make_planner(name, evaluator, box(1, 3.0), DT, ILQRConfig(horizon=10))
    assert isinstance(planner, Planner) and planner.horizon == 10
    first = planner.plan(X0.float(), None, seeded())
    assert first.actions.shape == (10, 1) and first.states.shape == (11, 2) and first.gains.shape == (10, 1, 2)
    assert first.actions.dtype == torch.float64 and not first.actions.requires_grad and torch.equal(first.states[0], X0.float().double())
    assert set(first.report.cost_by_term) == {"state", "effort", "terminal"} and first.report.seconds > 0
    actions, feedforward = first.actions.clone(), first.memory.feedforward.clone()
    planner.plan(-X0, first, seeded())
    assert torch.equal(first.actions, actions) and torch.equal(first.memory.feedforward, feedforward), "a plan is left as it was"
    assert same_plan(planner.plan(X0.float(), None, seeded()), first), "nothing is hidden in the planner"


def test_bad_input_is_refused(double_integrator, QuadraticCost):
    planner = planner_of(ILQR, double_integrator(), QuadraticCost())
    for wrong in (torch.zeros(3), torch.zeros(1, 2)):
        with pytest.raises(ShapeError, match="x0"):
            plan(planner, wrong)
    with pytest.raises(NonFiniteError, match="x0"):
        plan(planner, torch.tensor([math.nan, 0.0]))
    with pytest.raises(ShapeError, match="previous"):
        plan(planner, previous=plan(planner_of(ILQR, double_integrator(), QuadraticCost(), horizon=7)))
    with pytest.raises(ShapeError, match="initial_actions"):
        plan(planner, initial_actions=torch.zeros(9, 1))
    with pytest.raises(ConfigurationError, match="fddp"):
        plan(planner, initial_states=torch.zeros(11, 2))
    with pytest.raises(ShapeError, match="initial_states"):
        plan(planner_of(FDDP, double_integrator(), QuadraticCost()), initial_states=torch.zeros(10, 2))
    with pytest.raises(ConfigurationError, match="survival"):
        planner_of(ILQR, double_integrator(), QuadraticCost(survives=0.9))


@pytest.mark.parametrize("change", [
    {"horizon": 0}, {"iterations": 0}, {"regularise": "both"}, {"regularisation_factor": 1.0}, {"regularisation_min": 0.0},
    {"regularisation_max": 1e-7}, {"step_lengths": 0}, {"step_min": 1.0}, {"improvement_min": 1.0}, {"ascent_max": 0.5},
    {"feedforward_tolerance": -1.0}, {"cost_tolerance": math.nan}])
def test_bad_configurations_are_refused(change):
    with pytest.raises(ConfigurationError, match=next(iter(change)).split("_m")[0]):
        ILQRConfig(**change)
