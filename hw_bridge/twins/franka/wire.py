"""Franka's control interface (FCI) on the wire, version 10: what libfranka 0.14 and later speaks with an FR3.

Commands go over TCP port 1337 (header: command, id, size with header; little-endian), states and set-points over UDP every 1 ms.
Source: the public headers of libfranka-common (research_interface/robot/service_types.h and rbk_types.h). A real Panda speaks
version 5, with another state; only the limits, the masses and the stops of the plant behind this wire are a Panda's.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

PORT = 1337
VERSION = 10
HEADER = struct.Struct("<III")
"""Command, its id, size of the message with this header."""
PERIOD = 0.001
"""One state and one set-point [s]."""


class Request(IntEnum):
    """What a client can ask for."""

    CONNECT = 0
    MOVE = 1
    STOP_MOVE = 2
    SET_COLLISION_BEHAVIOR = 3
    SET_JOINT_IMPEDANCE = 4
    SET_CARTESIAN_IMPEDANCE = 5
    SET_GUIDING_MODE = 6
    SET_EE_TO_K = 7
    SET_NE_TO_EE = 8
    SET_LOAD = 9
    AUTOMATIC_ERROR_RECOVERY = 10
    GET_ROBOT_MODEL = 11


class MoveStatus(IntEnum):
    """Answers to MOVE; one at its start, one at its end."""

    SUCCESS = 0
    MOTION_STARTED = 1
    PREEMPTED = 2
    NOT_POSSIBLE = 5
    INVALID_ARGUMENT = 7
    REFLEX_ABORTED = 8
    EMERGENCY_ABORTED = 9
    INPUT_ERROR_ABORTED = 10


class RecoveryStatus(IntEnum):
    """Answers to AUTOMATIC_ERROR_RECOVERY."""

    SUCCESS = 0
    MANUAL_RECOVERY_REQUIRED = 3
    EMERGENCY_ABORTED = 5


class SetterStatus(IntEnum):
    """Answers to every SET_ request."""

    SUCCESS = 0
    NOT_POSSIBLE = 1
    INVALID_ARGUMENT = 2


class RobotMode(IntEnum):
    """What the controller is doing."""

    OTHER = 0
    IDLE = 1
    MOVE = 2
    GUIDING = 3
    REFLEX = 4
    USER_STOPPED = 5
    AUTOMATIC_ERROR_RECOVERY = 6


class Generator(IntEnum):
    """Motion generators of MOVE; the state names them by 1 + this, 0 being none in action, 5 torque control."""

    JOINT_POSITION = 0
    JOINT_VELOCITY = 1
    CARTESIAN_POSITION = 2
    CARTESIAN_VELOCITY = 3
    NONE = 4


class Controller(IntEnum):
    """Controllers of MOVE and of the state."""

    JOINT_IMPEDANCE = 0
    CARTESIAN_IMPEDANCE = 1
    EXTERNAL = 2
    OTHER = 3


ERRORS = (
    "joint_position_limits_violation", "cartesian_position_limits_violation", "self_collision_avoidance_violation",
    "joint_velocity_violation", "cartesian_velocity_violation", "force_control_safety_violation", "joint_reflex", "cartesian_reflex",
    "max_goal_pose_deviation_violation", "max_path_pose_deviation_violation", "cartesian_velocity_profile_safety_violation",
    "joint_position_motion_generator_start_pose_invalid", "joint_motion_generator_position_limits_violation",
    "joint_motion_generator_velocity_limits_violation", "joint_motion_generator_velocity_discontinuity",
    "joint_motion_generator_acceleration_discontinuity", "cartesian_position_motion_generator_start_pose_invalid",
    "cartesian_motion_generator_elbow_limit_violation", "cartesian_motion_generator_velocity_limits_violation",
    "cartesian_motion_generator_velocity_discontinuity", "cartesian_motion_generator_acceleration_discontinuity",
    "cartesian_motion_generator_elbow_sign_inconsistent", "cartesian_motion_generator_start_elbow_invalid",
    "force_controller_desired_force_tolerance_violation", "start_elbow_sign_inconsistent", "communication_constraints_violation",
    "power_limit_violation", "cartesian_motion_generator_joint_position_limits_violation",
    "cartesian_motion_generator_joint_velocity_limits_violation", "cartesian_motion_generator_joint_velocity_discontinuity",
    "cartesian_motion_generator_joint_acceleration_discontinuity", "cartesian_position_motion_generator_invalid_frame_flag",
    "controller_torque_discontinuity", "joint_p2p_insufficient_torque_for_planning", "tau_J_range_violation", "instability_detected",
    "joint_move_in_wrong_direction", "cartesian_spline_motion_generator_violation",
    "joint_via_motion_generator_planning_joint_limit_violation", "base_acceleration_initialization_timeout",
    "base_acceleration_invalid_reading",
)
"""Flags of the state, in the order of the wire."""

STATE = np.dtype([
    ("message_id", "<u8"), ("O_T_EE", "<f4", 16), ("O_T_EE_d", "<f4", 16), ("F_T_EE", "<f4", 16), ("EE_T_K", "<f4", 16),
    ("F_T_NE", "<f4", 16), ("NE_T_EE", "<f4", 16), ("m_ee", "<f4"), ("I_ee", "<f4", 9), ("F_x_Cee", "<f4", 3), ("m_load", "<f4"),
    ("I_load", "<f4", 9), ("F_x_Cload", "<f4", 3), ("elbow", "<f4", 2), ("elbow_d", "<f4", 2), ("tau_J", "<f4", 7),
    ("tau_J_d", "<f4", 7), ("dtau_J", "<f4", 7), ("q", "<f4", 7), ("q_d", "<f4", 7), ("dq", "<f4", 7), ("dq_d", "<f4", 7),
    ("ddq_d", "<f4", 7), ("joint_contact", "<f4", 7), ("cartesian_contact", "<f4", 6), ("joint_collision", "<f4", 7),
    ("cartesian_collision", "<f4", 6), ("tau_ext_hat_filtered", "<f4", 7), ("O_F_ext_hat_K", "<f4", 6), ("K_F_ext_hat_K", "<f4", 6),
    ("O_dP_EE_d", "<f4", 6), ("O_ddP_O", "<f4", 3), ("elbow_c", "<f4", 2), ("delbow_c", "<f4", 2), ("ddelbow_c", "<f4", 2),
    ("O_T_EE_c", "<f4", 16), ("O_dP_EE_c", "<f4", 6), ("O_ddP_EE_c", "<f4", 6), ("theta", "<f4", 7), ("dtheta", "<f4", 7),
    ("accelerometer_top", "<f4", 18), ("accelerometer_bottom", "<f4", 18), ("motion_generator_mode", "u1"), ("controller_mode", "u1"),
    ("errors", "?", 41), ("reflex_reason", "?", 41), ("robot_mode", "u1"), ("control_command_success_rate", "<f4"),
])
"""A state as it goes over UDP, packed; matrices column by column."""

COMMAND = np.dtype([
    ("message_id", "<u8"), ("q_c", "<f8", 7), ("dq_c", "<f8", 7), ("O_T_EE_c", "<f8", 16), ("O_dP_EE_c", "<f8", 6), ("elbow_c", "<f8", 2),
    ("valid_elbow", "?"), ("motion_generation_finished", "?"), ("tau_J_d", "<f8", 7), ("torque_command_finished", "?"),
])
"""A set-point as it comes over UDP; `message_id` is that of the state it answers."""

CONNECT = struct.Struct("<HH")
"""Version of the client's protocol, its UDP port."""
MOVE = struct.Struct("<II")
"""Controller and motion generator; deviations follow."""


def message(request: Request, number: int, status: int, rest: bytes = b"") -> bytes:
    """Return the answer to the request `number`."""
    return HEADER.pack(request, number, HEADER.size + 1 + len(rest)) + bytes([status]) + rest


def fresh_state() -> np.ndarray:
    """Return a state () of `STATE` with every frame the identity."""
    state = np.zeros((), STATE)
    for name in ("O_T_EE", "O_T_EE_d", "F_T_EE", "EE_T_K", "F_T_NE", "NE_T_EE", "O_T_EE_c"):
        state[name] = np.eye(4).reshape(-1)
    return state


def column_major(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return a pose (16,), column by column, of a position (3,) [m] and a rotation matrix (9,), row by row."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.reshape(3, 3), position
    return pose.T.reshape(-1)
