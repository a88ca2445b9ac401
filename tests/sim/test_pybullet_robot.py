"""PyBullet's arms: gravity compensation, limits, poses, reachable goals and a cost that rewards reaching them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from robots.command import Command, CommandMode
from robots.spec import TorqueConvention
from sim.pybullet_robot import PyBulletRobot, _silence
from sim.pybullet_tasks import ReachCost, make_pybullet_task


@pytest.fixture(scope="module", params=["panda", "kuka"])
def arm(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def robot(arm: str) -> Iterator[PyBulletRobot]:
    with make_pybullet_task(f"bullet:{arm}-reach").robot() as robot:
        yield robot


def inverse_kinematics(robot: PyBulletRobot, goal: np.ndarray) -> np.ndarray:
    positions = robot._bullet.calculateInverseKinematics(robot._body, robot._arm.tip_link, goal.tolist(), maxNumIterations=500,
                                                         residualThreshold=1e-6, physicsClientId=robot._client)
    return np.array(positions[:robot.spec.nv])


def test_the_name_says_the_default_mode(arm: str) -> None:
    for name, mode in ((f"bullet:{arm}-reach", CommandMode.JOINT_TORQUE), (f"bullet:{arm}-reach-position", CommandMode.JOINT_POSITION)):
        with make_pybullet_task(name).robot() as robot:
            assert robot.spec.command().mode is mode
            assert {command.mode for command in robot.spec.commands} == {CommandMode.JOINT_TORQUE, CommandMode.JOINT_POSITION}


def test_without_a_torque_the_arm_floats(robot: PyBulletRobot) -> None:
    assert robot.spec.torque_convention is TorqueConvention.GRAVITY_COMPENSATED
    start = robot.reset(0)
    for _ in range(20):
        end = robot.tick()
    np.testing.assert_allclose(end.q, start.q, atol=1e-6)
    assert np.abs(end.tau).max() > 1.0  # the drives do carry the arm


def test_torque_accelerates_as_the_mass_matrix_says(robot: PyBulletRobot) -> None:
    """M ddq = tau at rest: over one short period dq is M^-1 tau t, up to friction, which a light wrist makes 20 %."""
    start = robot.reset(0)
    torque = 0.02 * robot.spec.command(CommandMode.JOINT_TORQUE).maximum * np.array([1, 1, 1, 1, 0, 0, 0])
    fingers = [0.02] * len(robot._arm.finger_joints)
    mass = np.array(robot._bullet.calculateMassMatrix(robot._body, [*start.q, *fingers], physicsClientId=robot._client))[:7, :7]
    robot.send(Command(CommandMode.JOINT_TORQUE, torque))
    expected = np.linalg.solve(mass, torque) * robot.spec.control_dt
    heavy = slice(0, 4)  # the wrist is so light that its friction counts within one period
    np.testing.assert_allclose(robot.tick().dq[heavy], expected[heavy], rtol=0.2, atol=0.02 * np.abs(expected).max())


def test_joint_stops_are_those_of_the_spec(robot: PyBulletRobot) -> None:
    spec = robot.spec.command(CommandMode.JOINT_TORQUE)
    for side in (spec.minimum, spec.maximum):
        robot.reset(0)
        robot.send(Command(spec.mode, side))
        for _ in range(60):
            observation = robot.tick()
            assert (observation.q < robot.spec.limits.position_max + 0.01).all()
            assert (observation.q > robot.spec.limits.position_min - 0.01).all()


def test_a_position_is_reached_and_held(robot: PyBulletRobot) -> None:
    start = robot.reset(0)
    target = start.q + 0.2
    robot.send(Command(CommandMode.JOINT_POSITION, target))
    for _ in range(30):
        observation = robot.tick()
        assert (np.abs(observation.tau) <= robot.spec.limits.torque_max + 1e-6).all()
    np.testing.assert_allclose(observation.q, target, atol=1e-3)


def test_modes_can_be_changed_between_periods(robot: PyBulletRobot) -> None:
    start = robot.reset(0)
    robot.send(Command(CommandMode.JOINT_POSITION, start.q))
    robot.tick()
    robot.send(Command(CommandMode.JOINT_TORQUE, np.full(7, 0.5)))
    for _ in range(10):
        pushed = robot.tick()
    assert np.abs(pushed.q - start.q).max() > 0.01  # no position motor holds it any more


def test_the_pose_is_the_tip_with_a_quaternion_wxyz(robot: PyBulletRobot) -> None:
    observation = robot.reset(0)
    np.testing.assert_array_equal(observation.ee_pose[:3], observation.extra["tip"])
    _, _, _, _, position, (x, y, z, w), *_ = robot._bullet.getLinkState(robot._body, robot._arm.tip_link, physicsClientId=robot._client)
    np.testing.assert_allclose(observation.ee_pose, [*position, w, x, y, z], atol=1e-9)
    matrix = np.reshape(robot._bullet.getMatrixFromQuaternion((x, y, z, w)), (3, 3))
    w, v = observation.ee_pose[3], observation.ee_pose[4:]
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    np.testing.assert_allclose((w * w - v @ v) * np.eye(3) + 2 * np.outer(v, v) + 2 * w * cross, matrix, atol=1e-6)


def test_goals_are_drawn_anew_stay_put_and_are_within_reach(robot: PyBulletRobot) -> None:
    goals = []
    for seed in range(6):
        observation = robot.reset(seed)
        goals.append(observation.extra["goal"])
        for _ in range(3):  # the solution is refined from where the last one ended
            for joint, position in enumerate(inverse_kinematics(robot, goals[-1])):
                robot._bullet.resetJointState(robot._body, joint, position, physicsClientId=robot._client)
        tip = robot._reading().extra["tip"]
        assert np.linalg.norm(tip - goals[-1]) < 0.01
        np.testing.assert_array_equal(robot.tick().extra["goal"], goals[-1])
    assert len({goal.tobytes() for goal in goals}) == len(goals)


def test_going_to_the_goal_costs_far_less_than_staying(arm: str) -> None:
    task = make_pybullet_task(f"bullet:{arm}-reach-position")
    totals = {}
    with task.robot() as robot:
        for plan in ("stay", "go"):
            observation = robot.reset(1)
            target = inverse_kinematics(robot, observation.extra["goal"]) if plan == "go" else observation.q
            totals[plan] = 0.0
            for _ in range(task.episode_steps):
                x = torch.tensor(task.state_space.state(observation))
                applied = robot.send(Command(CommandMode.JOINT_POSITION, target))
                observation = robot.tick()
                x_next = torch.tensor(task.state_space.state(observation))
                totals[plan] += float(task.cost.transition(x, torch.tensor(applied.values), x_next))
    assert totals["go"] < 0.2 * totals["stay"]


@pytest.mark.parametrize("mode", [CommandMode.JOINT_TORQUE, CommandMode.JOINT_POSITION])
def test_cost_is_zero_at_rest_at_the_goal_and_its_gradient_is_right(robot: PyBulletRobot, mode: CommandMode) -> None:
    cost = ReachCost(robot._arm, mode)
    x = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64)
    rest = torch.cat([x[:7], torch.zeros(7, dtype=torch.float64), x[14:17], x[14:17]])
    still = torch.zeros(7, dtype=torch.float64) if mode is CommandMode.JOINT_TORQUE else x[:7]
    assert float(cost.running(rest, still)) == float(cost.terminal(rest)) == 0.0
    u = torch.linspace(0.5, -0.5, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(cost.running, (x.requires_grad_(), u.requires_grad_()))
    batch = cost.running(x.detach().float().expand(3, 1, 20), u.detach().float().expand(4, 7))
    assert batch.shape == (3, 4) and batch.dtype is torch.float32


def test_nothing_that_the_library_prints_reaches_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with _silence():
        os.write(1, b"chatter")
        os.write(2, b"chatter")
    print("own words")
    with make_pybullet_task("bullet:panda-reach").robot() as robot:
        robot.reset(0)
    output = capfd.readouterr()
    assert output.out == "own words\n" and not output.err
