"""A planner in a process of its own: it shares memory with the control loop, and neither Python's lock nor its end."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawArray
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Self

import numpy as np

from policies.asynchronous.exchange import PlanAnswer, PlanningStopped, PlanRequest, error_words, following
from policies.asynchronous.plan_memory import (
    PlanSizes,
    read_answer,
    read_offer,
    read_request,
    read_words,
    write_answer,
    write_offer,
    write_request,
)
from policies.asynchronous.request_planner import RequestPlanner
from policies.asynchronous.worker import ENDING_SECONDS, STARTING_SECONDS
from robots.errors import ConfigurationError

_READY, _REFUSED, _ASKED, _END = b"ready", b"refused", b"asked", b"end"
_ANSWERED = (b"answered first", b"answered second")
_SUBMITTED, _OFFERED = 0, 1
_WATCH_SECONDS = 0.5
_GONE_SECONDS = 0.05
"""Time that a process whose pipe has ended may take until it is gone [s]; a robot waits meanwhile."""
_PR_SET_PDEATHSIG = 1
"""Of Linux's <linux/prctl.h>."""


class ProcessWorker:
    """A planner in a process of its own. Arrays cross through shared memory without a name, a word through a pipe says that they have.

    The process ends with the one that made it, however that one ends, and leaves Ctrl-C to it. One that was stopped (SIGSTOP) ends with a
    maker that is killed on Linux only, and only where the main thread made it: another thread may end before its process. It imports the
    running script anew, which must do its work under `if __name__ == "__main__":`.
    """

    def __init__(self, make: Callable[[], RequestPlanner], sizes: PlanSizes, cores: Sequence[int] | None = None) -> None:
        """`make`: a function or an object of an importable module, called in the process. `cores`: those that planning may use (None:
        all); what it counts its threads by. What `make` raises comes back as ConfigurationError, with its words.
        """
        self.numbers = itertools.count(1)
        context = multiprocessing.get_context("spawn")
        memory = [RawArray("b", 2 * dtype.itemsize) for dtype in (sizes.request, sizes.answer)]
        self._requests, self._answers = _records(memory, sizes)
        self._pipe, theirs = context.Pipe()
        lasting = threading.current_thread() is threading.main_thread()
        arguments = (theirs, memory, sizes, make, cores, lasting)
        self._process = context.Process(target=_serve, args=arguments, name="reflexarc-planner", daemon=True)
        # At its end Python waits for its processes, for a stopped one for ever: this one is killed before, also where nobody closed it.
        self._end = Finalize(self, _kill, (self._process,), exitpriority=10)
        try:
            self._process.start()
            theirs.close()  # so that the pipe ends when the process does
            try:
                said = self._hear(STARTING_SECONDS)
            except PlanningStopped as stopped:
                raise ConfigurationError(f"the planner was not made: {stopped}") from stopped
            if said != _READY:
                words = "it took too long" if said is None else read_words(self._answers[0])
                raise ConfigurationError(f"the planner was not made: {words}")
        except BaseException:  # Ctrl-C too: nobody else knows of the process yet
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def submit(self, request: PlanRequest) -> None:
        write_request(self._requests[_SUBMITTED], request)
        try:
            self._pipe.send_bytes(_ASKED)
        except OSError as error:
            raise self._stopped() from error

    def offer(self, request: PlanRequest) -> None:
        write_offer(self._requests[_OFFERED], request)

    def result(self, timeout: float = 0.0) -> PlanAnswer | None:
        said = self._hear(timeout)
        return None if said is None else read_answer(self._answers[_ANSWERED.index(said)])

    def close(self) -> None:
        if not self._pipe.closed:
            with contextlib.suppress(OSError):  # it has ended before
                self._pipe.send_bytes(_END)
            self._pipe.close()
        if self._process.pid is not None:
            try:
                self._process.join(ENDING_SECONDS)
            finally:  # a second Ctrl-C too
                self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _hear(self, timeout: float) -> bytes | None:
        try:
            return self._pipe.recv_bytes() if self._pipe.poll(timeout) else None
        except (EOFError, OSError) as error:
            raise self._stopped() from error

    def _stopped(self) -> PlanningStopped:
        self._process.join(_GONE_SECONDS)
        code = self._process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with exit code {code}"
        return PlanningStopped(f"the planning process {self._process.pid} {how}; nothing plans any more. Its last words, if it had any, "
                               "stand on standard error; where memory ran out, plan with fewer candidates")


def _records(memory: Sequence[bytearray], sizes: PlanSizes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return two records () for requests, the submitted and the offered one, and two for answers, which take turns: the planner may be done
    with an offer before the answer to the request at work was read.
    """
    records = []
    for shared, dtype in zip(memory, (sizes.request, sizes.answer), strict=True):
        pair = np.frombuffer(shared, dtype)
        records.append((pair[0:1].reshape(()), pair[1:2].reshape(())))
    return records


def _kill(process: multiprocessing.process.BaseProcess) -> None:
    if process.pid is not None and process.is_alive():
        process.kill()
        process.join()


def _serve(pipe: Connection, memory: Sequence[bytearray], sizes: PlanSizes, make: Callable[[], RequestPlanner],
           cores: Sequence[int] | None, lasting: bool) -> None:
    """Make the planner and answer requests until told to end. `lasting`: the thread that made this process ends with its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if lasting and sys.platform == "linux":  # it is the thread's end that kills
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_end_with_parent, name="reflexarc-parent", daemon=True).start()
    requests, answers = _records(memory, sizes)
    try:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        planner = make()
        sizes.check(planner)
    except Exception as error:  # raised again where the worker is made
        write_answer(answers[0], PlanAnswer(None, None, None, np.inf, 0, 0, 0, error_words(error), broken=True))
        pipe.send_bytes(_REFUSED)
        return
    pipe.send_bytes(_READY)
    turn = 0
    with contextlib.suppress(EOFError, OSError):  # whoever asked is gone
        while pipe.recv_bytes() == _ASKED:
            request = read_request(requests[_SUBMITTED])
            while request is not None:
                answer = planner.answer(request)
                request = following(read_offer(requests[_OFFERED]), request, answer, time.monotonic_ns())
                turn = 1 - turn
                write_answer(answers[turn], replace(answer, goes_on=0 if request is None else request.number))
                pipe.send_bytes(_ANSWERED[turn])


def _end_with_parent() -> None:
    """End this process as soon as the one that made it is gone, in the middle of a plan too."""
    parent = multiprocessing.parent_process()
    while parent.is_alive() and not wait([parent.sentinel], _WATCH_SECONDS):
        pass
    os._exit(1)
