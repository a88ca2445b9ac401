"""Memory that processes share by name; what a killed process left behind is cleared away by the next one.

multiprocessing.shared_memory is not used: in Python 3.11 its resource tracker removes a segment when a process that merely read it
ends (python/cpython#82300), and whoever is killed together with its tracker leaves the segment for ever. Here the maker holds a lock
that the kernel lets go of when it dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
from pathlib import Path
from typing import Self

from robots.errors import ConfigurationError, HardwareError

PREFIX = "reflexarc-"
_FOLDER = Path("/dev/shm")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Segment:
    """`size` bytes named /dev/shm/reflexarc-NAME, made with `create`, opened by others with `attach`; in memory from the start."""

    def __init__(self, name: str, descriptor: int, size: int, owner: bool) -> None:
        self.name, self.size, self._descriptor, self._owner = name, size, descriptor, owner
        self._map = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self.memory = memoryview(self._map)
        """(size,) bytes."""

    @classmethod
    def create(cls, name: str, size: int) -> Self:
        """Make a segment of zeros, which only this user may open. ConfigurationError if the name is in use."""
        path = _path(name)
        clear_abandoned()
        try:
            descriptor = os.open(_FOLDER, os.O_RDWR | os.O_TMPFILE, 0o600)
        except OSError as error:
            raise HardwareError(f"shared memory cannot be made in {_FOLDER}: {error.strerror}") from error
        try:
            os.posix_fallocate(descriptor, 0, size)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Its name appears once it is whole and locked. Python follows the link only where a folder is given (which is not used).
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
            return cls(name, descriptor, size, owner=True)
        except FileExistsError as error:
            os.close(descriptor)
            raise ConfigurationError(f"shared memory {path} is in use by a running process; end that one, or take another name") from error
        except OSError as error:
            os.close(descriptor)
            raise HardwareError(f"shared memory {path} of {size} bytes cannot be made: {error.strerror}") from error

    @classmethod
    def attach(cls, name: str) -> Self:
        """Open a segment that another process made. HardwareError if there is none."""
        path = _path(name)
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError as error:
            raise HardwareError(f"shared memory {path} cannot be opened: {error.strerror}; does the process that makes it run?") from error
        return cls(name, descriptor, os.fstat(descriptor).st_size, owner=False)

    def close(self) -> None:
        """Let go of it, and remove the name if this process made it; those who have it open keep it. Harmless twice."""
        if self._descriptor < 0:
            return
        if self._owner:
            _path(self.name).unlink(missing_ok=True)
        with contextlib.suppress(BufferError):  # arrays that still look into it keep the pages
            self.memory.release()
            self._map.close()
        os.close(self._descriptor)
        self._descriptor = -1


def clear_abandoned() -> list[str]:
    """Remove every segment whose maker is dead and return their names."""
    removed = []
    for path in _FOLDER.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed.append(path.name)
            finally:
                os.close(descriptor)
    return removed


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"shared memory: expected a name of letters, digits, '_', '.' and '-', got {name!r}")
    return _FOLDER / f"{PREFIX}{name}"
