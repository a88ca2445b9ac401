"""What every simulated robot promises, whatever engine runs it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from robots.command import Command
from robots.errors import NonFiniteError, ShapeError, UnknownNameError, UserError
from robots.observation import Observation
from robots.robot import Robot
from sim.catalog import describe, make_task
from sim.task import CameraRequest, Task

NAMES = (
    "pendulum", "cartpole", "reacher7", "pusher7", "half-cheetah",
    "dmc:cheetah-run", "dmc:ball_in_cup-catch", "dmc:cartpole-swingup", "dmc:dog-fetch", "dmc:finger-turn_hard", "dmc:humanoid-run",
    "dmc:lqr-lqr_2_1", "dmc:quadruped-fetch", "dmc:reacher-easy", "dmc:reach_site_features",
    "dmc:reassemble_5_bricks_random_order_features",
    "gym:Ant-v5", "gym:HalfCheetah-v5", "gym:Hopper-v4", "gym:Humanoid-v5", "gym:InvertedPendulum-v5", "gym:Pendulum-v1", "gym:Pusher-v5",
    "bullet:panda-reach", "bullet:panda-reach-position", "bullet:kuka-reach", "bullet:kuka-reach-position",
)
STEPS = 8


@pytest.fixture(scope="module", params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return make_task(request.param)


@pytest.fixture(scope="module")
def robot(task: Task) -> Iterator[Robot]:
    """A robot that earlier tests have used: every test starts with a reset."""
    with task.robot() as robot:
        yield robot


def play(robot: Robot, seed: int, steps: int = STEPS) -> list[Observation]:
    """Return the observations of an episode under commands that depend on nothing but their number."""
    spec, generator = robot.spec.command(), np.random.default_rng(7)
    observations = [robot.reset(seed)]
    for _ in range(steps):
        if observations[-1].terminated:
            break
        robot.send(Command(spec.mode, generator.uniform(spec.minimum, spec.maximum)))
        observations.append(robot.tick())
    return observations


def numbers(observation: Observation) -> bytes:
    """Return every number of an observation, bit for bit."""
    extra = (observation.extra[name] for name in sorted(observation.extra))
    arrays = [observation.q, observation.dq, observation.tau, observation.ee_pose, *extra]
    return observation.stamp_ns.to_bytes(8, "little") + b"".join(array.tobytes() for array in arrays)


def assert_same(first: list[Observation], second: list[Observation]) -> None:
    assert [numbers(o) for o in first] == [numbers(o) for o in second]


def test_is_a_robot_whose_observations_have_the_sizes_of_its_spec(task: Task, robot: Robot) -> None:
    assert isinstance(robot, Robot)
    assert robot.spec.name == task.name and robot.spec.fingerprint()
    for observation in play(robot, 0, 2):
        assert len(observation.q) == robot.spec.nq
        assert len(observation.dq) == len(observation.tau) == robot.spec.nv
        assert np.isfinite(observation.ee_pose).all() == bool(robot.spec.end_effector_frames)
    assert len(set(robot.spec.joint_names)) == robot.spec.nv
    assert len(robot.camera_names) == len(set(robot.camera_names))
    assert task.summary == describe(task.name)


def test_state_and_cost_are_finite(task: Task, robot: Robot) -> None:
    spec = robot.spec.command()
    command = torch.tensor(0.5 * (spec.minimum + spec.maximum))
    states = torch.tensor(np.stack([task.state_space.state(observation) for observation in play(robot, 0)]))
    assert states.shape[1] == task.state_space.nx and states.isfinite().all()
    assert task.state_space.features(states).isfinite().all()
    if task.cost is None:
        assert robot.reset(0).reward == 0.0
        assert play(robot, 0, 1)[-1].reward is not None
    else:
        for cost in (task.cost.running(states, command), task.cost.terminal(states)):
            assert cost.shape == states.shape[:1] and cost.isfinite().all()


def test_same_seed_same_episode_in_a_used_and_in_a_new_robot(task: Task, robot: Robot) -> None:
    play(robot, 5)
    used = play(robot, 3)
    with task.robot() as fresh:
        assert_same(used, play(fresh, 3))
    assert len({numbers(observation) for observation in used}) == len(used)  # the episodes are not equal for standing still


def test_another_seed_starts_elsewhere(robot: Robot) -> None:
    assert numbers(robot.reset(1)) != numbers(robot.reset(2))


def test_a_kept_observation_is_frozen(robot: Robot) -> None:
    first = robot.reset(0)
    before = numbers(first)
    for observation in play(robot, 1, 3):
        for array in (observation.q, observation.dq, observation.tau, observation.ee_pose, *observation.extra.values()):
            assert not array.flags.writeable
    assert numbers(first) == before


def test_stamps_count_control_periods(robot: Robot) -> None:
    stamps = [observation.stamp_ns for observation in play(robot, 0)]
    assert stamps == [round(n * robot.spec.control_dt * 1e9) for n in range(len(stamps))]


def test_a_command_outside_the_box_is_clipped_and_returned_as_applied(robot: Robot) -> None:
    for spec in robot.spec.commands:
        robot.reset(0)
        applied = robot.send(Command(spec.mode, spec.maximum + 1.0))
        assert applied.mode == spec.mode
        np.testing.assert_array_equal(applied.values, spec.maximum)
        clipped = robot.tick()
        robot.reset(0)
        robot.send(Command(spec.mode, spec.maximum))
        assert_same([clipped], [robot.tick()])


def test_the_command_is_felt_and_held(robot: Robot) -> None:
    spec = robot.spec.command()
    outcomes = set()
    for share in (0.1, 0.9):
        robot.reset(0)
        robot.send(Command(spec.mode, spec.minimum + share * (spec.maximum - spec.minimum)))
        outcomes.add(numbers(robot.tick()))
    assert len(outcomes) == 2

    command = Command(spec.mode, spec.minimum + 0.6 * (spec.maximum - spec.minimum))
    robot.reset(0)
    robot.send(command)
    held = [robot.tick(), robot.tick()]
    robot.reset(0)
    for observation in held:
        robot.send(command)
        assert_same([robot.tick()], [observation])


def test_a_reset_forgets_the_last_command(task: Task, robot: Robot) -> None:
    play(robot, 0, 2)
    robot.reset(0)
    used = robot.tick()
    with task.robot() as fresh:
        fresh.reset(0)
        assert_same([used], [fresh.tick()])


def test_nan_is_refused_and_leaves_no_trace(robot: Robot) -> None:
    spec = robot.spec.command()
    with pytest.raises(NonFiniteError):
        Command(spec.mode, np.full(spec.nu, np.nan))
    smuggled = object.__new__(Command)
    object.__setattr__(smuggled, "mode", spec.mode)
    object.__setattr__(smuggled, "values", np.full(spec.nu, np.nan))
    outcomes = []
    for smuggle in (False, True):
        robot.reset(0)
        robot.send(Command(spec.mode, spec.maximum))
        if smuggle:
            with pytest.raises(NonFiniteError):
                robot.send(smuggled)
        outcomes.append([robot.tick()])
    assert_same(*outcomes)


def test_a_wrong_length_and_an_unknown_mode_are_refused(robot: Robot) -> None:
    spec = robot.spec.command()
    robot.reset(0)
    with pytest.raises(ShapeError, match=str(spec.nu)):
        robot.send(Command(spec.mode, np.zeros(spec.nu + 1)))
    with pytest.raises(UnknownNameError, match="command mode"):
        robot.send(Command("end_effector_pose", np.zeros(7)))


def test_an_unknown_camera_is_refused_by_name(task: Task) -> None:
    with pytest.raises(UnknownNameError, match="no_such_camera"):
        task.robot(CameraRequest(("no_such_camera",)))


def test_nothing_works_before_reset_or_after_close_but_close(task: Task) -> None:
    robot = task.robot()
    spec = robot.spec.command()
    command = Command(spec.mode, spec.maximum)
    with pytest.raises(UserError, match="reset"):
        robot.tick()
    with pytest.raises(UserError, match="reset"):
        robot.send(command)
    robot.reset(0)
    robot.close()
    robot.close()
    for use in (lambda: robot.reset(0), lambda: robot.send(command), robot.tick, lambda: robot.render(8, 8)):
        with pytest.raises(UserError, match="closed"):
            use()
