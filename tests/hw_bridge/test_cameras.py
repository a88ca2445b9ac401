"""Cameras: every picture is whole, stamped and numbered; what is lost is counted; a log holds what it says, whoever is killed."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
from mcap.reader import make_reader

from hw_bridge.cameras import capture as capture_module
from hw_bridge.cameras.boards import board_names, picture_dtype
from hw_bridge.cameras.camera_log import CameraHeader, CameraLog, camera_log_path, compressed, is_camera_log, picture_place, to_message
from hw_bridge.cameras.capture import Capture
from hw_bridge.cameras.client import CameraConfig, CameraProcess
from hw_bridge.cameras.file_cameras import PictureFolder, VideoFile
from hw_bridge.cameras.keeper import Keeper
from hw_bridge.cameras.opencv_camera import GRAB_CLOCK, KERNEL_CLOCK, OpenCvCamera, missing
from hw_bridge.cameras.read_log import INDEX_DTYPE, CameraRecording, read_camera_log
from hw_bridge.cameras.source import CameraSource
from hw_bridge.cameras.view import CameraView
from hw_bridge.realtime.board import Board
from hw_bridge.realtime.segment import PREFIX
from hw_bridge.recorder.log_row import Level
from hw_bridge.recorder.mcap_file import MESSAGE
from robots.errors import ConfigurationError, HardwareError, MissingExtraError, StoreError, VersionError
from robots.observation import CameraFrame

BRIDGE = f"cameras-{os.getpid()}"
SMALL = CameraConfig(flush_s=0.1, free_bytes=0)


def shade(k: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Return picture `k`: all of one shade of grey, which is exact in a PNG and nearly so in a JPEG."""
    return np.full((height, width, 3), 8 * (k % 32), np.uint8)


def shade_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / 8)


def folder_of(path: Path, count: int = 20, **size: int) -> Path:
    path.mkdir()
    for k in range(count):
        iio.imwrite(path / f"{k:04d}.png", shade(k, **size))
    return path


def video_of(path: Path, pictures: list[np.ndarray], rate: int = 25) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = pictures[0].shape[1], pictures[0].shape[0], "yuv420p", 4_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def until(look, seconds: float = 20.0, words=lambda: ""):
    """Return what `look` returns once it is true."""
    ends = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < ends, f"waited for {seconds} s: {words()}"
        time.sleep(0.01)
    return found


def shared() -> set[Path]:
    return set(Path("/dev/shm").glob(f"{PREFIX}{BRIDGE}.*"))


def played(camera) -> list[CameraFrame]:
    frames = []
    while (frame := camera.read()) is not None:
        frames.append(frame)
    return frames


def header(**changes: object) -> CameraHeader:
    return CameraHeader(**({"name": "wrist", "source": "wrist=none", "width": 64, "height": 48, "rate": 30.0, "clock": "c", "format": "png"}
                           | changes))


def frame_at(k: int, period_ns: int = 40_000_000, late_ns: int = 5_000_000) -> CameraFrame:
    return CameraFrame(shade(k), k * period_ns, k * period_ns + late_ns, k)


# Files as cameras.


def test_a_folder_is_played_in_order_at_its_rate_and_never_early(tmp_path):
    camera = PictureFolder(folder_of(tmp_path / "p", 12), rate=50.0, loop=False)
    frames = played(camera)
    assert (camera.width, camera.height, camera.rate) == (64, 48, 50.0)
    assert [frame.sequence for frame in frames] == list(range(12)) == [shade_of(frame.image) for frame in frames]
    stamps = np.array([frame.captured_ns for frame in frames])
    assert (stamps - stamps[0] >= np.arange(12) * 20_000_000 - 1_000_000).all() and abs(stamps[-1] - time.monotonic_ns()) < 60e9
    looped = PictureFolder(tmp_path / "p", rate=np.inf, loop=True)
    assert [shade_of(looped.read().image) for _ in range(30)] == [k % 12 for k in range(30)]


