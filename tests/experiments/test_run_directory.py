"""A run's files are whole or as they were, one process writes them, and damage is told in words."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from episodes.store import EpisodeStore
from experiments.cli import main
from experiments.config import RunConfig
from experiments.run_directory import RunDirectory, replace_file
from policies.trial import TrialRecord
from robots.errors import StoreError, UserError, VersionError

RECORD = TrialRecord(0, "random", None, 1.0, 5, False, 7)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "open"), (Path, "replace")])
def test_a_full_disk_leaves_the_old_content_and_no_temporary(owner, name, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(StoreError, match="No space left"):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    replace_file(path, b"new")
    assert path.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    run.save([RECORD], {"a": torch.ones(3)})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError):
            run.save([RECORD, RECORD], {"a": torch.zeros(3)})
    checkpoint = run.load()
    assert checkpoint.records == [RECORD] and torch.equal(checkpoint.tensors["a"], torch.ones(3))


def test_what_killed_writers_left_is_cleared_by_the_next_checkpoint(tmp_path):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    (run.path / "checkpoints" / ".trial-000001.safetensors.99.tmp").write_bytes(b"half")
    run.save([RECORD], {"a": torch.ones(3)})
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == ["latest.json", "trial-000001.safetensors"]


def test_one_process_learns_at_a_time(tmp_path):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    with run.locked(), pytest.raises(StoreError, match="another process"), RunDirectory.open(run.path).locked():
        pass
    with run.locked():
        pass


@pytest.mark.parametrize("content", ["{}", '{"format": 1}', '{"format": 1, "tensors": "x", "records": [3]}', '{"format": 1, "tensors": 3}',
                                     "[]", "{"])
def test_a_damaged_checkpoint_is_refused_in_words(content, tmp_path):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    (run.path / "checkpoints" / "x").write_bytes((b"\x02" + bytes(7)) + b"{}")
    (run.path / "checkpoints" / "latest.json").write_text(content)
    with pytest.raises(UserError):
        run.load()


@pytest.mark.parametrize("config", [None, [], 3, {}])
def test_a_configuration_that_is_none_is_refused(config, tmp_path):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    content = json.loads((run.path / "config.json").read_bytes()) | {"config": config}
    (run.path / "config.json").write_text(json.dumps(content))
    with pytest.raises(VersionError, match="another version"):
        RunDirectory.open(run.path)


def test_a_run_where_a_file_stands_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics").touch()
    for place in (tmp_path / "file" / "run", tmp_path / "run"):
        with pytest.raises(StoreError, match="cannot be made"):
            RunDirectory.create(place, RunConfig())


def test_metrics_on_a_full_disk_exit_with_2_and_keep_the_trial(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.learn.write_metrics", full)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["learn", "pendulum", "--name", "run", "--steps", "6", "--trials", "2", "--random-trials", "2", "--no-report"])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and "No space left" in said.err and "resume" in said.err
    assert len(RunDirectory.open(tmp_path / "runs" / "run").load().records) == 1


def test_a_disk_that_fills_up_while_learning_exits_with_2_and_keeps_the_finished_trials(tmp_path, monkeypatch, capsys):
    save = RunDirectory.save

    def fills_up(self, records, tensors):
        if len(records) > 1:
            raise StoreError("the disk is full")
        save(self, records, tensors)

    monkeypatch.setattr(RunDirectory, "save", fills_up)
    monkeypatch.chdir(tmp_path)
    tiny = ["--steps", "6", "--trials", "3", "--random-trials", "3", "--threads", "1", "--no-report"]
    with pytest.raises(SystemExit) as stopped:
        main(["learn", "pendulum", "--name", "run", *tiny])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and "the disk is full" in said.err and "kept" in said.out
    run = RunDirectory.open(tmp_path / "runs" / "run")
    assert [record.trial for record in run.load().records] == [0]
    monkeypatch.setattr(RunDirectory, "save", save)
    with pytest.raises(SystemExit) as stopped:
        main(["resume", "runs/run", "--threads", "1", "--no-report"])
    assert stopped.value.code == 0 and len(run.load().records) == len(EpisodeStore(run.episodes_path)) == 3
