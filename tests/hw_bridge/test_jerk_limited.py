"""Set-points that can always stop: the laws that the supervisor rests on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_bridge.safety import jerk_limited

POSITION, V, A, J = 2.0, 1.0, 5.0, 100.0
LIMITS = np.array([[-POSITION], [POSITION], [V], [A], [J]])
periods = st.sampled_from([0.0, 1e-4, 0.001, 0.002, 0.002, 0.002, 0.0023, 0.01, 0.05, 0.3])
targets = st.tuples(st.floats(-10, 10), st.floats(-5, 5), st.floats(-50, 50))


def drive(steps, velocity=False):
    """Return times (n+1,) and states (n+1, 3) of a joint driven through `steps` of (dt, (target, rate, bend))."""
    state, following, reasons = np.zeros((3, 1)), np.zeros((3, 1)), np.zeros(1, np.int64)
    times, states = [0.0], [state[:, 0].copy()]
    for dt, (target, rate, bend) in steps:
        jerk_limited.follow(state, following, np.array([target]), np.array([rate]), np.array([bend]), dt, LIMITS, velocity, reasons)
        state, following = following, state
        times.append(times[-1] + dt)
        states.append(state[:, 0].copy())
    return np.array(times), np.array(states)


def divided_differences(times, values):
    """Return the largest velocity, acceleration and jerk between samples, as divided differences of order 1, 2 and 3."""
    keep = np.concatenate([[True], np.diff(times) > 0])
    times, values, largest = times[keep], values[keep], []
    for order in (1, 2, 3):
        if len(values) < 2:
            break
        values = order * np.diff(values) / (times[order:] - times[:-order])
        largest.append(np.abs(values).max())
    return largest


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(periods, targets, st.integers(1, 60)), min_size=1, max_size=25), st.booleans())
def test_samples_keep_every_limit_whatever_is_asked_and_whenever(asked, velocity):
    steps = [(dt, target) for dt, target, repeat in asked for _ in range(repeat)]
    times, states = drive(steps, velocity)
    assert np.abs(states[:, 0]).max() <= POSITION + 1e-6
    for found, limit in zip(divided_differences(times, states[:, 0]), (V, A, J), strict=False):
        assert found <= limit * (1 + 1e-3)
    assert all(jerk_limited.is_safe(state[:, None].copy(), LIMITS) for state in states)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(periods, targets, st.integers(1, 60)), min_size=1, max_size=15), st.floats(0.0, 1.0))
def test_the_brake_stops_in_the_promised_time_within_the_limits(asked, share):
    _, states = drive([(dt, target) for dt, target, repeat in asked for _ in range(repeat)])
    state = states[-1][:, None].copy()
    duration = jerk_limited.brake_duration(state, LIMITS)
    assert duration <= jerk_limited.worst_brake_duration(np.array([V]), np.array([A]), np.array([J])) + 1e-9
    at, end = np.zeros((3, 1)), np.zeros((3, 1))
    jerk_limited.brake(state, at, share * duration, LIMITS)
    assert jerk_limited.is_safe(at, LIMITS)
    jerk_limited.brake(state, end, duration + 1e-9, LIMITS)
    assert end[1, 0] == 0.0 and end[2, 0] == 0.0 and abs(end[0, 0]) <= POSITION + 1e-6
    # The rest of a stop is the stop of the rest.
    again = np.zeros((3, 1))
    jerk_limited.brake(at, again, duration, LIMITS)
    assert again[0, 0] == pytest.approx(end[0, 0], abs=1e-6)


def test_a_far_target_is_reached_in_little_more_than_the_shortest_time():
    times, states = drive([(0.002, (1.0, 0.0, 0.0))] * 1500)
    there = np.abs(states[:, 0] - 1.0) < 1e-3
    shortest = 1.0 / V + V / A + A / J  # a jerk-limited trapezium from rest to rest
    assert shortest - 0.05 < times[np.argmax(there)] < shortest + 0.05
    assert states[:, 0].max() < 1.0 + 1e-3, "no overshoot"
    assert np.abs(states[-1] - [1.0, 0.0, 0.0]).max() < 1e-6


def test_a_smooth_target_within_the_limits_is_tracked():
    times = 0.002 * np.arange(1, 4001)
    steps = [(0.002, (np.sin(t), np.cos(t), -np.sin(t))) for t in times]
    _, states = drive([(0.002, (0.0, 0.0, 0.0)), *steps])
    assert np.abs(states[2:, 0][1000:] - np.sin(times)[1000:]).max() < 1e-3


def test_safety_is_refused_where_no_stop_helps():
    assert jerk_limited.is_safe(np.array([[0.0], [0.9], [0.0]]), LIMITS)
    assert not jerk_limited.is_safe(np.array([[1.99], [0.9], [0.0]]), LIMITS), "too near the end for its speed"
    assert not jerk_limited.is_safe(np.array([[0.0], [0.99], [4.0]]), LIMITS), "its acceleration will take it over the speed limit"
    assert not jerk_limited.is_safe(np.array([[0.0], [0.0], [5.1]]), LIMITS)
    assert not jerk_limited.is_safe(np.array([[np.nan], [0.0], [0.0]]), LIMITS)
