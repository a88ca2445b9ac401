"""MuJoCo as a dynamics model: the machine's own motion, at any thread count, with derivatives and readings that are true."""

from __future__ import annotations

import copy
import os

import mujoco
import numpy as np
import pytest
import torch

from planners.compiler.compiled_cost import compiled_cost
from planners.cost import Cost
from robots.command import Command
from robots.errors import ConfigurationError, ShapeError, UnknownNameError
from sim.catalog import make_task
from sim.mujoco_robot import MujocoRobot
from sim.simulator.dm_costs import RewardCost
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.planning_copy import PlanningCopy
from sim.simulator.planning_task import PLANNING_TASKS, make_problem
from sim.simulator.reading import Reading
from sim.simulator.simulator_evaluator import SimulatorEvaluator
from sim.simulator.simulator_model import SimulatorModel
from sim.tasks.cartpole import SCENE as CARTPOLE
from sim.tasks.half_cheetah import SCENE as CHEETAH
from sim.tasks.reacher import SCENE as REACHER
from sim.tasks.reacher import STATE_SPACE as REACHER_SPACE
from sim.tasks.reacher import ReacherCost

FLOATING = """
<mujoco>
  <option timestep="0.005" gravity="0 0 -1"/>
  <worldbody>
    <body name="base" pos="0 0 1">
      <freejoint name="base"/><geom size="0.1 0.2 0.3" type="box"/>
      <body name="head" pos="0 0 0.4"><joint name="neck" type="ball" damping="0.1"/><geom size="0.1" pos="0 0 0.2" mass="1"/>
        <body name="nose" pos="0 0 0.4"><joint name="wag" axis="0 1 0"/><geom size="0.05" pos="0.1 0 0" mass="0.2"/></body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="wag" ctrlrange="-1 1"/><motor joint="neck" gear="1 0 0" ctrlrange="-1 1"/></actuator>
</mujoco>"""


class Height(Cost):
    """The first entry of the state, squared, and a little effort."""

    def terms(self, x, u):
        return {"height": x[..., 0].square(), "effort": 0.01 * u.square().sum(-1)}

    def terminal(self, x):
        return x[..., 0].square()


def simulator(scene, threads=1, **options) -> SimulatorModel:
    model = scene.load()
    return SimulatorModel(model, PhysicsSpace(model), scene.substeps, threads, **options)


def floating() -> tuple[mujoco.MjModel, SimulatorModel, np.ndarray]:
    """A model with a free joint, a ball and a hinge, and a state in which all of it turns."""
    model = mujoco.MjModel.from_xml_string(FLOATING)
    generator = np.random.default_rng(3)
    q = generator.normal(size=model.nq)
    mujoco.mj_normalizeQuat(model, q)
    return model, SimulatorModel(model, PhysicsSpace(model), 2, 1), np.concatenate([q, generator.normal(size=model.nv)])


def draws(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape)


@pytest.mark.parametrize("scene", [CARTPOLE, CHEETAH, REACHER], ids=lambda scene: scene.name)
def test_a_rollout_is_what_the_machine_does_bit_for_bit(scene):
    model, actions = simulator(scene), draws(1, 20, scene.load().nu)
    with MujocoRobot(scene) as robot:
        observation = robot.reset(3)
        predicted = model.rollouts(model.state_space.state(observation), actions)[0, 0].copy()
        for t, u in enumerate(actions[0]):
            robot.send(Command(robot.spec.command().mode, u))
            observation = robot.tick()
            assert np.array_equal(model.state_space.state(observation), predicted[t])


def test_results_do_not_depend_on_threads_nor_on_what_came_before():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    x0, actions = np.concatenate([CHEETAH.load().qpos0, np.zeros(9)]), draws(7, 10, 6)
    one, two = simulator(CHEETAH, 1), simulator(CHEETAH, 2)
    first = one.rollouts(x0, actions).copy()
    two.rollouts(x0 + 0.1, actions[::-1].copy())
    assert np.array_equal(first, two.rollouts(x0, actions))
    assert np.array_equal(first, one.rollouts(x0, actions))
    assert np.array_equal(first[:, 2:3], one.rollouts(x0, actions[2:3]))