def test_a_video_has_its_own_rate_and_colours(tmp_path):
    red, blue = (np.broadcast_to(np.array(c, np.uint8), (48, 64, 3)) for c in ((200, 30, 30), (30, 30, 200)))
    video = video_of(tmp_path / "v.mp4", [red] * 5 + [blue] * 5)
    assert VideoFile(video, None, False).rate == 25.0
    frames = played(VideoFile(video, np.inf, False))
    assert len(frames) == 10 and frames[0].image.shape == (48, 64, 3)
    assert frames[0].image[..., 0].mean() > 150 > 80 > frames[0].image[..., 2].mean()
    assert frames[-1].image[..., 2].mean() > 150 > 80 > frames[-1].image[..., 0].mean()


def test_files_that_are_no_cameras_are_refused_in_words(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds no picture"):
        PictureFolder(tmp_path / "empty", None, True)
    (tmp_path / "empty" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ConfigurationError, match=r"bad\.png: cannot be read"):
        PictureFolder(tmp_path / "empty", None, False)
    for content in (b"", b"nonsense" * 100):
        (tmp_path / "v.mp4").write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"v\.mp4: cannot be played"):
            VideoFile(tmp_path / "v.mp4", None, False)
    with pytest.raises(ConfigurationError, match="rate above 0"):
        PictureFolder(tmp_path, -1.0, False)
    mixed = folder_of(tmp_path / "mixed", 3)
    iio.imwrite(mixed / "9999.png", shade(3, width=32))
    camera = PictureFolder(mixed, np.inf, False)
    assert [camera.read().sequence for _ in range(3)] == [0, 1, 2]
    with pytest.raises(HardwareError, match="32 x 48 after others of 64 x 48"):
        camera.read()


def test_a_camera_is_named_in_one_line():
    for text in ("wrist=/dev/video0", "top=2", "a_b-1=some/film.mp4,rate=12.5,loop=true", "x=/dev/v,width=640,height=480,format=png"):
        assert CameraSource.parse(text).to_text() == text
    assert CameraSource.parse("a=f,loop").loop and not CameraSource.parse("a=f,loop=false").loop
    for wrong, words in (("/dev/video0", "NAME=SOURCE"), ("=x", "a name of letters"), ("a.b=x", "a name of letters"), ("a=", "after '='"),
                         ("a=x,width=0,height=480", "above 0"), ("a=x,width=640", "or neither"), ("a=x,width=-1,height=-1", "above 0"),
                         ("a=x,width=wide,height=480", "is no int"), ("a=x,rate=-3", "rate above 0"), ("a=x,rate=nan", "rate above 0"),
                         ("a=x,format=gif", "format=jpeg"), ("a=x,zoom=2", "known: width="), ("a=x,loop=perhaps", "is no bool")):
        with pytest.raises(ConfigurationError, match=words):
            CameraSource.parse(wrong)
    with pytest.raises(ConfigurationError, match="there is no device /dev/video4711; there are"):
        CameraSource.parse("a=4711").check()
    with pytest.raises(ConfigurationError, match="there is nothing at no/film"):
        CameraSource.parse("a=no/film").check()
    with pytest.raises(ConfigurationError, match="its own size"):
        CameraSource.parse(f"a={__file__},width=64,height=48").open()


# OpenCV.


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"reflexarc\[cameras\]"):
        OpenCvCamera("/dev/video0")


def test_opencv_gives_rgb_stamped_when_grabbed_and_its_end_is_a_failure(tmp_path):
    cv2 = pytest.importorskip("cv2")
    red = np.broadcast_to(np.array((200, 30, 30), np.uint8), (48, 64, 3))
    video = str(video_of(tmp_path / "v.mp4", [red] * 4))
    before = time.monotonic_ns()
    camera = OpenCvCamera(video, backend=cv2.CAP_FFMPEG)
    assert (camera.width, camera.height, camera.rate, camera.clock) == (64, 48, 25.0, GRAB_CLOCK)
    frames = [camera.read() for _ in range(4)]
    for frame in frames:
        assert frame.image[..., 0].mean() > 150 > 80 > frame.image[..., 2].mean()
        assert before <= frame.captured_ns == frame.received_ns <= time.monotonic_ns()
        before = frame.captured_ns
    with pytest.raises(HardwareError, match="gives no picture any more"):
        camera.read()
    camera.close()
    for wrong in ({"width": 9999, "height": 9999}, {"rate": 240.0}):
        with pytest.raises(ConfigurationError, match=r"gives 64 x 48 at 25/s where .* was asked for"):
            OpenCvCamera(video, backend=cv2.CAP_FFMPEG, **wrong)
    with pytest.raises(HardwareError, match="cannot be opened"):
        OpenCvCamera(str(tmp_path / "none.mp4"), backend=cv2.CAP_FFMPEG)


