"""Runs crocoddyl 3.1.0 as it is installed: its FDDP on its own action models, for as many iterations as it takes.

Run by `.peers/crocoddyl/bin/python` (`make bench-peers` builds it); imports nothing of Reflexarc. The last line of the output is one JSON
object: for every problem, by name, the final cost, the iterations until the cost was within TOLERANCE of it, and the least seconds of
one of these.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import crocoddyl
import numpy as np

TOLERANCE = 1e-6
"""Share of the final cost."""
ITERATIONS_MAX = 100


def main() -> None:
    """Solve the problems of a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", type=Path, help="JSON: a list of problems, see `shooting_problem`")
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    problems = json.loads(options.problems.read_text())
    print(json.dumps({problem["name"]: solved(problem, options.repeats) for problem in problems}))


def shooting_problem(described: dict) -> crocoddyl.ShootingProblem:
    """Return the problem of `kind` unicycle (with weights), lqr (with a, b, f, xx, uu, xu, x, u), or euler or rk4: the same as flows, where
    a and b lead to the acceleration, and the period dt. The end is charged as a period, or as a flow, without command.
    """
    kind, horizon = described["kind"], described["horizon"]
    if kind == "unicycle":
        running = terminal = crocoddyl.ActionModelUnicycle()
        running.costWeights = np.array(described["weights"])
    else:
        a, b, f, xx, uu, xu, x, u = (np.array(described[key]) for key in ("a", "b", "f", "xx", "uu", "xu", "x", "u"))
        if kind == "lqr":
            running = terminal = crocoddyl.ActionModelLQR(a, b, xx, uu, xu, f, x, u)
        else:
            flow = crocoddyl.DifferentialActionModelLQR(*np.split(a, 2, axis=1), b, xx, uu, xu, f, x, u)
            running, terminal = (integrated(flow, kind, dt) for dt in (described["dt"], 0.0))
    return crocoddyl.ShootingProblem(np.array(described["x0"]), [running] * horizon, terminal)


def integrated(flow: crocoddyl.DifferentialActionModelLQR, kind: str, dt: float) -> crocoddyl.ActionModelAbstract:
    """Return a period of a flow."""
    if kind == "euler":
        return crocoddyl.IntegratedActionModelEuler(flow, dt)
    return crocoddyl.IntegratedActionModelRK(flow, crocoddyl.RKType.four, dt)


def solved(described: dict, repeats: int) -> dict[str, float]:
    """Return how FDDP fares from where no command leads, which is where Reflexarc starts too."""
    problem = shooting_problem(described)
    actions = [np.zeros(problem.runningModels[0].nu)] * described["horizon"]
    states = problem.rollout(actions)
    solver, log = crocoddyl.SolverFDDP(problem), crocoddyl.CallbackLogger()
    solver.setCallbacks([log])
    solver.solve(states, actions, ITERATIONS_MAX, True)
    close = np.array(log.costs) <= solver.cost + TOLERANCE * abs(solver.cost)
    iterations, least = int(close.argmax()) + 1, float("inf")
    for _ in range(repeats):
        timed = crocoddyl.SolverFDDP(problem)
        began = time.perf_counter()
        timed.solve(states, actions, iterations, True)
        least = min(least, time.perf_counter() - began)
    return {"cost": solver.cost, "iterations": iterations, "seconds_per_iteration": least / iterations}


if __name__ == "__main__":
    main()
