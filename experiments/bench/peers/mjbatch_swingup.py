"""Runs in mjbatch's environment: its published example of iLQR, a cart with two poles that is swung up, without its window."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import types
from pathlib import Path

import mujoco
import numpy as np


def main() -> None:
    """Print the model, the start and, for first commands of several seeds (the published one is 0), these, iterations, cost and seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--starts", type=int, required=True)
    options = parser.parse_args()
    drawn = []
    sys.modules["window"] = types.ModuleType("window")  # opens a display and prints progress
    vars(sys.modules["window"]).update(CHOSEN=None, GHOST=None, Window=None, progress=lambda *shown, **how: drawn.append(shown[0]))
    sys.path.insert(0, str(options.examples))
    example = importlib.import_module("cartpole_swingup")
    model = mujoco.MjModel.from_xml_path(str(example.MODEL))
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("hang").id)
    x0, runs = np.concatenate([data.qpos, data.qvel]), []
    planner = example.Planner(model, example.T, example.SUB, example.cost, example.expand)
    for seed in range(options.starts):
        actions = 0.1 * np.random.default_rng(seed).standard_normal((example.T, example.NU))
        drawn.clear()
        began = time.perf_counter()
        *_, cost = example.ilqr(planner, x0, actions)
        seconds = time.perf_counter() - began
        runs.append({"actions": actions.tolist(), "iterations": len(drawn), "cost": float(cost), "seconds": seconds})
    print(json.dumps({"xml": str(example.MODEL), "substeps": example.SUB, "start": x0.tolist(), "runs": runs}))


if __name__ == "__main__":
    main()
