"""A log holds what was pushed, whoever is killed and whenever; what is lost is bounded, counted and said."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from hw_bridge.realtime.segment import PREFIX
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import EVENT_DTYPE, VECTORS, Level, event_row, servo_dtype
from hw_bridge.recorder.mcap_file import CDR_LITTLE_ENDIAN, EVENTS_TOPIC
from hw_bridge.recorder.mcap_log import ROWS_TOPIC, McapLog, row_definition
from hw_bridge.recorder.read_log import Log, read_log
from hw_bridge.recorder.recorder import Recorder, RecorderConfig
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, StoreError, VersionError

SPEC = ur5e().spec
STATES, RULES = ("DISCONNECTED", "IDLE", "ARMED", "ACTIVE"), ("VELOCITY", "POSITION")
SMALL = RecorderConfig(flush_s=0.1, free_bytes=0)


def header(**changes: object) -> LogHeader:
    fields = {"robot_spec": SPEC.to_json(), "robot_fingerprint": SPEC.fingerprint(), "calibration_hash": "factory", "policy_hash": "p",
              "safety_hash": "s", "states": STATES, "rules": RULES}
    return LogHeader(**(fields | changes))


def make_rows(first: int, count: int) -> np.ndarray:
    """Return rows in which every number follows from the tick."""
    rows = np.zeros(count, servo_dtype(SPEC.nv))
    ticks = np.arange(first, first + count)
    for name in ("tick", "action_sequence"):
        rows[name] = ticks
    rows["wake_ns"] = rows["received_ns"] = 10**9 + 2_000_000 * ticks
    for i, name in enumerate(VECTORS):
        rows[name] = np.sin(0.01 * ticks[:, None] + i + np.arange(SPEC.nv))
    return rows


def push(recorder: Recorder, first: int, count: int) -> None:
    for row in make_rows(first, count):
        recorder.rows.push(row.tobytes())


def until(condition: object, patience: float = 20.0) -> None:
    ends = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


def assert_rows(log: Log, count: int) -> None:
    assert log.rows.tobytes() == make_rows(0, count).tobytes()


def shared() -> set[Path]:
    return set(Path("/dev/shm").glob(f"{PREFIX}{os.getpid()}-*"))


def test_what_was_pushed_is_read_back_bit_for_bit(tmp_path):
    path = tmp_path / "new" / "log.mcap"
    with Recorder(path, header(), SMALL) as recorder:
        push(recorder, 0, 1500)
        recorder.events.push_event(7, 3, "transition", "IDLE -> ARMED: armed by a person, äöü", Level.WARNING)
        push(recorder, 1500, 500)
    log = read_log(path)
    assert_rows(log, 2000)
    assert log.complete and not log.damage
    assert log.events.tolist() == [event_row(7, 3, "transition", "IDLE -> ARMED: armed by a person, äöü", Level.WARNING).item()]
    assert asdict(log.header) == asdict(recorder_header := log.header) and recorder_header.joint_names == SPEC.joint_names
    assert recorder_header.states == STATES and recorder_header.rules == RULES and not shared()


def test_the_end_says_how_it_went(tmp_path):
    recorder = Recorder(tmp_path / "log.mcap", header(), SMALL)
    push(recorder, 0, 100)
    until(lambda: recorder.status().rows == 100)
    status = recorder.status()
    assert status.alive and not status.error and status.bytes == (tmp_path / "log.mcap").stat().st_size
    assert 0 <= time.monotonic_ns() - status.flushed_ns < 20e9
    status = recorder.close()
    assert (status.alive, status.error, status.rows, status.dropped) == (False, "", 100, 0)
    assert recorder.close() is None and recorder.process.returncode == 0


@pytest.mark.parametrize("victim", ["recorder", "bridge"])
def test_killed_with_nine(tmp_path, request, victim):
    """The recorder loses at most what it had not flushed; a bridge that is killed loses nothing that it pushed."""
    path = tmp_path / "log.mcap"
    code = f"""
import sys, time
sys.path.insert(0, "tests/hw_bridge")
from test_recorder import *
recorder = Recorder({str(path)!r}, header(), RecorderConfig(flush_s=0.1))
print(recorder.process.pid, flush=True)
i = 0
while True:
    push(recorder, i, 20)
    i += 20
    print(i, recorder.status().rows, int(recorder.status().alive), flush=True)
    time.sleep(0.01)
