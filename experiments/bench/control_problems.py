"""Optimal control problems with known answers: parking a car (Tassa, Mansard & Todorov 2014), and a unicycle."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dynamics.analytic import AnalyticModel
from dynamics.state_space import Channel, StateSpace
from planners.analytic_cost import AnalyticCost, CostFormulas
from robots.command import CommandMode, CommandSpec

WHEELBASE, CAR_PERIOD, CAR_HORIZON = 2.0, 0.03, 500
"""[m], [s] and control periods of the car."""
CAR_START = (1.0, 1.0, 1.5 * math.pi, 0.0)
"""x, y [m], heading [rad], speed of the front wheels [m/s]."""
CAR_OPTIMUM = 1.9052
"""Cost of the best known way to park (algorithms.md, section 3)."""
PARKED_WEIGHTS, PARKED_WIDTHS = (0.1, 0.1, 1.0, 0.3), (0.01, 0.01, 0.01, 1.0)
"""Of the final state's entries, and where their charge begins to be straight."""
UNICYCLE_PERIOD, UNICYCLE_HORIZON = 0.1, 200
UNICYCLE_START = (-1.0, -1.0, 1.0)
UNICYCLE_WEIGHT = 100.0
"""Of the squared state, beside 1 of the squared command."""


def _space(*names: str) -> StateSpace:
    return StateSpace([Channel("state", names, tuple(range(len(names))))])


