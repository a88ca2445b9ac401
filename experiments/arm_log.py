"""What was recorded on an arm, as reaching learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from episodes.episode import Episode
from episodes.store import EpisodeStore
from hw_bridge.reaching import reaching_state_space
from hw_bridge.recorder.read_log import Log, read_log
from hw_bridge.recorder.to_episode import log_episodes
from robots.arms.arm import Arm
from robots.errors import ConfigurationError, StoreError
from robots.observation import Observation


def recorded_episodes(path: Path, arm: Arm) -> dict[str, list[Episode]]:
    """Return reaching's episodes by the file or folder that they come from: of a log, of all logs in a folder, and of a folder's
    episodes. StoreError where there is none."""
    if not path.exists():
        raise StoreError(f"--data {path}: there is nothing there; expected a log (MCAP), or a folder of logs or episodes")
    found: dict[str, list[Episode]] = {}
    for log in sorted(path.glob("*.mcap")) if path.is_dir() else [path]:
        found[str(log)] = reaching_episodes(read_log(log), arm)
    if path.is_dir() and any(path.glob("*.parquet")):
        found[str(path)] = list(EpisodeStore(path, create=False))
    names, total = reaching_state_space(arm).names, sum(map(len, found.values()))
    if not total:
        raise StoreError(f"--data {path}: nobody moved the arm there for three control periods in a row; expected logs of reflexarc reach "
                         "or reflexarc deploy, or their episodes")
    for source, episodes in found.items():
        if any(episode.state_names != names for episode in episodes):
            raise ConfigurationError(f"--data {source}: its episodes are of another task or version; their states differ from {names}")
    return found


def reaching_episodes(log: Log, arm: Arm) -> list[Episode]:
    """Return a log's episodes with states and commands as reaching has them. The goal, which no model sees, is the end effector's place
    at home. What the arm followed as an action was taken is not in the log: it is taken to be the target of the action before.
    """
    name = log.header.robot_spec["name"]
    if name != arm.spec.name:
        raise ConfigurationError(f"the log is of the arm {name!r}, expected {arm.spec.name!r}: its model would be another arm's")
    return [_reaching(episode, arm) for episode in log_episodes(log, minimum_steps=3)]


def _reaching(episode: Episode, arm: Arm) -> Episode:
    n, space, goal = arm.spec.nv, reaching_state_space(arm), arm.kinematics().forward(arm.home)[:3]
    q, dq = episode.x[1:, :n], episode.x[1:, n:]
    lag = episode.applied - q
    nothing, nowhere = np.zeros(n), np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    x = [space.state(Observation(0, q[k], dq[k], nothing, nowhere, extra={"goal": goal, "lag": lag[k]})) for k in range(len(q))]
    commanded, applied = episode.commanded[1:] - q[:-1], episode.applied[1:] - q[:-1]
    return Episode(episode.time[1:], np.array(x), commanded, applied, episode.cost[1:], False, True,
                   space.names, tuple(f"{joint}_offset" for joint in arm.spec.joint_names), episode.metadata)
