"""Domain randomisation: variants are the model with what was drawn, and an altered machine is itself again."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from robots.command import Command
from robots.errors import ConfigurationError, UnknownNameError
from sim.catalog import make_task
from sim.simulator.planning_task import make_problem, simulated_model
from sim.simulator.randomisation import PROPERTIES, Randomisation, altered, read_factors, read_ranges
from sim.simulator.simulator_evaluator import SimulatorEvaluator

MACHINE = """<mujoco>
<worldbody>
  <geom type="plane" size="1 1 1"/>
  <body pos="0 0 1">
    <joint name="lift" type="slide" axis="AXIS" damping="0.3" armature="0.1" stiffness="2" frictionloss="0.2"/>
    <geom size="0.1" mass="2"/>
    <body pos="0.2 0 0"><joint name="turn" axis="0 1 0" damping="0.1"/><geom size="0.05" mass="1"/></body>
  </body>
</worldbody>
<actuator><motor joint="lift" gear="3"/><position joint="turn" kp="5" kv="1"/></actuator>
</mujoco>"""


def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(MACHINE.replace("AXIS", "0 0 1"))


def contents(model: mujoco.MjModel) -> bytes:
    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def forces(model: mujoco.MjModel) -> np.ndarray:
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = [0.1, 0.4], [0.3, -0.2], [0.7, 0.9]
    mujoco.mj_forward(model, data)
    return data.actuator_force.copy()


def test_variants_are_the_model_times_what_was_drawn_and_nothing_else():
    base = model()
    untouched, drawn = contents(base), Randomisation({"mass": (0.5, 2.0), "damping": (0.0, 1.0)}, 3, seed=4)
    variants, words = drawn.of(base)
    assert contents(base) == untouched and len(variants) == 3
    for variant, factors in zip(variants, drawn.factors(), strict=True):
        assert np.allclose(variant.body_mass, factors["mass"] * base.body_mass)
        assert np.allclose(variant.body_inertia, factors["mass"] * base.body_inertia)
        assert variant.body_subtreemass[0] == pytest.approx(factors["mass"] * 3.0)  # follows from the masses
        assert np.allclose(variant.dof_damping, factors["damping"] * base.dof_damping)
        assert np.array_equal(variant.geom_friction, base.geom_friction) and np.array_equal(variant.actuator_gainprm, base.actuator_gainprm)
        assert f"{factors['mass']:.3g}" in words[0]


def test_a_gain_multiplies_the_whole_force_of_every_actuator():
    base = model()
    before = forces(base)
    with altered(base, {"gain": 0.6}):
        assert np.allclose(forces(base), 0.6 * before) and np.abs(before).min() > 0.1
    assert np.array_equal(forces(base), before)


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_property_changes_how_the_machine_moves(name):
    axis, down = ("1 0 1", 1.29) if name == "friction" else ("0 0 1", 0.91)  # friction is felt along the ground

    def moved(model: mujoco.MjModel) -> np.ndarray:
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:], data.ctrl[:] = [-down, 0.4], [-0.1, -0.2], [0.7, 0.9]  # the ball touches the ground
        mujoco.mj_forward(model, data)
        return data.qacc.copy()

    base = mujoco.MjModel.from_xml_string(MACHINE.replace("AXIS", axis))
    before = moved(base)
    with altered(base, {name: 1.5}):
        assert np.abs(moved(base) - before).max() > 1e-4
    assert np.array_equal(moved(base), before)


def test_draws_are_of_their_seed_within_the_range_and_one_in_every_part_of_it():
    ranges = {"mass": (0.8, 1.2), "friction": (0.5, 1.5)}
    factors = Randomisation(ranges, 8, seed=1).factors()
    assert factors == Randomisation(ranges, 8, seed=1).factors() != Randomisation(ranges, 8, seed=2).factors()
    for name, (low, high) in ranges.items():
        part = np.floor(8 * (np.array([chosen[name] for chosen in factors]) - low) / (high - low))
        assert sorted(part) == list(range(8))
    assert [f["mass"] for f in factors] != sorted(f["mass"] for f in factors)


@pytest.mark.parametrize("task", ["cartpole", "dmc:cartpole-swingup"])
def test_an_altered_machine_moves_otherwise_and_is_itself_again(task):
    with make_task(task).robot() as robot:
        push = Command(robot.spec.command().mode, np.array([0.8]))

        def lived() -> np.ndarray:
            robot.reset(3)
            for _ in range(5):
                robot.send(push)
                observation = robot.tick()
            return np.concatenate([observation.q, observation.dq])

        before, stored = lived(), contents(simulated_model(robot))
        with altered(simulated_model(robot), {"mass": 1.5}):
            assert np.abs(lived() - before).max() > 1e-3
        assert contents(simulated_model(robot)) == stored and np.array_equal(lived(), before)


def test_a_machine_is_itself_again_after_an_error():
    base = model()
    stored = contents(base)
    with pytest.raises(RuntimeError), altered(base, {"mass": 2.0}):
        raise RuntimeError
    with pytest.raises(ConfigurationError), altered(base, {"mass": 2.0, "gain": 0.0}):  # the mass is by then
        pass
    assert contents(base) == stored


def test_plans_are_judged_by_the_mean_over_the_variants():
    drawn = Randomisation({"mass": (0.6, 1.6)}, 3, seed=0)
    with make_task("cartpole").robot() as robot:
        robot.reset(0)
        problem = make_problem("cartpole", robot, 1, randomisation=drawn)
        x0, plans = torch.tensor([0.0, 2.5, 0.0, 0.0]).double(), 2 * torch.rand(4, 6, 1, generator=torch.Generator().manual_seed(0)) - 1
        costs, alone = SimulatorEvaluator(problem.model, problem.cost).costs(x0, plans), []
        for factors in drawn.factors():
            with altered(simulated_model(robot), factors):
                other = make_problem("cartpole", robot, 1)
            alone.append(SimulatorEvaluator(other.model, other.cost).costs(x0, plans))
    assert problem.model.particles == 3 and "variants" in problem.model.differences[-1]
    assert torch.allclose(costs, torch.stack(alone).mean(0), rtol=1e-9) and torch.stack(alone).std(0).min() > 1e-4


def test_what_cannot_be_drawn_is_refused_in_words():
    with pytest.raises(UnknownNameError, match="mass"):
        Randomisation({"weight": (0.5, 1.0)})
    for ranges, words in (({"mass": (1.2, 0.8)}, "smaller factor first"), ({"mass": (0.0, 1.0)}, "above 0"),
                          ({"friction": (-1.0, 1.0)}, "at least 0"), ({"mass": (0.5, float("inf"))}, "finite"), ({}, "a property")):
        with pytest.raises(ConfigurationError, match=words):
            Randomisation(ranges)
    with pytest.raises(ConfigurationError, match="variants"):
        Randomisation({"mass": (0.5, 1.0)}, 0)
    free = mujoco.MjModel.from_xml_string('<mujoco><worldbody><body><joint name="j"/><geom size="1" contype="0" conaffinity="0"/></body>'
                                          '</worldbody><actuator><muscle joint="j" lengthrange="0 1"/></actuator></mujoco>')
    for name, words in (("damping", "it has mass"), ("friction", "change nothing"), ("gain", "muscles")):
        with pytest.raises(ConfigurationError, match=words):
            Randomisation({name: (0.5, 1.0)}).of(free)


def test_what_a_command_line_says_is_read_or_named():
    assert read_ranges(["mass=0.8..1.2", "friction=1..1"], "--randomise") == {"mass": (0.8, 1.2), "friction": (1.0, 1.0)}
    assert read_factors(["mass=1.2"], "--machine") == {"mass": 1.2}
    for wrong, words in (("mass=1.2", r"--randomise: expected NAME=LOW\.\.HIGH"), ("mass=a..2", "a number"), ("mass", "NAME=LOW")):
        with pytest.raises(ConfigurationError, match=words):
            read_ranges([wrong], "--randomise")
    with pytest.raises(ConfigurationError, match="given twice"):
        read_ranges(["mass=1..2", "mass=2..3"], "--randomise")
    with pytest.raises(ConfigurationError, match="--machine: expected a number"):
        read_factors(["mass=heavy"], "--machine")
    with pytest.raises(UnknownNameError, match="friction"):
        read_factors(["frictio=2"], "--machine")