def _car_step(x: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
    rolled = CAR_PERIOD * x[3]  # of the front wheels
    across = rolled * math.sin(u[0])
    back = WHEELBASE + rolled * math.cos(u[0]) - math.sqrt(WHEELBASE * WHEELBASE - across * across)
    out[0] = x[0] + back * math.cos(x[2])
    out[1] = x[1] + back * math.sin(x[2])
    out[2] = x[2] + math.asin(across / WHEELBASE)
    out[3] = x[3] + CAR_PERIOD * u[1]


def _car_jacobian(x: np.ndarray, u: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    rolled, sine, cosine = CAR_PERIOD * x[3], math.sin(u[0]), math.cos(u[0])
    across = rolled * sine
    root = math.sqrt(WHEELBASE * WHEELBASE - across * across)
    back = WHEELBASE + rolled * cosine - root
    back_by_speed = CAR_PERIOD * (cosine + across * sine / root)
    back_by_steering = rolled * (-sine + across * cosine / root)
    for i in range(4):
        a[i, i] = 1.0
    a[0, 2], a[1, 2] = -back * math.sin(x[2]), back * math.cos(x[2])
    a[0, 3], a[1, 3] = back_by_speed * math.cos(x[2]), back_by_speed * math.sin(x[2])
    a[2, 3] = CAR_PERIOD * sine / root
    b[0, 0], b[1, 0] = back_by_steering * math.cos(x[2]), back_by_steering * math.sin(x[2])
    b[2, 0] = rolled * cosine / root
    b[3, 1] = CAR_PERIOD


def car() -> AnalyticModel:
    """Return the car: commands are the front wheels' angle [rad] and acceleration [m/s^2]."""
    return AnalyticModel(_space("x", "y", "heading", "speed"), 2, _car_step, _car_jacobian)


def car_box() -> CommandSpec:
    """Return the car's limits."""
    return CommandSpec(CommandMode.ACTUATOR, ("angle", "acceleration"), np.array([-0.5, -2.0]), np.array([0.5, 2.0]), "rad, m/s^2")


def smooth_abs(x: Tensor, width: Tensor) -> Tensor:
    """Return sqrt(x^2 + width^2) - width."""
    return (x.square() + width.square()).sqrt() - width


class ParkingCost(AnalyticCost):
    """Little effort, near the place, and at the end in it, straight and at rest."""

    @property
    def formulas(self) -> CostFormulas:
        return CostFormulas(_parking_running, _parking_end, _parking_running_derivatives, _parking_end_derivatives)

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        near = 1e-3 * smooth_abs(x[..., :2], x.new_full((2,), 0.1)).sum(-1)
        return {"effort": 1e-2 * (u.square() * u.new_tensor([1.0, 0.01])).sum(-1), "distance": near}

    def terminal(self, x: Tensor) -> Tensor:
        return (smooth_abs(x, x.new_tensor(PARKED_WIDTHS)) * x.new_tensor(PARKED_WEIGHTS)).sum(-1)


def _parking_running(x: np.ndarray, u: np.ndarray) -> float:
    near = math.sqrt(x[0] * x[0] + 0.01) + math.sqrt(x[1] * x[1] + 0.01) - 0.2
    return 1e-2 * (u[0] * u[0] + 0.01 * u[1] * u[1]) + 1e-3 * near


def _parking_running_derivatives(x: np.ndarray, u: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> None:
    for i in range(2):
        length = math.sqrt(x[i] * x[i] + 0.01)
        gradient[i], hessian[i, i] = 1e-3 * x[i] / length, 1e-5 / length**3
    gradient[4], hessian[4, 4] = 2e-2 * u[0], 2e-2
    gradient[5], hessian[5, 5] = 2e-4 * u[1], 2e-4


def _parking_end(x: np.ndarray) -> float:
    cost = 0.0
    for i in range(4):
        cost += PARKED_WEIGHTS[i] * (math.sqrt(x[i] * x[i] + PARKED_WIDTHS[i] * PARKED_WIDTHS[i]) - PARKED_WIDTHS[i])
    return cost


def _parking_end_derivatives(x: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> None:
    for i in range(4):
        square = PARKED_WIDTHS[i] * PARKED_WIDTHS[i]
        length = math.sqrt(x[i] * x[i] + square)
        gradient[i], hessian[i, i] = PARKED_WEIGHTS[i] * x[i] / length, PARKED_WEIGHTS[i] * square / length**3


def _unicycle_step(x: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
    out[0] = x[0] + UNICYCLE_PERIOD * u[0] * math.cos(x[2])
    out[1] = x[1] + UNICYCLE_PERIOD * u[0] * math.sin(x[2])
    out[2] = x[2] + UNICYCLE_PERIOD * u[1]


def _unicycle_jacobian(x: np.ndarray, u: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    cosine, sine = UNICYCLE_PERIOD * math.cos(x[2]), UNICYCLE_PERIOD * math.sin(x[2])
    for i in range(3):
        a[i, i] = 1.0
    a[0, 2], a[1, 2] = -u[0] * sine, u[0] * cosine
    b[0, 0], b[1, 0], b[2, 1] = cosine, sine, UNICYCLE_PERIOD


def unicycle() -> AnalyticModel:
    """Return the unicycle: states x, y [m] and heading [rad], commands speed [m/s] and turn [rad/s]."""
    return AnalyticModel(_space("x", "y", "heading"), 2, _unicycle_step, _unicycle_jacobian)


class UnicycleCost(AnalyticCost):
    """(10^2 |x|^2 + |u|^2) / 2 a period and 10^2 |x|^2 / 2 at the end: to the origin."""

    @property
    def formulas(self) -> CostFormulas:
        return CostFormulas(_unicycle_running, _unicycle_end, _unicycle_running_derivatives, _unicycle_end_derivatives)

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"state": 0.5 * UNICYCLE_WEIGHT * x.square().sum(-1), "effort": 0.5 * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return 0.5 * UNICYCLE_WEIGHT * x.square().sum(-1)


def _unicycle_running(x: np.ndarray, u: np.ndarray) -> float:
    return 0.5 * (UNICYCLE_WEIGHT * (x[0] * x[0] + x[1] * x[1] + x[2] * x[2]) + u[0] * u[0] + u[1] * u[1])


def _unicycle_running_derivatives(x: np.ndarray, u: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> None:
    for i in range(3):
        gradient[i], hessian[i, i] = UNICYCLE_WEIGHT * x[i], UNICYCLE_WEIGHT
    for i in range(2):
        gradient[3 + i], hessian[3 + i, 3 + i] = u[i], 1.0


def _unicycle_end(x: np.ndarray) -> float:
    return 0.5 * UNICYCLE_WEIGHT * (x[0] * x[0] + x[1] * x[1] + x[2] * x[2])


def _unicycle_end_derivatives(x: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> None:
    for i in range(3):
        gradient[i], hessian[i, i] = UNICYCLE_WEIGHT * x[i], UNICYCLE_WEIGHT


def car_starts() -> dict[str, torch.Tensor]:
    """Return the actions (H, 2) from which the car is parked: none, and small random ones."""
    generator = torch.Generator().manual_seed(0)
    small = 0.1 * torch.randn(CAR_HORIZON, 2, generator=generator, dtype=torch.float64)
    return {"still": torch.zeros(CAR_HORIZON, 2, dtype=torch.float64), "random": small}
