"""What was recorded on an arm, as reaching learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from episodes.episode import Episode
from episodes.store import EpisodeStore
from hw_bridge.cameras.camera_log import is_camera_log
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
    logs = sorted(log for log in path.glob("*.mcap") if not is_camera_log(log)) if path.is_dir() else [path]
    for log in logs:
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
    at home.
    """
    name = log.header.robot_spec["name"]
    if name != arm.spec.name:
        raise ConfigurationError(f"the log is of the arm {name!r}, expected {arm.spec.name!r}: its model would be another arm's")
    return [_reaching(episode, arm) for episode in log_episodes(log, minimum_steps=3, with_reference=True)]


def _reaching(episode: Episode, arm: Arm) -> Episode:
    n, space, goal = arm.spec.nv, reaching_state_space(arm), arm.kinematics().forward(arm.home)[:3]
    q, dq, reference, rate = np.split(episode.x, 4, axis=1)
    nothing, nowhere = np.zeros(n), np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    x = [space.state(Observation(0, q[k], dq[k], nothing, nowhere, extra={"goal": goal, "lag": reference[k] - q[k],
                                                                          "reference_rate": rate[k]})) for k in range(len(q))]
    commanded, applied = episode.commanded - q[:-1], episode.applied - q[:-1]
    return Episode(episode.time, np.array(x), commanded, applied, episode.cost, False, True,
                   space.names, tuple(f"{joint}_offset" for joint in arm.spec.joint_names), episode.metadata)
