"""Our tasks as Gymnasium environments pass Gymnasium's own checks and pay minus the task's cost."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from robots.errors import NonFiniteError, UnknownNameError, UserError
from sim.gymnasium_export import TaskEnv, make_task_env, register_with_gymnasium
from sim.tasks import OWN_TASKS


@pytest.mark.parametrize("name", OWN_TASKS)
def test_gymnasium_accepts_the_environment(name):
    env = make_task_env(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on infinite observation bounds and on actions beyond [-1, 1]
        check_env(env, skip_render_check=True)
    env.close()


def test_rewards_are_minus_the_cost_and_episodes_end_on_time():
    task = OWN_TASKS["pusher7"]()
    env = TaskEnv(task)
    x, _ = env.reset(seed=1)
    for step in range(1, task.episode_steps + 1):
        action = env.action_space.sample() * 2  # beyond the box: clipped
        x_next, reward, terminated, truncated, info = env.step(action)
        applied = info["applied"]
        assert np.array_equal(applied, np.clip(action.astype(float), -2, 2))
        assert reward == -task.cost.transition(torch.tensor(x), torch.tensor(applied), torch.tensor(x_next)).item()
        assert (terminated, truncated) == (False, step == task.episode_steps)
        x = x_next
    env.close()


def test_one_seed_fixes_a_run_of_episodes():
    starts = []
    for _ in range(2):
        env = make_task_env("cartpole")
        starts.append([env.reset(seed=7)[0], env.reset()[0], env.reset()[0]])
        env.close()
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0][0], starts[0][1])


def test_registered_names_make_environments():
    ids = register_with_gymnasium()
    assert register_with_gymnasium() == ids
    assert "reflexarc/half-cheetah-v0" in ids
    env = gymnasium.make("reflexarc/cartpole-v0")
    assert isinstance(env.unwrapped, TaskEnv)
    assert env.reset(seed=0)[0].shape == (4,)
    env.close()


def test_misuse_is_refused():
    env = make_task_env("pendulum")
    with pytest.raises(UserError, match="reset"):
        env.step(np.zeros(1, np.float32))
    env.reset(seed=0)
    with pytest.raises(NonFiniteError):
        env.step(np.array([np.nan], np.float32))
    env.close()
    with pytest.raises(UnknownNameError, match="cartpole"):
        make_task_env("cartpol")
    with pytest.raises(UnknownNameError, match="rgb_array"):
        make_task_env("cartpole", "human")
