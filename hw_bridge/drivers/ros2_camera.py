"""A camera behind a ROS 2 topic: sensor_msgs/Image, best effort, its CDR read by rosbags."""

from __future__ import annotations

import time

import numpy as np

from robots.errors import HardwareError, MissingExtraError
from robots.observation import CameraFrame

CHANNELS = {"rgb8": (3, False), "bgr8": (3, True), "mono8": (1, False), "rgba8": (4, False)}
"""Channels by encoding, and whether red and blue are swapped."""


class Ros2Camera:
    """Frames of one topic. `captured_ns` is the message's stamp carried over to the monotonic clock, so both machines' wall clocks
    must agree (chrony or PTP); a stamp in the future counts as received now.
    """

    def __init__(self, topic: str = "/image_raw", domain: int = 0, loopback: bool = True) -> None:
        try:
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingExtraError("a ROS 2 camera", "ros2") from error
        from hw_bridge.drivers import ros2_messages, ros2_wire

        self.topic = topic
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        self._node = ros2_wire.Node(domain, loopback)
        self._reader = self._node.reader(topic, ros2_messages.Image, best_effort=True)
        self._take, self._sequence = ros2_wire.take, 0

    def read(self) -> CameraFrame | None:
        """Return the newest frame that arrived since the last call, None where there is none; never waits. `sequence` counts what
        arrived: ROS 2 images carry no number of their own.
        """
        messages = self._take(self._reader, 5)
        if not messages:
            return None
        received, wall = time.monotonic_ns(), time.time_ns()
        self._sequence += len(messages)
        message = self._types.deserialize_cdr(messages[-1].cdr, "sensor_msgs/msg/Image")
        stamp = message.header.stamp
        age = max(0, wall - (stamp.sec * 10**9 + stamp.nanosec))
        return CameraFrame(self._pixels(message), received - age, received, self._sequence)

    def _pixels(self, message: object) -> np.ndarray:
        if message.encoding not in CHANNELS:
            raise HardwareError(f"{self.topic}: encoding {message.encoding!r}; known: {', '.join(CHANNELS)}; convert it at the camera")
        channels, swapped = CHANNELS[message.encoding]
        if message.step < channels * message.width or len(message.data) != message.step * message.height:
            raise HardwareError(f"{self.topic}: {len(message.data)} bytes in rows of {message.step} do not make "
                                f"{message.width} x {message.height} of {message.encoding}")
        rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)[:, : channels * message.width]
        pixels = rows.reshape(message.height, message.width, channels)
        return pixels[:, :, ::-1] if swapped else pixels

    def close(self) -> None:
        """Leave the topic."""
        self._reader, self._node = None, None
