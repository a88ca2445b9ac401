"""A camera's process: takes its pictures, shows the newest on a board, keeps all in a log, until its standard input ends.

Its line of output says that the camera gives pictures, or why not. The end of the input is the end of whoever started it: what waits is
written and the log finished. Where the camera ends first, the log is finished then, and its last picture stays on the board.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from hw_bridge.cameras.boards import STATUS_DTYPE, board_names, picture_dtype
from hw_bridge.cameras.camera import Camera
from hw_bridge.cameras.camera_log import CameraHeader
from hw_bridge.cameras.capture import Capture
from hw_bridge.cameras.keeper import Keeper
from hw_bridge.cameras.source import CameraSource
from hw_bridge.realtime.board import Board
from hw_bridge.recorder.log_row import FAREWELL, Level, cut
from robots.errors import HardwareError, ReflexarcError
from robots.observation import CameraFrame

POLL_S = 0.02
"""How often the queue is looked at [s]."""
HALT_S = 1.0
"""How long the last picture is waited for at the end [s]."""
RATE_S = 1.0
"""Over how long the rate is measured [s]."""


@dataclass(frozen=True)
class Options:
    """Which camera, and where its pictures go."""

    camera: str
    """NAME=SOURCE,..., as `CameraSource.parse` reads it."""
    bridge: str
    """Name of the bridge, or of anything else, that the boards are called after."""
    log: Path | None = None
    """File of the log to be made; none: the pictures are not kept."""
    flush_s: float = 0.5
    """Longest time that a picture is in memory alone [s]."""
    waiting_bytes: int = 128 << 20
    """Memory for pictures that wait while the disk is busy [byte]."""
    free_bytes: int = 256 << 20
    """Room on the disk below which no log is begun [byte]."""


class CameraLoop:
    """The boards, the thread that captures, the log, and the report on all of them."""

    def __init__(self, options: Options, source: CameraSource, camera: Camera, first: CameraFrame) -> None:
        height, width = first.image.shape[:2]
        picture, status = board_names(options.bridge, source.name)
        header = CameraHeader(source.name, source.to_text(), width, height, camera.rate, camera.clock, source.format)
        with contextlib.ExitStack() as stack:
            self._pictures = Board.create(picture, picture_dtype(width, height))
            stack.callback(self._pictures.close)
            self._status = Board.create(status, STATUS_DTYPE)
            stack.callback(self._status.close)
            self.keeper = None if options.log is None else Keeper(options.log, header, options.flush_s, options.free_bytes)
            stack.pop_all()
        self.camera, self._clock = camera, camera.clock
        record = self._status.record
        record["width"], record["height"], record["stated_rate"] = width, height, camera.rate
        waiting = 0 if self.keeper is None else max(options.waiting_bytes // first.image.nbytes, 2)
        self.capture = Capture(camera, first, self._pictures, waiting)
        self._missing = self._unkept = 0
        self._over = False
        self._counted = (time.monotonic(), 0)
        self.tell()

    def turn(self) -> None:
        """Keep what waits, note what changed, report."""
        if self.keeper is not None and not self._over:
            over = bool(self.capture.ended)  # asked first: what ended has queued its last picture
            self._keep()
            self._note()
            if over and self.capture.kept.empty():
                self._over = True
                self.keeper.note("camera", self.capture.ended, Level.ERROR if self.capture.failed else Level.INFO)
                self.keeper.settle()
                self.keeper.finish()
        self.tell()

    def finish(self, farewell: bool) -> bool:
        """Keep what waits and finish the log; return whether it is whole."""
        self.capture.halt()
        self.capture.join(HALT_S)
        if self.keeper is not None and not self._over:
            if self.keeper.settle():
                self._keep()
            self.capture.unkept += self.capture.kept.qsize()
            self._note()
            if not farewell:
                self.keeper.note("camera", "the process that started the camera ended without a word: it was killed or it crashed",
                                 Level.FATAL)
            self.keeper.finish()
        self.tell()
        return self.keeper is None or not self.keeper.error

    def tell(self) -> None:
        """Publish the status."""
        record, capture, keeper = self._status.record, self.capture, self.keeper
        since, before = self._counted
        now, pictures = time.monotonic(), capture.pictures
        if now - since >= RATE_S:
            record["rate"], self._counted = (pictures - before) / (now - since), (now, pictures)
        record["pictures"], record["missing"], record["unlogged"] = pictures, capture.missing, capture.unkept
        if keeper is not None:
            record["logged"], record["bytes"] = keeper.stored, keeper.size
        record["ended"], record["failed"] = bool(capture.ended), capture.failed
        record["clock"] = cut(self.camera.clock, STATUS_DTYPE["clock"].itemsize)
        words = [] if keeper is None else [keeper.error]
        record["words"] = cut("; ".join(filter(None, [capture.ended, *words])), STATUS_DTYPE["words"].itemsize)
        self._status.publish()

    def close(self) -> None:
        """Let go of everything, but for what a camera that never answers still holds."""
        if not self.capture.is_alive():
            self.camera.close()
            self._pictures.close()
        self._status.close()

    def _keep(self) -> None:
        """Move what waits into the log; it goes on waiting while the disk takes nothing, for then memory would grow."""
        for _ in range(self.capture.kept.qsize()):
            if self.keeper.error:
                break
            self.keeper.add(self.capture.kept.get_nowait())
            self.keeper.flush_if_due()
        self.keeper.flush_if_due()

    def _note(self) -> None:
        """Put words into the log for what was lost, and for a clock that is not what was thought."""
        capture = self.capture
        if capture.missing > self._missing:
            self.keeper.note("camera", f"{capture.missing - self._missing} pictures did not come", Level.WARNING)
        if capture.unkept > self._unkept:
            self.keeper.note("recorder", f"{capture.unkept - self._unkept} pictures found no room and are lost", Level.ERROR)
        self._missing, self._unkept = capture.missing, capture.unkept
        if self.camera.clock != self._clock:
            self._clock = self.camera.clock
            self.keeper.note("clock", f"from now on the time of capture is {self._clock}", Level.WARNING)


def run(options: Options) -> int:
    """Take pictures until the input ends or SIGTERM; return 0, 1 where the log is not whole, 2 where there was no picture."""
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        source = CameraSource.parse(options.camera)
        camera = source.open()
        first = camera.read()
        if first is None:
            raise HardwareError(f"camera {source.name}: gives no picture")
        loop = CameraLoop(options, source, camera, first)
    except ReflexarcError as error:
        _say({"ready": False, "error": str(error)})
        return 2
    loop.capture.start()
    _say({"ready": True, "width": camera.width, "height": camera.height, "rate": camera.rate, "clock": camera.clock})
    while not ended:
        ended += select.select([sys.stdin], [], [], POLL_S)[0]
        loop.turn()
    farewell = ended[0] is not sys.stdin or sys.stdin.buffer.read(len(FAREWELL)) == FAREWELL
    whole = loop.finish(farewell)
    loop.close()
    return 0 if whole else 1


def _say(words: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(words), flush=True)


if __name__ == "__main__":
    sys.exit(run(tyro.cli(Options)))
