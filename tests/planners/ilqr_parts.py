"""What the tests of iLQR and FDDP are made of: a model of one function, a cost of two, a body that turns, and how they are planned."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from dynamics.state_space import Channel, StateSpace, quaternion_exp, quaternion_multiply
from planners.cost import Cost
from planners.ilqr import ILQR, ILQRConfig
from planners.plan import Plan
from robots.command import CommandMode, CommandSpec

DT = 0.1
X0 = torch.tensor([0.5, -0.2], dtype=torch.float64)


def box(nu: int, at: float) -> CommandSpec:
    return CommandSpec(CommandMode.ACTUATOR, tuple(f"u{i}" for i in range(nu)), np.full(nu, -at), np.full(nu, at), "1")


def planner_of(kind: type[ILQR], model, cost: Cost, at: float = 100.0, command: CommandSpec | None = None, **config) -> ILQR:
    evaluator = SimpleNamespace(model=model, cost=cost, dtype=torch.float64)
    return kind(evaluator, command or box(model.nu, at), DT, ILQRConfig(**({"horizon": 10} | config)))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plan(planner: ILQR, x0=X0, previous: Plan | None = None, **options) -> Plan:
    return planner.plan(torch.as_tensor(x0, dtype=None if isinstance(x0, torch.Tensor) else torch.float64), previous, seeded(), **options)


class Torch:
    """A model of one torch function."""

    def __init__(self, space: StateSpace, nu: int, step) -> None:
        self.state_space, self.nu, self._step = space, nu, step

    def step(self, x, u, generator=None):
        return self._step(x, u)


class Weights(Cost):
    """Terms of a running and a terminal cost by functions."""

    def __init__(self, running, terminal) -> None:
        self._running, self._terminal = running, terminal

    def terms(self, x, u):
        return {"running": self._running(x, u)}

    def terminal(self, x):
        return self._terminal(x)


def plain(n: int) -> StateSpace:
    return StateSpace([Channel("q", tuple(f"x{i}" for i in range(n)), tuple(range(n)))])


def scalar(running, step=lambda x, u: x + u, **config) -> ILQR:
    """Return a planner for a state of one number."""
    return planner_of(ILQR, Torch(plain(1), 1, step), Weights(running, lambda x: 0.0 * x[..., 0]), 1.0, **({"horizon": 3} | config))


def same_plan(a: Plan, b: Plan) -> bool:
    return a.cost == b.cost and all(torch.equal(x, y) for x, y in (
        (a.actions, b.actions), (a.states, b.states), (a.gains, b.gains), (a.memory.mean, b.memory.mean),
        (a.memory.feedforward, b.memory.feedforward)))


BODY = StateSpace([Channel("q", ("w", "x", "y", "z"), (0, 1, 2, 3), "quaternion"), Channel("dq", ("p", "q", "r"), (0, 1, 2))])
INERTIA = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)
UPRIGHT = torch.tensor([1.0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
TURNED = torch.cat([quaternion_exp(torch.tensor([1.5, -1.0, 0.8], dtype=torch.float64)), torch.zeros(3, dtype=torch.float64)])


def tumble(x, u):
    """Return what torques u do to the body."""
    spin = x[..., 4:] + DT * (u - torch.linalg.cross(x[..., 4:], INERTIA * x[..., 4:], dim=-1)) / INERTIA
    return torch.cat([quaternion_multiply(x[..., :4], quaternion_exp(DT * spin)), spin], dim=-1)


def turned_away(x):
    """Return how far the body is from upright and rest, squared."""
    return BODY.difference(UPRIGHT, x).square().sum(-1)


def body(kind: type[ILQR] = ILQR, **config) -> ILQR:
    """Return a planner that turns the body upright: nx = 7, ndx = 6."""
    cost = Weights(lambda x, u: 0.01 * turned_away(x) + 0.01 * u.square().sum(-1), lambda x: 20 * turned_away(x))
    return planner_of(kind, Torch(BODY, 3, tumble), cost, 1.5, **({"horizon": 25} | config))
