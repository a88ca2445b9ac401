"""Our own tasks are the published ones: their costs, their starts, their physics."""

import itertools

import mujoco
import numpy as np
import pytest
import torch

from planners.cost import Cost
from robots.command import Command
from robots.errors import ConfigurationError, NumericalError, ShapeError, UnknownNameError, UserError
from robots.robot import Robot
from sim.mujoco_robot import MujocoRobot, MujocoScene, Start
from sim.task import CameraRequest
from sim.tasks import OWN_TASKS
from sim.tasks.cartpole import CartpoleCost
from sim.tasks.half_cheetah import HalfCheetahCost
from sim.tasks.pendulum import PendulumCost
from sim.tasks.pusher import SCENE as PUSHER
from sim.tasks.pusher import PusherCost, pusher_tip
from sim.tasks.reacher import ReacherCost, tip_position

EVERY_TASK = pytest.mark.parametrize("name", OWN_TASKS)


def live(robot: Robot, seed: int, steps: int) -> list:
    """Return the observations of an episode under random commands drawn with `seed`."""
    generator, command = np.random.default_rng(seed), robot.spec.command()
    seen = [robot.reset(seed)]
    for _ in range(steps):
        robot.send(Command(command.mode, generator.uniform(command.minimum, command.maximum)))
        seen.append(robot.tick())
    return seen


def flat(observation) -> bytes:
    parts = [observation.q, observation.dq, observation.tau, observation.ee_pose, *observation.extra.values()]
    return observation.stamp_ns.to_bytes(8, "little") + b"".join(part.tobytes() for part in parts)


@EVERY_TASK
def test_the_same_seed_gives_the_same_episode_bit_for_bit(name):
    with OWN_TASKS[name]().robot() as robot, OWN_TASKS[name]().robot() as another:
        assert isinstance(robot, Robot)
        first = [flat(o) for o in live(robot, 3, 30)]
        assert first == [flat(o) for o in live(robot, 3, 30)]
        assert first == [flat(o) for o in live(another, 3, 30)]
        assert first[0] != flat(robot.reset(4))


@EVERY_TASK
def test_time_counts_control_periods_and_states_are_complete(name):
    task = OWN_TASKS[name]()
    with task.robot() as robot:
        seen = live(robot, 0, 20)
        period = robot.spec.control_dt * 1e9
        assert [o.stamp_ns for o in seen] == [round(i * period) for i in range(21)]
        assert len(robot.spec.joint_names) == robot.spec.nv == len(seen[0].dq)
        x = task.state_space.state(seen[-1])
        assert x.shape == (task.state_space.nx,) == (len(task.state_space.names),)
        assert task.cost.running(torch.tensor(x), torch.zeros(robot.spec.command().nu)).shape == ()


@EVERY_TASK
def test_commands_are_clipped_to_the_actuators(name):
    with OWN_TASKS[name]().robot() as robot:
        robot.reset(0)
        command = robot.spec.command()
        assert np.array_equal(robot.send(Command(command.mode, command.maximum * 10)).values, command.maximum)
        with pytest.raises(ShapeError):
            robot.send(Command(command.mode, np.zeros(command.nu + 1)))
        assert np.isfinite(robot.spec.limits.torque_max).sum() == command.nu


def random_inputs(name: str, dtype: torch.dtype) -> tuple[Cost, torch.Tensor, torch.Tensor]:
    task, generator = OWN_TASKS[name](), torch.Generator().manual_seed(0)
    nu = {"pendulum": 1, "cartpole": 1, "reacher7": 7, "pusher7": 7, "half-cheetah": 6}[name]
    x = torch.randn(4, 3, task.state_space.nx, generator=generator, dtype=torch.float64)
    return task.cost, x.to(dtype), torch.randn(3, nu, generator=generator, dtype=torch.float64).to(dtype)


@EVERY_TASK
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_costs_keep_dtype_and_batch_and_add_up(name, dtype):
    cost, x, u = random_inputs(name, dtype)
    running, terminal, terms = cost.running(x, u), cost.terminal(x), cost.terms(x, u)
    assert running.dtype == terminal.dtype == cost.transition(x, u, x).dtype == dtype
    assert running.shape == terminal.shape == (4, 3)
    torch.testing.assert_close(sum(terms.values()), running)
    torch.testing.assert_close(cost.running(x, 0 * u), terminal)  # the terminal cost is the state's share
    assert len(terms) >= 2


