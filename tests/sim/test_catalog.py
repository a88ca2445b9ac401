"""Every name of the catalogue leads to a robot; every other name is refused with the nearest known ones."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from robots.command import Command
from robots.errors import UnknownNameError
from robots.robot import Robot
from sim.catalog import ENGINES, describe, known_names, make_task
from sim.rendering import RenderingUnavailableError


def test_lists_every_task_of_every_engine_once() -> None:
    names = known_names()
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(name for engine in ENGINES for name in known_names(engine))
    from dm_control import manipulation, suite

    assert {f"dmc:{domain}-{task}" for domain, task in suite.ALL_TASKS} <= set(names)
    assert {f"dmc:{task}" for task in manipulation.ALL} <= set(names)
    assert len(known_names("dm_control")) == len(suite.ALL_TASKS) + len(manipulation.ALL) >= 51 + 25


@pytest.mark.parametrize("engine", ENGINES)
def test_describes_every_task_in_one_line(engine: str) -> None:
    lines = [describe(name) for name in known_names(engine)]
    assert all(line and "\n" not in line for line in lines)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(("wrong", "meant"), [
    ("dmc:cheeta-run", "dmc:cheetah-run"), ("dmc:reach_site_feature", "dmc:reach_site_features"), ("gym:Push-v5", "gym:Pusher-v5"),
    ("cartpol", "cartpole"), ("bullet:panda", "bullet:panda-reach"), ("cheetah-run", "dmc:cheetah-run"),
])
def test_a_misspelt_name_is_refused_with_the_one_that_was_meant_first(wrong: str, meant: str) -> None:
    for use in (make_task, describe):
        with pytest.raises(UnknownNameError) as refusal:
            use(wrong)
        assert refusal.value.nearest[0] == meant


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="mujoco"):
        known_names("mujoko")


def test_importing_the_catalogue_loads_no_foreign_engine() -> None:
    program = "import sys, sim.catalog; print([m for m in ('dm_control', 'gymnasium', 'pybullet', 'pybullet_data') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def _listed() -> list[str]:
    # Vision tasks differ from their '_features' twins in what they show; one of them runs in test_engine_pictures.py.
    return [name for name in known_names() if not name.endswith("_vision")]


@pytest.mark.parametrize("name", _listed())
def test_every_name_leads_to_a_robot_that_moves(name: str) -> None:
    task = make_task(name)
    assert task.name == name and task.engine in ENGINES and name in known_names(task.engine)
    with task.robot() as robot:
        assert isinstance(robot, Robot) and robot.spec.name == name
        try:
            first = robot.reset(0)
        except RenderingUnavailableError as error:
            pytest.skip(str(error))  # dm_control's quadruped-escape hands its terrain to OpenGL
        spec = robot.spec.command()
        robot.send(Command(spec.mode, 0.3 * spec.minimum + 0.7 * spec.maximum))
        second = robot.tick()
        for observation in (first, second):
            assert len(observation.q) == robot.spec.nq and len(observation.dq) == robot.spec.nv
            assert np.isfinite(task.state_space.state(observation)).all()
        assert (task.state_space.state(first) != task.state_space.state(second)).any()
