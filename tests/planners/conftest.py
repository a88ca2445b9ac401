"""A double integrator, exactly modelled, with costs of which the best plan is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.linear import LinearConfig, LinearModel
from dynamics.state_space import Channel, StateSpace
from dynamics.workers import Workers
from planners.catalog import PLANNERS, make_planner, planner_config_type
from planners.cost import Cost
from planners.evaluation import EvaluationConfig, PlanEvaluator
from planners.sampling import SamplingPlanner
from robots.command import CommandMode, CommandSpec

SPACE = StateSpace([Channel("q", ("p",), (0,)), Channel("dq", ("v",), (0,))])
DT = 0.1
A = np.array([[1.0, DT], [0.0, 1.0]])
B = np.array([[0.5 * DT**2], [DT]])
Q, R, Q_END = np.diag([1.0, 0.1]), np.diag([0.01]), np.diag([10.0, 2.0])


@dataclass
class QuadraticCost(Cost):
    """x'Qx + u'Ru, and at the end x'Px; NaN for commands above `forbidden_above`; ends with a probability per period."""

    forbidden_above: float = np.inf
    survives: float | None = None

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        state = (x.square() * torch.tensor(np.diag(Q), dtype=x.dtype)).sum(-1)
        effort = 0.01 * u.square().sum(-1)
        return {"state": state, "effort": torch.where((u > self.forbidden_above).any(-1), torch.nan, effort)}

    def terminal(self, x: Tensor) -> Tensor:
        return (x.square() * torch.tensor(np.diag(Q_END), dtype=x.dtype)).sum(-1)

    def survival(self, x: Tensor, u: Tensor) -> Tensor | None:
        if self.survives is None:
            return None
        return torch.full(torch.broadcast_shapes(x.shape[:-1], u.shape[:-1]), self.survives)


def double_integrator(std: float = 1e-6, gain: float = 1.0) -> LinearModel:
    model = LinearModel(SPACE, 1, DT, LinearConfig())
    change = torch.from_numpy(np.vstack([(A - np.eye(2)).T, gain * B.T, np.zeros((1, 2))]))
    model.load_tensors({"coefficients": change, "std": torch.full((2,), std, dtype=torch.float64), "fits": torch.tensor(1)})
    return model


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()


@pytest.fixture(scope="session", name="double_integrator")
def _double_integrator() -> Callable[..., LinearModel]:
    return double_integrator


@pytest.fixture(scope="session", name="QuadraticCost")
def _quadratic_cost() -> type[QuadraticCost]:
    return QuadraticCost


def command(lower: float = -3.0, upper: float = 3.0) -> CommandSpec:
    return CommandSpec(CommandMode.ACTUATOR, ("u",), np.array([lower]), np.array([upper]), "N")


@pytest.fixture(scope="session", name="command")
def _command() -> Callable[..., CommandSpec]:
    return command


@pytest.fixture(scope="session", params=sorted(name for name, (kind, _) in PLANNERS.items() if issubclass(kind, SamplingPlanner)))
def planner_name(request: pytest.FixtureRequest) -> str:
    if request.param == "cma-es":
        pytest.importorskip("cma")
    return request.param


@pytest.fixture(scope="session")
def build(workers) -> Callable[..., SamplingPlanner]:
    """build(name, cost=, model=, pool=, lower=, upper=, evaluation=, **config) -> planner"""
    def build(name: str, *, cost: Cost | None = None, model: LinearModel | None = None, pool: Workers | None = None, lower: float = -3.0,
              upper: float = 3.0, evaluation: EvaluationConfig | None = None, **config: object) -> SamplingPlanner:
        evaluator = PlanEvaluator(model or double_integrator(), cost or QuadraticCost(),
                                  evaluation or EvaluationConfig("TSinf", 2), pool or workers)
        return make_planner(name, evaluator, command(lower, upper), DT, planner_config_type(name)(**({"horizon": 10} | config)))
    return build


def lived_cost(x0: np.ndarray, actions: np.ndarray) -> float:
    x, total = x0, 0.0
    for u in actions:
        total, x = total + x @ Q @ x + u @ R @ u, A @ x + B @ u
    return float(total + x @ Q_END @ x)


def best_plan(x0: np.ndarray, horizon: int) -> np.ndarray:
    """Return the LQR actions (H, 1): the backward Riccati recursion, then its gains played forward."""
    value, gains = Q_END, []
    for _ in range(horizon):
        gain = np.linalg.solve(R + B.T @ value @ B, B.T @ value @ A)
        value = Q + A.T @ value @ (A - B @ gain)
        gains.append(gain)
    x, actions = x0, []
    for gain in reversed(gains):
        actions.append(-gain @ x)
        x = A @ x + B @ actions[-1]
    return np.array(actions)


@pytest.fixture(scope="session", name="lived_cost")
def _lived_cost() -> Callable[[np.ndarray, np.ndarray], float]:
    return lived_cost


@pytest.fixture(scope="session", name="best_plan")
def _best_plan() -> Callable[[np.ndarray, int], np.ndarray]:
    return best_plan
