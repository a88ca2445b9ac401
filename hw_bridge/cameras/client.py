"""Starting a camera's process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from hw_bridge.cameras.boards import CameraStatus
from hw_bridge.cameras.source import CameraSource
from hw_bridge.cameras.view import CameraView
from hw_bridge.recorder.log_row import FAREWELL
from robots.errors import ConfigurationError, HardwareError


@dataclass(frozen=True)
class CameraConfig:
    """How much of a camera's log may be lost, and how much may wait."""

    flush_s: float = 0.5
    """A camera's process or a machine that dies takes at most so much of the log with it [s]."""
    waiting_bytes: int = 128 << 20
    """Memory for pictures that wait while the disk is busy [byte]."""
    free_bytes: int = 256 << 20
    """No log is begun on a disk with less room [byte]."""

    def __post_init__(self) -> None:
        if not 0.0 < self.flush_s <= 60.0:
            raise ConfigurationError(f"CameraConfig.flush_s: expected a time within 0 and 60 s, got {self.flush_s}")


class CameraProcess:
    """A camera in a process of its own, which ends when this closes or dies. A context manager; once it runs it raises nothing."""

    def __init__(self, source: CameraSource, bridge: str, log: Path | None = None, config: CameraConfig = CameraConfig(),
                 timeout: float = 30.0) -> None:
        """`bridge`: what its boards are called after; `log`: file for its pictures, None: they are not kept. HardwareError, in words, where
        no picture comes within `timeout` [s]."""
        self.name, self.log = source.name, log
        self._last: CameraStatus | None = None
        """How it ended."""
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
        options = {"camera": source.to_text(), "bridge": bridge, "flush-s": config.flush_s, "waiting-bytes": config.waiting_bytes,
                   "free-bytes": config.free_bytes} | ({} if log is None else {"log": log})
        self.process = subprocess.Popen([sys.executable, "-m", "hw_bridge.cameras.process",
                                         *(word for key, value in options.items() for word in (f"--{key}", str(value)))],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True)
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        answer = json.loads(line) if line else {"ready": False, "error": f"gave no picture within {timeout:.0f} s, or its process died"}
        if not answer["ready"]:
            self._end()
            raise HardwareError(f"camera {source.name} did not start: {answer['error']}")
        self.ready = answer
        """width, height, rate and clock."""
        try:
            self.view = CameraView(bridge, source.name)
        except BaseException:
            self._end()
            raise

    def status(self) -> CameraStatus:
        """Return how the camera goes; also where its process was killed, or has ended."""
        told = self.view.status() if self._last is None else self._last
        if self.process.poll() is None or self._last is not None:
            return told
        return told if told.ended else replace(told, rate=0.0, ended=True, failed=True, words="the camera's process died")

    def close(self) -> CameraStatus:
        """Finish the log and return how it ended. Harmless twice."""
        if self._last is None:
            died = self.process.poll() is not None
            self._end()
            last = self.view.status()
            self._last = self.status() if died or self.process.returncode < 0 else last
            self.view.close()
        return self._last

    def _end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(FAREWELL)
            self.process.stdin.close()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