@pytest.mark.parametrize("case", ["cheetah", "floating"])
def test_derivatives_are_those_of_mujoco_over_the_steps_of_a_period(case):
    if case == "floating":
        machine, model, x = floating()
    else:
        machine = CHEETAH.load()
        model, x = SimulatorModel(machine, PhysicsSpace(machine), 2, 1), np.concatenate([0.3 * draws(9) + np.eye(9)[1], draws(9, seed=1)])
    u, data = 0.3 * np.ones(machine.nu), mujoco.MjData(machine)
    data.qpos[:], data.qvel[:], data.ctrl[:] = x[:machine.nq], x[machine.nq:], u
    n = 2 * machine.nv
    a, b = np.eye(n), np.zeros((n, machine.nu))
    for _ in range(2):
        step_a, step_b = np.zeros((n, n)), np.zeros((n, machine.nu))
        mujoco.mjd_transitionFD(machine, data, 1e-6, True, step_a, step_b, None, None)
        mujoco.mj_step(machine, data)
        a, b = step_a @ a, step_a @ b + step_b
    found_a, found_b = model.linearize(x[None], u[None])
    assert np.allclose(found_a[0], a, atol=1e-4) and np.allclose(found_b[0], b, atol=1e-4)


def test_a_command_at_its_limit_is_stepped_down():
    model, x = simulator(CARTPOLE), np.array([[0.1, 0.7, -0.3, 2.0]] * 2)
    limit = CARTPOLE.load().actuator_ctrlrange[0, 1]
    _, b = model.linearize(x, np.array([[limit], [limit - 1e-4]]))
    assert np.allclose(b[0], b[1], rtol=1e-3, atol=1e-8) and np.abs(b[0]).max() > 0.01


def test_gradients_are_the_finite_differences_also_on_rotations():
    _, model, x0 = floating()
    x, u = torch.from_numpy(np.stack([x0, x0])).requires_grad_(), torch.full((2,), 0.2, dtype=torch.float64, requires_grad=True)
    space = model.state_space
    goal = torch.from_numpy(np.concatenate([x0[:3] + 0.1, x0[3:]]))
    space.difference(goal, model.step(x, u)).square().sum().backward()
    a, b = (torch.from_numpy(found) for found in model.linearize(x.detach().numpy(), u.detach().expand(2, 2).numpy()))
    slope = 2 * space.difference(goal, model.step(x.detach(), u.detach()))
    assert torch.allclose(u.grad, torch.einsum("nij,ni->j", b, slope), atol=1e-3)
    dx = 1e-5 * torch.from_numpy(draws(space.ndx))
    with torch.no_grad():
        moved = space.integrate(x, dx)
        change = (x.grad * (moved - x)).sum(-1)
        assert torch.allclose(change, (slope * (a @ dx)).sum(-1), rtol=1e-3, atol=1e-9)


def test_closed_loops_are_rolled_out_side_by_side():
    _, model, x0 = floating()
    actions, horizon = 0.3 * draws(5, 2), 5
    nominal = np.concatenate([x0[None], model.rollouts(x0, actions[None])[0, 0]])
    feedforward, gains = draws(horizon, 2, seed=1), 0.2 * draws(horizon, 2, model.state_space.ndx, seed=2)
    low, high, steps = np.full(2, -0.5), np.full(2, 0.5), np.array([0.0, 0.5, 1.0])
    states, commands = model.roll_out_feedback(x0, nominal, actions, steps, feedforward, gains, low, high)
    assert np.allclose(states[0], nominal, atol=1e-12) and np.allclose(commands[0], actions, atol=1e-12)
    x = torch.from_numpy(x0)
    for t in range(horizon):
        deviation = model.state_space.difference(torch.from_numpy(nominal[t]), x).numpy()
        u = np.clip(actions[t] + 0.5 * feedforward[t] + gains[t] @ deviation, low, high)
        assert np.allclose(commands[1, t], u, atol=1e-12)
        x = model.step(x, torch.from_numpy(u))
        assert np.allclose(states[1, t + 1], x, atol=1e-9)
    assert np.abs(commands).max() <= 0.5


def test_what_diverges_is_not_a_number_from_then_on_and_costs_everything():
    model = simulator(CARTPOLE)
    x0 = np.array([0.0, 0.0, 0.0, 0.0])
    wild = np.array([0.0, 0.0, 1e12, 0.0])
    assert np.isnan(model.rollouts(wild, np.zeros((2, 5, 1)))).all()
    assert np.isfinite(model.rollouts(x0, np.zeros((2, 5, 1)))).all()
    costs = SimulatorEvaluator(model, Height()).costs(torch.from_numpy(wild), torch.zeros(2, 5, 1))
    assert torch.isinf(costs).all()


def test_other_masses_are_particles_of_their_own_and_risk_looks_at_them():
    machine = CARTPOLE.load()
    heavy = copy.copy(machine)
    heavy.body_mass[:] *= 3.0
    both, light = simulator(CARTPOLE, variants=(machine, heavy)), simulator(CARTPOLE)
    x0, actions = np.array([0.0, 0.5, 0.0, 0.0]), draws(4, 8, 1)
    states = both.rollouts(x0, actions)
    assert states.shape == (2, 4, 8, 4) and np.array_equal(states[0], light.rollouts(x0, actions)[0])
    start, plans = torch.from_numpy(x0), torch.from_numpy(actions)
    costs = {risk: SimulatorEvaluator(both, Height(), risk).costs(start, plans) for risk in ("mean", "worst")}
    alone = SimulatorEvaluator(light, Height()).costs(start, plans)
    assert (costs["worst"] >= costs["mean"]).all() and (costs["worst"] >= alone - 1e-12).all() and not torch.allclose(costs["mean"], alone)


