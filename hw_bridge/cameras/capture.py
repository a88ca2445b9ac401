"""The thread that waits for a camera's pictures: each goes onto the board, and into the queue of those that are to be kept."""

from __future__ import annotations

import logging
import queue
import threading

from hw_bridge.cameras.camera import Camera
from hw_bridge.realtime.board import Board
from robots.errors import ReflexarcError
from robots.observation import CameraFrame

_LOG = logging.getLogger(__name__)
AT_THE_END = "the file is at its end"


class Capture(threading.Thread):
    """Takes pictures until there are no more. A daemon: a camera that never answers keeps no process from ending."""

    def __init__(self, camera: Camera, first: CameraFrame, board: Board, waiting: int) -> None:
        """`first`: the picture that was read already; `waiting`: pictures that may wait to be kept, 0: none is to be kept."""
        super().__init__(name="capture", daemon=True)
        self._camera, self._first, self._board = camera, first, board
        self.kept: queue.Queue[CameraFrame] | None = queue.Queue(waiting) if waiting else None
        """Pictures on their way into the log."""
        self.pictures = self.missing = self.unkept = 0
        self.ended = ""
        """Why there are no more pictures, in words; empty while there are."""
        self.failed = False
        self._halted = False

    def halt(self) -> None:
        """Take no further picture; the one that is waited for is let go."""
        self._halted = True

    def run(self) -> None:
        try:
            frame, sequence = self._first, self._first.sequence - 1
            while frame is not None and not self._halted:
                self.missing += frame.sequence - sequence - 1
                sequence = frame.sequence
                self._take(frame)
                frame = self._camera.read()
            self.ended = AT_THE_END if frame is None else ""
        except ReflexarcError as error:
            self.failed, self.ended = True, str(error)
        except Exception as error:  # whatever a camera's library raises must be told, not die with this thread
            _LOG.exception("the camera failed")
            self.failed, self.ended = True, f"the camera failed: {type(error).__name__}: {error}"

    def _take(self, frame: CameraFrame) -> None:
        record = self._board.record
        record["received_ns"], record["sequence"], record["image"] = frame.received_ns, frame.sequence, frame.image
        self._board.publish(frame.captured_ns)
        self.pictures += 1
        if self.kept is not None:
            try:
                self.kept.put_nowait(frame)
            except queue.Full:
                self.unkept += 1