def test_a_kernels_stamp_is_believed_only_where_it_can_be_one(tmp_path):
    cv2 = pytest.importorskip("cv2")
    camera = OpenCvCamera(str(video_of(tmp_path / "v.mp4", [shade(3)] * 2)), backend=cv2.CAP_FFMPEG)

    class Kernel:
        """Says that its newest buffer was filled at `stamp_ms`."""

        def get(self, name: int) -> float:
            return self.stamp_ms

    now, kernel = 10**12, Kernel()
    camera._capture, camera.clock = kernel, KERNEL_CLOCK
    kernel.stamp_ms = 1e6 - 33.0
    assert camera._captured_ns(now) == now - 33_000_000 and camera.clock == KERNEL_CLOCK
    for wrong in (1e6 + 5.0, 0.0, 1.7e12):  # the future, none, the wall clock
        camera.clock, kernel.stamp_ms = KERNEL_CLOCK, wrong
        assert camera._captured_ns(now) == now and camera.clock == GRAB_CLOCK


def test_gaps_are_missing_pictures():
    period = 1e9 / 30
    assert [missing(round(n * period * f), 30.0) for n in (1, 2, 5) for f in (0.95, 1.05)] == [0, 0, 1, 1, 4, 4]
    assert missing(round(100 * period), 30.0, first=True) == 0 and missing(10**9, 0.0) == 0


# From thread to board and queue.


class Staged:
    """A camera that gives what it was told, then raises or ends."""

    width, height, rate, clock = 64, 48, 30.0, "c"

    def __init__(self, sequences: list[int], error: Exception | None = None) -> None:
        self._sequences, self._error = list(sequences), error

    def read(self) -> CameraFrame | None:
        if self._sequences:
            return frame_at(self._sequences.pop(0))
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(("error", "words", "failed"),
                         [(None, capture_module.AT_THE_END, False), (HardwareError("unplugged"), "unplugged", True),
                          (RuntimeError("inside a library"), "inside a library", True)])
def test_what_does_not_come_and_what_finds_no_room_is_counted(error, words, failed):
    board = Board.create(f"{BRIDGE}.staged", picture_dtype(64, 48))
    try:
        camera = Staged([3, 4, 7, 8, 12], error)
        capture = Capture(camera, camera.read(), board, waiting=2)
        capture.run()
        assert (capture.pictures, capture.missing, capture.unkept, capture.failed) == (5, 2 + 3, 3, failed) and words in capture.ended
        assert [capture.kept.get_nowait().sequence for _ in range(2)] == [3, 4]
        newest = board.read()
        assert newest.value["sequence"] == 12 and newest.stamp_ns == frame_at(12).captured_ns and (newest.value["image"] == shade(12)).all()
    finally:
        board.close()


# The process.


def test_pictures_are_seen_elsewhere_and_none_is_torn(tmp_path):
    """Big pictures of one shade each, written as fast as they come: a mixture of two would have two shades."""
    folder = folder_of(tmp_path / "p", 32, width=320, height=240)
    with CameraProcess(CameraSource.parse(f"fast={folder},rate=inf,loop"), BRIDGE) as camera:
        assert (camera.ready["width"], camera.ready["height"]) == (320, 240) == (camera.view.width, camera.view.height)
        other, seen, ends = CameraView(BRIDGE, "fast"), [], time.monotonic() + 2.0
        while time.monotonic() < ends:
            frame = other.newest()
            if frame is not None and (not seen or frame is not seen[-1]):
                seen.append(frame)
        assert len(seen) > 50 and camera.status().unlogged == 0
        for frame in seen:
            assert frame.image.min() == frame.image.max() == 8 * (frame.sequence % 32)
        numbers, stamps = ([getattr(frame, name) for frame in seen] for name in ("sequence", "captured_ns"))
        assert numbers == sorted(set(numbers)) and stamps == sorted(stamps) and stamps[-1] <= time.monotonic_ns()
        other.close()
    assert not shared()
    with pytest.raises(HardwareError, match="does the process that makes it run"):
        CameraView(BRIDGE, "fast")


