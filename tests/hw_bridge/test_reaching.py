"""Reaching: goals that the arm can reach, and a network that sees at the arm what it was taught to see in imagination."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from hw_bridge.bridge import policy_spec
from hw_bridge.reaching import (
    MissingWay,
    ReachingConfig,
    ReachingCost,
    ReachingRobot,
    draw_goals,
    reaching_state_space,
    reflex_state_space,
)
from robots.arms.arm import Arm
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.panda import panda
from robots.arms.so101 import so101
from robots.arms.ur5e import ur5e
from robots.command import Command, CommandMode
from robots.observation import Observation

ARMS = [ur5e(), so101(), panda(), dynamixel_arm()]
CONFIG = ReachingConfig()
each_arm = pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.spec.name)


class StillBridge:
    """In a bridge's place: an arm that stands at random poses, at random speeds, and takes everything."""

    def __init__(self, arm: Arm, spread: float = 0.4) -> None:
        """`spread`: how far from its home every joint may stand [rad]."""
        self.client, self.spec = SimpleNamespace(arm=arm), policy_spec(arm, CommandMode.JOINT_POSITION, CONFIG.period)
        self.arm, self.spread, self.random, self.sent, self.shares = arm, spread, np.random.default_rng(0), [], []

    def reset(self, seed: int) -> Observation:
        return self.tick()

    def send(self, command: Command) -> Command:
        self.sent.append(command)
        return command

    def post(self, command: Command) -> None:
        self.sent.append(command)

    def throttle(self, share: float) -> None:
        self.shares.append(share)

    def newest(self, after: int) -> tuple[int, Observation]:
        return after + 3, self.tick()

    def tick(self) -> Observation:
        q = self.arm.home + self.random.uniform(-self.spread, self.spread, self.arm.spec.nv)
        dq, reference, rate = self.random.normal(size=(3, self.arm.spec.nv))
        return Observation(0, q, dq, np.zeros(self.arm.spec.nv), self.arm.kinematics().forward(q),
                           extra={"reference": reference, "reference_rate": rate})


def states(arm: Arm, count: int = 50) -> torch.Tensor:
    """(count, nx) random states, joints anywhere within their limits (of those that turn on and on: within 2 pi)."""
    nv, generator = arm.spec.nv, np.random.default_rng(1)
    limits = np.clip([arm.spec.limits.position_min, arm.spec.limits.position_max], -2 * np.pi, 2 * np.pi)
    x = generator.normal(size=(count, reaching_state_space(arm).nx))
    x[:, :nv] = generator.uniform(*limits, (count, nv))
    return torch.from_numpy(x)


@each_arm
def test_the_missing_way_is_the_goal_minus_forward_kinematics(arm):
    nv, x, kinematics = arm.spec.nv, states(arm), arm.kinematics()
    seen = MissingWay(arm)(x)
    expected = np.array([row[nv : nv + 3] - kinematics.forward(row[:nv])[:3] for row in x.numpy()])
    np.testing.assert_allclose(seen[:, nv : nv + 3], expected, atol=1e-9)
    assert torch.equal(seen[:, :nv], x[:, :nv]) and torch.equal(seen[:, nv + 3 :], x[:, nv + 3 :])
    assert torch.equal(MissingWay(arm)(x.view(5, 10, -1)), seen.view(5, 10, -1))


def test_the_missing_way_has_the_jacobian_of_the_arm_with_its_sign_turned():
    arm, h = ARMS[0], 1e-6
    nv, way, x = arm.spec.nv, MissingWay(arm), states(arm, 1)[0]
    derivative = torch.autograd.functional.jacobian(way, x)
    for i in range(len(x)):
        step = torch.zeros_like(x)
        step[i] = h
        torch.testing.assert_close(derivative[:, i], (way(x + step) - way(x - step)) / (2 * h), atol=1e-7, rtol=0)
    assert derivative[nv : nv + 3, nv : nv + 3].tolist() == np.eye(3).tolist()


@each_arm
def test_a_network_sees_at_the_arm_what_it_saw_in_imagination(arm):
    robot = ReachingRobot(StillBridge(arm), CONFIG)
    seen = [robot.reset(5), robot.tick(), robot.newest(4)[1]]
    for observation in seen:
        x = torch.from_numpy(reaching_state_space(arm).state(observation))
        np.testing.assert_allclose(reflex_state_space(arm).state(observation), MissingWay(arm)(x), atol=1e-9)
    assert not np.allclose(seen[0].extra["miss"], seen[1].extra["miss"]) and np.array_equal(seen[0].extra["goal"], seen[2].extra["goal"])
    assert np.array_equal(seen[0].extra["goal"], draw_goals(arm, CONFIG, [5])[0])


