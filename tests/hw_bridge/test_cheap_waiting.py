"""Waiting costs no more than it must: the watch of the clock is as long as sleeps are late, vendors' polling threads oversleep."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hw_bridge.realtime import schedule as module
from hw_bridge.realtime.privileges import PollingThreads
from hw_bridge.realtime.schedule import LENGTHEN_NS, SPARE_NS, Schedule, ScheduleConfig

MS, US = 1_000_000, 1_000
LOOK_NS = 100


class Clock:
    """Stands in for the `time` module: every look passes a little time, every sleep ends `late`."""

    def __init__(self) -> None:
        self.now, self.late, self.watched = 1_000 * MS, 0, 0

    def monotonic_ns(self) -> int:
        self.now += LOOK_NS
        self.watched += LOOK_NS
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9) + self.late
        self.watched = 0


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def periods(schedule: Schedule, clock: Clock, count: int, rehearsal: int) -> list[int]:
    """Let `count` periods begin; return how long the clock was watched before each [ns]."""
    watched = []
    for _ in range(count):
        schedule.sleep()
        clock.now += rehearsal
        clock.watched = 0
        schedule.spin()
        watched.append(clock.watched)
    return watched


@pytest.mark.parametrize(("late", "rehearsal"), [(0, 0), (30 * US, 0), (30 * US, 60 * US)])
def test_the_clock_is_watched_no_longer_than_sleeps_and_the_rehearsal_ask_for(clock, late, rehearsal):
    schedule, clock.late = Schedule(ScheduleConfig(2 * MS)), late
    first, *_ = periods(schedule, clock, 5000, rehearsal)
    assert first > 200 * US - late - rehearsal - US
    watched = periods(schedule, clock, 2000, rehearsal)
    assert max(watched) < SPARE_NS + LENGTHEN_NS + US
    assert schedule.worst_ns <= LOOK_NS and schedule.misses == 0, "what is watched for is not late"


def test_sleeps_that_become_later_lengthen_the_watch_up_to_its_bound(clock):
    schedule = Schedule(ScheduleConfig(2 * MS, spin_ns=150 * US))
    periods(schedule, clock, 5000, 0)
    clock.late = 100 * US
    periods(schedule, clock, 10, 0)
    schedule.start()
    periods(schedule, clock, 1000, 0)
    assert schedule.worst_ns <= LOOK_NS, "it was lengthened"
    clock.late = MS
    periods(schedule, clock, 1000, 0)
    clock.late = 0
    assert max(periods(schedule, clock, 10, 0)) < 150 * US + US, "no longer than told"


def test_one_sleep_in_five_hundred_may_be_too_late_and_no_more(clock):
    schedule, late = Schedule(ScheduleConfig(2 * MS)), 0
    for i in range(20_000):
        clock.late = (i * 7919 % 1000) * 100  # spread evenly up to 100 us
        schedule.wait()
        late += schedule.lateness_ns > 5 * US
    assert late < 0.005 * 20_000
    assert schedule.lateness_quantile(0.99) <= 5 * US


def slack_ns(thread: int) -> int:
    return int(Path(f"/proc/{thread}/timerslack_ns").read_text())


def test_polling_threads_are_ordinary_and_oversleep_but_where_they_are_waited_for():
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        pytest.skip("SCHED_FIFO is not allowed here")
    threads, going_on, found = PollingThreads(1_500_000), threading.Event(), []
    poller = threading.Thread(target=lambda: (found.append(threading.get_native_id()), going_on.wait()))
    try:
        before = os.getpriority(os.PRIO_PROCESS, 0)
        with threads.starting():
            poller.start()
            while not found:
                going_on.wait(0.001)
        assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == (os.SCHED_FIFO, 10)
        assert os.getpriority(os.PRIO_PROCESS, 0) == before, "the thread that started them is as it was"
        assert os.sched_getscheduler(found[0]) == os.SCHED_OTHER and slack_ns(found[0]) == 1_500_000
        with threads.hurried():
            assert os.sched_getscheduler(found[0]) == os.SCHED_FIFO and os.sched_getparam(found[0]).sched_priority == 11
        assert os.sched_getscheduler(found[0]) == os.SCHED_OTHER and slack_ns(found[0]) == 1_500_000
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        going_on.set()
        poller.join()
