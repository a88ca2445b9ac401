"""A board shows the newest value whole, whoever writes, reads, dies or is overtaken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_bridge.realtime import board as module
from hw_bridge.realtime.board import Board
from hw_bridge.realtime.segment import PREFIX, Segment, clear_abandoned
from robots.errors import ConfigurationError, HardwareError

DTYPE = np.dtype([("number", "<u8"), ("values", "<f8", (200,))])
WRITER = """
import sys, os
import numpy as np
from hw_bridge.realtime.board import Board
dtype = np.dtype([("number", "<u8"), ("values", "<f8", (200,))])
board = (Board.create if sys.argv[2] == "create" else Board.attach)(sys.argv[1], dtype)
number, values = board.record["number"].reshape(1), board.record["values"]
print("ready", flush=True)
i = 0
while True:
    i += 1
    board.record["number"] = i
    values[:] = i
    board.publish(stamp_ns=1000 * i)
"""


def fresh() -> str:
    return f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def files() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob(f"{PREFIX}*")}


def start_writer(name: str, how: str, request: pytest.FixtureRequest) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, name, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               cwd=request.config.rootpath)
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    return process.communicate()[1].decode()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(width=64), st.integers(-(2**63), 2**63 - 1)), max_size=6))
def test_what_was_written_last_is_read(values):
    board = Board.create(fresh(), DTYPE)
    reader = Board.attach(board.name, DTYPE)
    try:
        assert reader.read() == (None, 0, 0)
        for count, (number, value, stamp) in enumerate(values, 1):
            record = np.zeros((), DTYPE)
            record["number"], record["values"] = number, value
            board.write(record, stamp)
            for _ in range(2):
                read = reader.read()
                assert read.value.tobytes() == record.tobytes() and (read.stamp_ns, read.count) == (stamp, count)
    finally:
        reader.close()
        board.close()


def test_a_reading_is_a_copy():
    board = Board.create(fresh(), DTYPE)
    board.record["number"] = 1
    before = time.monotonic_ns()
    board.publish()
    first = board.read()
    assert before <= first.stamp_ns <= time.monotonic_ns()
    board.record["number"] = 2
    board.publish()
    board.publish()
    board.close()
    assert first.value["number"] == 1


def test_no_reader_sees_a_torn_value_while_a_process_writes_as_fast_as_it_can(request):
    name = fresh()
    board = Board.create(name, DTYPE)
    writer = start_writer(name, "attach", request)
    seen, last, patience = 0, 0, time.monotonic() + 30.0
    while seen < 200:  # two that share a core see little of each other
        assert time.monotonic() < patience
        value, stamp_ns, count = board.read()
        if value is not None:
            assert count == value["number"] and (value["values"] == count).all() and stamp_ns == 1000 * count
            assert count >= last
            seen, last = seen + (count > last), count
    end(writer)
    board.close()


class Overtaking:
    """A slot of a board that is half rewritten whenever it is copied, the first `times` times."""

    def __init__(self, slot: memoryview, times: int) -> None:
        self.slot, self.times = slot, times

    def __buffer_copy__(self) -> bytes:
        data = bytearray(self.slot)
        if self.times > 0:
            self.times -= 1
            data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        return bytes(data)

    def __iter__(self):
        return iter(self.__buffer_copy__())

    def release(self) -> None:
        self.slot.release()


@pytest.mark.parametrize("times", [1, module.ATTEMPTS - 1])
def test_a_torn_read_is_noticed_and_done_again(times):
    board = Board.create(fresh(), DTYPE)
    board.record["values"] = 7.0
    board.publish()
    board._slots = tuple(Overtaking(slot, times) for slot in board._slots)
    assert (board.read().value["values"] == 7.0).all()
    board.close()


def test_a_reader_that_is_always_overtaken_returns_what_it_read_last():
    board = Board.create(fresh(), DTYPE)
    board.record["values"] = 1.0
    board.publish(5)
    assert board.read().count == 1
    board.record["values"] = 2.0
    board.publish(6)
    board._slots = tuple(Overtaking(slot, 10**6) for slot in board._slots)
    value, stamp_ns, count = board.read()
    assert (value["values"] == 1.0).all() and (stamp_ns, count) == (5, 1)
    board.close()


def test_a_writer_killed_at_any_moment_leaves_a_whole_value(request):
    name, generator = fresh(), np.random.default_rng(0)
    board = Board.create(name, DTYPE)
    for _ in range(4):
        writer = start_writer(name, "attach", request)
        time.sleep(generator.uniform(0.0, 0.05))
        end(writer)
        late = Board.attach(name, DTYPE)  # has nothing to fall back on
        value, _, count = late.read()
        assert value is not None and (value["values"] == value["number"]).all() and count > 0
        late.close()
    board.close()


def test_readers_that_end_neither_remove_the_board_nor_complain(request):
    board = Board.create(fresh(), DTYPE)
    board.publish()
    code = f"""
import numpy as np
from hw_bridge.realtime.board import Board
print(Board.attach({board.name!r}, np.dtype([("number", "<u8"), ("values", "<f8", (200,))])).read().count)
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=request.config.rootpath, check=True)
        assert (done.stdout, done.stderr) == ("1\n", "")
    assert PREFIX + board.name in files()
    board.close()
    assert PREFIX + board.name not in files()
    board.close()


def test_what_a_killed_process_left_is_cleared_away_and_what_lives_is_kept(request):
    name, living = fresh(), Board.create(fresh(), DTYPE)
    writer = start_writer(name, "create", request)
    clear_abandoned()
    assert {PREFIX + name, PREFIX + living.name} <= files()
    with pytest.raises(ConfigurationError, match="in use by a running process"):
        Board.create(name, DTYPE)
    reader = Board.attach(name, DTYPE)
    while reader.read().count == 0:
        time.sleep(0.001)
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    Board.create(name, DTYPE).close()  # the name is free at once
    assert PREFIX + name not in files() and PREFIX + living.name in files()
    assert reader.read().count > 0  # who has it open keeps it
    reader.close()
    living.close()


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(HardwareError, match="cannot be opened"):
        Board.attach(fresh(), DTYPE)
    board = Board.create(fresh(), DTYPE)
    with pytest.raises(ConfigurationError, match="holds values of 1608 bytes, expected 8"):
        Board.attach(board.name, np.dtype("<f8"))
    board.close()
    with pytest.raises(ConfigurationError, match="plain numbers"):
        Board.create(fresh(), np.dtype(object))
    for name in ("", "../etc", "a/b", "a b"):
        with pytest.raises(ConfigurationError, match="letters"):
            Segment.create(name, 10)


def test_shared_memory_is_for_this_user_alone():
    board = Board.create(fresh(), DTYPE)
    assert Path("/dev/shm", PREFIX + board.name).stat().st_mode & 0o777 == 0o600
    board.close()
