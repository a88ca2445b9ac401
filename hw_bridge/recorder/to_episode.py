"""Episodes from a log: what the arm lived through while the policy acted, one transition an action, in measured time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from episodes.episode import Episode
from episodes.metadata import Clock, EpisodeMetadata
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import MODE_CODES, NO_MODE
from hw_bridge.recorder.read_log import Log
from robots.command import CommandMode

Charge = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""charge(x (T, nx), u (T, nv), x_next (T, nx)) -> cost (T,)"""


def log_episodes(log: Log, minimum_steps: int = 2, charge: Charge | None = None, with_reference: bool = False) -> list[Episode]:
    """Return the log's episodes of at least `minimum_steps` transitions, in order.

    A transition begins with the row in which an action is first followed and ends with that of the next one: `x` = [q, dq] as measured
    there, with the time at which the measurement arrived. `commanded` is the action as it came; `applied` what the supervisor wrote
    meanwhile: the last set-point of positions, the mean of velocities and torques; the position that the action was taken for where the
    arm follows positions through torques. An episode ends at every intervention (another
    state than ACTIVE, nothing written), wherever rows are missing, a measurement is not a number, or the action was of another mode
    than what was written; the action that was under way there is left out. Actions between which nothing new was measured share a
    transition, with the last of them as commanded. Without `charge` the cost is zero: the task that retrains knows its own. With
    `with_reference` x = [q, dq, reference, its rate], the latter two as they were before the action was heard.
    """
    episodes = []
    for segment in _segments(log):
        episode = _episode(log.header, segment, len(episodes), charge, with_reference)
        if episode is not None and episode.steps >= minimum_steps:
            episodes.append(episode)
    return episodes


def _segments(log: Log) -> Iterator[np.ndarray]:
    """Yield the stretches of rows in which one policy acted in one mode without an interruption."""
    rows, states = log.rows, [name.lower() for name in log.header.states]
    if len(rows) == 0:
        return
    followed = (rows["action_mode"] == rows["written_mode"]) | _compliant(rows)
    good = (rows["state"] == states.index("active")) & (rows["action_sequence"] >= 0) & (rows["written_mode"] != NO_MODE) & followed
    for name in ("q", "dq", "action", "written"):
        good &= np.isfinite(rows[name]).all(axis=1)
    index = np.flatnonzero(good)
    joined = good[1:] & good[:-1] & (np.diff(rows["tick"].astype(np.int64)) == 1) & (rows["written_mode"][1:] == rows["written_mode"][:-1])
    for part in np.split(index, np.flatnonzero(~joined[index[1:] - 1]) + 1):
        if len(part):
            yield rows[part[0] : part[-1] + 1]


def _compliant(rows: np.ndarray) -> np.ndarray:
    """Return where positions were commanded and torques written."""
    return (rows["action_mode"] == MODE_CODES[CommandMode.JOINT_POSITION]) & (rows["written_mode"] == MODE_CODES[CommandMode.JOINT_TORQUE])


def _episode(header: LogHeader, rows: np.ndarray, trial: int, charge: Charge | None, with_reference: bool) -> Episode | None:
    """Return the episode of one stretch; None where no action was lived to its end."""
    starts = np.flatnonzero(np.diff(rows["action_sequence"], prepend=rows["action_sequence"][0] - 1) != 0)
    newest = np.maximum.accumulate(rows["received_ns"][starts])
    starts = starts[np.diff(newest, prepend=newest[0] - 1) > 0]
    if with_reference:
        starts = starts[starts > 0]  # what was followed before the stretch's first row is in no row of it
    if len(starts) < 2:
        return None
    first, ends = starts[:-1], starts[1:]
    entries = [("q", rows["q"][starts]), ("rate", rows["dq"][starts])]
    if with_reference:
        entries += [("reference", rows["reference"][starts - 1]), ("reference_rate", rows["reference_rate"][starts - 1])]
    x = np.concatenate([values for _, values in entries], axis=1)
    if _compliant(rows[0]):
        applied = rows["target"][ends - 1]
    elif header.modes[rows["written_mode"][0]] == CommandMode.JOINT_POSITION:
        applied = rows["written"][ends - 1]
    else:
        applied = np.add.reduceat(rows["written"][: ends[-1]], first) / (ends - first)[:, None]
    cost = np.zeros(len(first)) if charge is None else charge(x[:-1], applied, x[1:])
    joints = header.joint_names
    metadata = EpisodeMetadata(header.task, header.robot_fingerprint, header.robot_spec, 0, trial, header.provenance, None, Clock.MONOTONIC,
                               header.software_version, header.created_at)
    return Episode(rows["received_ns"][starts] * 1e-9, x, rows["action"][ends - 1], applied, cost, False, False,
                   tuple(joint if entry == "q" else f"{joint}_{entry}" for entry, _ in entries for joint in joints), joints, metadata)
