"""Angles that turn without end are found among the entries of an observation vector, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from dynamics.state_space import Kind
from sim.catalog import make_task


@pytest.mark.parametrize(("name", "angles"), [
    ("dmc:reacher-easy", {"position_0"}),
    ("gym:HalfCheetah-v5", {"observation_1"}),
    ("gym:InvertedPendulum-v5", set()),  # its hinge has stops
    ("dmc:cartpole-swingup", set()),  # shows sine and cosine already
])
def test_angles_are_found_and_the_state_is_the_observation_in_order(name, angles):
    task = make_task(name)
    space = task.state_space
    assert {entry for channel in space.channels if channel.kind is Kind.ANGLE for entry in channel.names} == angles
    assert all(channel.kind in (Kind.ANGLE, Kind.LINEAR) and channel.source == "observation" for channel in space.channels)
    assert [index for channel in space.channels for index in channel.indices] == list(range(space.nx))
    with task.robot() as robot:
        for observation in (robot.reset(5), robot.tick()):
            assert np.array_equal(space.state(observation), observation.extra["observation"])
    stem = "observation_" if name.startswith("gym:") else "position_"
    assert space.names[:2] == (f"{stem}0", f"{stem}1")