@EVERY_TASK
def test_gradients_of_costs_are_finite_differences(name):
    cost, x, u = random_inputs(name, torch.float64)
    # central differences at 1e-6 of smooth functions: errors near 1e-9; random states stay away from the kinks of |.| and of wrapping
    assert torch.autograd.gradcheck(cost.running, (x.requires_grad_(), u.requires_grad_()), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradcheck(cost.terminal, (x,), eps=1e-6, atol=1e-7)


def test_a_cartpole_at_rest_pays_what_pets_charges():
    x = torch.zeros(4, dtype=torch.float64)
    assert CartpoleCost().terminal(x).item() == pytest.approx(-np.exp(-(1.2 / 0.6) ** 2), abs=1e-15)
    assert CartpoleCost().running(x, 3 * torch.ones(1, dtype=torch.float64)).item() == pytest.approx(-np.exp(-4) + 0.09, abs=1e-15)
    up = torch.tensor([0, np.pi, 0, 0])
    assert CartpoleCost().terminal(up).item() == pytest.approx(-1, abs=1e-15)


def test_costs_agree_with_where_the_engine_puts_the_tip():
    for name, goal_of in (("cartpole", lambda o: np.array([0, 0, 0.6])), ("reacher7", lambda o: o.extra["goal"])):
        task = OWN_TASKS[name]()
        with task.robot() as robot:
            for observation in live(robot, 1, 25):
                distance = np.sum((observation.ee_pose[:3] - goal_of(observation)) ** 2)
                expected = -np.exp(-distance / 0.36) if name == "cartpole" else distance
                got = task.cost.terminal(torch.tensor(task.state_space.state(observation)))
                assert got.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "tip"), [("reacher7", tip_position), ("pusher7", pusher_tip)])
def test_the_arms_tips_are_mujocos(name, tip):
    model = OWN_TASKS[name]().robot().model
    data, generator = mujoco.MjData(model), np.random.default_rng(0)
    q = generator.uniform(-np.pi, np.pi, (200, 7))
    expected = []
    for row in q:
        data.qpos[:7] = row
        mujoco.mj_kinematics(model, data)
        expected.append(data.site("tip").xpos.copy())
    np.testing.assert_allclose(tip(torch.tensor(q)).numpy(), expected, atol=1e-13)


def test_the_reacher_draws_a_goal_each_episode_and_keeps_it():
    with OWN_TASKS["reacher7"]().robot() as robot:
        goals = np.array([robot.reset(seed).extra["goal"] for seed in range(400)])
        assert np.abs(goals.mean(0) - [0, 0.25, 0]).max() < 4 * 0.1 / 20  # four standard errors
        assert np.abs(goals.std(0) - 0.1).max() < 0.02
        assert len({tuple(o.extra["goal"]) for o in live(robot, 5, 10)}) == 1


def test_the_pusher_charges_the_state_that_was_left():
    x, after = torch.zeros(23, dtype=torch.float64), torch.full((23,), 9.0, dtype=torch.float64)
    x[14:17] = torch.nan  # what is said of the tip is not looked at
    x[17:20] = pusher_tip(x[:7]) + torch.tensor([-0.1, 0.2, 0.0], dtype=torch.float64)
    x[20:23] = x[17:20] + torch.tensor([0.0, 0.2, -0.3], dtype=torch.float64)
    u = torch.tensor([1.0, 0, 0, 0, 0, 0, 2.0], dtype=torch.float64)
    expected = 0.5 * 0.3 + 1.25 * 0.5 + 0.1 * 5
    assert PusherCost().transition(x, u, after).item() == pytest.approx(expected, abs=1e-12)


def test_the_pushers_object_starts_where_it_was_published():
    task = OWN_TASKS["pusher7"]()
    with task.robot() as robot:
        starts = np.array([robot.reset(seed).extra["object"] for seed in range(200)])
        assert np.abs(starts.mean(0) - [0.6, -0.3, -0.275]).max() < 4 * 0.025 / 14
        assert robot.reset(0).extra["goal"].tolist() == [0.45, -0.05, -0.323]
        np.testing.assert_allclose(robot.reset(0).ee_pose[:3], [0.921, -0.6, 0], atol=1e-12)  # 0.1 + 0.4 + 0.321 + 0.1
        still = robot.reset(0).extra["object"].copy()
        assert np.abs(robot.tick().extra["object"] - still).max() < 1e-9


def object_in_the_fork(model: mujoco.MjModel, generator: np.random.Generator) -> Start:
    """The arm reaches down to the table, the object between its prongs, and swings to the left."""
    q, dq, data = model.qpos0.copy(), np.zeros(model.nv), mujoco.MjData(model)
    q[1], dq[0] = 0.34, 3.0
    data.qpos[:] = q
    mujoco.mj_kinematics(model, data)
    tip = data.site("tip").xpos
    q[7:] = tip[1] + 0.05, tip[0] - 0.45
    return Start(q, dq)


def test_the_pushers_object_is_pushed_by_the_prongs():
    with MujocoRobot(MujocoScene("touch", PUSHER.path, PUSHER.substeps, "N·m", draw_start=object_in_the_fork)) as robot:
        before = robot.reset(0).q[7]
        for _ in range(10):
            after = robot.tick().q[7]
        assert after - before > 0.05  # towards +y, as the arm swings
        m = robot.model
        assert m.dof_M0[7] == pytest.approx(0.04) == 1 / m.dof_invweight0[7]  # contact is as stiff as the object is heavy


