"""RTDE's variables: the type of each, and how a recipe of them is packed (big-endian)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import chain

REGISTERS = 48
"""Of each kind, in and out; the upper half is for other fieldbuses by custom."""

FORMAT = {"DOUBLE": "d", "UINT32": "I", "UINT64": "Q", "INT32": "i", "VECTOR3D": "3d", "VECTOR6D": "6d", "VECTOR6INT32": "6i",
          "BOOL": "?", "UINT8": "B"}
"""struct's letters for RTDE's types."""

_WIDTH = {"VECTOR3D": 3, "VECTOR6D": 6, "VECTOR6INT32": 6}

_VECTORS = ("target_q", "target_qd", "target_qdd", "target_current", "target_moment", "actual_q", "actual_qd", "actual_current",
            "actual_current_as_torque", "joint_control_output", "actual_TCP_pose", "actual_TCP_speed", "actual_TCP_force",
            "target_TCP_pose", "target_TCP_speed", "joint_temperatures", "actual_joint_voltage", "ft_raw_wrench", "payload_inertia")
_DOUBLES = ("timestamp", "actual_execution_time", "speed_scaling", "target_speed_fraction", "actual_momentum", "actual_main_voltage",
            "actual_robot_voltage", "actual_robot_current", "payload", "standard_analog_input0", "standard_analog_input1",
            "standard_analog_output0", "standard_analog_output1")

OUTPUTS: dict[str, str] = {
    **dict.fromkeys(_VECTORS, "VECTOR6D"), **dict.fromkeys(_DOUBLES, "DOUBLE"),
    "actual_tool_accelerometer": "VECTOR3D", "payload_cog": "VECTOR3D", "joint_mode": "VECTOR6INT32",
    "robot_mode": "INT32", "safety_mode": "INT32", "safety_status": "INT32",
    "runtime_state": "UINT32", "robot_status_bits": "UINT32", "safety_status_bits": "UINT32",
    "actual_digital_input_bits": "UINT64", "actual_digital_output_bits": "UINT64",
    **{f"output_int_register_{i}": "INT32" for i in range(REGISTERS)},
    **{f"output_double_register_{i}": "DOUBLE" for i in range(REGISTERS)},
}
"""Type of every variable that the twin can send."""

INPUTS: dict[str, str] = {
    **{f"input_int_register_{i}": "INT32" for i in range(REGISTERS)},
    **{f"input_double_register_{i}": "DOUBLE" for i in range(REGISTERS)},
    "speed_slider_mask": "UINT32", "speed_slider_fraction": "DOUBLE", "external_force_torque": "VECTOR6D",
    **dict.fromkeys(("standard_digital_output_mask", "standard_digital_output", "configurable_digital_output_mask",
                     "configurable_digital_output", "tool_digital_output_mask", "tool_digital_output",
                     "standard_analog_output_mask", "standard_analog_output_type"), "UINT8"),
    "standard_analog_output_0": "DOUBLE", "standard_analog_output_1": "DOUBLE",
}
"""Type of every variable that a client can write."""


def defaults() -> dict[str, Sequence]:
    """Return every output at its value on an arm at rest that nobody has touched, scalars as sequences of one."""
    values: dict[str, Sequence] = {name: (0,) * _WIDTH.get(kind, 1) for name, kind in OUTPUTS.items()}
    values |= {"speed_scaling": (1.0,), "target_speed_fraction": (1.0,), "actual_main_voltage": (48.0,), "actual_robot_voltage": (48.0,),
               "joint_temperatures": (30.0,) * 6, "actual_joint_voltage": (48.0,) * 6, "joint_mode": (253,) * 6}
    return values


class Recipe:
    """A list of variables in a fixed order, as one connection asked for it."""

    def __init__(self, names: Sequence[str], kinds: Sequence[str]) -> None:
        self.names = tuple(names)
        self._struct = struct.Struct(">" + "".join(FORMAT[kind] for kind in kinds))

    def pack(self, values: Mapping[str, Sequence]) -> bytes:
        """Return the payload for `values`."""
        return self._struct.pack(*chain.from_iterable([values[name] for name in self.names]))

    def unpack(self, payload: bytes) -> tuple | None:
        """Return the values of scalar variables in order; None where the length is wrong."""
        return self._struct.unpack(payload) if len(payload) == self._struct.size else None
