"""A dm_control robot lives through the same episodes as dm_control itself."""

from __future__ import annotations

import numpy as np
import pytest

from robots.command import Command, CommandMode
from robots.errors import ConfigurationError, NumericalError
from sim.dm_control_compatibility import prepare_dm_control
from sim.dm_control_robot import UNLIMITED_INPUT, DmControlRobot, make_dm_control_task


@pytest.mark.parametrize("name", [
    "dmc:cartpole-swingup", "dmc:finger-turn_hard", "dmc:humanoid_CMU-run", "dmc:swimmer-swimmer6", "dmc:reach_site_features",
    "dmc:stack_3_bricks_random_order_features", "dmc:reassemble_5_bricks_random_order_features",
])
def test_episodes_are_dm_controls_own_bit_for_bit(name: str) -> None:
    prepare_dm_control()
    from dm_control import manipulation, suite

    domain, dash, task = name.removeprefix("dmc:").partition("-")
    theirs = suite.load(domain, task, task_kwargs={"random": 4}) if dash else manipulation.load(domain, seed=4)
    generator = np.random.default_rng(0)
    with DmControlRobot(name) as robot:
        robot.reset(9)
        step, observation = theirs.reset(), robot.reset(4)
        for _ in range(6):
            expected = np.concatenate([np.ravel(value) for value in step.observation.values()])
            np.testing.assert_array_equal(observation.extra["observation"], expected)
            assert observation.reward == (step.reward or 0.0)
            np.testing.assert_array_equal(observation.q, theirs.physics.data.qpos)
            values = generator.uniform(theirs.action_spec().minimum, theirs.action_spec().maximum)
            step = theirs.step(values)
            robot.send(Command(CommandMode.ACTUATOR, values))
            observation = robot.tick()


def test_time_running_out_is_not_the_end_of_the_task() -> None:
    task = make_dm_control_task("dmc:pendulum-swingup")
    assert task.episode_steps == 1000
    with task.robot() as robot:
        robot.reset(0)
        for _ in range(task.episode_steps + 3):
            observation = robot.tick()
        assert not observation.terminated
        assert observation.stamp_ns == round((task.episode_steps + 3) * robot.spec.control_dt * 1e9)


@pytest.mark.parametrize(("name", "steps"), [("dmc:dog-fetch", 1000), ("dmc:reach_site_features", 250), ("dmc:lqr-lqr_2_1", 1000)])
def test_episodes_last_as_long_as_dm_controls(name: str, steps: int) -> None:
    assert make_dm_control_task(name).episode_steps == steps


def test_an_actuator_without_a_range_gets_a_finite_box() -> None:
    with DmControlRobot("dmc:lqr-lqr_6_2") as robot:
        np.testing.assert_array_equal(robot.spec.command().maximum, [UNLIMITED_INPUT] * 2)
        np.testing.assert_array_equal(robot.spec.command().minimum, [-UNLIMITED_INPUT] * 2)


def test_the_springs_of_lqr_do_not_change_with_the_seed() -> None:
    with DmControlRobot("dmc:lqr-lqr_2_1") as first, DmControlRobot("dmc:lqr-lqr_2_1") as second:
        first.reset(0)
        second.reset(1)
        stiffness = [robot._environment.physics.model.jnt_stiffness.copy() for robot in (first, second)]
        np.testing.assert_array_equal(*stiffness)
        assert (stiffness[0] > 0).any()


def test_observation_entries_carry_dm_controls_names() -> None:
    names = make_dm_control_task("dmc:walker-walk").state_space.names
    assert names == (*(f"orientations_{i}" for i in range(14)), "height_0", *(f"velocity_{i}" for i in range(9)))


def test_diverged_physics_raise_and_a_reset_repairs() -> None:
    with DmControlRobot("dmc:cartpole-balance") as robot:
        healthy = robot.reset(0)
        robot._environment.physics.data.qvel[:] = 1e300
        with pytest.raises(NumericalError, match="diverged"):
            robot.tick()
        np.testing.assert_array_equal(robot.reset(0).q, healthy.q)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_a_seed_that_numpy_does_not_take_is_refused(seed: object) -> None:
    with DmControlRobot("dmc:pendulum-swingup") as robot, pytest.raises(ConfigurationError, match="seed"):
        robot.reset(seed)