def test_the_cheetah_reports_the_mean_velocity_of_the_period():
    with OWN_TASKS["half-cheetah"]().robot() as robot:
        seen = live(robot, 2, 20)
        assert seen[0].extra["forward_velocity"][0] == 0
        for before, after in itertools.pairwise(seen):
            assert after.extra["forward_velocity"][0] == pytest.approx((after.q[0] - before.q[0]) / 0.05, abs=1e-12)
        assert robot.model.body_mass.sum() == pytest.approx(14, abs=1e-12)
    x = torch.tensor([2.0] + [0.0] * 17)
    assert HalfCheetahCost().running(x, torch.ones(6)).item() == pytest.approx(-1.4)


def test_the_pendulum_keeps_its_energy_and_cannot_be_lifted_at_once():
    with OWN_TASKS["pendulum"]().robot() as robot:
        def energy(o):  # of a rod of 1 kg and 1 m, zero at the hinge
            return o.dq[0] ** 2 / 6 + 9.81 * 0.5 * np.cos(o.q[0])
        first = robot.reset(0)
        # RK4 at 10 ms: the energy drifts by (omega dt)^5, near 1e-7 of itself over 200 steps
        assert max(abs(energy(robot.tick()) - energy(first)) for _ in range(200)) < 1e-5
        robot.reset(0)
        robot.send(Command("actuator", [2.0]))
        assert max(np.cos(robot.tick().q[0]) for _ in range(200)) < 0
    assert PendulumCost().terminal(torch.tensor([2 * np.pi, 1.0])).item() == pytest.approx(0.1)
    assert PendulumCost().running(torch.tensor([np.pi - 1e-9, 0.0]), torch.tensor([2.0])).item() == pytest.approx(np.pi**2 + 0.004)


def test_a_held_command_repeats_and_observations_share_no_memory():
    with OWN_TASKS["cartpole"]().robot() as robot:
        first = robot.reset(0)
        kept = first.q.copy()
        robot.send(Command("actuator", [1.0]))
        assert robot.tick().tau.tolist() == robot.tick().tau.tolist() == [100.0, 0.0]
        assert np.array_equal(first.q, kept)


def test_robots_refuse_to_be_used_before_reset_and_after_close():
    robot = OWN_TASKS["cartpole"]().robot()
    for use in (robot.tick, lambda: robot.send(Command("actuator", [0.0])), lambda: robot.render(8, 8)):
        with pytest.raises(UserError, match="call reset"):
            use()
    with pytest.raises(ConfigurationError, match="seed"):
        robot.reset(-1)
    robot.reset(0)
    robot.close()
    robot.close()
    for use in (robot.tick, lambda: robot.reset(0)):
        with pytest.raises(UserError, match="closed"):
            use()
    with pytest.raises(UnknownNameError, match="front"):
        OWN_TASKS["cartpole"]().robot(CameraRequest(("frnt",)))


UNSTABLE = """
<mujoco><option timestep="0.1" integrator="Euler"/>
  <worldbody><body><joint name="slide" type="slide" stiffness="1e9"/><geom size="0.1"/></body></worldbody>
  <actuator><motor name="push" joint="slide" ctrlrange="-1 1"/></actuator></mujoco>
"""


def test_diverged_physics_raise_until_the_next_reset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where it stands
    (tmp_path / "unstable.xml").write_text(UNSTABLE)
    scene = MujocoScene("unstable", tmp_path / "unstable.xml", 10, "N", draw_start=lambda model, generator: Start([0.1], [0.0]))
    with MujocoRobot(scene) as robot:
        robot.reset(0)
        with pytest.raises(NumericalError, match="'unstable': the physics diverged"):
            for _ in range(50):
                robot.tick()
        with pytest.raises(UserError, match="call reset"):
            robot.tick()
        assert robot.reset(0).q[0] == 0.1


def test_a_scene_without_control_ranges_is_refused(tmp_path):
    (tmp_path / "free.xml").write_text(UNSTABLE.replace(' ctrlrange="-1 1"', ""))
    with pytest.raises(ConfigurationError, match=r"push.*ctrlrange"):
        MujocoRobot(MujocoScene("free", tmp_path / "free.xml", 1, "N"))
    with pytest.raises(UnknownNameError, match="end-effector site"):
        (tmp_path / "fine.xml").write_text(UNSTABLE)
        MujocoRobot(MujocoScene("fine", tmp_path / "fine.xml", 1, "N", end_effector="tip"))


def test_the_reachers_cost_is_charged_at_the_arms_end():
    x = torch.zeros(17, dtype=torch.float64)
    x[7:10] = tip_position(x[:7]) + torch.tensor([0.3, 0, -0.4], dtype=torch.float64)
    assert ReacherCost().running(x, torch.full((7,), 2.0)).item() == pytest.approx(0.25 + 0.28)
