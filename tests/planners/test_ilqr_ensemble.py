"""iLQR over a learned ensemble: one plan at any number of threads, nearly that of float64, and through `make_planner` as any other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.ensemble_mean import EnsembleMean
from dynamics.fused_mean import mean_kernel
from dynamics.neural_ensemble import EnsembleConfig, NeuralEnsemble
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers
from planners.catalog import make_planner
from planners.cost import Cost
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.ilqr import ILQRConfig
from planners.plan import Plan, PlanStatus
from robots.command import CommandMode, CommandSpec

SPACE = StateSpace([Channel("q", ("a",), (0,), "angle"), Channel("dq", ("v", "w"), (0, 1))])
HORIZON, DT = 20, 0.1
BOX = CommandSpec(CommandMode.ACTUATOR, ("one", "two"), np.array([-1.0, -1.0]), np.array([1.0, 1.0]), "N·m")
X0 = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)


class Upright(Cost):
    """1 - cos(angle), speeds and effort."""

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"state": self.terminal(x), "effort": 0.1 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return 1 - x[..., 0].cos() + 0.1 * x[..., 1:].square().sum(-1)


@pytest.fixture(scope="module")
def ensemble() -> NeuralEnsemble:
    """Return an ensemble that nobody fitted, of weights large enough that commands do something."""
    ensemble = NeuralEnsemble(SPACE, 2, DT, EnsembleConfig(members=3, hidden=(24, 20), weight_decay=(0.0,)), seed=0)
    tensors, generator = ensemble.tensors(), torch.Generator().manual_seed(1)
    for name in tensors:
        if name.endswith(("weight0", "weight1", "weight2")):
            tensors[name] = 3.0 * tensors[name] + 0.02 * torch.randn(tensors[name].shape, generator=generator)
    ensemble.load_tensors(tensors)
    return ensemble


def plans_of(ensemble: NeuralEnsemble, threads: int, **config: str) -> list[Plan]:
    """Return three plans, each warm from the one before."""
    workers = Workers(threads)
    try:
        evaluator = PlanEvaluator(ensemble, Upright(), EvaluationConfig(propagation="E", particles=1, kernel="torch"), workers)
        planner = make_planner("ilqr", evaluator, BOX, DT, ILQRConfig(horizon=HORIZON, iterations=5, **config))
        plans: list[Plan] = []
        for _ in range(3):
            plans.append(planner.plan(X0, plans[-1] if plans else None, torch.Generator()))
        return plans
    finally:
        workers.close()


@pytest.mark.parametrize("line_search", ["full-first", "together"])
def test_plans_are_the_same_bits_at_any_number_of_threads(ensemble, line_search):
    one, two = (plans_of(ensemble, threads, line_search=line_search) for threads in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert first.status is second.status and first.cost == second.cost
        for name in ("actions", "states", "gains"):
            assert torch.equal(getattr(first, name), getattr(second, name))


def test_the_full_step_is_tried_alone_where_rollouts_are_compiled(ensemble):
    default, first, together = (plans_of(ensemble, 2, line_search=kind) for kind in ("auto", "full-first", "together"))
    compiled, by_torch = (EnsembleMean(ensemble, compiled=compiled).lone_rollouts_pay for compiled in (True, False))
    assert compiled == (mean_kernel() is not None) and not by_torch
    expected = first if compiled else together
    for plan, same in zip(default, expected, strict=True):
        assert plan.report.samples == same.report.samples and torch.equal(plan.actions, same.actions)
    assert first[0].report.samples < together[0].report.samples


def test_plans_lower_the_cost_and_their_states_follow_from_the_model(ensemble):
    plan = plans_of(ensemble, 2)[-1]
    assert plan.status in (PlanStatus.CONVERGED, PlanStatus.ITERATIONS)
    torch.testing.assert_close(plan.states[1:], ensemble.step(plan.states[:-1], plan.actions).detach(), atol=1e-5, rtol=0)
    still = torch.zeros(HORIZON, 2, dtype=torch.float64)
    x, paid = X0, 0.0
    for u in still:
        paid, x = paid + float(Upright().running(x, u)), ensemble.step(x, u).detach()
    assert plan.cost < 0.9 * (paid + float(Upright().terminal(x)))


def test_a_model_of_weights_that_are_no_numbers_has_no_plan(ensemble, workers):
    tensors, broken = ensemble.tensors(), NeuralEnsemble(SPACE, 2, DT, ensemble.config, seed=0)
    evaluator = PlanEvaluator(broken, Upright(), EvaluationConfig(propagation="E", particles=1, kernel="torch"), workers)
    planner = make_planner("ilqr", evaluator, BOX, DT, ILQRConfig(horizon=HORIZON, iterations=5))
    tensors["member0.weight1"] = torch.full_like(tensors["member0.weight1"], torch.nan)
    broken.load_tensors(tensors)
    plan = planner.plan(X0, None, torch.Generator())
    assert plan.actions is None and plan.status is PlanStatus.NO_FINITE_COST
