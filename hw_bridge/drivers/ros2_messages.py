"""The ROS 2 messages an arm speaks, as DDS types: their CDR is byte for byte what ROS 2 sends."""

from dataclasses import dataclass

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import float64, int32, sequence, uint8, uint32


def sends_bytes(kind: type) -> type:
    """Let a message carry its own CDR bytes, `cdr` with the encapsulation header: where they are set, they are what is sent.

    (A decorator, not a base class: cyclonedds takes a base class for a part of the message.)
    """
    encode = kind.serialize

    def serialize(self, buffer=None, endianness=None, use_version_2=None) -> bytes:
        return self.cdr or encode(self, buffer=buffer, endianness=endianness, use_version_2=use_version_2)

    kind.cdr, kind.serialize = b"", serialize
    return kind


def arrives_as_bytes(kind: type) -> type:
    """Let a message arrive as `cdr` only, its fields not set: cyclonedds' own reader would be too slow. `of_cdr` makes one."""

    def of_cdr(cls, cdr: bytes):
        message = cls.__new__(cls)
        message.cdr = cdr
        return message

    def deserialize(cls, data: bytes, has_header: bool = True, use_version_2: bool | None = None):
        return cls.of_cdr(bytes(data))

    kind.of_cdr, kind.deserialize = classmethod(of_cdr), classmethod(deserialize)
    return sends_bytes(kind)


@dataclass
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    """A wall-clock time; [s] and [ns]."""

    sec: int32
    nanosec: uint32


@dataclass
class Duration(IdlStruct, typename="builtin_interfaces.msg.dds_.Duration_"):
    """A span of time; [s] and [ns]."""

    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    """When, and in which frame."""

    stamp: Time
    frame_id: str


@arrives_as_bytes
@dataclass
class JointState(IdlStruct, typename="sensor_msgs.msg.dds_.JointState_"):
    """Joints in any order: positions [rad], velocities [rad/s], efforts [N·m]; each may be empty."""

    header: Header
    name: sequence[str]
    position: sequence[float64]
    velocity: sequence[float64]
    effort: sequence[float64]


@dataclass
class JointTrajectoryPoint(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectoryPoint_"):
    """Where the joints shall be `time_from_start` after the trajectory's start."""

    positions: sequence[float64]
    velocities: sequence[float64]
    accelerations: sequence[float64]
    effort: sequence[float64]
    time_from_start: Duration


@sends_bytes
@dataclass
class JointTrajectory(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectory_"):
    """A stamp of zero means: start now."""

    header: Header
    joint_names: sequence[str]
    points: sequence[JointTrajectoryPoint]


@dataclass
class MultiArrayDimension(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayDimension_"):
    """One dimension of a layout; controllers ignore it."""

    label: str
    size: uint32
    stride: uint32


@dataclass
class MultiArrayLayout(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayLayout_"):
    """The layout of a multi-array; controllers ignore it."""

    dim: sequence[MultiArrayDimension]
    data_offset: uint32


@sends_bytes
@dataclass
class Float64MultiArray(IdlStruct, typename="std_msgs.msg.dds_.Float64MultiArray_"):
    """Set-points in the order of the controller's own joint list."""

    layout: MultiArrayLayout
    data: sequence[float64]


@arrives_as_bytes
@dataclass
class Image(IdlStruct, typename="sensor_msgs.msg.dds_.Image_"):
    """A picture; its CDR is read and built by rosbags: cyclonedds takes 50 times as long over a sequence of uint8."""

    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]
