"""Threads that share work in fixed portions, so that a result never depends on how many there are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

import torch

from robots.errors import ConfigurationError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A pool of threads, each of which runs torch on one core.

    Portions are cut by the caller, by size and not by thread count; torch's own threads are switched off in the whole
    process, because OpenMP cuts sums differently for another number of threads. So one seed gives one result, bit for
    bit, whatever `threads` is. Torch's kernels release Python's lock, so the threads run side by side.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = checked_threads(threads)
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="reflexarc", initializer=_one_core)

    def map(self, work: Callable[[Item], Result], portions: Sequence[Item]) -> list[Result]:
        """Return `work` of every portion, in order; the first error of a portion is raised here, once all have ended."""
        futures = [self._pool.submit(work, portion) for portion in portions]
        try:
            wait(futures)
        finally:
            for future in futures:
                future.cancel()
        return [future.result() for future in futures]

    def begin(self, work: Callable[[], Result]) -> Future[Result]:
        """Have a thread do `work` while the caller goes on; its result or error is the future's."""
        return self._pool.submit(work)

    def close(self) -> None:
        """End the threads once their work is done."""
        self._pool.shutdown()


def checked_threads(threads: int | None) -> int:
    """Return `threads`, or all cores for None; ConfigurationError for less than one or more than this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is None:
        return cores
    if not 1 <= threads <= cores:
        raise ConfigurationError(f"threads: expected 1 to {cores}, the cores this process may use, got {threads}")
    return threads


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have torch compute on one thread within the block: it cuts sums by its number of threads, and one gives the same result anywhere."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _one_core() -> None:
    torch.set_num_threads(1)


def portions(count: int, size: int) -> list[slice]:
    """Return slices that cut `range(count)` into the fewest nearly equal portions of at most `size`."""
    return shares(count, -(-count // size))


def shares(count: int, pieces: int) -> list[slice]:
    """Return slices that cut `range(count)` into nearly equal pieces, none of them empty."""
    pieces = min(pieces, count)
    edges = [count * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