def test_every_picture_is_in_the_log_with_its_time(tmp_path):
    folder = folder_of(tmp_path / "p", 20)
    log = camera_log_path(tmp_path / "log.mcap", "wrist")
    assert log.name == "log.camera-wrist.mcap" and is_camera_log(log) and not is_camera_log(tmp_path / "log.mcap")
    with CameraProcess(CameraSource.parse(f"wrist={folder},rate=100,format=png"), BRIDGE, log, SMALL) as camera:
        until(lambda: camera.status().ended, words=camera.status)
        last = camera.view.newest()
        assert camera.view.newest() is last
        until(lambda: camera.status().logged == 20, words=camera.status)
        assert read_camera_log(log).complete  # a camera that is at its end has finished its log
    status = camera.close()
    assert (status.pictures, status.logged, status.missing, status.unlogged, status.failed) == (20, 20, 0, 0, False)
    assert status.words == capture_module.AT_THE_END and status.bytes == log.stat().st_size and status.clock == "when it was played"
    recording = read_camera_log(log)
    assert recording.complete and not recording.damage and recording.header.source == f"wrist={folder},rate=100.0,format=png"
    assert recording.index["sequence"].tolist() == list(range(20)) and (np.diff(recording.index["captured_ns"]) > 0).all()
    assert all((recording.image(k) == shade(k)).all() for k in range(20))
    assert (recording.index[-1]["captured_ns"], recording.index[-1]["received_ns"]) == (last.captured_ns, last.received_ns)
    assert [event["text"].item().decode() for event in recording.events] == [capture_module.AT_THE_END]


def test_a_camera_that_fails_is_told_and_its_last_picture_stays(tmp_path):
    folder = folder_of(tmp_path / "p", 5)
    (folder / "9999.png").write_bytes(b"unreadable")
    with CameraProcess(CameraSource.parse(f"wrist={folder},rate=100"), BRIDGE, tmp_path / "l.mcap", SMALL) as camera:
        status = until(lambda: (s := camera.status()).ended and s.bytes and s, words=camera.status)
        assert status.failed and "9999.png: cannot be read" in status.words and shade_of(camera.view.newest().image) == 4
        assert camera.process.poll() is None
    recording = read_camera_log(tmp_path / "l.mcap")
    assert recording.complete and len(recording.index) == 5
    assert recording.events["level"].tolist() == [Level.ERROR] and b"9999.png" in recording.events["text"][0]


def test_killed_with_nine_it_leaves_what_it_said_it_had(tmp_path):
    log = tmp_path / "l.mcap"
    with CameraProcess(CameraSource.parse(f"wrist={folder_of(tmp_path / 'p')},rate=100,loop"), BRIDGE, log, SMALL) as camera:
        said = until(lambda: (n := camera.status().logged) >= 30 and n, words=camera.status)
        os.kill(camera.process.pid, signal.SIGKILL)
        camera.process.wait()
        killed_ns = time.monotonic_ns()
        status = camera.status()
        assert status.ended and status.failed and status.words == "the camera's process died"
    assert camera.close().words == "the camera's process died"
    recording = read_camera_log(log)
    assert not recording.complete and len(recording.index) >= said
    assert recording.index["sequence"].tolist() == list(range(len(recording.index)))
    assert all(shade_of(recording.image(k)) == k % 20 for k in (0, 17, said - 1))
    assert (killed_ns - recording.index["captured_ns"][-1]) * 1e-9 < 5.0, "far beyond the flush interval"
    with CameraProcess(CameraSource.parse(f"wrist={tmp_path / 'p'}"), BRIDGE):
        pass  # what the killed one left behind is in nobody's way
    assert not shared()