"""
    bridge = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=request.config.rootpath)
    pid = int(bridge.stdout.readline())
    while True:
        pushed, stored, _ = map(int, bridge.stdout.readline().split())
        if stored >= 200:
            break
    if victim == "recorder":
        os.kill(pid, signal.SIGKILL)
        while int(bridge.stdout.readline().split()[2]):
            pass  # the bridge goes on and sees it
        bridge.kill()
        bridge.communicate()
        log = read_log(path)
        assert not log.complete and len(log.rows) >= stored
    else:
        bridge.kill()
        lines = bridge.communicate()[0].split("\n")
        pushed = max([pushed, *(int(line.split()[0]) for line in lines if line.count(" ") == 2)])
        until(lambda: not Path(f"/proc/{pid}").exists())
        log = read_log(path)
        assert log.complete and len(log.rows) >= pushed
    assert_rows(log, len(log.rows))


def write_log(path: Path, chunks: int = 5, rows: int = 40) -> list[int]:
    """Write a log of so many chunks and return the file's size after each, the first after the header."""
    log = McapLog(path, header())
    sizes = [log.size]
    for i in range(chunks):
        log.add_rows(make_rows(rows * i, rows))
        log.add_events(event_row(i, i, "fault", f"event {i}", Level.ERROR)[None])
        log.flush()
        sizes.append(log.size)
    log.finish()
    log.close()
    return sizes


