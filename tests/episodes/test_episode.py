"""An episode refuses what does not fit together, and says why."""

from __future__ import annotations

import numpy as np
import pytest

from episodes.episode import FrameTimes
from episodes.metadata import EpisodeMetadata, software_version
from robots.errors import ConfigurationError, NonFiniteError, ShapeError


def test_derived_quantities_follow_their_definitions(make_episode):
    episode = make_episode(steps=4, cost=[1.0, 2.0, 3.0, 4.5])
    assert episode.steps == 4
    assert episode.total_return == -10.5
    np.testing.assert_array_equal(episode.dt, episode.time[1:] - episode.time[:-1])
    x, u, x_next, dt = episode.transitions()
    for t in range(4):
        np.testing.assert_array_equal(x[t], episode.x[t])
        np.testing.assert_array_equal(x_next[t], episode.x[t + 1])
        np.testing.assert_array_equal(u[t], episode.applied[t])
        assert dt[t] == episode.dt[t]


def test_an_episode_shares_no_memory_and_cannot_be_written_to(make_episode):
    x = np.zeros((6, 3))
    episode = make_episode(x=x)
    x[0, 0] = 1.0
    assert episode.x[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        episode.x[0, 0] = 1.0
    with pytest.raises(TypeError):
        episode.cost_terms["new"] = np.zeros(5)


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"x": np.zeros((5, 3))}, ShapeError, "Episode.x: expected shape"),
    ({"x": np.zeros((6, 2))}, ShapeError, "Episode.x"),
    ({"commanded": np.zeros((6, 2))}, ShapeError, "Episode.commanded"),
    ({"applied": np.zeros((5, 1))}, ShapeError, "Episode.applied"),
    ({"cost": np.zeros(6)}, ShapeError, "Episode.cost"),
    ({"cost_terms": {"effort": np.zeros(4)}}, ShapeError, "cost_terms"),
    ({"plan_seconds": np.zeros(4)}, ShapeError, "plan_seconds"),
    ({"time": np.zeros(1)}, ShapeError, "at least two time stamps"),
    ({"time": np.zeros(6)}, ConfigurationError, "strictly increasing"),
    ({"time": [0, 1, 2, 3, 2, 5]}, ConfigurationError, r"3.0 then 2.0 at index 4"),
    ({"time": [0, 1, 2, np.nan, 4, 5]}, NonFiniteError, "Episode.time"),
    ({"x": np.full((6, 3), np.inf)}, NonFiniteError, "Episode.x"),
    ({"applied": np.full((5, 2), np.nan)}, NonFiniteError, "Episode.applied"),
    ({"cost": [0, 0, np.nan, 0, 0]}, NonFiniteError, "Episode.cost"),
    ({"plan_seconds": [0, 0, -1, 0, 0]}, ConfigurationError, "got -1"),
    ({"plan_seconds": [0, 0, np.inf, 0, 0]}, ConfigurationError, "got inf"),
    ({"state_names": ("a", "b", "a")}, ConfigurationError, "state_names"),
    ({"command_names": ()}, ConfigurationError, "command_names"),
    ({"command_names": ("a", "")}, ConfigurationError, "command_names"),
    ({"command_names": ("a", "\ud800")}, ConfigurationError, "valid Unicode"),
])
def test_what_does_not_fit_is_refused(make_episode, changes, error, message):
    with pytest.raises(error, match=message):
        make_episode(**changes)


def test_plan_seconds_may_be_nan_where_nothing_was_planned(make_episode):
    assert np.isnan(make_episode(plan_seconds=[np.nan, 0.1, np.nan, 0.1, 0.2]).plan_seconds[0])


def test_frames_need_increasing_sequence_numbers_and_a_time_each():
    FrameTimes([0, 1, 3], [10, 20, 40])
    FrameTimes([], [])
    with pytest.raises(ConfigurationError, match="increasing"):
        FrameTimes([0, 0], [10, 20])
    with pytest.raises(ShapeError, match="2 sequence numbers"):
        FrameTimes([0, 1], [10])
    with pytest.raises(ShapeError, match="integers"):
        FrameTimes([0.5], [10])


@pytest.mark.parametrize(("changes", "message"), [
    ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed"), ({"trial": True}, "trial"), ({"model_version": "2"}, "model_version"),
    ({"provenance": ""}, "provenance"), ({"clock": "sundial"}, "sundial"), ({"created_at": "yesterday"}, "ISO 8601"),
    ({"robot_spec": {"a": np.zeros(2)}}, "robot_spec"), ({"robot_spec": {"a": float("nan")}}, "robot_spec"),
    ({"robot_spec": []}, "robot_spec"),
])
def test_metadata_that_could_not_be_stored_is_refused(changes, message):
    good = {"task": "cartpole", "robot_fingerprint": "00", "robot_spec": {}, "seed": 0, "trial": 0, "provenance": "cem"}
    EpisodeMetadata(**good)
    with pytest.raises(ConfigurationError, match=message):
        EpisodeMetadata(**(good | changes))


def test_metadata_survives_json_and_takes_numpy_integers():
    metadata = EpisodeMetadata("cartpole", "00", {"limits": ["inf", 1.0]}, np.int64(3), 1, "cem", model_version=4, clock="monotonic")
    assert type(metadata.seed) is int
    assert EpisodeMetadata.from_json(metadata.to_json()) == metadata
    assert metadata.software_version == software_version()
    with pytest.raises(ConfigurationError, match="expected the keys"):
        EpisodeMetadata.from_json(metadata.to_json() | {"mood": "good"})
