"""Optimal control problems with known answers: parking a car (Tassa, Mansard & Todorov 2014), and a unicycle."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from dynamics.analytic import AnalyticModel
from dynamics.state_space import Channel, StateSpace
from planners.cost import Cost
from planners.cost_expansion import CostExpansion
from robots.command import CommandMode, CommandSpec

WHEELBASE, CAR_PERIOD, CAR_HORIZON = 2.0, 0.03, 500
"""[m], [s] and control periods of the car."""
CAR_START = (1.0, 1.0, 1.5 * math.pi, 0.0)
"""x, y [m], heading [rad], speed of the front wheels [m/s]."""
CAR_OPTIMUM = 1.9052
"""Cost of the best known way to park (algorithms.md, section 3)."""
UNICYCLE_PERIOD, UNICYCLE_HORIZON = 0.1, 200
UNICYCLE_START = (-1.0, -1.0, 1.0)


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


class ParkingCost(Cost):
    """Little effort, near the place, and at the end in it, straight and at rest."""

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        near = 1e-3 * smooth_abs(x[..., :2], x.new_full((2,), 0.1)).sum(-1)
        return {"effort": 1e-2 * (u.square() * u.new_tensor([1.0, 0.01])).sum(-1), "distance": near}

    def terminal(self, x: Tensor) -> Tensor:
        return (smooth_abs(x, x.new_tensor([0.01, 0.01, 0.01, 1.0])) * x.new_tensor([0.1, 0.1, 1.0, 0.3])).sum(-1)

    def expand(self, states: np.ndarray, actions: np.ndarray) -> CostExpansion:
        """See `ExpandableCost`."""
        horizon = len(actions)
        effort = np.array([2e-2, 2e-4])
        gradient, hessian = np.zeros((horizon, 6)), np.zeros((horizon, 6, 6))
        length = np.sqrt(states[:-1, :2] ** 2 + 0.01)
        gradient[:, :2], gradient[:, 4:] = 1e-3 * states[:-1, :2] / length, effort * actions
        for i in range(2):
            hessian[:, i, i], hessian[:, 4 + i, 4 + i] = 1e-5 / length[:, i] ** 3, effort[i]
        width, weight = np.array([0.01, 0.01, 0.01, 1.0]), np.array([0.1, 0.1, 1.0, 0.3])
        length = np.sqrt(states[-1] ** 2 + width**2)
        return CostExpansion(gradient, hessian, weight * states[-1] / length, np.diag(weight * width**2 / length**3))


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


class UnicycleCost(Cost):
    """(10^2 |x|^2 + |u|^2) / 2 a period and 10^2 |x|^2 / 2 at the end: to the origin; with derivatives in closed form."""

    state_weight, control_weight = 100.0, 1.0

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"state": 0.5 * self.state_weight * x.square().sum(-1), "effort": 0.5 * self.control_weight * u.square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        return 0.5 * self.state_weight * x.square().sum(-1)

    def expand(self, states: np.ndarray, actions: np.ndarray) -> CostExpansion:
        """See `ExpandableCost`."""
        horizon, nx, nu = len(actions), states.shape[1], actions.shape[1]
        gradient = np.concatenate([self.state_weight * states[:-1], self.control_weight * actions], axis=1)
        hessian = np.diag([self.state_weight] * nx + [self.control_weight] * nu)
        whole = np.empty((horizon, nx + nu, nx + nu))
        whole[:] = hessian
        return CostExpansion(gradient, whole, self.state_weight * states[-1], hessian[:nx, :nx].copy())

    def totals(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """See `TotalCost`."""
        return _quadratic_totals(states, actions, self.state_weight, self.control_weight)


@numba.njit(cache=True)
def _quadratic_totals(states: np.ndarray, actions: np.ndarray, state_weight: float, control_weight: float) -> np.ndarray:
    totals = np.zeros(len(states))
    for sample in range(len(states)):
        of_states = of_actions = 0.0
        for t in range(states.shape[1]):
            for i in range(states.shape[2]):
                of_states += states[sample, t, i] ** 2
        for t in range(actions.shape[1]):
            for i in range(actions.shape[2]):
                of_actions += actions[sample, t, i] ** 2
        totals[sample] = 0.5 * (state_weight * of_states + control_weight * of_actions)
    return totals


def car_starts() -> dict[str, torch.Tensor]:
    """Return the actions (H, 2) from which the car is parked: none, and small random ones."""
    generator = torch.Generator().manual_seed(0)
    small = 0.1 * torch.randn(CAR_HORIZON, 2, generator=generator, dtype=torch.float64)
    return {"still": torch.zeros(CAR_HORIZON, 2, dtype=torch.float64), "random": small}
