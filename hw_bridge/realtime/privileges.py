"""What a process may ask of the system so that its loop is on time: priority, memory that stays, no garbage collection."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from robots.errors import ConfigurationError

_PR_SET_TIMERSLACK = 29
_MCL_CURRENT, _MCL_FUTURE = 1, 2


@dataclass(frozen=True)
class RealTimeConfig:
    """What to ask for."""

    fifo_priority: int = 80
    """Priority under SCHED_FIFO, 1 to 99; 0 stays with the system's ordinary scheduler."""
    lock_memory: bool = True
    """Keep all pages in memory (mlockall)."""
    stop_garbage_collector: bool = True
    """Freeze what lives and collect no more: nothing that the loop makes may refer to itself."""

    def __post_init__(self) -> None:
        if not 0 <= self.fifo_priority <= 99:
            raise ConfigurationError(f"RealTimeConfig.fifo_priority: expected 0 (off) to 99, got {self.fifo_priority}")


@contextlib.contextmanager
def threads_before_others(priority: int) -> Iterator[None]:
    """A context in which threads that start run under SCHED_FIFO at `priority`, where that is allowed; 0 changes nothing.

    For the threads of a vendor's client, which hear the arm: ordinary ones wait for whoever else computes.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(OSError):
        if priority:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, *before)


class PollingThreads:
    """Threads of a vendor's client that ask every 100 us whether something has come, for 30 us of a processor each time.

    They are ordinary threads, the first among these where that is allowed, and sleep up to `oversleep_ns` [ns] longer than they ask
    for (under SCHED_FIFO no sleep may be longer); where the client waits for them they are brought before others again.
    """

    def __init__(self, oversleep_ns: int) -> None:
        self._oversleep_ns = oversleep_ns
        self._threads: set[int] = set()

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """A context in which they start."""
        scheduler, niceness, others = (os.sched_getscheduler(0), os.sched_getparam(0)), os.getpriority(os.PRIO_PROCESS, 0), _threads()
        prctl = ctypes.CDLL(None).prctl
        self._relax(0)
        prctl(_PR_SET_TIMERSLACK, self._oversleep_ns, 0, 0, 0)
        try:
            yield
        finally:
            self._threads = _threads() - others
            prctl(_PR_SET_TIMERSLACK, 0, 0, 0, 0)
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, niceness)
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, *scheduler)
            for thread in self._threads:
                self._relax(thread)

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """A context in which they run before the thread that calls, if that is one under SCHED_FIFO, and oversleep no more."""
        priority = os.sched_getparam(0).sched_priority
        if priority:
            self._set(os.SCHED_FIFO, priority + 1)
            time.sleep(2e-9 * self._oversleep_ns)  # the last long sleep ends, and what has come is heard
        try:
            yield
        finally:
            self._set(os.SCHED_OTHER, 0)

    def _relax(self, thread: int) -> None:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, -20)

    def _set(self, policy: int, priority: int) -> None:
        for thread in self._threads:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(thread, policy, os.sched_param(priority))


def _threads() -> set[int]:
    """Return the numbers of this process's threads."""
    return {int(name) for name in os.listdir("/proc/self/task")}


class RealTime:
    """A context in which this thread runs as punctually as the system allows; what it did is undone at the end.

    Processes and threads that start inside run under the ordinary scheduler. No other Python thread should be busy in this
    process: the interpreter lets one run at a time, for 5 ms.
    """

    def __init__(self, config: RealTimeConfig = RealTimeConfig()) -> None:
        self.config = config
        self.refused: tuple[str, ...] = ()
        """What was not allowed, in words; the loop runs without it."""

    def __enter__(self) -> Self:
        refused = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._scheduler, self._locked, self._collecting = None, False, gc.isenabled()
        if self._libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0) != 0:
            refused.append(f"a timer slack of 1 ns ({os.strerror(ctypes.get_errno())}): sleeps may end 50 us late")
        if self.config.fifo_priority:
            try:
                before = (os.sched_getscheduler(0), os.sched_getparam(0))
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(self.config.fifo_priority))
                self._scheduler = before
            except OSError as error:
                refused.append(f"SCHED_FIFO ({error.strerror}): other processes may delay the loop; allow it with a line "
                               "'USER - rtprio 99' in /etc/security/limits.conf")
        if self.config.lock_memory:
            self._locked = self._libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0
            if not self._locked:
                refused.append(f"locked memory ({os.strerror(ctypes.get_errno())}): a page that was put out delays the loop; allow it "
                               "with a line 'USER - memlock unlimited' in /etc/security/limits.conf")
        if self.config.stop_garbage_collector:
            gc.collect()
            gc.freeze()
            gc.disable()
        self.refused = tuple(refused)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.config.stop_garbage_collector:
            gc.unfreeze()
            if self._collecting:
                gc.enable()
        if self._locked:
            self._libc.munlockall()
        if self._scheduler is not None:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, *self._scheduler)
        self._libc.prctl(_PR_SET_TIMERSLACK, 0, 0, 0, 0)
