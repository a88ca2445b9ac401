"""A ring hands over every row once and in order, or counts it as dropped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_bridge.drivers.driver import VendorState
from hw_bridge.realtime.ring import Ring
from hw_bridge.recorder.log_row import (
    EVENT_BYTES,
    EVENT_DTYPE,
    MODE_CODES,
    VECTORS,
    VENDOR_CODES,
    EventRing,
    Level,
    ServoRing,
    cut,
    servo_dtype,
)
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError

DTYPE = np.dtype([("number", "<u8"), ("values", "<f8", (7,))])


def fresh() -> str:
    return f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def row(number: int) -> bytes:
    record = np.zeros((), DTYPE)
    record["number"], record["values"] = number, number
    return record.tobytes()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 20), st.integers(-20, -1), st.just(0)), max_size=30))
def test_rows_come_out_as_they_went_in_and_the_rest_is_counted(steps):
    """Positive: push so many; negative: take at most so many; 0: take all."""
    ring = Ring.create(fresh(), DTYPE, 16)
    taker = Ring.attach(ring.name, DTYPE)
    waiting, number, dropped = [], 0, 0
    try:
        for step in steps:
            for _ in range(max(step, 0)):
                room = len(waiting) < 16
                assert ring.push(row(number)) is room
                waiting += [number] if room else []
                dropped += not room
                number += 1
            if step <= 0:
                most = None if step == 0 else -step
                taken = taker.take(most)
                assert taken["number"].tolist() == waiting[:most]
                assert (taken["values"] == taken["number"][:, None]).all()
                del waiting[:most]
            assert (taker.dropped, ring.pushed) == (dropped, number - dropped)
    finally:
        taker.close()
        ring.close()


def test_nothing_is_lost_between_two_processes(request):
    code = f"""
import numpy as np, sys, time
from hw_bridge.realtime.ring import Ring
ring = Ring.attach(sys.argv[1], np.dtype({DTYPE.descr!r}))
record = np.zeros((), ring.dtype)
for i in range(10_000):
    record["number"], record["values"] = i, i
    while not ring.push(record.tobytes()):
        time.sleep(0.0002)
"""
    ring = Ring.create(fresh(), DTYPE, 64)
    pusher = subprocess.Popen([sys.executable, "-c", code, ring.name], cwd=request.config.rootpath)
    expected = 0
    while expected < 10_000:
        rows = ring.take()
        assert (rows["number"] == np.arange(expected, expected + len(rows))).all()
        assert (rows["values"] == rows["number"][:, None]).all()
        expected += len(rows)
        time.sleep(0.0005)
        assert pusher.poll() in (None, 0)
    assert pusher.wait(10) == 0 and len(ring.take()) == 0
    ring.close()


def test_a_ring_that_is_no_ring_is_refused():
    with pytest.raises(ConfigurationError, match="power of two"):
        Ring.create(fresh(), DTYPE, 100)
    with pytest.raises(HardwareError, match="cannot be opened"):
        Ring.attach(fresh(), DTYPE)
    ring = Ring.create(fresh(), servo_dtype(6), 4)
    with pytest.raises(ConfigurationError, match=f"rows of {servo_dtype(6).itemsize} bytes, expected {servo_dtype(7).itemsize}"):
        ServoRing.attach(ring.name, servo_dtype(7))
    with pytest.raises(ValueError, match="different structures"):
        ring.push(bytes(10))
    ring.close()


@pytest.mark.parametrize("nv", [1, 6, 7])
def test_a_servo_row_arrives_field_by_field(nv):
    ring = ServoRing.create(fresh(), servo_dtype(nv), 4)
    generator = np.random.default_rng(nv)
    vectors = dict(zip(VECTORS, generator.normal(size=(len(VECTORS), nv)), strict=True))
    numbers = {"tick": 2**63 + 1, "wake_ns": -5, "received_ns": 2**62, "device_s": 1.25, "dt_ns": 7, "lateness_ns": 8,
               "action_sequence": -1, "action_stamp_ns": 9, "observation_age_ns": 10, "rules": 2**63}
    codes = {"bus_errors": 2**32 - 1, "generation": 3, "action_mode": 255, "written_mode": 2, "state": 6, "vendor": 5}
    for _ in range(6):
        ring.push_row(*numbers.values(), *vectors.values(), *codes.values())
    assert ring.dropped == 2
    for got in ring.take():
        assert {name: got[name].item() for name in numbers | codes} == numbers | codes
        assert all(got[name].tobytes() == vectors[name].tobytes() for name in VECTORS)
    ring.close()


def test_codes_are_a_byte_and_their_order_is_kept():
    """A log that was written must be read alike by the next version."""
    assert list(MODE_CODES) == ["actuator", "joint_torque", "joint_velocity", "joint_position", "end_effector_pose"]
    assert list(VENDOR_CODES) == ["ready", "not_ready", "protective_stop", "emergency_stop", "fault", "lost"]
    assert set(MODE_CODES) == set(CommandMode) and set(VENDOR_CODES) == set(VendorState)


def test_events_are_cut_between_characters():
    ring = EventRing.create(fresh(), EVENT_DTYPE, 4)
    ring.push_event(5, 6, "transition", "é" * 200, Level.ERROR)
    event = ring.take()[0]
    assert event["text"].decode() == "é" * (EVENT_BYTES // 2) and event["kind"] == b"transition"
    assert (event["stamp_ns"], event["tick"], event["level"]) == (5, 6, Level.ERROR)
    ring.close()


@given(st.text("aé€😀\ud800"), st.integers(0, 50))
def test_a_cut_text_is_its_beginning(text, size):
    whole = text.encode(errors="replace")
    part = cut(text, size)
    assert whole.startswith(part) and len(part) <= size and len(whole[:size]) - len(part) < 4
    part.decode()
