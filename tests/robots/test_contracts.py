"""The contracts every robot shares refuse what may not pass, and say what to do."""

import json

import numpy as np
import pytest

from robots.command import Command, CommandMode, CommandSpec, admit
from robots.errors import ConfigurationError, NonFiniteError, ShapeError, UnknownNameError
from robots.limits import JointLimits, clip_to_box
from robots.observation import NO_POSE, CameraFrame, Observation
from robots.spec import CameraSpec, RobotSpec


def torque_command() -> CommandSpec:
    return CommandSpec(CommandMode.JOINT_TORQUE, ("a", "b"), np.array([-1.0, -2.0]), np.array([1.0, 3.0]), "N·m")


def spec(**changes) -> RobotSpec:
    values = {"name": "arm", "joint_names": ("a", "b"), "nq": 2, "limits": JointLimits.unlimited(2), "control_dt": 0.01,
              "commands": (torque_command(),)}
    return RobotSpec(**(values | changes))


def observation(**changes) -> Observation:
    values = {"stamp_ns": 0, "q": np.zeros(2), "dq": np.zeros(2), "tau": np.zeros(2), "ee_pose": NO_POSE}
    return Observation(**(values | changes))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_command_holds_what_is_not_a_number(bad):
    with pytest.raises(NonFiniteError, match=r"Command.values.*index \[1\]"):
        Command(CommandMode.JOINT_TORQUE, np.array([0.0, bad]))


def test_commands_are_read_only_copies():
    values = np.zeros(2)
    command = Command(CommandMode.JOINT_TORQUE, values)
    values[0] = 7
    assert command.values[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        command.values[0] = 1


def test_admit_clips_into_the_box_and_refuses_the_rest():
    specs = (torque_command(),)
    applied = admit(Command("joint_torque", [-9, 9]), specs)
    assert applied.values.tolist() == [-1.0, 3.0]
    assert admit(applied, specs).values.tolist() == applied.values.tolist()
    with pytest.raises(ShapeError, match=r"expected shape \(2,\), got \(3,\)"):
        admit(Command("joint_torque", [0, 0, 0]), specs)
    with pytest.raises(UnknownNameError, match="joint_torque"):
        admit(Command("joint_velocity", [0, 0]), specs)


def test_unknown_modes_are_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="joint_torque"):
        spec().command("joint_position")
    with pytest.raises(ValueError, match="teleport"):
        Command("teleport", [0.0])


def test_clipping_leaves_its_input_alone():
    values = np.array([5.0, -5.0])
    assert clip_to_box(values, np.full(2, -1.0), np.full(2, 1.0)).tolist() == [1, -1]
    assert values.tolist() == [5, -5]


@pytest.mark.parametrize(("minimum", "maximum"), [([0.0, 0.0], [1.0, 0.0]), ([2.0, 0.0], [1.0, 1.0])])
def test_an_empty_command_box_is_refused(minimum, maximum):
    with pytest.raises(ConfigurationError, match="below maximum"):
        CommandSpec(CommandMode.ACTUATOR, ("a", "b"), minimum, maximum, "1")


@pytest.mark.parametrize("changes", [
    {"control_dt": 0.0}, {"control_dt": np.nan}, {"nq": 1}, {"limits": JointLimits.unlimited(3)}, {"commands": ()},
    {"commands": (torque_command(), torque_command())},
])
def test_specs_that_contradict_themselves_are_refused(changes):
    with pytest.raises(ConfigurationError, match="arm"):
        spec(**changes)


def test_a_spec_survives_json_and_its_fingerprint_tells_machines_apart():
    text = json.dumps(spec().to_json(), allow_nan=False)
    assert json.loads(text)["limits"]["position_max"] == ["inf", "inf"]
    assert spec().fingerprint() == spec().fingerprint()
    assert spec().fingerprint() != spec(control_dt=0.02).fingerprint()


def test_limits_are_checked():
    unlimited = vars(JointLimits.unlimited(2))
    with pytest.raises(ConfigurationError, match=r"velocity_max.*positive"):
        JointLimits(**(unlimited | {"velocity_max": [1.0, 0.0]}))
    with pytest.raises(ConfigurationError, match="NaN"):
        JointLimits(**(unlimited | {"torque_max": [1.0, np.nan]}))
    with pytest.raises(ConfigurationError, match="position_min"):
        JointLimits(**(unlimited | {"position_min": [1.0, 0.0], "position_max": [1.0, 1.0]}))
    with pytest.raises(ShapeError, match="jerk_max"):
        JointLimits(**(unlimited | {"jerk_max": [1.0]}))


@pytest.mark.parametrize("name", ["q", "dq", "tau"])
def test_observations_refuse_what_is_not_finite(name):
    with pytest.raises(NonFiniteError, match=f"Observation.{name}"):
        observation(**{name: np.array([0.0, np.nan])})
    with pytest.raises(NonFiniteError, match="goal"):
        observation(extra={"goal": [np.inf]})


def test_observations_share_no_memory_and_cannot_be_written():
    q, image = np.zeros(2), np.zeros((4, 4, 3), np.uint8)
    seen = observation(q=q, frames={"front": CameraFrame(image, 0, 0, 0)}, extra={"goal": q})
    q[:] = 1
    image[:] = 1
    assert seen.q.sum() == seen.extra["goal"].sum() == seen.frames["front"].image.sum() == 0
    for array in (seen.q, seen.dq, seen.tau, seen.ee_pose, seen.extra["goal"], seen.frames["front"].image):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    with pytest.raises(TypeError):
        seen.extra["goal"] = q


def test_pictures_are_bytes_with_channels():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ShapeError, match="uint8"):
            CameraFrame(wrong, 0, 0, 0)
    with pytest.raises(ConfigurationError, match="positive size"):
        CameraSpec("front", 0, 4)


def test_rewards_and_endings_come_from_the_task():
    assert observation().reward is None
    assert not observation().terminated
    assert observation(extra={"reward": [2.5], "terminated": [1.0]}).reward == 2.5
    assert observation(extra={"terminated": [1.0]}).terminated
