"""A schedule is absolute, counts what it missed, and never hurries to make up for it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from hw_bridge.realtime import schedule as module
from hw_bridge.realtime.privileges import RealTime, RealTimeConfig
from hw_bridge.realtime.schedule import BIN_NS, BINS, Schedule, ScheduleConfig
from robots.errors import ConfigurationError

MS = 1_000_000


class Clock:
    """Stands in for the `time` module: sleeping and looking at it pass time, `late` of it more than asked for."""

    def __init__(self) -> None:
        self.now, self.late, self.slept = 1_000 * MS, 0, []

    def monotonic_ns(self) -> int:
        self.now += 100
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds * 1e9))
        self.now += self.slept[-1] + self.late


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_periods_follow_the_grid_whatever_the_work_takes(clock):
    schedule = Schedule(ScheduleConfig(10 * MS, spin_ns=MS))
    first = schedule.deadline_ns
    for i in range(20):
        woke = schedule.wait()
        assert first + 10 * MS * i <= woke <= first + 10 * MS * i + 200
        clock.now += (i % 9) * MS  # work, within the period
    assert schedule.ticks == 20 and schedule.misses == schedule.skipped == 0 and schedule.worst_ns <= 200


def test_it_sleeps_until_the_spin_begins_and_no_longer(clock):
    schedule = Schedule(ScheduleConfig(10 * MS, spin_ns=2 * MS))
    clock.late = MS  # a sleep that is late by less than the spin costs nothing
    assert schedule.wait() - schedule.deadline_ns + 10 * MS <= 200
    assert clock.slept == [pytest.approx(8 * MS, abs=1000)]


def test_a_late_period_is_counted_and_the_grid_stays(clock):
    schedule = Schedule(ScheduleConfig(10 * MS, spin_ns=MS))
    first = schedule.wait()
    clock.now += 14 * MS
    second = schedule.wait()
    assert second - first == pytest.approx(14 * MS, abs=1000) == schedule.dt_ns
    assert schedule.lateness_ns == schedule.worst_ns == pytest.approx(4 * MS, abs=1000)
    assert (schedule.misses, schedule.skipped) == (1, 0)
    assert schedule.wait() - second == pytest.approx(6 * MS, abs=1000)


@pytest.mark.parametrize("lost", [1, 3, 250])
def test_after_whole_periods_were_lost_there_is_no_burst(clock, lost):
    schedule = Schedule(ScheduleConfig(10 * MS, spin_ns=MS))
    schedule.wait()
    clock.now += 10 * MS * (lost + 1) + 7 * MS
    woke = schedule.wait()
    assert (schedule.misses, schedule.skipped) == (1, lost)
    for _ in range(3):
        before, woke = woke, schedule.wait()
        assert woke - before == pytest.approx(10 * MS, abs=1000) == schedule.dt_ns
    assert schedule.misses == 1


def test_quantiles_bound_what_was_counted(clock):
    schedule = Schedule(ScheduleConfig(10 * MS, spin_ns=0))
    assert schedule.lateness_quantile(0.5) != schedule.lateness_quantile(0.5)  # NaN: nothing was counted
    for i in range(100):
        clock.late = 4 * MS if i >= 98 else 20_000  # the last two in the open bin
        schedule.wait()
    assert 20_000 <= schedule.lateness_quantile(0.5) <= 20_000 + 2 * BIN_NS
    assert schedule.lateness_quantile(0.98) <= 20_000 + 2 * BIN_NS
    assert schedule.lateness_quantile(0.99) == schedule.worst_ns >= 4 * MS > BIN_NS * BINS
    assert sum(schedule.histogram()) == 100 and schedule.histogram()[-1] == 2


def test_waiting_makes_nothing_for_the_garbage_collector():
    schedule = Schedule(ScheduleConfig(MS, spin_ns=MS // 2))
    schedule.wait()
    gc.collect()
    before = gc.get_count()[0]
    for _ in range(50):
        schedule.wait()
    assert gc.get_count()[0] - before < 10


def test_a_process_that_was_stopped_goes_on_one_period_after_another(request):
    """With the real clock and a real SIGSTOP."""
    code = """
import sys
from hw_bridge.realtime.schedule import Schedule, ScheduleConfig
schedule = Schedule(ScheduleConfig(20_000_000))
print("ready", flush=True)
shortest, after = 1 << 60, 0
while after < 5:
    schedule.wait()
    after += schedule.skipped > 0
    if after > 1:
        shortest = min(shortest, schedule.dt_ns + schedule.lateness_ns * -1)
print(schedule.skipped, shortest)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=request.config.rootpath)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.send_signal(signal.SIGCONT)
    skipped, shortest = map(int, process.communicate(timeout=20)[0].split())
    assert skipped >= 10 and shortest > 10 * MS


@pytest.mark.parametrize("fields", [{"period_ns": 0}, {"period_ns": MS, "spin_ns": -1}, {"period_ns": MS, "miss_ns": -1}])
def test_times_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigurationError, match="ScheduleConfig"):
        Schedule(ScheduleConfig(**fields))


def test_privileges_are_given_back():
    before = os.sched_getscheduler(0), gc.isenabled()
    with RealTime(RealTimeConfig(fifo_priority=1)) as real_time:
        assert not gc.isenabled()
        fifo = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
        assert fifo != any("SCHED_FIFO" in words for words in real_time.refused)
        if fifo:  # what it starts must not run before everything else
            started = subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], capture_output=True, check=True)
            assert int(started.stdout) == os.SCHED_OTHER
    assert (os.sched_getscheduler(0), gc.isenabled()) == before


def test_what_is_not_allowed_is_said_and_the_loop_goes_on(request):
    """As an ordinary user: root may always."""
    if os.getuid() != 0:
        pytest.skip("needs root to become an ordinary user")
    code = """
import os, resource
from hw_bridge.realtime.privileges import RealTime
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
os.setuid(65534)
with RealTime() as real_time:
    print(*real_time.refused, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=request.config.rootpath, check=False)
    if done.returncode and "Permission" in done.stderr:
        pytest.skip("an ordinary user may not read this checkout")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2
    assert "SCHED_FIFO" in lines[0] and "rtprio" in lines[0] and "memlock" in lines[1]


def test_a_priority_that_does_not_exist_is_refused():
    with pytest.raises(ConfigurationError, match="fifo_priority"):
        RealTimeConfig(fifo_priority=100)
