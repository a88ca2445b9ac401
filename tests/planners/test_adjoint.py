"""The adjoint sweep finds the slopes that torch finds through the model, at every kind of joint, and says where there are none."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from planners.adjoint import costs_and_slopes
from planners.compiler.compiled_cost import CompiledCost
from planners.cost import Cost
from planners.gradient import GradientConfig, GradientPlanner
from robots.command import CommandMode, CommandSpec
from robots.errors import ShapeError
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel

FLYING = """
<mujoco><option timestep="0.01"/><worldbody><body pos="0 0 1"><freejoint/><geom size="0.1 0.2 0.3" type="box" mass="1"/><site name="s"/>
  <body pos="0.4 0 0"><joint name="j" axis="0 1 0"/><geom size="0.1" pos="0.1 0 0" mass="0.3"/></body></body></worldbody>
  <actuator><motor joint="j"/><motor site="s" gear="0 0 1 0.2 0 0"/></actuator></mujoco>"""


class Pose(Cost):
    """Bent in position, rotation, velocity and command."""

    pure = True

    def terms(self, x, u):
        return {"pose": (1 + x[..., :7].square().sum(-1)).sqrt() + x[..., 4] * x[..., 3], "speed": 0.1 * torch.sin(x[..., 8:]).sum(-1),
                "effort": torch.cos(u).sum(-1) * x[..., 0]}

    def terminal(self, x):
        return 5 * x[..., 5] * x[..., 2]


@pytest.fixture(scope="module")
def model() -> SimulatorModel:
    machine = mujoco.MjModel.from_xml_string(FLYING)
    return SimulatorModel(machine, PhysicsSpace(machine), 2, 1)


def start(model: SimulatorModel) -> np.ndarray:
    x0 = np.random.default_rng(0).normal(size=model.state_space.nx)
    x0[3:7] /= np.linalg.norm(x0[3:7])
    return x0


def test_slopes_are_those_of_torch_through_the_model(model):
    command = CommandSpec(CommandMode.ACTUATOR, ("a", "b"), -np.ones(2), np.ones(2), "N")
    planner = GradientPlanner(SimulatorEvaluator(model, Pose()), command, 0.02, GradientConfig(horizon=8))
    at = torch.rand(3, 8, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    costs, slopes = planner._costs_and_slope(torch.from_numpy(start(model)), at)
    planner._cost = None  # by torch
    expected_costs, expected = planner._costs_and_slope(torch.from_numpy(start(model)), at)
    np.testing.assert_allclose(costs, expected_costs, rtol=1e-6)
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-6)
    assert slopes.abs().min() > 1e-4


def test_what_diverges_costs_everything_and_has_no_slope(model):
    pose = Pose()
    cost = CompiledCost(pose, model.state_space, 2)
    actions = np.zeros((3, 5, 2))
    actions[1, 2] = np.nan
    costs, slopes = costs_and_slopes(model, cost, start(model), actions)
    assert costs[1] == np.inf and np.isnan(slopes[1]).all()
    assert np.isfinite(costs[[0, 2]]).all() and np.isfinite(slopes[[0, 2]]).all()
    np.testing.assert_array_equal(slopes[0], slopes[2])


def test_other_shapes_are_refused(model):
    pose, x0 = Pose(), start(model)
    cost = CompiledCost(pose, model.state_space, 2)
    states, actions = np.zeros((3, 5, len(x0))), np.zeros((3, 5, 2))
    for wrong in ((x0[1:], states, actions), (x0, states[:, 1:], actions), (x0, states, actions[:, :, :1]),
                  (x0, states[:, :0], actions[:, :0])):
        with pytest.raises(ShapeError, match="expected"):
            cost.totals(*wrong)
    with pytest.raises(ShapeError, match="expected"):
        cost.expand(states[0], actions[0])
