"""Transitions: cut out of episodes as they were lived, and dealt to members for good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynamics.dataset import TransitionData, bootstrap_counts, transition_data
from dynamics.state_space import Channel, StateSpace
from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata
from robots.errors import ShapeError, StoreError

SPACE = StateSpace([Channel("q", ("a", "b"), (0, 1))])


def episode(trial: int, steps: int = 4, terminated: bool = False) -> Episode:
    rng = np.random.default_rng(trial)
    return Episode(0.1 * np.arange(steps + 1), rng.normal(size=(steps + 1, 2)), rng.normal(size=(steps, 1)), rng.normal(size=(steps, 1)),
                   rng.normal(size=steps), terminated, not terminated, ("a", "b"), ("u",),
                   EpisodeMetadata("task", "0123456789abcdef", {"name": "robot"}, 0, trial, "random"))


def test_transitions_are_what_was_applied_with_costs_and_true_ends():
    lived = {3: episode(3), 7: episode(7, 6, terminated=True)}
    data = transition_data(lived, SPACE)
    assert len(data) == 10 and data.episode.tolist() == [3] * 4 + [7] * 6
    assert np.array_equal(data.u[:4].numpy(), lived[3].applied) and np.array_equal(data.x_next[4:].numpy(), lived[7].x[1:])
    assert data.terminal.tolist() == [False] * 9 + [True]
    assert np.array_equal(data.cost[:4].numpy(), lived[3].cost)
    assert len(data.of_episodes({7})) == 6 and torch.equal(data.of_episodes({7}).x, data.x[4:])
    assert len(data.of_episodes(set())) == 0


def test_no_episodes_and_episodes_of_another_state_are_refused():
    with pytest.raises(StoreError, match="no episodes"):
        transition_data({}, SPACE)
    with pytest.raises(ShapeError, match="episode 5"):
        transition_data({5: episode(0)}, StateSpace([Channel("q", ("a",), (0,))]))


def test_counts_of_a_transition_stay_as_episodes_and_steps_are_added():
    early = transition_data({0: episode(0, 50), 4: episode(4, 30)}, SPACE)
    later = transition_data({4: episode(4, 60), 9: episode(9, 50), 0: episode(0, 50)}, SPACE)
    a, b = bootstrap_counts(early, 5, seed=1), bootstrap_counts(later, 5, seed=1)
    assert torch.equal(a[early.episode == 0], b[later.episode == 0])
    assert torch.equal(a[early.episode == 4], b[later.episode == 4][:30])
    assert not torch.equal(a, bootstrap_counts(early, 5, seed=2))
    assert not torch.equal(a[:, 0], a[:, 1])


def test_members_see_transitions_as_often_as_in_drawing_with_replacement():
    n = 20_000
    nothing = torch.zeros(n, 1)
    data = TransitionData(nothing, nothing, nothing, nothing[:, 0], nothing[:, 0], nothing[:, 0].bool(), torch.zeros(n, dtype=torch.long))
    counts = bootstrap_counts(data, 2, 0).double()
    # Poisson(1): mean 1 and variance 1; left out with probability 1/e. Five standard errors of 40000 draws
    assert abs(float(counts.mean()) - 1) < 0.025 and abs(float(counts.var()) - 1) < 0.05
    assert abs(float((counts == 0).double().mean()) - np.exp(-1)) < 0.012
    assert abs(float(torch.corrcoef(counts.T)[0, 1])) < 0.036


def test_a_check_names_the_first_bad_episode():
    data = transition_data({3: episode(3), 7: episode(7)}, SPACE)
    data.check(2, 1)
    cost = data.cost.clone()
    cost[5] = torch.inf
    with pytest.raises(Exception, match="cost of episode 7"):
        replace(data, cost=cost).check(2, 1)
