"""The store keeps every bit, and says of a bad file which it is and what to do."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from episodes.episode import Episode, FrameTimes
from episodes.metadata import EpisodeMetadata
from episodes.parquet import METADATA_KEY, decode_episode, encode_episode
from episodes.store import EpisodeStore
from robots.errors import StoreError, VersionError

finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=3, unique=True)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    steps, states, commands = draw(st.integers(1, 6)), draw(names), draw(names)

    def array(*shape: int, elements: st.SearchStrategy[float] = finite) -> np.ndarray:
        return draw(hnp.arrays(np.float64, shape, elements=elements))

    time = draw(st.lists(finite, min_size=steps + 1, max_size=steps + 1, unique=True))
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
    metadata = EpisodeMetadata(task=draw(text), robot_fingerprint=draw(text), seed=draw(st.integers(0, 2**70)), trial=draw(st.integers(0)),
                               robot_spec=draw(st.dictionaries(text, st.lists(finite))), provenance=draw(text),
                               model_version=draw(st.none() | st.integers(0)), clock=draw(st.sampled_from(["simulated", "monotonic"])))
    sequence = sorted(draw(st.sets(st.integers(0, 2**62))))
    return Episode(
        time=np.sort(time), x=array(steps + 1, len(states)), commanded=array(steps, len(commands)), applied=array(steps, len(commands)),
        cost=array(steps), terminated=draw(st.booleans()), truncated=draw(st.booleans()), state_names=states, command_names=commands,
        metadata=metadata, cost_terms={name: array(steps) for name in draw(st.just([]) | names)},
        plan_seconds=array(steps, elements=st.just(np.nan) | st.floats(0, 1e9)) if draw(st.booleans()) else None,
        frames={"wrist": FrameTimes(sequence, sequence)} if sequence else {})


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(episode=episodes())
def test_decode_of_encode_is_the_same_episode_bit_for_bit(episode, assert_same):
    assert_same(decode_episode(encode_episode(episode), "memory"), episode)


def test_append_read_iterate(tmp_path, make_episode, assert_same):
    store = EpisodeStore(tmp_path / "run" / "episodes")
    lived = [make_episode(i, steps=3 + i) for i in range(4)]
    assert [store.append(episode) for episode in lived] == [0, 1, 2, 3]
    again = EpisodeStore(store.directory)
    assert len(again) == 4 and list(again.indices()) == [0, 1, 2, 3]
    for episode, read in zip(lived, again, strict=True):
        assert_same(read, episode)
    assert sorted(os.listdir(store.directory)) == [".lock"] + [f"episode-{i:06d}.parquet" for i in range(4)]


def test_a_stored_episode_opens_in_pandas(tmp_path, make_episode):
    store = EpisodeStore(tmp_path)
    episode = make_episode(steps=5, cost_terms={"effort": np.arange(5.0)}, plan_seconds=[np.nan, 1, 2, 3, 4])
    store.append(episode)
    frame = pandas.read_parquet(store.path(0))
    assert list(frame.columns) == ["time", "x.angle", "x.velocity", "x.x", "commanded.left", "commanded.right", "applied.left",
                                   "applied.right", "cost", "cost.effort", "plan_seconds"]
    assert len(frame) == 6 and (frame.dtypes == np.float64).all()
    np.testing.assert_array_equal(frame["x.velocity"], episode.x[:, 1])
    np.testing.assert_array_equal(frame["applied.right"][:-1], episode.applied[:, 1])
    assert frame.iloc[-1][["commanded.left", "applied.left", "cost", "cost.effort", "plan_seconds"]].isna().all()


def test_write_replaces_an_episode_and_leaves_no_gap(tmp_path, make_episode, assert_same):
    store = EpisodeStore(tmp_path)
    store.append(make_episode(0))
    store.append(make_episode(1))
    store.write(0, make_episode(8))
    store.write(2, make_episode(9))
    assert_same(store.read(0), make_episode(8, metadata=store.read(0).metadata))
    for index in (-1, 4):
        with pytest.raises(StoreError, match="expected a number from 0 to 3"):
            store.write(index, make_episode())


def test_truncate_moves_and_never_overwrites(tmp_path, make_episode):
    store = EpisodeStore(tmp_path)
    for i in range(4):
        store.append(make_episode(i))
    moved = store.truncate_to(2)
    assert [path.name for path in moved] == ["episode-000002.parquet", "episode-000003.parquet"] and len(store) == 2
    store.append(make_episode(7))
    moved += store.truncate_to(2)
    assert moved[-1].name == "episode-000002.2.parquet"
    assert [decode_episode(path.read_bytes(), "moved").metadata.trial for path in moved] == [2, 3, 7]
    assert store.truncate_to(2) == []
    with pytest.raises(StoreError, match=r"first 3 episodes, it holds 2 .*episode-000002"):
        store.truncate_to(3)
    with pytest.raises(StoreError):
        store.truncate_to(-1)
    assert len(store) == 2


def test_a_gap_is_named_and_can_be_closed(tmp_path, make_episode):
    store = EpisodeStore(tmp_path)
    for i in range(4):
        store.append(make_episode(i))
    store.path(1).rename(tmp_path / "elsewhere.parquet")
    for attempt in (lambda: len(store), store.indices, lambda: list(store), lambda: store.append(make_episode())):
        with pytest.raises(StoreError, match=r"episode-000001\.parquet: missing.*truncate_to\(1\)"):
            attempt()
    with pytest.raises(StoreError, match="no such episode; the folder holds 3 episodes"):
        store.read(1)
    EpisodeStore(tmp_path).truncate_to(1)
    assert len(store) == 1


def _cut(data: bytes, fraction: float) -> bytes:
    return data[: int(len(data) * fraction)]


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda data: b"", "empty"),
    (lambda data: _cut(data, 0.3), "truncated"),
    (lambda data: _cut(data, 0.9), "truncated"),
    (lambda data: data[:-1], "truncated"),
    (lambda data: b"time,x\n0,1\n", "not a Parquet file"),
    (lambda data: data[:200] + bytes(b ^ 0xFF for b in data[200:260]) + data[260:], "damaged"),
], ids=["empty", "first third", "nine tenths", "last byte", "text", "flipped bytes"])
def test_a_broken_file_is_named_and_left_alone(tmp_path, make_episode, spoil, message):
    store = EpisodeStore(tmp_path)
    for i in range(3):
        store.append(make_episode(i, steps=50))
    broken = spoil(store.path(1).read_bytes())
    store.path(1).write_bytes(broken)
    with pytest.raises(StoreError, match=rf"episode-000001\.parquet: .*{message}.*truncate_to"):
        store.read(1)
    assert store.path(1).read_bytes() == broken
    assert store.read(0).metadata.trial == 0 and store.read(2).metadata.trial == 2
    assert len(store.truncate_to(1)) == 2 and store.append(make_episode()) == 1


def test_no_flipped_byte_crashes_the_reader(make_episode):
    data = encode_episode(make_episode(steps=3))
    generator = np.random.default_rng(0)
    refused = 0
    for position in generator.choice(len(data), 300, replace=False):
        try:
            decode_episode(data[:position] + bytes([data[position] ^ (1 << generator.integers(8))]) + data[position + 1:], "flipped")
        except (StoreError, VersionError):
            refused += 1
    assert refused > 100


def test_foreign_parquet_and_other_formats_are_refused(tmp_path, make_episode):
    store = EpisodeStore(tmp_path)
    store.append(make_episode())
    table = pq.read_table(store.path(0))
    header = json.loads(table.schema.metadata[METADATA_KEY])

    def rewrite(table: pa.Table, metadata: dict) -> None:
        pq.write_table(table.replace_schema_metadata(metadata), store.path(0))

    pandas.DataFrame({"time": [0.0, 1.0]}).to_parquet(store.path(0))
    with pytest.raises(StoreError, match=r"episode-000000\.parquet: a Parquet file that Reflexarc did not write"):
        store.read(0)
    rewrite(table, {METADATA_KEY: json.dumps(header | {"format": 2})})
    with pytest.raises(VersionError, match=r"episode-000000\.parquet: written in episode format 2 .* reads format 1"):
        store.read(0)
    for damaged in ("{", "[]", "{}"):
        rewrite(table, {METADATA_KEY: damaged})
        with pytest.raises(StoreError, match="is damaged"):
            store.read(0)
    for columns in (table.drop_columns(["applied.left"]), table.slice(0, 4),
                    table.set_column(0, "time", table["time"].cast(pa.float32(), safe=False)),
                    table.set_column(0, "time", pa.array([None, *table["time"].to_pylist()[1:]]))):
        rewrite(columns, {METADATA_KEY: json.dumps(header)})
        with pytest.raises(StoreError, match="do not make an episode"):
            store.read(0)


def test_a_full_disk_loses_only_the_new_episode(tmp_path, make_episode, monkeypatch):
    store = EpisodeStore(tmp_path)
    store.append(make_episode(0))
    before = store.path(0).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        for attempt in (lambda: store.append(make_episode(1)), lambda: store.write(0, make_episode(1))):
            with pytest.raises(StoreError, match=r"the disk is full.*those stored before are intact\. Free some space"):
                attempt()
    assert sorted(os.listdir(tmp_path)) == [".lock", "episode-000000.parquet"]
    assert store.path(0).read_bytes() == before
    assert store.append(make_episode(1)) == 1


def test_a_write_that_stops_half_way_leaves_nothing_behind(tmp_path, make_episode):
    store = EpisodeStore(tmp_path)
    store.append(make_episode(0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # the kernel cuts the file there
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            store.append(make_episode(1, steps=500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(tmp_path)) == [".lock", "episode-000000.parquet"]


def test_unfinished_files_are_cleared_on_open_but_not_those_of_a_writer_at_work(tmp_path, make_episode, caplog):
    store = EpisodeStore(tmp_path)
    store.append(make_episode())
    stale = tmp_path / ".episode-000001.parquet.123.temporary"
    stale.write_bytes(b"half")
    with store._locked():
        assert len(EpisodeStore(tmp_path)) == 1
        assert stale.exists()
    with caplog.at_level(logging.INFO, "episodes.store"):
        assert len(EpisodeStore(tmp_path)) == 1
    assert not stale.exists() and stale.name in caplog.text


def test_a_missing_folder_and_a_file_in_its_place_are_refused(tmp_path):
    with pytest.raises(StoreError, match="expected a folder of episodes, found none"):
        EpisodeStore(tmp_path / "typo", create=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        EpisodeStore(tmp_path / "file")
    store = EpisodeStore(tmp_path / "gone")
    shutil.rmtree(store.directory)
    with pytest.raises(StoreError, match="cannot be listed"):
        len(store)
    with pytest.raises(StoreError, match="No such file"):
        store.truncate_to(0)
