"""A folder of episodes, one Parquet file each, that survives being killed, a full disk and damaged files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from episodes.episode import Episode
from episodes.parquet import decode_episode, encode_episode
from robots.errors import StoreError

SUPERSEDED = "superseded"
"""Subfolder for episodes that `truncate_to` took out of the count."""

_NAME = re.compile(r"episode-(\d{6,})\.parquet")
_TEMPORARY = re.compile(r"\.episode-\d{6,}\.parquet\.\d+\.temporary")
_log = logging.getLogger(__name__)


class EpisodeStore:
    """Episodes 0, 1, 2, ... in `directory`, as `episode-000000.parquet` and on; each also opens with `pandas.read_parquet`.

    An episode is in the store from the moment `append` or `write` returns: it is written under a temporary name,
    flushed to the disk and renamed, so that a reader sees all of it or nothing, whenever the writer is killed.
    Several processes may read while one writes; writers take turns on a lock.
    """

    def __init__(self, directory: str | os.PathLike[str], *, create: bool = True) -> None:
        """Open `directory`, making it if `create`, and clear away what killed writers left unfinished.

        Raises StoreError if it is not a folder, or is missing and `create` is False.
        """
        self.directory = Path(directory)
        if create:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{self.directory}: cannot make the folder of episodes ({error.strerror}). Name another place") from error
        if not self.directory.is_dir():
            raise StoreError(f"{self.directory}: expected a folder of episodes, found none. Check the path of the run")
        self._clear_temporaries()

    def path(self, index: int) -> Path:
        """Return where episode `index` is or would be stored."""
        return self.directory / f"episode-{index:06d}.parquet"

    def indices(self) -> range:
        """Return the numbers 0 ... n-1 of the episodes; StoreError if one in between is missing."""
        found = sorted(self._found())
        for expected, index in enumerate(found):
            if index != expected:
                raise StoreError(f"{self.path(expected)}: missing, although {self.path(index).name} exists. Put it back, or keep only "
                                 f"the first {expected} with EpisodeStore(...).truncate_to({expected}), which moves the later ones "
                                 f"into {SUPERSEDED}/")
        return range(len(found))

    def __len__(self) -> int:
        return len(self.indices())

    def __iter__(self) -> Iterator[Episode]:
        """Read one episode after the other."""
        return (self.read(index) for index in self.indices())

    def read(self, index: int) -> Episode:
        """Return episode `index`.

        Raises StoreError (missing, empty, truncated, damaged or foreign) or VersionError, both naming the file.
        """
        path = self.path(index)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no such episode; the folder holds {_listing(self._found())}") from error
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
        return decode_episode(data, str(path))

    def append(self, episode: Episode) -> int:
        """Store `episode` after the last one and return its number; StoreError if the disk refuses."""
        data = encode_episode(episode)
        with self._locked():
            index = len(self)
            self._replace(index, data)
        return index

    def write(self, index: int, episode: Episode) -> None:
        """Store `episode` as number `index`, atomically in place of the one there (a resumed run lives it again).

        Raises StoreError if `index` would leave a gap or the disk refuses; the old episode is then still whole.
        """
        data = encode_episode(episode)
        with self._locked():
            count = len(self)
            if not 0 <= index <= count:
                raise StoreError(f"{self.directory}: cannot write episode {index}, it holds {count}; expected a number from 0 to {count}")
            self._replace(index, data)

    def truncate_to(self, count: int) -> list[Path]:
        """Keep the first `count` episodes, move the later ones into `superseded/` and return where they are now.

        Nothing is deleted or overwritten. Raises StoreError if one of the first `count` is missing.
        """
        with self._locked():
            found = self._found()
            absent = [index for index in range(count) if index not in found]
            if count < 0 or absent:
                raise StoreError(f"{self.directory}: cannot keep the first {count} episodes, it holds {_listing(found)}"
                                 + (f"; the first one missing is {self.path(absent[0]).name}" if absent else ""))
            later = sorted((index for index in found if index >= count), reverse=True)
            if not later:
                return []
            superseded = self.directory / SUPERSEDED
            moved = []
            try:
                superseded.mkdir(exist_ok=True)
                for index in later:  # the last first: a kill in between leaves no gap
                    moved.append(_free_name(superseded, self.path(index)))
                    os.rename(self.path(index), moved[-1])
                _flush_directory(superseded)
                _flush_directory(self.directory)
            except OSError as error:
                raise StoreError(f"{superseded}: cannot move episodes there ({error.strerror}); none is lost, "
                                 f"{len(self._found())} are still in place") from error
            return moved[::-1]

    def _found(self) -> set[int]:
        try:
            return {int(match[1]) for name in os.listdir(self.directory) if (match := _NAME.fullmatch(name))}
        except OSError as error:
            raise StoreError(f"{self.directory}: the folder of episodes cannot be listed ({error.strerror})") from error

    def _replace(self, index: int, data: bytes) -> None:
        path = self.path(index)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.temporary")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_directory(self.directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(f"{path}: the disk is full ({error.strerror}); this episode of {len(data)} bytes was not stored, those "
                                 "stored before are intact. Free some space and resume the run") from error
            raise StoreError(f"{path}: cannot be written ({error.strerror}); this episode was not stored, those stored before are "
                             "intact") from error

    @contextlib.contextmanager
    def _locked(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the writers' lock, which the kernel releases when its holder dies; BlockingIOError if taken and not `wait`."""
        try:
            lock = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(f"{self.directory}: cannot be written to ({error.strerror}); episodes stored before are intact") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)

    def _clear_temporaries(self) -> None:
        stale = [name for name in os.listdir(self.directory) if _TEMPORARY.fullmatch(name)]
        if not stale:
            return
        try:
            with self._locked(wait=False):
                for name in stale:
                    (self.directory / name).unlink(missing_ok=True)
                    _log.info("removed %s, which a writer left unfinished", self.directory / name)
        except BlockingIOError:
            _log.debug("%s: a writer is at work; its temporary file is its own", self.directory)
        except (OSError, StoreError) as error:
            _log.warning("%s: could not remove unfinished files: %s", self.directory, error)


def _flush_directory(directory: Path) -> None:
    """Make renames in `directory` outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_name(directory: Path, path: Path) -> Path:
    candidate, number = directory / path.name, 1
    while candidate.exists():
        number += 1
        candidate = directory / f"{path.stem}.{number}{path.suffix}"
    return candidate


def _listing(found: set[int]) -> str:
    return f"{len(found)} episodes, numbers {min(found)} to {max(found)}" if found else "no episodes"
