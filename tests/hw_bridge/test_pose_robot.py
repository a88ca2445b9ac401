"""Poses of the end effector as commands: steps that keep the limits, come back to where they began, and are refused in words."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from hw_bridge.bridge import BridgeConfig, policy_spec
from hw_bridge.client import BridgeProcess
from hw_bridge.pose_robot import PoseRobot
from hw_bridge.pose_steps import PoseConfig, PoseRefused, PoseSteps
from hw_bridge.realtime.privileges import RealTimeConfig
from hw_bridge.robot import BridgeRobot
from hw_bridge.safety.config import SafetyConfig, Workspace
from hw_bridge.safety.geometry import Geometry
from hw_bridge.safety.rules import State
from hw_bridge.twins.twin import TwinProcess
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.panda import panda
from robots.arms.so101 import so101
from robots.arms.ur5e import ur5e
from robots.command import Command, CommandMode
from robots.errors import ConfigurationError, HardwareError, NonFiniteError, ShapeError, UnknownNameError
from robots.observation import Observation
from robots.robot import Robot

ARMS = (ur5e, panda, dynamixel_arm, so101)
WHOLE = (ur5e, panda, dynamixel_arm)
ADDRESS = "127.0.46.2"
PERIOD = 0.05
# A busy test machine is late now and then.
SAFETY = SafetyConfig(policy_period=PERIOD, observation_age_max=0.2, gap_max=0.2, clock_drift_max=0.5, action_age_max=0.5,
                      tracking_error_max=0.4)
POSE = CommandMode.END_EFFECTOR_POSE


def moved(pose: np.ndarray, axis: int, distance: float) -> np.ndarray:
    return pose + distance * np.eye(7)[axis]


@pytest.mark.parametrize("make_arm", WHOLE)
def test_a_pose_within_a_step_is_met_and_no_joint_goes_further_than_it_may(make_arm):
    arm, generator = make_arm(), np.random.default_rng(0)
    steps = PoseSteps(arm, SafetyConfig(speed=0.3))
    limits, stride = arm.spec.limits, 0.3 * PERIOD * arm.spec.limits.velocity_max
    for _ in range(20):
        last = arm.home + 0.3 * generator.uniform(-1, 1, arm.spec.nv)
        pose = steps.forward(last + 0.3 * stride * generator.uniform(-1, 1, arm.spec.nv))
        q = steps.step(pose, last)
        assert np.abs(steps.forward(q)[:3] - pose[:3]).max() < 1e-4 and abs(steps.forward(q)[3:] @ pose[3:]) > 1 - 1e-6
        assert (np.abs(q - last) <= stride).all() and (q > limits.position_min).all() and (q < limits.position_max).all()


@pytest.mark.parametrize("make_arm", ARMS)
def test_a_path_that_returns_brings_every_joint_back_and_a_pose_again_and_again_moves_nothing(make_arm):
    arm = make_arm()
    steps = PoseSteps(arm, SafetyConfig(speed=0.5))
    q = start = np.array(arm.home)
    origin = steps.forward(start)
    for axis in (0, 1, 2):
        for s in np.sin(np.linspace(0, np.pi, 31)):
            q = steps.step(moved(origin, axis, 0.03 * s), q)
    assert np.abs(q - start).max() < 1e-5
    there = steps.step(moved(origin, 0, 0.002), start)
    for _ in range(200):
        q = steps.step(moved(origin, 0, 0.002), there)
        assert np.abs(q - there).max() < 1e-7
        there = q


def test_an_arm_of_five_joints_keeps_the_place_and_gives_way_in_orientation():
    arm = so101()
    steps = PoseSteps(arm, SafetyConfig(speed=0.5))
    assert steps.idle == (5,)
    q, origin = np.array(arm.home), steps.forward(arm.home)
    for distance in np.linspace(0, 0.04, 21):
        q = steps.step(moved(origin, 1, distance), q)
        assert np.linalg.norm(steps.forward(q)[:3] - moved(origin, 1, distance)[:3]) < 1e-4
    assert abs(steps.forward(q)[3:] @ origin[3:]) < 1 - 1e-4, "it cannot but turn"
    assert q[5] == arm.home[5]
    with pytest.raises(PoseRefused, match="out of reach"):
        PoseSteps(arm, SafetyConfig(), PoseConfig(rotation_tolerance=0.01)).step(moved(origin, 1, 0.02), arm.home)


@pytest.mark.parametrize("make_arm", ARMS)
def test_what_a_step_does_not_allow_is_refused_with_what_it_does_allow(make_arm):
    arm = make_arm()
    steps = PoseSteps(arm, SafetyConfig(speed=0.25))
    origin = steps.forward(arm.home)
    far = moved(origin, 2, -0.15)
    with pytest.raises(PoseRefused, match="within a period of") as refused:
        steps.step(far, arm.home)
    possible = refused.value.possible
    assert 0.001 < np.linalg.norm(possible[:3] - origin[:3]) < 0.1
    assert np.linalg.norm(possible[:3] - far[:3]) < 0.15, "on the way"
    steps.step(possible, arm.home)
    with pytest.raises(PoseRefused, match="out of reach") as refused:
        steps.step(moved(origin, 0, 3.0), arm.home)
    steps.step(refused.value.possible, arm.home)
    exact = PoseSteps(arm, SafetyConfig(speed=0.25), PoseConfig(rotation_tolerance=1e-3))
    for joint in range(arm.spec.nv if arm.spec.nv <= 6 else 0):  # of seven joints others may share the turn
        turned = np.array(arm.home) + 1.5 * steps.stride * np.eye(arm.spec.nv)[joint]
        if joint not in steps.idle:
            with pytest.raises(PoseRefused, match=f"{arm.spec.joint_names[joint]}'s speed limit"):
                exact.step(exact.forward(turned), arm.home)
    slow = PoseSteps(arm, SafetyConfig(workspace=Workspace(tool_speed_max=0.02)))
    with pytest.raises(PoseRefused, match="the tool's speed limit") as refused:
        slow.step(moved(origin, 2, 0.002), arm.home)
    slow.step(refused.value.possible, arm.home)


def test_where_the_arm_would_leave_its_box_or_touch_itself_it_is_not_sent():
    arm = ur5e()
    origin = arm.kinematics().forward(arm.home)
    boxed = PoseSteps(arm, SafetyConfig(workspace=Workspace(maximum=(np.inf, np.inf, float(origin[2]) + 0.001))))
    with pytest.raises(PoseRefused, match="outside its box"):
        boxed.step(moved(origin, 2, 0.004), arm.home)
    generator = np.random.default_rng(0)
    geometry, limits = Geometry(arm, Workspace()), arm.spec.limits
    ends = (generator.uniform(limits.position_min, limits.position_max) for _ in range(100))
    end = next(q for q in ends if "clearance" in geometry.words(0.98 * q))
    way = [np.array(arm.home) + s * (end - arm.home) for s in np.linspace(0, 1, 200)]
    k = next(k for k, q in enumerate(way) if geometry.words(q))
    careful = PoseSteps(arm, SafetyConfig())
    careful.step(careful.forward(way[k - 1]), way[k - 2])
    with pytest.raises(PoseRefused, match="less than the clearance"):
        careful.step(careful.forward(way[k]), way[k - 1])


@pytest.mark.parametrize(("pose", "error"), [(np.zeros(7), ConfigurationError), (np.ones(7), ConfigurationError), (np.zeros(6), ShapeError),
                                             (np.full(7, np.nan), NonFiniteError)])
def test_what_is_no_pose_is_refused(pose, error):
    arm = ur5e()
    with pytest.raises(error, match="pose"):
        PoseSteps(arm, SafetyConfig()).step(pose, arm.home)


@pytest.mark.parametrize("change", [{"period": 0.0}, {"position_tolerance": -1.0}, {"rotation_tolerance": 0.0}, {"step_share": 1.5}])
def test_a_configuration_that_makes_no_sense_is_refused(change):
    with pytest.raises(ConfigurationError, match="PoseConfig"):
        PoseConfig(**change)


class Bridge:
    """Stands in for a BridgeRobot and its client: an arm that is never where it was told to be."""

    def __init__(self, arm, seed: int) -> None:
        self.arm, self.spec, self.client = arm, policy_spec(arm, CommandMode.JOINT_POSITION, PERIOD), self
        self._noise = np.random.default_rng(seed)
        self.sent: list[np.ndarray] = []
        self.reference, self.generation = np.array(arm.home), 1

    def state(self) -> SimpleNamespace:
        q = self.reference - 0.02 + 0.01 * self._noise.standard_normal(self.arm.spec.nv)
        return SimpleNamespace(q=q, reference=self.reference, generation=self.generation, state=State.ACTIVE)

    def reset(self, seed: int) -> Observation:
        return self.tick()

    def send(self, command: Command) -> Command:
        self.sent.append(command.values)
        self.reference = command.values
        return command

    def tick(self) -> Observation:
        q = self.state().q
        return Observation(0, q, 0 * q, 0 * q, self.arm.kinematics().forward(q), extra={"reference": self.reference})


def test_what_was_measured_never_comes_back_as_a_command():
    sent = []
    for seed in (0, 1):
        bridge = Bridge(ur5e(), seed)
        robot = PoseRobot(bridge, SafetyConfig(policy_period=PERIOD))
        robot.reset(0)
        origin = robot.command_now()
        for distance in 0.03 * np.sin(np.linspace(0, np.pi, 20)):
            robot.send(Command(POSE, moved(origin, 1, distance)))
            robot.tick()
        sent.append(np.array(bridge.sent))
    assert np.array_equal(sent[0], sent[1])
    assert np.abs(sent[0][-1] - ur5e().home).max() < 1e-6, "no drift"


def test_a_gripper_is_opened_by_the_eighth_entry_no_faster_than_its_limit():
    arm = so101()
    bridge = Bridge(arm, 0)
    robot = PoseRobot(bridge, SafetyConfig(policy_period=PERIOD, speed=0.5))
    spec = robot.spec.commands[0]
    assert spec.gripper and spec.nu == 8 and spec.names[-1] == "gripper"
    robot.reset(0)
    command = robot.command_now()
    assert 0.2 < command[7] < 0.4
    command[7] = 1.0
    for _ in range(40):
        taken = robot.send(Command(POSE, command))
    assert taken.values[7] == 1.0 and np.abs(taken.values[:7] - command[:7]).max() < 1e-3
    path = np.array([arm.home, *bridge.sent])
    assert path[-1, 5] == pytest.approx(arm.spec.limits.position_max[5] - 0.01)
    assert np.diff(path[:, 5]).max() <= 0.5 * PERIOD * arm.spec.limits.velocity_max[5]
    assert np.abs(np.diff(path[:, :5], axis=0)).max() < 1e-6


@pytest.fixture(scope="module")
def robot():
    pytest.importorskip("rtde_control")
    with (TwinProcess("ur5e", "--address", ADDRESS) as twin,
          BridgeProcess(BridgeConfig("ur5e", ADDRESS, safety=SAFETY, real_time=RealTimeConfig(lock_memory=False))) as bridge):
        robot = PoseRobot(BridgeRobot(bridge.client, CommandMode.JOINT_POSITION, PERIOD), SAFETY)
        robot.twin = twin
        yield robot


def test_the_end_effector_of_an_arm_goes_where_poses_say_and_comes_back(robot):
    assert isinstance(robot, Robot)
    spec = robot.spec.commands[0]
    assert spec.mode is POSE and spec.nu == 7 and not spec.gripper
    robot.reset(0)
    origin = robot.command_now()
    for distance in 0.03 * np.sin(np.linspace(0, np.pi, 25)) ** 2:
        commanded = robot.send(Command(POSE, moved(origin, 2, distance)))
        assert np.abs(commanded.values - moved(origin, 2, distance)).max() < 2e-4
        observation = robot.tick()
    assert np.linalg.norm(observation.ee_pose[:3] - origin[:3]) < 0.005
    truth = robot.twin.fault("state")
    assert truth["limit_violations"] == [] and truth["command_violations"] == []


def test_after_a_stop_poses_go_on_from_where_the_arm_is_held_not_from_the_last_command(robot):
    robot.reset(1)
    origin = robot.command_now()
    robot.send(Command(POSE, moved(origin, 2, 0.02)))  # more than the arm does before it is held
    client = robot.robot.client
    client.wish("hold")
    with pytest.raises(HardwareError, match="HOLD"):
        robot.send(Command(POSE, origin))
    ends = time.monotonic() + 5.0
    while True:
        try:
            client.wish("resume")
            break
        except HardwareError:
            assert time.monotonic() < ends
            time.sleep(0.02)
    while client.state().state is not State.ACTIVE:
        assert time.monotonic() < ends
    held = robot.steps.forward(client.state().reference)
    assert np.linalg.norm(held[:3] - moved(origin, 2, 0.02)[:3]) > 0.005, "it was held on the way"
    assert np.allclose(robot.command_now(), held)


def test_a_refused_pose_is_not_sent_and_other_modes_are_unknown(robot):
    robot.reset(2)
    origin, before = robot.command_now(), robot.robot.client.state().action_sequence
    with pytest.raises(PoseRefused, match="send poses on the way"):
        robot.send(Command(POSE, moved(origin, 2, -0.3)))
    with pytest.raises(UnknownNameError, match="end_effector_pose"):
        robot.send(Command(CommandMode.JOINT_POSITION, np.zeros(6)))
    assert robot.robot.client.state().action_sequence == before and np.allclose(robot.command_now(), origin)