def test_the_reflex_state_is_named_as_what_it_is():
    whole, reflex = reaching_state_space(ARMS[0]), reflex_state_space(ARMS[0])
    assert reflex.names[6:9] == ("miss_x", "miss_y", "miss_z") and whole.names[6:9] == ("goal_x", "goal_y", "goal_z")
    assert reflex.names[:6] + reflex.names[9:] == whole.names[:6] + whole.names[9:] and reflex.nx == whole.nx == 27


def test_a_posted_command_goes_where_a_sent_one_goes_and_no_further_than_the_room():
    arm = ARMS[0]
    bridge = StillBridge(arm)
    robot = ReachingRobot(bridge, CONFIG)
    offset = np.array([9.0, -9.0, 0.05, -0.05, 0.0, 0.0])
    targets = []
    for act in (robot.send, robot.post):
        bridge.random = np.random.default_rng(3)
        seen = robot.newest(0)[1]
        act(Command(CommandMode.ACTUATOR, offset))
        targets.append(bridge.sent[-1].values)
    assert np.array_equal(*targets) and bridge.sent[-1].mode is CommandMode.JOINT_POSITION
    np.testing.assert_allclose(targets[0], seen.q + np.clip(offset, -CONFIG.offset, CONFIG.offset), atol=1e-12)
    narrow = ReachingRobot(bridge, replace(CONFIG, room=0.1, goals=0.05, spread=0.05))
    for _ in range(20):
        narrow.tick()
        narrow.post(Command(CommandMode.ACTUATOR, offset))
        assert np.abs(bridge.sent[-1].values - arm.home).max() <= 0.1 + 1e-12
    robot.throttle(0.3)
    assert bridge.shares == [0.3]


def test_holding_keeps_what_the_arm_is_pulled_to_where_it_is():
    arm, bridge = ARMS[0], StillBridge(ARMS[0])
    robot = ReachingRobot(bridge, CONFIG)
    seen = robot.tick()
    sunk = replace(seen, extra=dict(seen.extra) | {"lag": 0.9 * CONFIG.offset * np.linspace(-1, 1, arm.spec.nv)})
    robot.post(robot.hold(sunk))
    np.testing.assert_allclose(bridge.sent[-1].values, sunk.q + sunk.extra["lag"], atol=1e-12)
    far = replace(seen, extra=dict(seen.extra) | {"lag": np.full(arm.spec.nv, 9.0)})
    assert (robot.hold(far).values == CONFIG.offset).all()


@each_arm
def test_the_room_is_charged_exactly_where_a_target_would_be_cut_to_it(arm):
    bridge, config = StillBridge(arm, 0.29), replace(CONFIG, room=0.3, goals=0.1, spread=0.1)
    robot, cost, cut = ReachingRobot(bridge, config), ReachingCost(arm, config), []
    for _ in range(60):
        seen, u = robot.tick(), bridge.random.uniform(-config.offset, config.offset, arm.spec.nv)
        robot.post(Command(CommandMode.ACTUATOR, u))
        beyond = seen.q + u - bridge.sent[-1].values
        x = torch.from_numpy(reaching_state_space(arm).state(seen))
        assert float(cost.terms(x, torch.from_numpy(u))["room"]) == pytest.approx(100.0 * np.square(beyond).sum(), abs=1e-12)
        cut.append(np.abs(beyond).max() > 1e-9)
    assert 0 < sum(cut) < 60


@each_arm
def test_goals_are_where_the_end_effector_can_be_within_their_room(arm):
    limits, kinematics = arm.spec.limits, arm.kinematics()
    low = np.maximum(arm.home - CONFIG.goals, limits.position_min)
    high = np.minimum(arm.home + CONFIG.goals, limits.position_max)
    goals = draw_goals(arm, CONFIG, range(8))
    for goal in goals:
        found = least_squares(lambda q, goal=goal: kinematics.forward(q)[:3] - goal, np.clip(arm.home, low + 1e-6, high - 1e-6),
                              bounds=(low, high), xtol=1e-12, ftol=1e-14)
        assert np.linalg.norm(found.fun) < 1e-3, "no pose within the room is there"
    assert np.linalg.norm(goals - kinematics.forward(arm.home)[:3], axis=1).max() > 0.05, "and they are not all where it stands"


def test_a_goal_is_its_seeds_alone():
    goals = draw_goals(ARMS[0], CONFIG, [3, 1_000_000, 7])
    assert np.array_equal(goals, draw_goals(ur5e(), CONFIG, [3, 1_000_000, 7]))
    assert np.array_equal(goals[1], draw_goals(ARMS[0], CONFIG, [1_000_000])[0])
    assert len(np.unique(draw_goals(ARMS[0], CONFIG, range(30)).round(6), axis=0)) == 30
