"""A Gymnasium robot lives through the same episodes as Gymnasium itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robots.command import Command, CommandMode
from robots.errors import NumericalError, UnknownNameError, UserError
from sim.gymnasium_robot import GymnasiumRobot, make_gymnasium_task


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # v4: Gymnasium has a newer one
@pytest.mark.parametrize("id_", ["Ant-v5", "HalfCheetah-v5", "Hopper-v4", "MountainCarContinuous-v0", "Pendulum-v1", "Pusher-v5"])
def test_episodes_are_gymnasiums_own_bit_for_bit(id_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file
    theirs = gymnasium.make(id_)
    generator = np.random.default_rng(0)
    with GymnasiumRobot(f"gym:{id_}") as robot:
        robot.reset(9)
        expected, _ = theirs.reset(seed=4)
        observation = robot.reset(4)
        for _ in range(8):
            np.testing.assert_array_equal(observation.extra["observation"], expected)
            action = generator.uniform(robot.spec.command().minimum, robot.spec.command().maximum).astype(np.float32)
            expected, reward, terminated, _, _ = theirs.step(action)
            robot.send(Command(CommandMode.ACTUATOR, action))
            observation = robot.tick()
            assert (observation.reward, observation.terminated) == (float(reward), terminated)
    theirs.close()


def test_send_returns_the_rounded_action_that_the_environment_sees() -> None:
    with GymnasiumRobot("gym:Pusher-v5") as robot:
        robot.reset(0)
        applied = robot.send(Command(CommandMode.ACTUATOR, np.full(7, 0.1)))
        np.testing.assert_array_equal(applied.values, np.full(7, 0.1, dtype=np.float32).astype(float))
        robot.tick()
        np.testing.assert_array_equal(robot._environment.data.ctrl, applied.values)


def test_after_its_end_an_episode_must_be_reset() -> None:
    task = make_gymnasium_task("gym:InvertedPendulum-v5")
    with task.robot() as robot:
        observation = robot.reset(0)
        robot.send(Command(CommandMode.ACTUATOR, np.array([3.0])))
        while not observation.terminated:
            observation = robot.tick()
        with pytest.raises(UserError, match="reset"):
            robot.tick()
        assert not robot.reset(0).terminated
        robot.tick()


def test_time_running_out_is_not_the_end_of_the_task() -> None:
    task = make_gymnasium_task("gym:Reacher-v5")
    assert task.episode_steps == 50
    with task.robot() as robot:
        robot.reset(0)
        assert not any(robot.tick().terminated for _ in range(task.episode_steps + 3))


def test_diverged_physics_raise_and_a_reset_repairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log where it diverges
    with GymnasiumRobot("gym:Pusher-v5") as robot:
        robot.reset(0)
        robot._environment.data.qvel[:] = 1e300
        with pytest.raises(NumericalError, match="diverged"):
            robot.tick()
        robot.reset(0)
        robot.tick()


@pytest.mark.parametrize(("name", "why"), [
    ("gym:CartPole-v1", "Box of actions"), ("gym:FrozenLake-v1", "Box of actions"), ("gym:Pusher-v4", "mujoco<3"),
    ("gym:Hopper-v2", "cannot be made here"),
])
def test_an_environment_that_is_no_robot_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        make_gymnasium_task(name)


def test_unbounded_actions_are_refused() -> None:
    import gymnasium

    class Unbounded(gymnasium.Env):
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))

    gymnasium.register("Unbounded-v0", Unbounded)
    try:
        with pytest.raises(UserError, match="finite bounds"):
            make_gymnasium_task("gym:Unbounded-v0")
    finally:
        del gymnasium.registry["Unbounded-v0"]


def test_an_unregistered_id_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Pusher-v5"):
        make_gymnasium_task("gym:Push-v5")


def test_an_environment_without_joints_says_so() -> None:
    with GymnasiumRobot("gym:Pendulum-v1") as robot:
        observation = robot.reset(0)
        assert robot.spec.nv == robot.spec.nq == len(observation.q) == 0
        assert robot.spec.control_dt == 0.05


def test_nothing_is_written_into_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with GymnasiumRobot("gym:HalfCheetah-v5") as robot:  # MuJoCo warns of a deprecated attribute of its scene
        robot.reset(0)
    assert not list(tmp_path.iterdir())
