"""MuJoCo's callbacks: Python functions, which its threads cannot call, are refused wherever they would be called."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest

from robots.errors import ConfigurationError
from sim.simulator.physics_space import PhysicsSpace
from sim.simulator.simulator_model import SimulatorModel

NAMES = sorted(name.removeprefix("get_mjcb_") for name in dir(mujoco) if name.startswith("get_mjcb_"))
HINGE = """
<mujoco>
  <worldbody><body><joint name="hinge" axis="0 1 0"/><geom size="0.1" pos="0 0 0.3"/></body></worldbody>
  <actuator><motor joint="hinge"/></actuator>
</mujoco>"""


MACHINE = mujoco.MjModel.from_xml_string(HINGE)


def simulator() -> SimulatorModel:
    return SimulatorModel(MACHINE, PhysicsSpace(MACHINE), 1, 1)


def everything_asked(model: SimulatorModel) -> dict[str, Callable[[], object]]:
    x, u, steps = np.zeros((4, 2)), np.ones((3, 1)), np.ones(2)
    policy = u, np.zeros((3, 1, 2)), np.full(1, -1.0), np.ones(1)
    return {"rollouts": lambda: model.rollouts(x[0], u[None]), "linearize": lambda: model.linearize(x[:3], u),
            "feedback": lambda: model.roll_out_feedback(x[0], x, u, steps, *policy)}


@pytest.fixture
def install() -> Iterator[Callable[[str, object], None]]:
    """install(name, callback); whatever the test does, MuJoCo has its callbacks back as they were."""
    before = {name: getattr(mujoco, f"get_mjcb_{name}")() for name in NAMES}
    try:
        yield lambda name, callback: getattr(mujoco, f"set_mjcb_{name}")(callback)
    finally:
        for name, callback in before.items():
            getattr(mujoco, f"set_mjcb_{name}")(callback)


def test_mujoco_has_no_callback_that_is_not_looked_at():
    assert len(NAMES) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_python_callback_is_refused_by_its_name_with_what_to_do(name, install):
    def shove(*_: object) -> float:
        return 0.0

    before = simulator()
    install(name, shove)
    advice = rf"mjcb_{name} is the Python function 'shove'.*mujoco\.set_mjcb_{name}\(None\)"
    with pytest.raises(ConfigurationError, match=advice):
        simulator()
    for ask in everything_asked(before).values():
        with pytest.raises(ConfigurationError, match=advice):
            ask()
    install(name, None)
    for ask in everything_asked(simulator()).values():
        ask()


def test_a_c_function_is_called(install):
    seen = []
    install("control", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda model, data: seen.append(data)))
    for what, ask in everything_asked(simulator()).items():
        seen.clear()
        ask()
        assert seen, what
