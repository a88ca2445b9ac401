"""Derivatives of the simulator by MuJoCo's own differences, over several physics steps, with readings and actuators that have a state."""

from __future__ import annotations

import os

import mujoco
import numpy as np
import pytest
import torch

from dynamics.linearize import linearize
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.planning_copy import PlanningCopy
from sim.simulator.reading import Reading
from sim.simulator.simulator_model import SimulatorModel
from sim.simulator.transitions import Transitions
from sim.tasks.cartpole import SCENE as CARTPOLE
from sim.tasks.half_cheetah import SCENE as CHEETAH

READINGS = (Reading("tip", "site_xpos", "tip", (0, 1, 2)), Reading("pull", "sensordata", "force", (0,)),
            Reading("box_height", "xpos", "box", (2,)), Reading("swing", "sensordata", "rate", (0, 1, 2)))
LIMB = """
<mujoco>
  <option timestep="0.005" {options}/>
  <worldbody>
    <body name="box" pos="0 0 1">
      <freejoint/><geom size="0.1 0.2 0.3" type="box"/>
      <body name="arm" pos="0 0 0.3">
        <joint name="elbow" axis="0 1 0" damping="0.2"/><geom size="0.05" fromto="0 0 0 0.3 0 0.1" type="capsule"/>
        <site name="tip" pos="0.3 0 0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <muscle name="flexor" joint="elbow" ctrllimited="true" ctrlrange="0 1" lengthrange="-1 1"/>
    <general joint="elbow" dyntype="filter" dynprm="0.05" gear="-3" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
  <sensor><actuatorfrc name="force" actuator="flexor"/><gyro name="rate" site="tip"/></sensor>
</mujoco>"""


def limb(substeps: int, options: str = "", threads: int = 1) -> SimulatorModel:
    """A floating limb with two actuators that have a state of their own, and readings of all kinds."""
    machine = mujoco.MjModel.from_xml_string(LIMB.format(options=options))
    return SimulatorModel(machine, PhysicsSpace(machine, readings=READINGS), substeps, threads)


