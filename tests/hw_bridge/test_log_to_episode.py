"""From a log to episodes: one transition an action, in measured time, split at every intervention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.dataset import transition_data
from dynamics.state_space import Channel, StateSpace
from episodes.metadata import Clock
from episodes.store import EpisodeStore
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import EVENT_DTYPE, MODE_CODES, NO_MODE, servo_dtype
from hw_bridge.recorder.read_log import Log
from hw_bridge.recorder.to_episode import log_episodes
from hw_bridge.safety.rules import State
from robots.arms.ur5e import ur5e
from robots.command import CommandMode

SPEC = ur5e().spec
NV = SPEC.nv
PERIODS = 5
"""Servo periods an action."""


def make_log(count: int, mode: CommandMode = CommandMode.JOINT_VELOCITY) -> Log:
    """Return a log in which everything follows from the tick, measured at an uneven pace."""
    rows = np.zeros(count, servo_dtype(NV))
    ticks = np.arange(count)
    rows["tick"] = ticks
    rows["received_ns"] = 10**9 + 2_000_000 * ticks + np.random.default_rng(0).integers(0, 900_000, count)
    rows["q"], rows["dq"], rows["written"] = ticks[:, None], -ticks[:, None], 0.1 * ticks[:, None] + np.arange(NV)
    rows["action_sequence"] = ticks // PERIODS
    rows["action"] = (ticks // PERIODS)[:, None]
    rows["state"] = State.ACTIVE
    rows["action_mode"] = rows["written_mode"] = MODE_CODES[mode]
    header = LogHeader(SPEC.to_json(), SPEC.fingerprint(), "factory", "p", "s", tuple(state.name for state in State), (), "reach")
    return Log(header, rows, np.zeros(0, EVENT_DTYPE), True, ())


@pytest.mark.parametrize("mode", [CommandMode.JOINT_VELOCITY, CommandMode.JOINT_TORQUE, CommandMode.JOINT_POSITION])
def test_a_transition_is_an_action_with_what_was_done_meanwhile(mode):
    log = make_log(23, mode)
    (episode,) = log_episodes(log)
    starts = np.arange(0, 23, PERIODS)
    assert episode.steps == 4  # the action that was under way at the end is not one
    assert np.array_equal(episode.time, log.rows["received_ns"][starts] * 1e-9)
    assert np.array_equal(episode.x, np.hstack([log.rows["q"][starts], log.rows["dq"][starts]]))
    assert np.array_equal(episode.commanded, log.rows["action"][starts[:-1]])
    written = np.array([log.rows["written"][a : a + PERIODS] for a in starts[:-1]])
    assert np.allclose(episode.applied, written[:, -1] if mode is CommandMode.JOINT_POSITION else written.mean(axis=1), rtol=1e-14)
    assert episode.state_names == (*SPEC.joint_names, *(f"{name}_rate" for name in SPEC.joint_names))
    assert not (episode.terminated or episode.truncated) and not episode.cost.any()
    data = episode.metadata
    assert (data.clock, data.task, data.provenance, data.robot_fingerprint) == (Clock.MONOTONIC, "reach", "policy", SPEC.fingerprint())
    assert data.robot_spec == SPEC.to_json()


@pytest.mark.parametrize(("field", "value"), [
    ("state", State.HOLD), ("state", State.FAULT), ("state", State.ARMED), ("state", State.ESTOP), ("written_mode", NO_MODE),
    ("action_mode", MODE_CODES[CommandMode.JOINT_TORQUE]), ("action_sequence", -1), ("q", np.nan), ("dq", np.inf), ("action", np.nan),
    ("written", np.nan),
])
def test_every_intervention_splits(field, value):
    log = make_log(100)
    log.rows[field][52:54] = value
    first, second = log_episodes(log)
    assert first.x[-1, 0] == 50 and second.x[0, 0] == 54  # the rest of that action after the intervention begins anew
    assert (first.metadata.trial, second.metadata.trial) == (0, 1)
    assert first.steps == 10


def test_rows_that_are_missing_split():
    log = make_log(100)
    cut = Log(log.header, np.delete(log.rows, [60, 61]), log.events, True, ())
    first, second = log_episodes(cut)
    assert first.x[-1, 0] == 55 and second.x[0, 0] == 62


def test_actions_without_a_measurement_between_them_share_a_transition():
    log = make_log(100)
    log.rows["received_ns"][51:58] = log.rows["received_ns"][50]  # nothing new from 50 to 57; the action of 55 saw nothing new
    (episode,) = log_episodes(log)
    at = int(np.flatnonzero(episode.x[:, 0] == 50)[0])
    assert episode.x[at + 1, 0] == 60 and episode.commanded[at, 0] == 11
    assert np.allclose(episode.applied[at], log.rows["written"][50:60].mean(axis=0))
    assert episode.steps == 18


def test_nothing_lived_is_no_episode():
    log = make_log(100)
    assert log_episodes(Log(log.header, log.rows[:0], log.events, True, ())) == []
    assert log_episodes(Log(log.header, log.rows[:PERIODS], log.events, True, ())) == []
    assert log_episodes(log, minimum_steps=20) == []
    log.rows["state"] = State.IDLE
    assert log_episodes(log) == []


def test_the_cost_is_the_callers():
    (episode,) = log_episodes(make_log(50), charge=lambda x, u, x_next: x_next[:, 0] - x[:, 0])
    assert (episode.cost == PERIODS).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(State)), st.integers(1, 30)), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_no_transition_spans_an_intervention_and_none_is_counted_twice(stretches, random):
    count = sum(length for _, length in stretches)
    log = make_log(count)
    log.rows["state"] = np.repeat([int(state) for state, _ in stretches], [length for _, length in stretches])
    kept = np.array(sorted(random.sample(range(count), random.randint(count // 2, count))), dtype=int)
    broken = Log(log.header, log.rows[kept], log.events, False, ())
    seen = []
    for episode in log_episodes(broken, minimum_steps=1):
        ticks = episode.x[:, 0].astype(int)
        spanned = np.arange(ticks[0], ticks[-1] + 1)
        assert np.isin(spanned, kept).all() and (log.rows["state"][spanned] == State.ACTIVE).all()
        assert (np.diff(episode.time) > 0).all()
        seen += ticks[:-1].tolist()
    assert len(set(seen)) == len(seen)


def test_it_is_stored_and_models_learn_from_it(tmp_path):
    episodes = log_episodes(make_log(100))
    store = EpisodeStore(tmp_path)
    for episode in episodes:
        store.append(episode)
    kept = store.read(0)
    assert kept.x.tobytes() == episodes[0].x.tobytes() and kept.metadata == episodes[0].metadata
    joints = SPEC.joint_names
    space = StateSpace([Channel("q", joints, range(NV)), Channel("dq", [f"{name}_rate" for name in joints], range(NV))])
    assert space.names == kept.state_names
    data = transition_data({0: kept}, space)
    assert len(data.dt) == kept.steps and np.allclose(data.dt, kept.dt)
