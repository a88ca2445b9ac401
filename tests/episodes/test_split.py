"""A split keeps an episode on one side for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes.split import split_by_episode
from robots.errors import ConfigurationError

fractions = st.floats(0.0, 0.99)


@given(count=st.integers(0, 300), more=st.integers(0, 300), fraction=fractions, seed=st.integers(0, 2**64))
def test_no_episode_changes_sides_as_more_are_added(count, more, fraction, seed):
    training, validation = split_by_episode(range(count), fraction, seed)
    assert sorted(training + validation) == list(range(count))
    later_training, later_validation = split_by_episode(range(count + more), fraction, seed)
    assert later_training[: len(training)] == training and later_validation[: len(validation)] == validation


@given(count=st.integers(0, 300), fraction=fractions, seed=st.integers(0, 100))
def test_the_fraction_holds_at_every_count(count, fraction, seed):
    validation = split_by_episode(range(count), fraction, seed)[1]
    assert abs(len(validation) - count * fraction) <= 1.001


def test_the_seed_chooses_and_a_subset_keeps_its_sides():
    by_seed = {tuple(split_by_episode(range(50), 0.2, seed)[1]) for seed in range(20)}
    assert len(by_seed) > 15
    whole = set(split_by_episode(range(50), 0.2, 3)[1])
    assert set(split_by_episode(range(0, 50, 3), 0.2, 3)[1]) == whole & set(range(0, 50, 3))
    assert split_by_episode(range(20), 0.25, 0)[1] == [1, 5, 11, 15, 16]  # one of every four; a changed rule would mix old splits


@pytest.mark.parametrize(("indices", "fraction"), [([0], -0.1), ([0], 1.0), ([0], float("nan")), ([-1], 0.5)])
def test_what_is_no_split_is_refused(indices, fraction):
    with pytest.raises(ConfigurationError):
        split_by_episode(indices, fraction, 0)
