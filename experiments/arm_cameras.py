"""The cameras of a command: started together, watched together, and told of in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hw_bridge.cameras.camera_log import camera_log_path
from hw_bridge.cameras.client import CameraProcess
from hw_bridge.cameras.source import CameraSource
from robots.errors import ConfigurationError, ReflexarcError


def camera_sources(texts: Sequence[str], log: Path) -> tuple[CameraSource, ...]:
    """Return the cameras that NAME=SOURCE texts name. ConfigurationError where one cannot be, or where its pictures' file, beside `log`,
    exists already."""
    sources = tuple(map(CameraSource.parse, texts))
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--camera: expected different names, got {', '.join(names)}")
    for source in sources:
        source.check()
    for path in (camera_log_path(log, name) for name in names):
        if path.exists():
            raise ConfigurationError(f"--log {log}: {path} exists already; a log is never written over, take another name")
    return sources


class ArmCameras:
    """Cameras that run. To be used by one thread at a time."""

    def __init__(self, processes: Sequence[CameraProcess]) -> None:
        self.processes = tuple(processes)
        self._said = dict.fromkeys(self.names, "")

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(process.name for process in self.processes)

    def line(self) -> str:
        """Return how all of them go, in one line."""
        return "".join(f"  {process.name} {process.status().line()}" for process in self.processes)

    def news(self) -> Iterator[str]:
        """Yield in words what was not said of a camera yet."""
        for process in self.processes:
            words = process.status().words
            if words and words != self._said[process.name]:
                yield f"camera {process.name}: {words}; the rest goes on"
            self._said[process.name] = words

    def close(self) -> Iterator[tuple[bool, str]]:
        """End them, and yield of each whether all that came is in its log, and words on it."""
        for process in self.processes:
            status = process.close()
            whole = not (status.failed or status.unlogged) and status.logged == status.pictures
            yield whole, f"camera {process.name}: {status.logged} pictures logged of {status.pictures + status.missing}" \
                         f"{f', {status.missing} did not come' if status.missing else ''}" \
                         f"{f' ({status.words})' if status.words else ''}; stamped: {status.clock}; {process.log}"


@contextlib.contextmanager
def arm_cameras(bridge: str, sources: Sequence[CameraSource], log: Path) -> Iterator[ArmCameras]:
    """A context with cameras that show their pictures on boards called after `bridge` and keep them beside `log`. Where one does not start
    none does, and nothing of them is left."""
    with contextlib.ExitStack() as stack:
        processes: list[CameraProcess] = []
        try:
            for source in sources:
                processes.append(stack.enter_context(CameraProcess(source, bridge, camera_log_path(log, source.name))))
        except ReflexarcError:
            for process in processes:
                process.close()
                process.log.unlink(missing_ok=True)
            raise
        yield ArmCameras(processes)
