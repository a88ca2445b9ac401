"""Which entries of a task's observation vector are angles that turn without end, found by looking."""

from __future__ import annotations

import itertools

import numpy as np

from dynamics.state_space import Channel, Kind, StateSpace
from robots.command import Command
from sim.engine_robot import EngineRobot
from sim.rendering import RenderingUnavailableError

_PERIODS = 3
"""Control periods that are looked at after each reset."""


def observation_space(robot: EngineRobot, names: tuple[str, ...], hinges: tuple[int, ...]) -> StateSpace:
    """Return the state space of `extra['observation']`, entry by entry in its order, `names` given.

    An entry that equals the position of one of the unlimited `hinges` (entries of q) to the bit, at two starts and while
    the robot moves, is an ANGLE: a model sees its sine and cosine. As a plain number it would leave all data behind
    after a few turns. All other entries are LINEAR.
    """
    angles = _angles(robot, hinges) if hinges else set()
    channels = []
    for is_angle, group in itertools.groupby(range(len(names)), key=angles.__contains__):
        indices = tuple(group)
        channels.append(Channel("observation", tuple(names[i] for i in indices), indices, Kind.ANGLE if is_angle else Kind.LINEAR))
    return StateSpace(channels)


def _angles(robot: EngineRobot, hinges: tuple[int, ...]) -> set[int]:
    command = robot.spec.command()
    push = Command(command.mode, command.minimum + 0.75 * (command.maximum - command.minimum))
    seen, turned = [], []
    for seed in range(2):
        try:
            observation = robot.reset(seed)
        except RenderingUnavailableError:
            return set()
        for _ in range(_PERIODS):
            seen.append(observation.extra["observation"])
            turned.append(observation.q[list(hinges)])
            if observation.terminated:
                break
            robot.send(push)
            observation = robot.tick()
    entries, positions = np.array(seen), np.array(turned)
    moving = np.ptp(positions, axis=0) > 0
    equal = (entries[:, :, None] == positions[:, None, moving]).all(axis=0).any(axis=1)
    return set(np.flatnonzero(equal).tolist())
