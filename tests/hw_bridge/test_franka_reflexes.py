"""The Franka twin's controller without its sockets: what it lets through, what it stops for, and what it then does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_bridge.twins.franka.controller import FrankaController
from hw_bridge.twins.franka.mechanics import franka_mechanics
from hw_bridge.twins.franka.reflexes import Reflexes
from hw_bridge.twins.franka.wire import COMMAND, ERRORS, STATE, Controller, Generator, MoveStatus, RobotMode
from hw_bridge.twins.plant import Plant
from robots.arms.panda import panda

LIMITS = panda().spec.limits
HOME = panda().home


@pytest.fixture
def controller() -> FrankaController:
    return FrankaController(Plant(panda(), franka_mechanics()))


def command(answers: int, **fields: object) -> np.ndarray:
    made = np.zeros((), COMMAND)
    made["message_id"] = answers
    for name, value in fields.items():
        made[name] = value
    return made


def run(controller: FrankaController, ticks: int, **fields: object) -> None:
    for _ in range(ticks):
        sent = controller.message_id
        controller.tick([command(sent, **fields)] if fields else [], sent)


def torque_motion(controller: FrankaController) -> None:
    assert controller.move(7, Controller.EXTERNAL, Generator.NONE) is MoveStatus.MOTION_STARTED
    run(controller, 1)  # the client sees that the motion began
    run(controller, 5, tau_J_d=np.zeros(7))


def test_the_wire_has_the_sizes_of_libfranka() -> None:
    assert STATE.itemsize == 8 + 4 * (6 * 16 + 1 + 9 + 3 + 1 + 9 + 3 + 2 + 2 + 8 * 7 + 7 + 6 + 7 + 6 + 7 + 6 + 6 + 6 + 3 + 6
                                      + 16 + 6 + 6 + 7 + 7 + 18 + 18) + 2 + 41 + 41 + 1 + 4
    assert COMMAND.itemsize == 8 + 8 * (7 + 7 + 16 + 6 + 2) + 2 + 8 * 7 + 1
    assert len(ERRORS) == len(set(ERRORS)) == 41


@settings(max_examples=20, deadline=None)
@given(joint=st.integers(0, 6), share=st.floats(0.05, 0.95), frequency=st.floats(0.2, 3.0))
def test_motion_within_the_limits_passes(joint: int, share: float, frequency: float) -> None:
    omega = 2 * np.pi * frequency
    amplitude = 0.2 * share * min(LIMITS.velocity_max[joint] / omega, LIMITS.acceleration_max[joint] / omega**2, 0.5)
    positions, velocities = Reflexes(LIMITS), Reflexes(LIMITS)
    positions.begin(HOME)
    velocities.begin(np.zeros(7))
    for k in range(1, 400):
        fade_in = 0.5 * (1 - np.cos(np.pi * min(1.0, k / 300)))
        wave = amplitude * fade_in * np.sin(omega * k * 1e-3) * np.eye(7)[joint]
        assert positions.position(HOME + wave) is None
        assert velocities.velocity(omega * wave) is None


@pytest.mark.parametrize(("step", "error"), [
    (3e-3, "joint_motion_generator_velocity_limits_violation"),
    (1e-4, "joint_motion_generator_velocity_discontinuity"),
    (1.2e-5, "joint_motion_generator_acceleration_discontinuity"),
])
def test_a_position_that_jumps_is_named(step: float, error: str) -> None:
    reflexes = Reflexes(LIMITS)
    reflexes.begin(HOME)
    assert reflexes.position(HOME) is None
    assert reflexes.position(HOME + step * np.eye(7)[0]) == error


def test_a_lost_packet_is_no_jump() -> None:
    positions, velocities = Reflexes(LIMITS), Reflexes(LIMITS)
    positions.begin(HOME)
    velocities.begin(np.zeros(7))
    q, dq = HOME.copy(), np.zeros(7)
    for k in range(1, 200):
        dq = dq + 1e-3 * min(4.0, 0.1 * k) * np.eye(7)[1]
        q = q + 1e-3 * dq
        if k % 10 in (7, 8):
            positions.lost_position()
            velocities.lost_velocity()
        else:
            assert positions.position(q) is None and velocities.velocity(dq) is None, f"ms {k}"


def test_a_start_far_away_and_a_target_beyond_the_limits_are_named() -> None:
    reflexes = Reflexes(LIMITS)
    reflexes.begin(HOME)
    assert reflexes.position(HOME + 0.02) == "joint_position_motion_generator_start_pose_invalid"
    top = LIMITS.position_max.copy()
    reflexes.begin(top)
    assert reflexes.position(top + 1e-4) == "joint_motion_generator_position_limits_violation"


def test_torque_may_change_by_1000_newton_metres_a_second_and_no_more() -> None:
    reflexes = Reflexes(LIMITS)
    joint6 = np.eye(7)[5]
    reflexes.begin(np.zeros(7))
    for k in range(1, 13):
        assert reflexes.torque(k * joint6, 1) is None
    assert reflexes.torque(13 * joint6, 1) == "tau_J_range_violation"
    reflexes.begin(np.zeros(7))
    assert reflexes.torque(3 * joint6, 3) is None, "three ms passed"
    reflexes.begin(np.zeros(7))
    assert reflexes.torque(10 * joint6, 1) == "controller_torque_discontinuity"


def test_twenty_lost_packets_are_borne_and_one_more_stops_the_arm(controller: FrankaController) -> None:
    torque_motion(controller)
    for _ in range(3):
        run(controller, 20)
        assert controller.mode is RobotMode.MOVE
        run(controller, 1, tau_J_d=np.zeros(7))
    run(controller, 21)
    assert controller.mode is RobotMode.REFLEX and controller.errors == ["communication_constraints_violation"]
    assert list(controller.ended) == [(7, MoveStatus.REFLEX_ABORTED)]


def test_a_late_packet_is_dropped_and_the_last_torque_goes_on(controller: FrankaController) -> None:
    torque_motion(controller)
    for k in range(1, 5):
        run(controller, 1, tau_J_d=0.5 * k * np.eye(7)[6])
    held = controller.plant.tau[6] - controller.plant.gravity_torque()[6]
    assert held == pytest.approx(2.0, abs=0.05)
    for _ in range(5):
        sent = controller.message_id
        controller.tick([command(sent - controller.late_max - 1, tau_J_d=np.zeros(7))], sent)
        assert controller.plant.tau[6] - controller.plant.gravity_torque()[6] == pytest.approx(2.0, abs=0.05)
    assert controller.counters["late"] == 5 and controller.counters["lost_in_a_row"] == 5


def test_a_packet_that_comes_twice_or_behind_its_successor_counts_once(controller: FrankaController) -> None:
    torque_motion(controller)
    sent = controller.message_id
    controller.tick([command(sent, tau_J_d=np.full(7, 0.5))] * 2 + [command(sent - 1, tau_J_d=np.full(7, -0.5))], sent)
    assert controller.counters["late"] == 2 and controller.mode is RobotMode.MOVE
    assert controller.plant.tau[6] == pytest.approx(0.5 + controller.plant.gravity_torque()[6], abs=0.05)


def test_a_torque_that_jumps_is_refused_and_a_lost_one_lends_its_time(controller: FrankaController) -> None:
    assert controller.move(7, Controller.EXTERNAL, Generator.NONE) is MoveStatus.MOTION_STARTED
    run(controller, 1)
    sent = controller.message_id
    controller.tick([command(sent, tau_J_d=np.full(7, 1.0))], sent)
    assert controller.audit.count == 0, "the first: from nothing"
    run(controller, 1)
    sent = controller.message_id
    controller.tick([command(sent, tau_J_d=np.full(7, 3.0))], sent)
    assert controller.audit.count == 0 and controller.mode is RobotMode.MOVE, "a packet was lost between"
    run(controller, 1, tau_J_d=np.full(7, 1.0))
    assert controller.counters["refused"] == 1 and controller.mode is RobotMode.REFLEX
    assert controller.audit.count == 0, "what the arm refuses reaches no joint"


def test_a_first_torque_that_jumps_is_refused(controller: FrankaController) -> None:
    assert controller.move(7, Controller.EXTERNAL, Generator.NONE) is MoveStatus.MOTION_STARTED
    run(controller, 1)
    run(controller, 1, tau_J_d=np.full(7, 5.0))
    assert controller.counters["refused"] == 1 and controller.mode is RobotMode.REFLEX


@pytest.mark.parametrize("ticks", [500, 3])
def test_a_step_of_the_clock_lends_no_time_to_a_torque(controller: FrankaController, ticks: int) -> None:
    torque_motion(controller)
    before = controller.message_id
    controller.step_clock(ticks)
    controller.tick([command(before, tau_J_d=np.full(7, 1.0))], controller.message_id)
    assert controller.counters["late"] == 1, "it answers a state from before the step"
    run(controller, 1, tau_J_d=np.full(7, 5.0))
    assert controller.counters["refused"] == 1 and controller.mode is RobotMode.REFLEX


def test_numbers_that_are_none_end_the_motion_and_never_reach_the_plant(controller: FrankaController) -> None:
    torque_motion(controller)
    run(controller, 1, tau_J_d=np.full(7, np.nan))
    assert list(controller.ended) == [(7, MoveStatus.INPUT_ERROR_ABORTED)]
    run(controller, 20)
    assert np.isfinite(controller.plant.q).all() and np.abs(controller.plant.dq).max() < 1e-2
    assert "non-finite" in controller.audit.violations[0]


def test_the_arm_stands_still_without_torque_and_after_a_reflex(controller: FrankaController) -> None:
    torque_motion(controller)
    run(controller, 300, tau_J_d=np.zeros(7))
    assert np.abs(controller.plant.q - HOME).max() < 1e-3, "gravity is the controller's part"
    controller.reflex("joint_reflex")
    run(controller, 300)
    assert np.abs(controller.plant.q - HOME).max() < 1e-3
    assert controller.move(8, Controller.EXTERNAL, Generator.NONE) is MoveStatus.NOT_POSSIBLE
    assert controller.recover() and controller.mode is RobotMode.IDLE
    assert controller.move(9, Controller.EXTERNAL, Generator.NONE) is MoveStatus.MOTION_STARTED


def test_a_push_is_a_collision_above_the_threshold_only(controller: FrankaController) -> None:
    body = controller.plant.model.body("payload").id
    controller.contacts.set(np.full(7, 100.0), np.full(7, 100.0), np.full(6, 15.0), np.full(6, 40.0))
    controller.plant.data.xfrc_applied[body, 2] = -25.0
    run(controller, 150)
    assert controller.mode is RobotMode.IDLE and controller.contacts.cartesian_contact[2]
    assert controller._force[2] == pytest.approx(-25.0, abs=3.0)
    controller.plant.data.xfrc_applied[body, 2] = -60.0
    run(controller, 150)
    assert controller.errors == ["cartesian_reflex"]


def test_a_payload_that_was_told_is_no_force(controller: FrankaController) -> None:
    controller.plant.set_payload(1.0, (0.0, 0.0, 0.05))
    run(controller, 300)
    assert controller._force[2] == pytest.approx(-9.81, abs=1.5)
    controller.load_mass, controller.load_centre = 1.0, np.array([0.0, 0.0, 0.05])
    run(controller, 300)
    assert np.abs(controller._force[:3]).max() < 1.0


def test_beyond_its_limits_the_arm_stops_and_a_person_must_move_it(controller: FrankaController) -> None:
    torque_motion(controller)
    controller.plant.data.qpos[3] = LIMITS.position_max[3] + 0.01
    run(controller, 1, tau_J_d=np.zeros(7))
    assert controller.errors == ["joint_position_limits_violation"]
    assert not controller.recover()


def test_a_user_stop_brakes_and_only_its_release_lets_go(controller: FrankaController) -> None:
    torque_motion(controller)
    controller.user_stop()
    assert list(controller.ended) == [(7, MoveStatus.EMERGENCY_ABORTED)]
    before = controller.plant.q
    run(controller, 100)
    np.testing.assert_array_equal(controller.plant.q, before)
    assert controller.move(8, Controller.EXTERNAL, Generator.NONE) is MoveStatus.NOT_POSSIBLE
    controller.user_release()
    assert controller.move(8, Controller.EXTERNAL, Generator.NONE) is MoveStatus.MOTION_STARTED


@pytest.mark.parametrize("generator", [Generator.JOINT_POSITION, Generator.JOINT_VELOCITY])
def test_the_internal_controller_follows(controller: FrankaController, generator: Generator) -> None:
    assert controller.move(3, Controller.JOINT_IMPEDANCE, generator) is MoveStatus.MOTION_STARTED
    for k in range(1, 1001):
        s = k / 1000
        shape, rate = s**3 * (10 - 15 * s + 6 * s * s), 30 * s * s * (1 - s) ** 2
        sent = controller.message_id
        controller.tick([command(sent, q_c=HOME + 0.1 * shape, dq_c=np.full(7, 0.1 * rate))], sent)
    assert controller.errors == []
    np.testing.assert_allclose(controller.plant.q, HOME + 0.1, atol=5e-3)
    sent = controller.message_id
    controller.tick([command(sent, motion_generation_finished=True)], sent)
    assert list(controller.ended) == [(3, MoveStatus.SUCCESS)] and controller.mode is RobotMode.IDLE
