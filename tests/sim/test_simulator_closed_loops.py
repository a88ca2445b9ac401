"""Rollouts under feedback: the machine's own motion where feedback is silent, and the policy's commands where it is not."""

from __future__ import annotations

import copy
import os

import mujoco
import numpy as np
import pytest
import torch

from dynamics.feedback_rollout import FeedbackRollouts, roll_out_feedback
from dynamics.state_space import Channel, Target
from planners.cost import Cost
from planners.ilqr import ILQR, ILQRConfig
from planners.plan import PlanStatus
from robots.command import Command, CommandMode, CommandSpec
from robots.errors import ShapeError
from sim.mujoco_robot import MujocoRobot, MujocoScene
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.reading import Reading
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel
from sim.tasks.half_cheetah import SCENE as CHEETAH

TUMBLER = """
<mujoco>
  <option timestep="0.005" gravity="0 0 -1"/>
  <worldbody>
    <body name="base" pos="0 0 1">
      <freejoint name="base"/><geom size="0.1 0.2 0.3" type="box"/>
      <body name="head" pos="0 0 0.4"><joint name="neck" type="ball" damping="0.1"/><geom size="0.1" pos="0 0 0.2" mass="1"/>
        <body name="nose" pos="0 0 0.4">
          <joint name="wag" axis="0 1 0"/><geom size="0.05" pos="0.1 0 0" mass="0.2"/><site name="end"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="wag"/><motor joint="neck" gear="1 0 0"/></actuator>
  <sensor><framelinvel name="speed" objtype="site" objname="end"/></sensor>
</mujoco>"""
MUSCLE = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body><joint name="hinge" axis="0 1 0" damping="0.05"/><geom type="capsule" fromto="0 0 0 0 0 -0.4" size="0.03"/></body>
  </worldbody>
  <actuator>
    <general joint="hinge" dyntype="filter" dynprm="0.1" gear="2" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>"""


def tumbler(threads: int = 1) -> tuple[SimulatorModel, np.ndarray]:
    """A free body with a ball joint, a goal and readings, and a state in which all of it turns."""
    machine, generator = mujoco.MjModel.from_xml_string(TUMBLER), np.random.default_rng(3)
    goal = Channel("goal", ("goal_x", "goal_y"), (0, 1), target=Target.CONSTANT, model_input=False)
    space = PhysicsSpace(machine, (goal,), (Reading("end", "site_xpos", "end", (0, 2)), Reading("speed", "sensordata", "speed", (0, 1, 2))))
    q = generator.normal(size=machine.nq)
    mujoco.mj_normalizeQuat(machine, q)
    return SimulatorModel(machine, space, 2, threads), np.concatenate([q, generator.normal(size=machine.nv), [0.4, -0.2], np.zeros(5)])


def policy(model: SimulatorModel, x0: np.ndarray, horizon: int, size: float = 0.2) -> tuple[np.ndarray, ...]:
    """States about which it is, actions, feedforward and gains."""
    generator, ndx = np.random.default_rng(5), model.state_space.ndx
    actions = 0.3 * generator.uniform(-1.0, 1.0, (horizon, model.nu))
    states = np.concatenate([x0[None], model.rollouts(x0, actions[None])[0, 0]])
    return states, actions, generator.uniform(-0.5, 0.5, actions.shape), size * generator.uniform(-1.0, 1.0, (horizon, model.nu, ndx))


def test_without_feedback_a_closed_loop_is_the_rollout_bit_for_bit_also_through_contacts():
    machine = CHEETAH.load()
    cheetah = SimulatorModel(machine, PhysicsSpace(machine), 5, 1)
    for model, x0 in (tumbler(), (cheetah, np.concatenate([machine.qpos0, np.zeros(9)]))):
        states, actions, feedforward, gains = policy(model, x0, 12)
        box = np.full(model.nu, 1.0)
        lived, commands = model.roll_out_feedback(x0, states, actions, np.array([0.0, 0.5]), feedforward, 0.0 * gains, -box, box)
        assert np.array_equal(lived[0], states) and np.array_equal(commands[0], actions)
        halfway = model.rollouts(x0, (actions + 0.5 * feedforward)[None])[0, 0]
        assert np.array_equal(lived[1, 1:], halfway)


def test_feedback_is_that_of_the_state_space_also_on_rotations_and_readings():
    model, x0 = tumbler()
    assert isinstance(model, FeedbackRollouts)
    horizon, low, high = 8, np.array([-0.2, -0.4]), np.array([0.3, 0.5])
    states, actions, feedforward, gains = policy(model, x0, horizon)
    steps, space = np.array([1.0, 0.3]), model.state_space
    lived, commands = roll_out_feedback(model, x0, states, actions, steps, feedforward, gains, low, high)
    assert ((commands == low) | (commands == high)).any() and ((commands > low) & (commands < high)).any()
    for n, step in enumerate(steps):
        assert np.array_equal(lived[n, 1:], model.rollouts(x0, commands[n:n + 1])[0, 0])  # constants and readings with it
        away = space.difference(torch.from_numpy(states[:-1]), torch.from_numpy(lived[n, :-1])).numpy()
        wanted = actions + step * feedforward + np.einsum("tij,tj->ti", gains, away)
        assert np.abs(commands[n] - np.clip(wanted, low, high)).max() < 1e-12
    assert np.abs(lived[:, 1:, space.nx - 5:]).max() > 0.1 and (lived[:, :, -7:-5] == [0.4, -0.2]).all()


def test_closed_loops_do_not_depend_on_threads_nor_on_how_many_there_are():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    (one, x0), (two, _) = tumbler(1), tumbler(2)
    given, box, steps = policy(one, x0, 10), np.ones(2), np.linspace(1.0, 0.0, 7)
    states, actions, feedforward, gains = given
    lived, commands = one.roll_out_feedback(x0, states, actions, steps, feedforward, gains, -box, box)
    for model, chosen in ((two, slice(2, 4)), (two, slice(None)), (two, slice(5, 6)), (one, slice(1, 3))):
        again, same = model.roll_out_feedback(x0, states, actions, steps[chosen], feedforward, gains, -box, box)
        assert np.array_equal(lived[chosen], again) and np.array_equal(commands[chosen], same)


def test_a_loop_that_diverges_is_no_number_from_then_on_and_the_others_go_on():
    model, x0 = tumbler()
    states, actions, feedforward, gains = policy(model, x0, 12)
    feedforward[:], box, steps = 0.0, np.full(2, 1e30), np.array([0.0, 1.0, 0.0])
    feedforward[4] = 1e14
    lived, commands = model.roll_out_feedback(x0, states, actions, steps, feedforward, gains, -box, box)
    assert np.array_equal(lived[0], lived[2]) and np.isfinite(lived[0]).all()
    assert np.isfinite(lived[1, :5]).all() and np.isnan(lived[1, 5:]).all() and np.isnan(commands[1, 5:]).all()
    rolled = model.rollouts(x0, np.stack([actions, actions + feedforward]))[0]
    assert np.array_equal(rolled, lived[:2, 1:], equal_nan=True)  # readings too
    assert np.isfinite(model.roll_out_feedback(x0, states, actions, steps[:1], feedforward, gains, -box, box)[0]).all()


class Upright(Cost):
    """Away from hanging, in little motion and effort."""

    def terms(self, x, u):
        return {"angle": (x[..., 0] - 1.0).square(), "motion": 0.01 * x[..., 1].square(), "effort": 0.001 * u.square().sum(-1)}

    def terminal(self, x):
        return 10.0 * (x[..., 0] - 1.0).square()


def test_an_actuator_with_a_state_of_its_own_is_planned_through_as_the_machine_goes(tmp_path):
    file = tmp_path / "muscle.xml"
    file.write_text(MUSCLE)
    scene = MujocoScene("muscle", file, 2, "share of the largest torque")
    machine = scene.load()
    model = SimulatorModel(machine, PhysicsSpace(machine), scene.substeps, 1)
    command = CommandSpec(CommandMode.ACTUATOR, ("hinge",), np.array([-1.0]), np.array([1.0]), "share")
    planner = ILQR(SimulatorEvaluator(model, Upright()), command, 0.02, ILQRConfig(horizon=25))
    with MujocoRobot(scene) as robot:
        observation = robot.reset(0)
        for _ in range(3):  # so that the activation is not the model's own
            robot.send(Command(robot.spec.command().mode, np.array([0.7])))
            observation = robot.tick()
        x0 = model.state_space.state(observation)
        assert x0[2] == observation.extra["act"][0] != 0.0
        plan = planner.plan(torch.from_numpy(x0), None, torch.Generator())
        assert plan.status is PlanStatus.CONVERGED
        for t, u in enumerate(plan.actions.numpy()):
            robot.send(Command(robot.spec.command().mode, u))
            assert np.allclose(model.state_space.state(robot.tick()), plan.states[t + 1].numpy(), atol=1e-12)
    assert abs(plan.states[-1, 0] - 1.0) < 0.1 < abs(x0[0] - 1.0)


def test_a_model_that_was_not_used_yet_can_be_sent_to_another_process():
    model, x0 = tumbler()
    sent = copy.deepcopy(model)  # as by pickling: nothing of it may point into the other's memory
    states, actions, feedforward, gains = policy(model, x0, 5)
    box = np.ones(2)
    lived, _ = model.roll_out_feedback(x0, states, actions, np.ones(1), feedforward, gains, -box, box)
    a, b = model.linearize(states[:-1], actions)
    del model
    again, _ = sent.roll_out_feedback(x0, states, actions, np.ones(1), feedforward, gains, -box, box)
    again_a, again_b = sent.linearize(states[:-1], actions)
    assert np.array_equal(lived, again) and np.array_equal(a, again_a) and np.array_equal(b, again_b)


@pytest.mark.parametrize("name", ["x0", "states", "actions", "feedforward", "gains", "lower"])
def test_arrays_that_do_not_fit_together_are_refused_before_compiled_code_reads_them(name):
    model, x0 = tumbler()
    states, actions, feedforward, gains = policy(model, x0, 3)
    given = {"x0": x0, "states": states, "actions": actions, "steps": np.ones(2), "feedforward": feedforward, "gains": gains,
             "lower": -np.ones(2), "upper": np.ones(2)}
    with pytest.raises(ShapeError, match="expected"):
        model.roll_out_feedback(**given | {name: given[name][:-1]})