def test_whoever_started_it_may_be_killed_and_nothing_is_lost(tmp_path):
    log = tmp_path / "l.mcap"
    camera = CameraProcess(CameraSource.parse(f"wrist={folder_of(tmp_path / 'p')},rate=100,loop"), BRIDGE, log, SMALL)
    until(lambda: camera.status().pictures >= 20)
    camera.process.stdin.close()  # as the system does for a killed process
    assert camera.process.wait(20.0) == 0
    recording = read_camera_log(log)
    assert recording.complete and len(recording.index) == camera.view.status().pictures
    assert recording.events["level"].tolist() == [Level.FATAL] and b"killed or it crashed" in recording.events["text"][0]
    camera.process.stdout.close()
    camera.view.close()


def test_what_cannot_start_says_why_and_leaves_nothing(tmp_path):
    folder = folder_of(tmp_path / "p", 2)
    (tmp_path / "there.mcap").touch()
    with pytest.raises(HardwareError, match=r"camera wrist did not start: .*exists already"):
        CameraProcess(CameraSource.parse(f"wrist={folder}"), BRIDGE, tmp_path / "there.mcap", SMALL)
    with pytest.raises(HardwareError, match=r"expected at least .* make room"):
        CameraProcess(CameraSource.parse(f"wrist={folder}"), BRIDGE, tmp_path / "l.mcap", CameraConfig(free_bytes=1 << 60))
    with pytest.raises(HardwareError, match="holds no picture"):
        (tmp_path / "none").mkdir()
        CameraProcess(CameraSource.parse(f"wrist={tmp_path / 'none'}"), BRIDGE)
    with CameraProcess(CameraSource.parse(f"wrist={folder}"), BRIDGE), pytest.raises(HardwareError, match="in use by a running process"):
        CameraProcess(CameraSource.parse(f"wrist={folder}"), BRIDGE, tmp_path / "second.mcap", SMALL)
    with pytest.raises(ConfigurationError, match="flush_s"):
        CameraConfig(flush_s=0.0)
    assert not shared() and {path.name for path in tmp_path.glob("*.mcap")} <= {"there.mcap"}


# The log's file.


def write_log(path: Path, chunks: int = 4, pictures: int = 5) -> list[int]:
    """Write so many chunks and return the file's size after each, the first after the header."""
    log = CameraLog(path, header())
    sizes = [log.size]
    for k in range(chunks * pictures):
        log.add_picture(frame_at(k))
        if (k + 1) % pictures == 0:
            log.flush()
            sizes.append(log.size)
    log.finish()
    log.close()
    return sizes


def test_a_log_cut_off_anywhere_reads_up_to_its_last_whole_chunk(tmp_path):
    sizes = write_log(tmp_path / "whole.mcap")
    data, cut = (tmp_path / "whole.mcap").read_bytes(), tmp_path / "cut.mcap"
    places = np.random.default_rng(0).integers(sizes[0], len(data), 60).tolist()
    for size in {*places, *sizes, sizes[2] - 1, sizes[2] + 1, len(data) - 9, len(data)}:
        cut.write_bytes(data[:size])
        recording = read_camera_log(cut)
        chunks = sum(end <= size for end in sizes[1:])
        assert len(recording.index) in (5 * chunks, 5 * (chunks + 1))  # a chunk is whole before its index is
        assert all((recording.image(k) == shade(k)).all() for k in range(len(recording.index)))
        assert recording.complete is (size >= len(data) - 8)
    for size in (0, 8, sizes[0] - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(StoreError, match=r"cut\.mcap"):
            read_camera_log(cut)
    damaged = bytearray(data)
    damaged[sizes[1] + 200] ^= 0xFF
    cut.write_bytes(damaged)
    recording = read_camera_log(cut)
    assert recording.index["sequence"].tolist() == [*range(5), *range(10, 20)] and "damaged" in recording.damage[0]
    with pytest.raises(StoreError, match="cannot be read"):
        read_camera_log(tmp_path / "none.mcap")
    with pytest.raises(VersionError, match="version 2"):
        CameraHeader.from_text(json.dumps(json.loads(header().to_text()) | {"version": 2}))
    with pytest.raises(StoreError, match="header"):
        CameraHeader.from_text("{}")


def test_foxglove_and_ros_can_read_it(tmp_path):
    path = tmp_path / "l.mcap"
    write_log(path, 2)
    wall = read_camera_log(path).header.wall_offset_ns
    with path.open("rb") as file:
        found = list(make_reader(file).iter_messages(["/camera/wrist"]))
    assert [message.sequence for _, _, message in found] == list(range(10))
    schema, channel, message = found[7]
    assert (schema.name, channel.message_encoding) == ("foxglove_msgs/msg/CompressedImage", "cdr")
    assert (message.publish_time, message.log_time) == (frame_at(7).captured_ns + wall, frame_at(7).received_ns + wall)
    typesys = pytest.importorskip("rosbags.typesys", reason="rosbags is an extra")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    store.register(typesys.get_types_from_msg(schema.data.decode().split("=" * 80)[0], schema.name))
    image = store.deserialize_cdr(message.data, schema.name)
    assert (image.frame_id, image.format) == ("wrist", "png")
    assert image.timestamp.sec * 10**9 + image.timestamp.nanosec == message.publish_time
    assert (iio.imread(io.BytesIO(image.data.tobytes())) == shade(7)).all()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1001])
