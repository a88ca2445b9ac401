"""The listing shows every name there is, and of an engine only its own."""

from __future__ import annotations

import pytest

from dynamics.catalog import MODELS
from dynamics.propagation import PROPAGATIONS
from experiments.bench.catalog import BENCHMARKS
from experiments.listing import print_listing
from planners.catalog import PLANNERS
from planners.risk import RISKS
from policies.model_based import ALGORITHMS
from sim.catalog import known_names

KINDS = {"models": MODELS, "planners": PLANNERS, "propagations": PROPAGATIONS, "risks": RISKS, "algorithms": ALGORITHMS,
         "benchmarks": BENCHMARKS}


def listed(capsys: pytest.CaptureFixture[str], what: str, engine: str | None = None) -> list[str]:
    """Return the first word of every line."""
    print_listing(what, engine)
    return [words[0] for line in capsys.readouterr().out.splitlines() if (words := line.split())]


@pytest.mark.parametrize("engine", [None, "pybullet"])
@pytest.mark.parametrize("what", sorted(KINDS))
def test_every_name_of_a_kind_is_shown_and_no_task(what, engine, capsys):
    names = listed(capsys, what, engine)
    assert set(KINDS[what]) <= set(names) and "cartpole" not in names


@pytest.mark.parametrize(("engine", "inside", "outside"), [
    ("pybullet", "bullet:panda-reach", "cartpole"), ("mujoco", "cartpole", "dmc:reacher-easy"),
    ("dm_control", "dmc:reacher-easy", "gym:HalfCheetah-v5"), ("gymnasium", "gym:HalfCheetah-v5", "cartpole"),
])
def test_an_engine_shows_its_tasks_alone(engine, inside, outside, capsys):
    for what in ("all", "tasks"):
        names = listed(capsys, what, engine)
        assert set(known_names(engine)) <= set(names) and inside in names and outside not in names and "icem" not in names


def test_all_is_all(capsys):
    names = set(listed(capsys, "all"))
    assert set(known_names(None)) <= names and all(set(kind) <= names for kind in KINDS.values())
