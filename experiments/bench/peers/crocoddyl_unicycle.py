"""Runs in crocoddyl's environment: seconds of an iteration of its FDDP on its own unicycle."""

from __future__ import annotations

import argparse
import json
import time

import crocoddyl
import numpy as np


def main() -> None:
    """Print seconds an iteration, iterations and cost as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--horizon", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    options = parser.parse_args()
    model = crocoddyl.ActionModelUnicycle()
    model.costWeights = np.array([10.0, 1.0])
    problem = crocoddyl.ShootingProblem(np.array([-1.0, -1.0, 1.0]), [model] * options.horizon, model)
    least = float("inf")
    for _ in range(options.repeats):
        solver = crocoddyl.SolverFDDP(problem)
        began = time.perf_counter()
        solver.solve()
        least = min(least, time.perf_counter() - began)
    print(json.dumps({"seconds_per_iteration": least / solver.iter, "iterations": solver.iter, "cost": solver.cost}))


if __name__ == "__main__":
    main()
