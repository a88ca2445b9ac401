"""Worker threads: order, errors, and portions that do not depend on the number of threads."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynamics.workers import Workers, portions
from robots.errors import ConfigurationError


@given(count=st.integers(1, 500), size=st.integers(1, 100))
def test_portions_cover_everything_once_in_the_fewest_nearly_equal_pieces(count, size):
    pieces = portions(count, size)
    assert [i for piece in pieces for i in range(count)[piece]] == list(range(count))
    lengths = [piece.stop - piece.start for piece in pieces]
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1 and len(pieces) == -(-count // size)


def test_results_keep_the_order_of_portions(workers):
    assert workers.map(lambda i: (time.sleep(0.002 * (5 - i)), i)[1], range(5)) == list(range(5))


def test_an_error_is_raised_once_all_portions_have_ended(workers):
    ended = []

    def work(i: int) -> None:
        if i == 0:
            raise ValueError("portion 0")
        time.sleep(0.02)
        ended.append(i)

    with pytest.raises(ValueError, match="portion 0"):
        workers.map(work, range(3))
    assert sorted(ended) == [1, 2]


def test_every_thread_runs_torch_on_one_core():
    pool = Workers(1)
    assert pool.map(lambda _: (torch.get_num_threads(), threading.current_thread() is threading.main_thread()), [0]) == [(1, False)]
    assert torch.get_num_threads() == 1
    pool.close()


@pytest.mark.parametrize("threads", [0, -1, 10_000])
def test_thread_counts_that_the_machine_lacks_are_refused(threads):
    with pytest.raises(ConfigurationError, match="threads"):
        Workers(threads)
