"""The recorder's process: takes rows and events out of their rings and puts them into the log, until its standard input ends.

Its first line of input is the header, its line of output says that the log is begun, or why not. The end of the input is the bridge's
end, by its own will or not: what the rings still hold is written and the log finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from hw_bridge.realtime.board import Board
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import EVENT_DTYPE, FAREWELL, EventRing, Level, ServoRing, cut, event_row, servo_dtype
from hw_bridge.recorder.mcap_log import McapLog
from hw_bridge.recorder.status import STATUS_DTYPE
from robots.errors import ReflexarcError, StoreError

POLL_S = 0.02
"""How often the rings are looked at [s]."""
LAST_ATTEMPTS_S = 2.0
"""How long the end of a log waits for room on the disk [s]."""


@dataclass(frozen=True)
class Options:
    """Where rows come from and where they go."""

    log: Path
    """The file to be made."""
    rows: str
    """Name of the ring of servo rows."""
    events: str
    """Name of the ring of events."""
    status: str
    """Name of the board to report on."""
    flush_s: float = 0.5
    """Longest time that a row is in memory alone [s]."""
    free_bytes: int = 64 << 20
    """Room on the disk below which no log is begun [byte]."""


class Recording:
    """The rings, the log and the report on it."""

    def __init__(self, options: Options, header: LogHeader) -> None:
        self.options = options
        check_room(options.log, options.free_bytes)
        self.rows = ServoRing.attach(options.rows, servo_dtype(header.nv))
        self.events = EventRing.attach(options.events, EVENT_DTYPE)
        self.board = Board.attach(options.status, STATUS_DTYPE)
        self.log = McapLog(options.log, header)
        self.added_rows = self.added_events = self.dropped = 0
        self.failing = False
        self.report()

    def take(self) -> None:
        """Move what the rings hold to the log; nothing while the disk takes nothing, for then memory would grow."""
        if self.failing:
            return
        rows, events = self.rows.take(), self.events.take()
        self.log.add_rows(rows)
        self.log.add_events(events)
        self.added_rows += len(rows)
        self.added_events += len(events)
        dropped = self.rows.dropped + self.events.dropped
        if dropped > self.dropped:
            self.log.add_events(event_row(time.monotonic_ns(), 0, "recorder", f"{dropped - self.dropped} rows or events found no room and "
                                          "are lost", Level.ERROR)[None])
            self.dropped = dropped

    def flush(self) -> bool:
        """Put it on the disk and report; return whether that worked."""
        return self._try(self.log.flush)

    def finish(self, farewell: bool) -> bool:
        """Write what is left, words on a bridge that left without `farewell`, and the footer; return whether that worked before the
        patience ended.
        """
        ends = time.monotonic() + LAST_ATTEMPTS_S
        while not self.flush():
            if time.monotonic() > ends:
                return False
            time.sleep(0.1)
        self.take()
        if not farewell:
            self.log.add_events(event_row(time.monotonic_ns(), 0, "recorder", "the bridge's process ended without a word: it was killed or "
                                          "it crashed", Level.FATAL)[None])
        return self._try(self.log.finish, finished=True)

    def report(self, *, finished: bool = False, error: str = "") -> None:
        """Tell the bridge where the log stands."""
        record = self.board.record
        if not error:
            record["rows"], record["events"], record["bytes"] = self.added_rows, self.added_events, self.log.size
            record["flushed_ns"] = time.monotonic_ns()
        record["failures"] += bool(error)
        record["finished"], record["error"] = finished, cut(error, 239)
        self.board.publish()

    def _try(self, store: object, *, finished: bool = False) -> bool:
        try:
            store()
        except StoreError as error:
            self.failing = True
            self.report(error=str(error))
            return False
        self.failing = False
        self.report(finished=finished)
        return True


def check_room(log: Path, free_bytes: int) -> None:
    """Raise StoreError where the disk has less room than `free_bytes`."""
    folder = next(parent for parent in log.absolute().parents if parent.exists())
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    if free < free_bytes:
        raise StoreError(f"{log}: {free / 2**20:.1f} MiB are free there, expected at least {free_bytes / 2**20:.1f} MiB; make room, or "
                         "name another disk")


def record(options: Options) -> int:
    """Record until the input ends or SIGTERM; return 0, or 1 where the log could not be begun or finished."""
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        recording = Recording(options, LogHeader.from_text(sys.stdin.buffer.readline().decode()))
    except ReflexarcError as error:
        _say({"ready": False, "error": str(error)})
        return 1
    _say({"ready": True})
    flushed = time.monotonic()
    while not ended:
        ended += select.select([sys.stdin], [], [], POLL_S)[0]
        recording.take()
        if time.monotonic() - flushed >= options.flush_s:
            flushed = time.monotonic()
            recording.flush()
    farewell = ended[0] is not sys.stdin or sys.stdin.buffer.read(len(FAREWELL)) == FAREWELL
    return 0 if recording.finish(farewell) else 1


def _say(words: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(words), flush=True)


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(record(tyro.cli(Options)))
