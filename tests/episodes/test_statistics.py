"""Statistics merged episode by episode are those of all rows at once."""

from __future__ import annotations

import numpy as np
import pytest

from episodes.statistics import statistics
from robots.errors import ConfigurationError


def test_merged_statistics_equal_those_of_all_rows(make_episode):
    lived = [make_episode(i, steps=i + 1, x=1e6 + np.random.default_rng(i).normal(size=(i + 2, 3))) for i in range(6)]
    found = statistics(iter(lived))
    assert (found.episodes, found.steps) == (6, 21)
    for entry, rows in ((found.state, np.concatenate([e.x for e in lived])), (found.command, np.concatenate([e.applied for e in lived]))):
        assert entry.count == len(rows)
        np.testing.assert_allclose(entry.mean, rows.mean(0), rtol=1e-13)
        np.testing.assert_allclose(entry.std, rows.std(0), rtol=1e-8)
        np.testing.assert_array_equal(entry.minimum, rows.min(0))
        np.testing.assert_array_equal(entry.maximum, rows.max(0))
    assert found.state.names == lived[0].state_names and found.command.names == lived[0].command_names


def test_none_and_unlike_episodes_are_refused(make_episode):
    with pytest.raises(ConfigurationError, match="got none"):
        statistics([])
    with pytest.raises(ConfigurationError, match="of one kind"):
        statistics([make_episode(), make_episode(state_names=("a", "b", "c"))])