def test_variants_of_another_layout_are_refused_before_mujocos_threads_meet_them():
    with pytest.raises(ConfigurationError, match="variants"):
        simulator(CARTPOLE, variants=(CARTPOLE.load(), CHEETAH.load()))


def test_what_diverged_costs_everything_though_the_cost_looks_at_nothing_that_is_not_a_number():
    class Blind(Height):
        pure = True

        def terms(self, x, u):
            return {"near": torch.where(x[..., 0].abs() < 1.0, -1.0, 0.0), "effort": u.square().sum(-1)}

        def terminal(self, x):
            return torch.where(x[..., 0].abs() < 1.0, -1.0, 0.0)

    class BlindInTorch(Blind):
        pure = False

    model, wild = simulator(CARTPOLE), torch.tensor([0.0, 0.0, 1e12, 0.0], dtype=torch.float64)
    for cost in (Blind(), BlindInTorch()):
        evaluator = SimulatorEvaluator(model, cost)
        assert (evaluator._compiled is not None) == cost.pure
        assert torch.isinf(evaluator.costs(wild, torch.zeros(2, 5, 1))).all()
        assert evaluator.costs(torch.zeros(4), torch.zeros(2, 5, 1)).tolist() == [-6.0, -6.0]


def test_a_planning_copy_says_how_it_differs():
    machine = CARTPOLE.load()
    model, substeps, differences = PlanningCopy(1, "implicitfast", softened=True).of(machine, 0.04)
    assert substeps == 1 and model.opt.timestep == pytest.approx(0.04) and machine.opt.timestep == pytest.approx(0.02)
    assert len(differences) == 3 and "40 ms instead of 20 ms" in differences[0]
    assert PlanningCopy().of(machine, 0.04)[1:] == (2, ())
    with pytest.raises(ConfigurationError, match="whole number"):
        PlanningCopy().of(machine, 0.05)


def test_without_warm_starts_the_motion_is_the_same_to_the_solvers_tolerance_and_derivatives_keep_them():
    machine, actions = CHEETAH.load(), draws(3, 15, 6)
    x0 = np.concatenate([machine.qpos0, np.zeros(9)])
    planned, substeps, differences = PlanningCopy(cold_starts=True).of(machine, CHEETAH.substeps * machine.opt.timestep)
    assert "warm starts" in differences[0] and machine.opt.disableflags == CHEETAH.load().opt.disableflags
    warm, cold = simulator(CHEETAH), SimulatorModel(planned, PhysicsSpace(planned), substeps, 1)
    states, same = warm.rollouts(x0, actions).copy(), cold.rollouts(x0, actions)
    assert not np.array_equal(states, same) and np.allclose(states, same, rtol=1e-6, atol=1e-6)
    x = states[0, 0, 5:10].copy()
    for found, expected in zip(cold.linearize(x, actions[0, :5]), warm.linearize(x, actions[0, :5]), strict=True):
        assert np.array_equal(found, expected)


def test_bad_input_is_refused_in_words():
    model = simulator(CARTPOLE)
    with pytest.raises(ShapeError, match="states of 4"):
        model.step(torch.zeros(3, 5), torch.zeros(3, 1))
    for x0, actions in ((np.zeros((1, 4)), np.zeros((5, 3, 1))), (np.zeros(4), np.zeros((0, 3, 1))), (np.zeros(4), np.zeros((5, 0, 1))),
                        (np.zeros(3), np.zeros((5, 3, 1))), (np.zeros(4), np.zeros((5, 3)))):
        with pytest.raises(ShapeError, match="SimulatorModel: expected"):
            model.rollouts(x0, actions)
    other = compiled_cost(ReacherCost(), REACHER_SPACE, 7)
    with pytest.raises(ShapeError, match="a cost of states and commands of 4 and 1 entries, got one of 17 and 7"):
        model.charged(np.zeros(4), np.zeros((5, 3, 1)), other)
    with pytest.raises(ShapeError, match=r"linearize: expected states and commands"):
        model.linearize(np.zeros((3, 4)), np.zeros((1, 1)))
    drowsy = CARTPOLE.load()
    drowsy.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    with pytest.raises(ConfigurationError, match="fall asleep"):
        SimulatorModel(drowsy, PhysicsSpace(drowsy), 1)
    with pytest.raises(UnknownNameError, match="tip"):
        PhysicsSpace(CARTPOLE.load(), readings=(Reading("where", "site_xpos", "tap", (0,)),))
    with pytest.raises(UnknownNameError, match="cartpole"):
        make_problem("dmc:fish-swim", None)


