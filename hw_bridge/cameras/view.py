"""Seeing a camera that another process owns."""

from __future__ import annotations

import contextlib

from hw_bridge.cameras.boards import STATUS_DTYPE, CameraStatus, board_names, picture_dtype, told_status
from hw_bridge.realtime.board import Board
from robots.errors import HardwareError
from robots.observation import CameraFrame


class CameraView:
    """One reader's view of a camera in another process. To be used by one thread."""

    def __init__(self, bridge: str, name: str) -> None:
        """`bridge`: what the camera's boards are called after. HardwareError where there is no such camera."""
        self.name = name
        picture, status = board_names(bridge, name)
        self._status = Board.attach(status, STATUS_DTYPE)
        try:
            told = self.status()
            self.width, self.height = told.width, told.height
            self._pictures = Board.attach(picture, picture_dtype(told.width, told.height))
        except BaseException:
            self._status.close()
            raise
        self._newest: CameraFrame | None = None
        self._count = 0

    def newest(self) -> CameraFrame | None:
        """Return the newest picture, the same object again until there is a newer one; None before the first. Never waits."""
        value, captured_ns, count = self._pictures.read()
        if count != self._count:
            self._count = count
            self._newest = CameraFrame(value["image"], captured_ns, int(value["received_ns"]), int(value["sequence"]))
        return self._newest

    def status(self) -> CameraStatus:
        """Return how the camera goes, as its process told last."""
        value = self._status.read().value
        if value is None:
            raise HardwareError(f"camera {self.name!r} is starting")
        return told_status(value)

    def close(self) -> None:
        """Let go of the boards; the camera goes on. Harmless twice."""
        for board in (self._pictures, self._status):
            with contextlib.suppress(ValueError):
                board.close()
