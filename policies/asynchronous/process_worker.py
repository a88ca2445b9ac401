"""A planner in a process of its own: it shares memory with the control loop, and neither Python's lock nor its end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawArray
from types import TracebackType
from typing import Self

import numpy as np

from policies.asynchronous.exchange import PlanAnswer, PlanningStopped, PlanRequest, error_words
from policies.asynchronous.plan_memory import PlanSizes, read_answer, read_request, read_words, write_answer, write_request
from policies.asynchronous.request_planner import RequestPlanner
from policies.asynchronous.worker import ENDING_SECONDS, STARTING_SECONDS
from robots.errors import ConfigurationError

_READY, _REFUSED, _ASKED, _ANSWERED, _END = b"ready", b"refused", b"asked", b"answered", b"end"
_WATCH_SECONDS = 0.5


class ProcessWorker:
    """A planner in a process of its own. Arrays cross through shared memory without a name, a word through a pipe says that they have.

    The process ends with the one that made it, however that one ends, and leaves Ctrl-C to it. It imports the running script anew, which
    must do its work under `if __name__ == "__main__":`.
    """

    def __init__(self, make: Callable[[], RequestPlanner], sizes: PlanSizes, cores: Sequence[int] | None = None) -> None:
        """`make`: a function or an object of an importable module, called in the process. `cores`: those that planning may use (None:
        all); what it counts its threads by. What `make` raises comes back as ConfigurationError, with its words.
        """
        context = multiprocessing.get_context("spawn")
        request, answer = (RawArray("b", dtype.itemsize) for dtype in (sizes.request, sizes.answer))
        self._request, self._answer = (np.frombuffer(memory, dtype).reshape(())
                                       for memory, dtype in ((request, sizes.request), (answer, sizes.answer)))
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, request, answer, sizes, make, cores), name="reflexarc-planner",
                                        daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does
        said = self._hear(STARTING_SECONDS)
        if said != _READY:
            words = "it took too long" if said is None else read_words(self._answer)
            self.close()
            raise ConfigurationError(f"the planner was not made: {words}")

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def submit(self, request: PlanRequest) -> None:
        write_request(self._request, request)
        try:
            self._pipe.send_bytes(_ASKED)
        except OSError as error:
            raise self._stopped() from error

    def result(self, timeout: float = 0.0) -> PlanAnswer | None:
        return None if self._hear(timeout) is None else read_answer(self._answer)

    def close(self) -> None:
        if not self._pipe.closed:
            with contextlib.suppress(OSError):  # it has ended before
                self._pipe.send_bytes(_END)
            self._pipe.close()
        self._process.join(ENDING_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

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
        self._process.join(ENDING_SECONDS)
        code = self._process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with exit code {code}"
        return PlanningStopped(f"the planning process {self._process.pid} {how}; nothing plans any more, so nothing is commanded. Its last "
                               "words, if it had any, stand on standard error; where memory ran out, plan with fewer candidates")


def _serve(pipe: Connection, request_memory: bytearray, answer_memory: bytearray, sizes: PlanSizes, make: Callable[[], RequestPlanner],
           cores: Sequence[int] | None) -> None:
    """Make the planner and answer requests until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="reflexarc-parent", daemon=True).start()
    request, answer = np.frombuffer(request_memory, sizes.request).reshape(()), np.frombuffer(answer_memory, sizes.answer).reshape(())
    try:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        planner = make()
        sizes.check(planner)
    except Exception as error:  # raised again where the worker is made
        write_answer(answer, PlanAnswer(None, None, None, np.inf, 0, 0, 0, error_words(error), broken=True))
        pipe.send_bytes(_REFUSED)
        return
    pipe.send_bytes(_READY)
    with contextlib.suppress(EOFError, OSError):  # whoever asked is gone
        while pipe.recv_bytes() == _ASKED:
            write_answer(answer, planner.answer(read_request(request)))
            pipe.send_bytes(_ANSWERED)


def _end_with_parent() -> None:
    """End this process as soon as the one that made it is gone, in the middle of a plan too."""
    parent = multiprocessing.parent_process()
    while parent.is_alive() and not wait([parent.sentinel], _WATCH_SECONDS):
        pass
    os._exit(1)
