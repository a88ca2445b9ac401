"""Real writers, really killed and really at once: nothing that was finished is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from episodes.store import EpisodeStore

WRITER = """
import os, sys
import numpy as np
from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata
from episodes.parquet import encode_episode
from episodes.store import EpisodeStore

def episode(trial):
    metadata = EpisodeMetadata(task="t", robot_fingerprint="f", robot_spec={}, seed=0, trial=trial, provenance="random")
    numbers = np.random.default_rng(trial).normal(size=(201 + trial % 50, 4))
    u, steps = numbers[1:, :1], 200 + trial % 50
    return Episode(time=np.arange(steps + 1.0), x=numbers, commanded=u, applied=u, cost=numbers[1:, 0], terminated=False, truncated=True,
                   state_names="abcd", command_names="u", metadata=metadata)

encode_episode(episode(0))  # pyarrow loads its parts on first use
store = EpisodeStore(sys.argv[1])
os.write(1, b"ready\\n")
sys.stdin.readline()
while True:
    os.write(1, b"%d\\n" % store.append(episode(len(store))))
"""


def start(code: str, directory: Path, request: pytest.FixtureRequest) -> subprocess.Popen[bytes]:
    """Return a writer that is ready and waits for a line before it writes."""
    process = subprocess.Popen([sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               cwd=request.config.rootpath)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_killed_at_any_moment_it_loses_no_finished_episode(tmp_path, request):
    generator = np.random.default_rng(0)
    directory, finished = tmp_path / "episodes", -1
    for _ in range(15):
        process = start(WRITER, directory, request)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(0.0, 0.03))
        process.kill()
        said = process.communicate()[0].split()
        assert process.returncode == -9
        finished = int(said[-1]) if said else finished
        store = EpisodeStore(directory)
        assert not [name for name in os.listdir(directory) if name.endswith("temporary")]
        assert finished + 1 <= len(store) <= finished + 2  # the last may be stored and not yet said
        finished = len(store) - 1
    assert finished > 15
    for trial, episode in enumerate(store):
        assert episode.metadata.trial == trial
        numbers = np.random.default_rng(trial).normal(size=(201 + trial % 50, 4))
        assert episode.x.tobytes() == numbers.tobytes()


def test_two_writers_at_once_overwrite_nothing(tmp_path, request):
    code = WRITER.replace("while True", "for _ in range(100)")
    writers = [start(code, tmp_path, request) for _ in range(2)]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    numbers = [int(line) for writer in writers for line in writer.communicate()[0].split()]
    assert sorted(numbers) == list(range(200)) == list(EpisodeStore(tmp_path).indices())
