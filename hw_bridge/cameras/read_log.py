"""A camera's log read back, whole or cut off: every whole chunk counts. Pictures stay in the file until they are asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Metadata
from mcap.stream_reader import get_chunk_data_stream

from episodes.episode import Episode, FrameTimes
from hw_bridge.cameras.camera_log import METADATA, CameraHeader, picture_place
from hw_bridge.recorder.log_row import EVENT_DTYPE
from hw_bridge.recorder.mcap_file import EVENTS_TOPIC, MESSAGE, RECORD, mapped, read_event, whole_records
from robots.errors import StoreError

INDEX_DTYPE = np.dtype([("captured_ns", "<i8"), ("received_ns", "<i8"), ("sequence", "<u4"), ("start", "<i8"), ("end", "<i8")])
"""Of one picture: its times on the host's monotonic clock, its number, and where in the file it lies."""


@dataclass(frozen=True)
class CameraRecording:
    """What a camera's log holds."""

    path: Path
    header: CameraHeader
    index: np.ndarray
    """(n,) of INDEX_DTYPE, in the order in which the pictures came."""
    events: np.ndarray
    """(m,) of EVENT_DTYPE."""
    complete: bool
    """Whether the log was finished."""
    damage: tuple[str, ...]
    """What could not be read, in words."""

    def image(self, k: int) -> np.ndarray:
        """Return picture `k` (height, width, 3) uint8 RGB."""
        entry = self.index[k]
        with self.path.open("rb") as file:
            file.seek(entry["start"])
            return iio.imread(file.read(entry["end"] - entry["start"]), plugin="pillow", mode="RGB")

    def newest_at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which picture was the newest that had arrived at each of `times_ns` (T,), on the host's monotonic clock, and how long ago
        it was captured: (T,) and (T,) [s]. Before the first one: -1, and inf. A policy at work could not have seen a later one.
        """
        newest = np.searchsorted(self.index["received_ns"], np.asarray(times_ns, np.int64), side="right") - 1
        if not len(self.index):
            return newest, np.full(newest.shape, np.inf)
        age = (np.asarray(times_ns, np.int64) - self.index["captured_ns"][newest]) * 1e-9
        return newest, np.where(newest < 0, np.inf, age)

    def images_at(self, times_ns: np.ndarray, age_max: float = np.inf) -> tuple[list[np.ndarray | None], np.ndarray]:
        """Return the newest picture at each of `times_ns` (T,), and how old it was (T,) [s]; None where none had arrived, or it was older
        than `age_max` [s]. A picture that is the newest several times is one array.
        """
        newest, age = self.newest_at(times_ns)
        wanted = np.where(age <= age_max, newest, -1)
        pictures = {k: self.image(k) for k in np.unique(wanted).tolist() if k >= 0}
        return [pictures.get(k) for k in wanted.tolist()], age


def with_pictures(episode: Episode, recordings: Sequence[CameraRecording]) -> Episode:
    """Return an episode of an arm's log with the pictures, by camera, that were the newest at its control times."""
    times_ns = np.round(episode.time * 1e9).astype(np.int64)
    frames = {}
    for recording in recordings:
        seen = np.unique(recording.newest_at(times_ns)[0])
        index = recording.index[seen[seen >= 0]]
        frames[recording.header.name] = FrameTimes(index["sequence"].astype(np.int64), index["captured_ns"])
    return replace(episode, frames=frames)


def read_camera_log(path: Path) -> CameraRecording:
    """Return a camera's log, finished or cut off anywhere. StoreError where it is none, VersionError for another version's."""
    path = Path(path)
    with mapped(path, "a camera's log, LOG.camera-NAME.mcap") as data:
        return _Reader(path, data).read()


class _Reader:
    """One pass over the records of a file."""

    def __init__(self, path: Path, data: mmap) -> None:
        self._path, self._data = path, data
        self._header: CameraHeader | None = None
        self._channels: dict[int, str] = {}
        self._index: list[tuple[int, ...]] = []
        self._events: list[np.ndarray] = []
        self._damage: list[str] = []

    def read(self) -> CameraRecording:
        complete = False
        for opcode, start, end in whole_records(self._data, self._path, self._damage):
            if opcode == Opcode.METADATA:
                metadata = Metadata.read(_stream(self._data[start:end]))
                self._header = CameraHeader.from_text(metadata.metadata["header"]) if metadata.name == METADATA else self._header
            elif opcode == Opcode.CHUNK and self._header is not None:
                self._chunk(start, end)
            elif opcode == Opcode.FOOTER:
                complete = True
                break
        if self._header is None:
            raise StoreError(f"{self._path}: is no camera's log of this software, or was cut off as it began")
        events = np.concatenate([np.zeros(0, EVENT_DTYPE), *self._events])
        return CameraRecording(self._path, self._header, np.array(self._index, INDEX_DTYPE), events, complete, tuple(self._damage))

    def _chunk(self, start: int, end: int) -> None:
        before = len(self._index), len(self._events)
        try:
            chunk = Chunk.read(_stream(self._data[start:end]))
            get_chunk_data_stream(chunk, validate_crc=True)
            self._messages(chunk.data, end - len(chunk.data))
        except Exception as error:  # whatever damaged bytes look like
            del self._index[before[0] :], self._events[before[1] :]
            self._damage.append(f"the chunk at byte {start} is damaged ({type(error).__name__}: {error}): its pictures are lost")

    def _messages(self, data: bytes, place: int) -> None:
        """Note the pictures and events of a chunk whose bytes begin at `place` in the file."""
        position, offset = 0, self._header.wall_offset_ns
        while position < len(data):
            opcode, length = RECORD.unpack_from(data, position)
            start = position + RECORD.size
            content = data[start : start + length]
            if opcode == Opcode.CHANNEL:
                channel = Channel.read(_stream(content))
                self._channels[channel.id] = channel.topic
            elif opcode == Opcode.MESSAGE:
                number, sequence, received, captured = MESSAGE.unpack_from(content)
                if self._channels.get(number) == EVENTS_TOPIC:
                    self._events.append(read_event(content[MESSAGE.size :]))
                else:
                    first, last = picture_place(content[MESSAGE.size :])
                    at = place + start + MESSAGE.size
                    self._index.append((captured - offset, received - offset, sequence, at + first, at + last))
            position = start + length


def _stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))
