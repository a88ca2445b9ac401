"""The bridge's end of the log: rings to push into, and a process of its own that writes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hw_bridge.realtime.board import Board
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import EVENT_DTYPE, FAREWELL, EventRing, ServoRing, servo_dtype
from hw_bridge.recorder.status import STATUS_DTYPE, RecorderStatus
from robots.errors import ConfigurationError, HardwareError, StoreError


@dataclass(frozen=True)
class RecorderConfig:
    """How much may be lost, and how much may wait."""

    flush_s: float = 0.5
    """A recorder or a machine that dies takes at most so much of the log with it [s]."""
    rows: int = 8192
    """Rows that may wait while the disk is busy: 8 s at 1 kHz. A power of two."""
    events: int = 1024
    """Events that may wait. A power of two."""
    free_bytes: int = 64 << 20
    """No log is begun on a disk with less room [byte]: two minutes at 1 kHz."""

    def __post_init__(self) -> None:
        if not 0.0 < self.flush_s <= 60.0:
            raise ConfigurationError(f"RecorderConfig.flush_s: expected a time within 0 and 60 s, got {self.flush_s}")


class Recorder:
    """Records into `path` until it is closed. A context manager.

    Killed itself, it loses at most `flush_s` of the log. If the process that uses it is killed, nothing that was pushed is lost.
    Once it runs it raises nothing: `status` says what is wrong, and rows that find no room are counted there.
    """

    def __init__(self, path: Path, header: LogHeader, config: RecorderConfig = RecorderConfig()) -> None:
        """Begin the log. StoreError, in words, where it cannot be: no room, no permission, the file exists."""
        self.path = Path(path)
        name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.rows = ServoRing.create(f"{name}-rows", servo_dtype(header.nv), config.rows)
        self.events = EventRing.create(f"{name}-events", EVENT_DTYPE, config.events)
        self._board = Board.create(f"{name}-recorder", STATUS_DTYPE)
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
        options = {"log": self.path, "rows": self.rows.name, "events": self.events.name, "status": self._board.name,
                   "flush-s": config.flush_s, "free-bytes": config.free_bytes}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hw_bridge.recorder.process", *(word for k, v in options.items() for word in (f"--{k}", str(v)))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True)
        try:
            self._begin(header)
        except BaseException:
            self.close()
            raise

    def _begin(self, header: LogHeader) -> None:
        timer = threading.Timer(30.0, self.process.kill)
        timer.start()
        self.process.stdin.write(header.to_text().encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            raise HardwareError("the recorder's process ended before it began; its own words are above")
        answer = json.loads(line)
        if not answer["ready"]:
            raise StoreError(answer["error"])

    def status(self) -> RecorderStatus:
        """Return how the recording goes; a few microseconds, for a look now and then."""
        alive = self.process.poll() is None
        value = self._board.read().value
        dropped = self.rows.dropped + self.events.dropped
        if value is None:
            return RecorderStatus(alive, 0, 0, 0, dropped, 0, 0, "" if alive else "the recorder never began")
        error = value["error"].item().decode(errors="replace")
        if not alive and not error and not value["finished"]:
            error = "the recorder's process died"
        return RecorderStatus(alive, int(value["rows"]), int(value["events"]), int(value["bytes"]), dropped, int(value["flushed_ns"]),
                              int(value["failures"]), error)

    def close(self) -> RecorderStatus | None:
        """Write what is left, finish the log and return how it ended; None where it was closed before."""
        if self.process.stdin.closed:
            return None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(FAREWELL)
            self.process.stdin.close()
        try:
            self.process.wait(30.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        status = self.status()
        for shared in (self.rows, self.events, self._board):
            shared.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
