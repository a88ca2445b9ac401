"""Crocoddyl's action models that need no robot, restated: a unicycle, and linear-quadratic problems in discrete and continuous time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dynamics.state_space import Channel, StateSpace
from experiments.bench.control_problems import UNICYCLE_HORIZON, UNICYCLE_START, UNICYCLE_WEIGHT, UnicycleCost, unicycle
from planners.analytic_problem import make_trajectory_problem
from planners.cost import Cost
from planners.trajectory_problem import TrajectoryProblem

UNICYCLE_STARTS = {"near": UNICYCLE_START, "far": (4.0, -3.0, 2.5), "beside": (0.0, 2.0, 0.0)}


def described_problems() -> list[dict]:
    """Return the problems as plain JSON values, as `peers/crocoddyl_problems.py` takes them."""
    found = [{"name": f"unicycle, {name}", "kind": "unicycle", "weights": [UNICYCLE_WEIGHT**0.5, 1.0], "x0": list(start),
              "horizon": UNICYCLE_HORIZON} for name, start in UNICYCLE_STARTS.items()]
    for seed, (kind, states, commands) in enumerate((("lqr", 12, 4), ("euler", 8, 3), ("rk4", 8, 3))):
        rng, half = np.random.default_rng(seed), states if kind == "lqr" else states // 2
        root = rng.normal(size=(states + commands, states + commands))
        weights = root @ root.T / (states + commands) + 0.1 * np.eye(states + commands)
        a = (np.eye(states) if kind == "lqr" else 0.0) + rng.normal(size=(half, states)) / (4 * states)
        arrays = {"a": a, "b": rng.normal(size=(half, commands)), "f": 0.1 * rng.normal(size=half), "xx": weights[:states, :states],
                  "uu": weights[states:, states:], "xu": weights[:states, states:], "x": rng.normal(size=states),
                  "u": rng.normal(size=commands), "x0": rng.normal(size=states)}
        found.append({"name": f"{kind} {states} x {commands}", "kind": kind, "horizon": 50, "dt": 0.05}
                     | {key: array.tolist() for key, array in arrays.items()})
    return found


def problem_of(described: dict) -> TrajectoryProblem:
    """Return a problem of `described_problems`, without limits."""
    if described["kind"] == "unicycle":
        model, cost = unicycle(), UnicycleCost()
    else:
        model = cost = LinearQuadratic(described)
    unlimited = np.full(model.nu, np.inf)
    return make_trajectory_problem(model, cost, -unlimited, unlimited)


class LinearQuadratic(Cost):
    """Model and cost in one: rate = a x + b u + f and x'xx x / 2 + u'uu u / 2 + x'xu u + x'x + u'u, over one period.

    `lqr`: the rate is the next state. `euler` and `rk4`: it is the acceleration of x = [position, velocity]; the velocity moves first
    (semi-implicit Euler), or both as Runge and Kutta have it, and the charge is integrated by the same rule.
    """

    def __init__(self, described: dict) -> None:
        self._a, self._b, self._f, self._xx, self._uu, self._xu, self._x, self._u = (
            torch.tensor(described[key], dtype=torch.float64) for key in ("a", "b", "f", "xx", "uu", "xu", "x", "u"))
        nx, self.nu = self._xu.shape
        self.state_space = StateSpace([Channel("state", tuple(f"x{i}" for i in range(nx)), tuple(range(nx)))])
        self._half, self._dt = nx // 2, described["dt"]
        self._period: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = {"lqr": self._discrete, "euler": self._euler,
                                                                           "rk4": self._rk4}[described["kind"]]

    def step(self, x: Tensor, u: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See `DynamicsModel.step`."""
        return self._period(x, u)[0]

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"quadratic": self._period(x, u)[1]}

    def terminal(self, x: Tensor) -> Tensor:
        return self._charge(x, x.new_zeros(self.nu))

    def _rate(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ self._a.T + u @ self._b.T + self._f

    def _charge(self, x: Tensor, u: Tensor) -> Tensor:
        of_state, of_command = 0.5 * x @ self._xx + self._x, 0.5 * u @ self._uu + self._u
        return (x * of_state).sum(-1) + (u * of_command).sum(-1) + (x @ self._xu * u).sum(-1)

    def _discrete(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._rate(x, u), self._charge(x, u)

    def _euler(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        velocity = x[..., self._half:] + self._dt * self._rate(x, u)
        return torch.cat([x[..., : self._half] + self._dt * velocity, velocity], dim=-1), self._dt * self._charge(x, u)

    def _rk4(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        moved = charged = 0.0
        at = x
        for weight, ahead in ((1 / 6, 0.5), (1 / 3, 0.5), (1 / 3, 1.0), (1 / 6, 0.0)):
            flow = torch.cat([at[..., self._half:], self._rate(at, u)], dim=-1)
            moved, charged = moved + weight * flow, charged + weight * self._charge(at, u)
            at = x + ahead * self._dt * flow
        return x + self._dt * moved, self._dt * charged