def test_a_message_says_where_its_picture_lies(size):
    data = os.urandom(size)
    for name in ("a", "ab", "abc", "abcd", "abcde"):
        message = to_message(1234567890123456789, name, data, "jpeg")
        start, end = picture_place(message)
        assert message[start:end] == data
        with pytest.raises(ValueError):
            picture_place(message[: end - 1])
    assert MESSAGE.size == 22


def test_the_newest_picture_that_had_arrived_is_found_with_its_age(tmp_path):
    path = tmp_path / "l.mcap"
    write_log(path, 2)  # captured every 40 ms from 0 on, received 5 ms later
    recording = read_camera_log(path)
    generator = np.random.default_rng(0)
    times = np.concatenate([generator.integers(-50_000_000, 600_000_000, 200), recording.index["received_ns"],
                            recording.index["received_ns"] - 1, recording.index["captured_ns"]])
    newest, age = recording.newest_at(times)
    for t, k, old in zip(times.tolist(), newest.tolist(), age.tolist(), strict=True):
        arrived = [i for i in range(10) if frame_at(i).received_ns <= t]
        assert k == (arrived[-1] if arrived else -1)
        assert old == (pytest.approx((t - frame_at(k).captured_ns) * 1e-9) if arrived else np.inf)
    pictures, age = recording.images_at(times, age_max=0.1)
    for picture, k, old in zip(pictures, newest.tolist(), age.tolist(), strict=True):
        assert (picture is None) if k < 0 or old > 0.1 else (picture == shade(k)).all()
    nothing = CameraRecording(path, recording.header, np.zeros(0, INDEX_DTYPE), recording.events, True, ())
    assert nothing.images_at(times[:3])[0] == [None] * 3 and np.isinf(nothing.newest_at(times)[1]).all()


def test_a_full_disk_stops_the_log_and_it_goes_on_when_there_is_room(tmp_path):
    keeper = Keeper(tmp_path / "l.mcap", header(), flush_s=1e-9, free_bytes=0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (keeper.size + 50, limit[1]))
        for k in range(3):
            keeper.add(frame_at(k))
        keeper.flush_if_due()
        assert "File too large" in keeper.error and keeper.stored == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert keeper.settle() and not keeper.error and keeper.stored == 3 and keeper.finish()
    assert len(read_camera_log(tmp_path / "l.mcap").index) == 3


def test_a_jpeg_is_near_and_a_png_exact():
    generator = np.random.default_rng(1)
    picture = np.kron(generator.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    png, jpeg = (iio.imread(io.BytesIO(compressed(picture, form))).astype(int) for form in ("png", "jpeg"))
    assert (png == picture).all() and 0 < np.abs(jpeg - picture).mean() < 12


def test_names_of_boards_differ_by_bridge_and_camera():
    names = [name for bridge in ("a", "b") for camera in ("x", "y") for name in board_names(bridge, camera)]
    assert len(set(names)) == 8
