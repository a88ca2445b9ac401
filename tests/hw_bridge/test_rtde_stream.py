"""The receiving half of RTDE against a controller made of a socket: the newest state, whole, whatever the wire does with it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from hw_bridge.drivers import rtde_stream
from hw_bridge.drivers.rtde_stream import RtdeStream
from robots.errors import HardwareError

VARIABLES = {"timestamp": "DOUBLE", "robot_status_bits": "UINT32"}


def package(kind: int, payload: bytes) -> bytes:
    return struct.pack(">HB", len(payload) + 3, kind) + payload


def state(number: int) -> bytes:
    return struct.pack(">dI", 0.002 * number, number)


def data(number: int, recipe: bytes = b"\x01") -> bytes:
    return package(85, recipe + state(number))


class Controller:
    """Answers the set-up as told, and then sends what the test wants."""

    def __init__(self, types: str = "DOUBLE,UINT32", version: bytes = b"\x01", started: bytes = b"\x01") -> None:
        self._answers = {86: version, 79: b"\x01" + types.encode(), 83: started, 80: b"\x01"}
        self.started: list[bool] = []
        self.fresh = b""
        """Sent after every start but the first."""
        self.mute = False
        self.unanswered: tuple[int, ...] = ()
        """Types of packages that are obeyed and not answered."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self.wire, _ = self._server.accept()
        self._server.close()
        with contextlib.suppress(OSError):
            while header := self.wire.recv(3, socket.MSG_WAITALL):
                size, kind = struct.unpack(">HB", header)
                self.wire.recv(size - 3, socket.MSG_WAITALL)
                if self.mute:
                    continue
                first = not self.started
                if kind in (80, 83):
                    self.started.append(kind == 83)
                if kind in self.unanswered:
                    continue
                text = package(77, b"a text that nobody asked for") if first else b""
                self.wire.sendall(text + package(kind, self._answers[kind]) + (self.fresh if kind == 83 and not first else b""))


@pytest.fixture
def connect(monkeypatch):
    opened = []

    def connect(**fields) -> tuple[RtdeStream, Controller]:
        controller = Controller(**fields)
        monkeypatch.setattr(rtde_stream, "PORT", controller.port)
        opened.append(RtdeStream("127.0.0.1", VARIABLES))
        return opened[-1], controller

    yield connect
    for stream in opened:
        stream.close()
        stream.close()


def heard(stream: RtdeStream, expected: bytes) -> bool:
    for _ in range(2000):
        if stream.newest() == expected:
            return True
        threading.Event().wait(0.001)
    return False


def test_of_what_has_piled_up_the_newest_is_returned_and_again_until_there_is_a_newer_one(connect):
    stream, controller = connect()
    assert stream.newest() == b""
    controller.wire.sendall(b"".join(data(i) for i in range(9000)))  # more than is taken from the socket at once
    assert heard(stream, state(8999)) and stream.newest() == state(8999)


def test_a_state_that_arrives_in_pieces_is_whole_or_not_there(connect):
    stream, controller = connect()
    controller.wire.sendall(data(1))
    assert heard(stream, state(1))
    whole = data(2) + data(3)
    for i in range(len(whole)):
        controller.wire.sendall(whole[i : i + 1])
        threading.Event().wait(0.001)
        assert stream.newest() in (state(1), state(2), state(3))
    assert heard(stream, state(3))


def test_what_is_no_state_of_ours_is_passed_over(connect):
    stream, controller = connect()
    broken = data(7)
    controller.wire.sendall(data(1) + package(77, b"text") + data(5, recipe=b"\x02") + broken[:2] + b"\xff" + broken[3:])
    assert heard(stream, state(1))
    controller.wire.sendall(data(2))
    assert heard(stream, state(2))


def test_who_was_away_for_long_is_not_told_what_piled_up(connect, monkeypatch):
    stream, controller = connect()
    monkeypatch.setattr(rtde_stream, "PATIENCE_S", 2.0)
    controller.wire.sendall(b"".join(data(i) for i in range(3000)))
    controller.fresh = data(9999)
    stream._asked -= 2.1
    assert stream.newest() == state(9999)
    controller.wire.sendall(data(10_000))
    assert heard(stream, state(10_000)) and controller.started == [True, False, True]


def test_nothing_is_sent_during_a_pause_and_the_next_question_ends_it(connect, monkeypatch):
    monkeypatch.setattr(rtde_stream, "PATIENCE_S", 2.0)
    stream, controller = connect()
    controller.wire.sendall(data(1))
    assert heard(stream, state(1))
    stream.pause()
    assert controller.started == [True, False]
    controller.fresh = data(2)
    assert stream.newest() == state(2) and controller.started == [True, False, True]


def test_a_pause_that_was_not_answered_in_time_is_ended_all_the_same(connect):
    stream, controller = connect()
    controller.unanswered, controller.fresh = (80,), data(2)
    stream.pause()
    assert heard(stream, state(2)) and controller.started == [True, False, True]


def test_a_controller_that_does_not_answer_keeps_nobody_waiting_for_long(connect):
    stream, controller = connect()
    controller.wire.sendall(data(1))
    assert heard(stream, state(1))
    controller.mute = True
    stream._asked -= 1.0
    begin = time.monotonic()
    assert stream.newest() == state(1)
    assert time.monotonic() - begin < 1.0


@pytest.mark.parametrize("nonsense", [b"\x00\x00\x00", None])
def test_on_a_dead_wire_the_last_state_stays(connect, nonsense):
    stream, controller = connect()
    controller.wire.sendall(data(1))
    assert heard(stream, state(1))
    if nonsense is None:
        controller.wire.close()
    else:
        controller.wire.sendall(nonsense + data(2))
        threading.Event().wait(0.05)
    assert [stream.newest() for _ in range(3)] == [state(1)] * 3


@pytest.mark.parametrize(("fields", "words"), [
    ({"types": "DOUBLE,NOT_FOUND"}, "robot_status_bits: NOT_FOUND"), ({"version": b"\x00"}, "version 2"), ({"started": b"\x00"}, "start"),
])
def test_another_controller_is_refused_in_words(connect, fields, words):
    with pytest.raises(HardwareError, match=words):
        connect(**fields)


def test_nobody_at_the_port_is_said_in_words(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(rtde_stream, "PORT", server.getsockname()[1])
    with pytest.raises(HardwareError, match="no RTDE"):
        RtdeStream("127.0.0.1", VARIABLES)
