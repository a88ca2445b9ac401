"""`reflexarc plan`: control through the simulator, told with numbers that are the task's and the plans' own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from experiments.plan import play
from experiments.plan_budget import POPULATIONS
from experiments.plan_cli import Plan
from experiments.video import ReplayError
from robots.errors import ConfigurationError, UnknownNameError
from sim.catalog import make_task

SMALL = ("population=12", "iterations=2", "elites=3")


def played(task="cartpole", steps=12, seed=0, **options):
    with make_task(task).robot() as robot:
        return play(make_task(task), robot, Plan(task, search=SMALL, threads=1, **{"horizon": 0.4, **options}), steps, seed)


def test_one_seed_gives_one_result_and_the_score_is_what_the_task_pays():
    one, again, other = played(), played(), played(seed=1)
    assert np.array_equal(one.episode.applied, again.episode.applied) and one.episode.total_return == again.episode.total_return
    assert not np.array_equal(one.episode.applied, other.episode.applied)
    assert one.episode.total_return == pytest.approx(-one.episode.cost.sum())
    assert len(one.log.plans) == 12 and (one.log.rounds == 2).all() and (one.log.effective == 3).all()


def test_plans_foresee_the_machine_itself_exactly_and_a_coarse_copy_less_well():
    exact, coarse = played(), played(substeps=1)
    assert exact.differences == () and exact.foresight.state_error == 0.0
    assert "40 ms" in coarse.differences[0] and coarse.foresight.state_error > 0.0


def test_what_was_lived_is_charged_as_plans_charge():
    run = played(steps=14)
    plan, states = run.log.plans[0], run.log.states
    assert sum(plan.report.cost_by_term.values()) == pytest.approx(plan.cost, rel=1e-5)
    assert np.isfinite([run.foresight.expected, run.foresight.achieved]).all() and 0.0 <= run.foresight.improved <= 1.0
    assert len(states) == 14


def test_a_budget_is_kept_and_chooses_the_population():
    run = played(budget_ms=25.0)
    assert (run.log.rounds >= 1).all()
    with make_task("cartpole").robot() as robot:
        free = play(make_task("cartpole"), robot, Plan("cartpole", budget_ms=25.0, threads=1), 3, 0)
    assert POPULATIONS[0] <= free.config.population <= POPULATIONS[1] and free.config.iterations > 2
    assert free.config.elites <= free.config.population


def test_a_machine_that_is_not_as_its_model_says_surprises_the_plans_and_the_next_one_is_itself_again():
    with make_task("cartpole").robot() as robot:
        def errors(seed, **options):
            run = play(make_task("cartpole"), robot, Plan("cartpole", search=SMALL, threads=1, horizon=0.4, **options), 6, seed)
            return run.foresight.state_error, run.episode.applied

        heavy, _ = errors(0, machine=("mass=1.5",))
        right, _ = errors(0)
        assert heavy > 1e-3 and right == 0.0


def test_plans_through_variants_are_of_their_seed_and_no_variant_is_the_machine():
    options = {"randomise": ("mass=0.7..1.4", "gain=0.8..1.2"), "variants": 3, "risk": "cvar:0.4", "steps": 6}
    one, again, other = played(**options), played(**options), played(**options | {"risk": "mean"})
    assert np.array_equal(one.episode.applied, again.episode.applied)
    assert not np.array_equal(one.episode.applied, other.episode.applied)
    assert "3 variants" in one.differences[-1] and one.foresight.state_error > 0.0
    assert one.rollouts == pytest.approx(3 * played(steps=6).rollouts)


def test_more_effort_leaves_a_gap_of_no_less_than_nothing():
    with make_task("pendulum").robot() as robot:
        run = play(make_task("pendulum"), robot, Plan("pendulum", search=SMALL, horizon=0.3, threads=1), 4, 0, gap=True)
    online, offline = run.gap
    assert offline <= online and np.isfinite(offline)


def test_the_command_line_prints_writes_and_films(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "dmc:cartpole-balance", "--steps", "4", "--episodes", "2", "--horizon", "0.1", "--search", *SMALL, "--threads", "1",
              "--json", str(tmp_path / "out.json"), "--integrator", "euler"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "score: median" in shown and "integrator euler instead of rk4" in shown
    written = json.loads((tmp_path / "out.json").read_bytes())
    assert len(written["scores"]) == 2 and written["settings"]["population"] == 12
    assert all(0.0 < score <= 4.0 for score in written["scores"])


def test_the_figures_are_written_before_the_film_which_may_fail(tmp_path, monkeypatch):
    def failing(*_):
        raise ReplayError

    monkeypatch.setattr("experiments.plan.replay_video", failing)
    with pytest.raises(ReplayError):
        Plan("cartpole", steps=2, search=SMALL, threads=1, horizon=0.4, video=tmp_path / "film.mp4", json=tmp_path / "out.json").run()
    assert len(json.loads((tmp_path / "out.json").read_bytes())["scores"]) == 1


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"task": "cartpol"}, UnknownNameError, "cartpole"), ({"task": "cartpole", "budget_ms": 0.0}, ConfigurationError, "--budget-ms"),
    ({"task": "cartpole", "episodes": 0}, ConfigurationError, "--episodes"),
    ({"task": "cartpole", "planner": "ice"}, UnknownNameError, "icem"),
    ({"task": "cartpole", "search": ("popul=3",)}, UnknownNameError, "population"),
    ({"task": "cartpole", "integrator": "rk5"}, UnknownNameError, "rk4"),
    ({"task": "cartpole", "randomise": ("weight=1..2",)}, UnknownNameError, "mass"),
    ({"task": "cartpole", "randomise": ("mass=1.2",)}, ConfigurationError, "NAME=LOW"),
    ({"task": "cartpole", "randomise": ("mass=1..2",), "variants": 0}, ConfigurationError, "variants"),
    ({"task": "cartpole", "randomise": ("mass=1..2",), "planner": "ilqr"}, ConfigurationError, "cma-es"),
    ({"task": "cartpole", "risk": "worst"}, ConfigurationError, "--randomise"),
    ({"task": "cartpole", "variants": 8}, ConfigurationError, "--variants 8: without --randomise"),
    ({"task": "cartpole", "machine": ("mass=1.3",), "video": Path("x.mp4")}, ConfigurationError, "--machine and --video"),
    ({"task": "cartpole", "machine": ("mass=0",)}, ConfigurationError, "above 0"),
    ({"task": "cartpole", "machine": ("friction=2",)}, ConfigurationError, "it has mass")])
def test_what_cannot_be_is_refused_with_the_known(options, error, words):
    with pytest.raises(error, match=words):
        Plan(**options).run()