def test_a_log_cut_off_anywhere_reads_up_to_its_last_whole_chunk(tmp_path):
    sizes = write_log(tmp_path / "whole.mcap")
    data = (tmp_path / "whole.mcap").read_bytes()
    generator = np.random.default_rng(0)
    cut = tmp_path / "cut.mcap"
    for size in {*generator.integers(sizes[0], len(data), 60).tolist(), *sizes, sizes[2] + 1, sizes[2] - 1, len(data) - 8, len(data) - 9}:
        cut.write_bytes(data[:size])
        log = read_log(cut)
        chunks = sum(end <= size for end in sizes[1:])
        assert len(log.rows) in (40 * chunks, 40 * (chunks + 1))  # a chunk is whole before its index is
        assert_rows(log, len(log.rows))
        assert log.events["text"].tolist() == [f"event {i}".encode() for i in range(len(log.rows) // 40)]
        assert log.complete is (size >= len(data) - 8)
    for size in (0, 5, 8, sizes[0] - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(StoreError, match=r"cut\.mcap"):
            read_log(cut)


def test_a_damaged_chunk_is_left_out_and_said(tmp_path):
    path = tmp_path / "log.mcap"
    sizes = write_log(path)
    data = bytearray(path.read_bytes())
    data[(sizes[2] + sizes[3]) // 2 - 200] ^= 0xFF
    path.write_bytes(data)
    log = read_log(path)
    assert len(log.damage) == 1 and "damaged" in log.damage[0]
    expected = np.concatenate([make_rows(0, 80), make_rows(120, 80)])
    assert log.rows.tobytes() == expected.tobytes() and log.complete


def test_foxglove_and_ros_can_read_it(tmp_path):
    """With MCAP's own reader, and rosbags for the messages: times are wall-clock, rows are CDR, events are foxglove.Log."""
    path = tmp_path / "log.mcap"
    write_log(path, chunks=2)
    wall = read_log(path).header.wall_offset_ns
    assert abs(wall + time.monotonic_ns() - time.time_ns()) < 60e9
    with path.open("rb") as file:
        found = list(make_reader(file).iter_messages())
    rows = [message for _, channel, message in found if channel.topic == ROWS_TOPIC]
    assert sorted(message.sequence for message in rows) == list(range(80))
    events = [(schema, message) for schema, channel, message in found if channel.topic == EVENTS_TOPIC]
    assert events[0][0].name == "foxglove.Log" and json.loads(events[0][1].data)["message"] == "event 0"
    first = make_rows(0, 1)[0]
    assert rows[0].log_time == first["wake_ns"] + wall and rows[0].data == CDR_LITTLE_ENDIAN + first.tobytes()
    typesys = pytest.importorskip("rosbags.typesys", reason="rosbags is an extra")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    store.register(typesys.get_types_from_msg(row_definition(SPEC.nv), "reflexarc_msgs/msg/ServoRow"))
    message = store.deserialize_cdr(bytes(rows[-1].data), "reflexarc_msgs/msg/ServoRow")
    last = make_rows(rows[-1].sequence, 1)[0]
    assert message.tick == last["tick"] and message.wake_ns == last["wake_ns"]
    assert all((getattr(message, name) == last[name]).all() for name in VECTORS)


def test_what_found_no_room_is_counted_and_the_log_says_so(tmp_path):
    recorder = Recorder(tmp_path / "log.mcap", header(), RecorderConfig(flush_s=0.1, rows=16, free_bytes=0))
    recorder.process.send_signal(signal.SIGSTOP)
    push(recorder, 0, 50)
    assert recorder.status().dropped == 34
    recorder.process.send_signal(signal.SIGCONT)
    assert recorder.close().dropped == 34
    log = read_log(tmp_path / "log.mcap")
    assert_rows(log, 16)
    assert b"34 rows or events found no room" in log.events["text"][0]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("needs root to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_stops_the_log_and_nothing_else(small_disk):
    """It is said in words, rows wait and are then counted as dropped, and the log goes on once there is room."""
    filler, path = small_disk / "filler", small_disk / "log.mcap"
    filler.write_bytes(bytes(150_000))
    recorder = Recorder(path, header(), RecorderConfig(flush_s=0.05, rows=1024, free_bytes=0))
    first = 0
    while not recorder.status().error:
        push(recorder, first, 100)
        first += 100
        time.sleep(0.02)
        assert first < 100_000
    status = recorder.status()
    assert status.alive and "No space left on device" in status.error and "log.mcap" in status.error and status.failures > 0
    stored = status.rows
    assert_rows(read_log(path), stored)
    for i in range(20):
        push(recorder, first + 100 * i, 100)
        time.sleep(0.025)
    assert recorder.status().dropped > 0  # nothing is taken that could not be put down: memory stays as it is
    filler.unlink()
    until(lambda: not recorder.status().error and recorder.status().rows > stored)
    recorder.close()
    log = read_log(path)
    assert log.complete and len(log.rows) == first + 2000 - status_dropped(log)
    assert (np.diff(log.rows["tick"].astype(int)) > 0).all()


def status_dropped(log: Log) -> int:
    said = [text.split()[0] for text in log.events["text"].tolist() if b"found no room" in text]
    return sum(map(int, said))


def test_rows_that_waited_for_room_are_in_the_log_that_is_closed(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(150_000))
    recorder = Recorder(small_disk / "log.mcap", header(), RecorderConfig(flush_s=0.05, rows=1024, free_bytes=0))
    first = 0
    while not recorder.status().error:
        push(recorder, first, 100)
        first += 100
        time.sleep(0.02)
    recorder.process.send_signal(signal.SIGSTOP)
    push(recorder, first, 100)
    filler.unlink()
    threading.Timer(0.2, recorder.process.send_signal, [signal.SIGCONT]).start()
    status = recorder.close()
    assert (status.error, status.dropped, status.rows) == ("", 0, first + 100)
    assert_rows(read_log(small_disk / "log.mcap"), first + 100)


def test_a_disk_that_stays_full_ends_the_log_where_it_was(small_disk):
    (small_disk / "filler").write_bytes(bytes(150_000))
    path = small_disk / "log.mcap"
    recorder = Recorder(path, header(), RecorderConfig(flush_s=0.05, free_bytes=0))
    first = 0
    while not recorder.status().error:
        push(recorder, first, 100)
        first += 100
        time.sleep(0.02)
    status = recorder.close()
    assert "No space left" in status.error and recorder.process.returncode == 1 and not status.alive
    log = read_log(path)
    assert_rows(log, status.rows)
    assert not log.complete


def test_a_file_that_may_not_grow_is_the_same(tmp_path, monkeypatch):
    """Where nothing may be mounted: a limit on the size of files, for this process and its recorder."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = McapLog(tmp_path / "log.mcap", header())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.size + 2000, limit[1]))
        log.add_rows(make_rows(0, 500))
        for _ in range(2):
            with pytest.raises(StoreError, match="File too large"):
                log.flush()
            assert (tmp_path / "log.mcap").stat().st_size == log.size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    log.flush()  # nothing that was added is lost
    log.finish()
    log.close()
    assert_rows(read_log(tmp_path / "log.mcap"), 500)


def test_what_cannot_be_recorded_is_refused_before_it_begins(tmp_path):
    with pytest.raises(StoreError, match=r"MiB are free there, expected at least .* make room"):
        Recorder(tmp_path / "log.mcap", header(), RecorderConfig(free_bytes=1 << 60))
    (tmp_path / "log.mcap").touch()
    with pytest.raises(StoreError, match="exists already"):
        Recorder(tmp_path / "log.mcap", header(), SMALL)
    with pytest.raises(StoreError, match="the log cannot be made"):
        Recorder(tmp_path / "log.mcap" / "log.mcap", header(), SMALL)
    assert not shared()
    with pytest.raises(ConfigurationError, match="flush_s"):
        RecorderConfig(flush_s=0.0)
    with pytest.raises(ConfigurationError, match="active"):
        header(states=("IDLE",))
    with pytest.raises(ConfigurationError, match="joint names"):
        header(robot_spec={})


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "log.mcap"
    for content in (b"", b"nonsense" * 10, b"\x89MCAP0\r\n" + b"\x00" * 3):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"log\.mcap"):
            read_log(path)
    with pytest.raises(StoreError, match="cannot be read"):
        read_log(tmp_path / "none.mcap")
    values = json.loads(header().to_text())
    with pytest.raises(VersionError, match="version 1"):
        LogHeader.from_text(json.dumps(values | {"version": 1}))
    with pytest.raises(StoreError, match="keys"):
        LogHeader.from_text(json.dumps(values | {"other": 1}))
    assert LogHeader.from_text(json.dumps(values)).to_text() == json.dumps(values)


def test_the_ring_of_events_fits_its_dtype():
    assert EVENT_DTYPE.itemsize % 8 == 0 and servo_dtype(7).itemsize % 8 == 0
    assert servo_dtype(6).itemsize == sum(dtype.itemsize for dtype, *_ in servo_dtype(6).fields.values())  # no gaps: it is CDR