@pytest.mark.parametrize("name", sorted(PLANNING_TASKS))
def test_what_a_plan_pays_is_what_the_task_pays(name):
    """With the readings of the new state, as the machine's own reward has them."""
    task = make_task(name)
    with task.robot() as robot:
        observation, command = robot.reset(1), robot.spec.command()
        problem = make_problem(name, robot, 1, PlanningCopy())
        space, low, high = problem.model.state_space, command.minimum, command.maximum
        assert problem.horizon >= 5
        for u in draws(6, command.nu, seed=4):
            x = torch.from_numpy(space.state(observation))
            robot.send(Command(command.mode, low + (high - low) * (u + 1.0) / 2.0))
            observation = robot.tick()
            applied = torch.from_numpy(low + (high - low) * (u + 1.0) / 2.0)
            after = torch.from_numpy(space.state(observation))
            predicted = problem.model.step(x, applied)
            assert (predicted - after)[: space.physics].abs().max() < 1e-2, "the model is not the machine"
            if isinstance(problem.cost, RewardCost):
                assert float(problem.cost.reward(after, applied)) <= 1.0 + 1e-9
                assert float(problem.cost.paid(after, applied)) == pytest.approx(float(observation.extra["reward"][0]), abs=1e-6)
            elif name != "half-cheetah":  # it pays the mean velocity over the period, the plan that at its end
                own = torch.from_numpy(task.state_space.state(observation))
                assert float(problem.cost.running(after, applied)) == pytest.approx(float(task.cost.running(own, applied)))


def test_a_search_for_islands_that_changes_no_bit_is_left_out():
    apart = mujoco.MjModel.from_xml_string("""
        <mujoco><worldbody>
          <body pos="0 0 1"><freejoint/><geom size="0.1"/></body>
          <body pos="0 0 2"><joint name="hinge"/><geom size="0.1" pos="0.2 0 0"/></body>
        </worldbody><actuator><motor joint="hinge"/></actuator></mujoco>""")
    flag = int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    assert simulator(CHEETAH)._model.opt.disableflags & flag  # the first test above: bit for bit
    assert not SimulatorModel(apart, PhysicsSpace(apart), 1, 1)._model.opt.disableflags & flag
    assert not apart.opt.disableflags & flag and not CHEETAH.load().opt.disableflags & flag


def test_a_search_for_contacts_where_nothing_can_touch_is_left_out():
    def touching(kinds: str, pair: str = "") -> bool:
        """Whether contacts are looked for between a ball that falls and the floor."""
        machine = mujoco.MjModel.from_xml_string(f"""
            <mujoco><worldbody>
              <geom name="floor" type="plane" size="1 1 1" {kinds}/>
              <body pos="0 0 0.2"><joint name="fall" type="slide" axis="0 0 1"/><geom name="ball" size="0.1" {kinds}/></body>
            </worldbody><contact>{pair}</contact><actuator><motor joint="fall"/></actuator></mujoco>""")
        model = SimulatorModel(machine, PhysicsSpace(machine), 1, 1)
        searched = not model._model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        fell = float(model.rollouts(np.zeros(2), np.zeros((1, 300, 1)))[0, 0, -1, 0])
        assert (fell > -0.2) == searched, "where contacts are looked for, the floor holds the ball"
        return searched

    assert touching("") and touching('contype="1" conaffinity="3"')
    assert not touching('contype="1" conaffinity="2"') and not touching('contype="0" conaffinity="0"')
    assert touching('contype="0" conaffinity="0"', '<pair geom1="floor" geom2="ball"/>')
    assert simulator(CHEETAH)._model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CONTACT) == 0


def test_variants_keep_their_rollouts_whatever_was_asked_for_before():
    machine = CARTPOLE.load()
    heavy = copy.copy(machine)
    heavy.body_mass[:] *= 3.0
    both, alone = simulator(CARTPOLE, variants=(machine, heavy)), simulator(CARTPOLE, variants=(heavy,))
    x0 = np.array([0.0, 0.5, 0.0, 0.0])
    for plans in (2, 5, 3, 5):
        actions = draws(plans, 8, 1, seed=plans)
        light, heavier = both.rollouts(x0, actions).copy()
        assert np.array_equal(light, simulator(CARTPOLE).rollouts(x0, actions)[0])
        assert np.array_equal(heavier, alone.rollouts(x0, actions)[0]) and not np.array_equal(light, heavier)
        one = np.stack([x0, x0 + 0.1])
        assert np.array_equal(both.step(torch.from_numpy(one), torch.from_numpy(actions[:2, 0])).numpy()[0], light[0, 0])