def along(model: SimulatorModel, periods: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States (T, nx) and commands (T, nu) of a motion."""
    generator, space = np.random.default_rng(seed), model.state_space
    x0 = np.zeros(space.nx)
    x0[:space.nq] = generator.normal(size=space.nq)
    x0[3:7] /= np.linalg.norm(x0[3:7])
    x0[space.nq:space.physics] = generator.uniform(0.2, 0.8, space.physics - space.nq)
    actions = generator.uniform(0.2, 0.8, (periods, model.nu))
    return np.concatenate([x0[None], model.rollouts(x0, actions[None])[0, 0]])[1:-1].copy(), actions[1:]


@pytest.mark.parametrize("substeps", [1, 3])
def test_mujocos_differences_are_those_of_whole_rollouts_with_readings_and_activations(substeps):
    model = limb(substeps)
    assert model.state_space.na == 2
    x, u = along(model, 5)
    a, b = linearize(model, x, u)
    whole_a, whole_b = model._by_rollouts(x, u)
    assert np.abs(a - whole_a).max() < 2e-5 * np.abs(a).max() and np.abs(b - whole_b).max() < 2e-5 * np.abs(b).max()
    told = slice(model.state_space.ndx - 8, None)
    assert (np.abs(a[:, told]).max(-1) > 1e-3).any(0).all() and not a[:, :, told].any()
    assert (np.abs(b[:, told]).max((0, 2)) > 1e-6).any() == (substeps > 1)  # at a step's beginning, commands have changed nothing yet


def test_derivatives_are_central_differences_of_the_step():
    model = limb(2)
    x, u = along(model, 3)
    space, size = model.state_space, 1e-5
    a, b = model.linearize(x, u)
    start, command = torch.from_numpy(x), torch.from_numpy(u)
    for entry in range(2 * space.nv + space.na):
        dx = size * torch.eye(space.ndx, dtype=torch.float64)[entry]
        ends = [model.step(space.integrate(start, sign * dx), command) for sign in (1.0, -1.0)]
        assert np.allclose(space.difference(ends[1], ends[0]) / (2 * size), a[:, :, entry], rtol=1e-3, atol=1e-3)
    for entry in range(model.nu):
        du = size * torch.eye(model.nu, dtype=torch.float64)[entry]
        ends = [model.step(start, command + sign * du) for sign in (1.0, -1.0)]
        assert np.allclose(space.difference(ends[1], ends[0]) / (2 * size), b[:, :, entry], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", ['integrator="RK4"', ""], ids=["whole periods", "by the chain rule"])
def test_derivatives_do_not_depend_on_threads_nor_on_what_came_before(options):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    one, two = limb(2, options), limb(2, options, threads=2)
    x, u = along(one, 12)
    a, b = one.linearize(x, u)
    two.linearize(x[::-1].copy(), u)
    for again in (two.linearize(x, u), one.linearize(x, u)):
        assert np.array_equal(a, again[0]) and np.array_equal(b, again[1])
    alone = two.linearize(x[3:4], u[3:4])
    assert np.array_equal(a[3:4], alone[0]) and np.array_equal(b[3:4], alone[1])


def test_contacts_are_differentiated_the_same_way_at_any_thread_count_and_size():
    machine = CHEETAH.load()
    one, two = (SimulatorModel(machine, PhysicsSpace(machine), 5, threads) for threads in (1, min(2, len(os.sched_getaffinity(0)))))
    x0 = np.concatenate([machine.qpos0, np.zeros(9)])
    actions = np.random.default_rng(1).uniform(-1.0, 1.0, (9, 6))
    x = np.concatenate([x0[None], one.rollouts(x0, actions[None])[0, 0, :-1]])
    a, b = one.linearize(x, actions)
    again_a, again_b = two.linearize(x, actions)
    assert np.array_equal(a, again_a) and np.array_equal(b, again_b)
    assert np.array_equal(a[5:6], one.linearize(x[5:6], actions[5:6])[0])


def test_what_mujoco_does_not_differentiate_is_differentiated_all_the_same():
    runge_kutta = CARTPOLE.load()
    assert runge_kutta.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4 and not Transitions.know(runge_kutta)
    implicit = PlanningCopy(integrator="implicitfast").of(runge_kutta, runge_kutta.opt.timestep)[0]
    assert Transitions.know(implicit)
    x, u = np.array([[0.1, 0.7, -0.3, 2.0]]), np.array([[0.3]])
    (a, b), (near_a, near_b) = (SimulatorModel(machine, PhysicsSpace(machine), 1, 1).linearize(x, u) for machine in (runge_kutta, implicit))
    assert np.allclose(a, near_a, atol=0.02) and np.allclose(b, near_b, atol=0.02) and not np.array_equal(a, near_a)


@pytest.mark.parametrize("options", ['integrator="RK4"', ""], ids=["whole periods", "by the chain rule"])
def test_where_the_physics_diverge_derivatives_are_no_numbers_and_the_others_stay(options):
    model = limb(2, options)
    x, u = along(model, 4)
    a, _ = model.linearize(x, u)
    wild = x.copy()
    wild[1, model.state_space.nq] = 1e12
    again, b = model.linearize(wild, u)
    moved = model.state_space.ndx - 8
    assert np.isnan(again[1, :, :moved]).all() and np.isnan(b[1]).all()
    assert np.array_equal(again[[0, 2]], a[[0, 2]])


def test_a_command_at_its_upper_limit_is_stepped_down_and_beyond_it_does_nothing():
    machine = PlanningCopy(integrator="implicitfast").of(CARTPOLE.load(), CARTPOLE.load().opt.timestep)[0]
    model, x = SimulatorModel(machine, PhysicsSpace(machine), 2, 1), np.array([[0.1, 0.7, -0.3, 2.0]] * 3)
    limit = machine.actuator_ctrlrange[0, 1]
    _, b = model.linearize(x, np.array([[limit], [limit - 1e-4], [limit + 1.0]]))
    assert np.allclose(b[0], b[1], rtol=1e-3, atol=1e-8) and np.abs(b[0]).max() > 0.01 and not b[2].any()
