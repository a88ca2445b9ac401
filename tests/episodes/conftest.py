"""A maker of small episodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata


def build_episode(trial: int = 0, steps: int = 5, **changes: object) -> Episode:
    """Return an episode of random numbers drawn from `trial`, with `changes` to its fields."""
    generator = np.random.default_rng(trial)
    fields = {
        "time": 0.02 * np.arange(steps + 1) + generator.uniform(0, 1e-3, steps + 1), "x": generator.normal(size=(steps + 1, 3)),
        "commanded": generator.normal(size=(steps, 2)), "applied": generator.normal(size=(steps, 2)), "cost": generator.normal(size=steps),
        "terminated": False, "truncated": True, "state_names": ("angle", "velocity", "x"), "command_names": ("left", "right"),
        "metadata": EpisodeMetadata(task="cartpole", robot_fingerprint="0123456789abcdef", robot_spec={"name": "cartpole", "nq": 2},
                                    seed=7, trial=trial, provenance="random"),
    }
    return Episode(**(fields | changes))


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    return build_episode


@pytest.fixture
def assert_same() -> Callable[[Episode, Episode], None]:
    return assert_same_episode


def assert_same_episode(a: Episode, b: Episode) -> None:
    """Assert that two episodes agree bit for bit."""
    for name in ("time", "x", "commanded", "applied", "cost"):
        assert_same_bits(getattr(a, name), getattr(b, name))
    for name in ("terminated", "truncated", "state_names", "command_names", "metadata"):
        assert getattr(a, name) == getattr(b, name), name
    assert list(a.cost_terms) == list(b.cost_terms)
    for name, values in a.cost_terms.items():
        assert_same_bits(values, b.cost_terms[name])
    assert (a.plan_seconds is None) == (b.plan_seconds is None)
    if a.plan_seconds is not None and b.plan_seconds is not None:
        assert_same_bits(a.plan_seconds, b.plan_seconds)
    assert list(a.frames) == list(b.frames)
    for name, times in a.frames.items():
        assert times.sequence.tolist() == b.frames[name].sequence.tolist()
        assert times.captured_ns.tolist() == b.frames[name].captured_ns.tolist()


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape and a.dtype == b.dtype
    assert a.tobytes() == b.tobytes()
