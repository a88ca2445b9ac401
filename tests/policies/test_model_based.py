"""The four loops of model-based RL are told apart by where their data come from; policy search lowers the imagined cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynamics.metrics import evaluate_model
from episodes.store import EpisodeStore
from experiments.build import build_run
from experiments.config import RunConfig, settings_for
from policies.model_based import ALGORITHMS, Learner, LearningConfig, algorithm, trial_seed
from robots.errors import ConfigurationError, NumericalError, UnknownNameError, UserError

TRIALS, RANDOM, STEPS = 5, 2, 12


class Notes:
    """Notes which trials each fit saw."""

    def __init__(self) -> None:
        self.fits: list[tuple[int, list[int]]] = []
        self.learner: Learner | None = None

    def trial_started(self, trial, provenance, steps) -> None: ...

    def fitting(self, trial) -> None:
        self.fits.append((trial, sorted(self.learner.episodes)))

    def fitted(self, trial, report) -> None: ...

    def stepped(self, trial, recording) -> None: ...

    def trial_finished(self, record, episode) -> None: ...


def tiny(name: str, **learning: object) -> RunConfig:
    settings = settings_for("pendulum", 200)
    fit = replace(settings.ensemble.fit, epochs=3)
    return replace(settings, algorithm=name,
                   learning=LearningConfig(**({"trials": TRIALS, "random_trials": RANDOM, "episode_steps": STEPS} | learning)),
                   ensemble=replace(settings.ensemble, hidden=(8,), weight_decay=(1e-4,), members=2, fit=fit),
                   evaluation=replace(settings.evaluation, particles=2),
                   search=replace(settings.search, horizon=4, population=6, elites=2, iterations=2),
                   policy_search=replace(settings.policy_search, horizon=3, rollouts=4, updates=3))


def live(config: RunConfig, folder: Path) -> tuple[Notes, Learner]:
    notes = Notes()
    with build_run(config, EpisodeStore(folder), notes, 1) as built:
        notes.learner = built.learner
        algorithm(config.algorithm)(built.learner)
        return notes, built.learner


def test_0_5_learns_from_random_data_alone_and_only_once(tmp_path):
    notes, learner = live(tiny("0.5"), tmp_path)
    assert notes.fits == [(RANDOM, [0, 1])]
    assert [r.provenance for r in learner.records] == ["random"] * RANDOM + ["icem open loop"] * (TRIALS - RANDOM)
    assert [r.model_version for r in learner.records] == [None, None, 1, 1, 1]


def test_1_0_aggregates_every_episode_and_plays_plans_blind(tmp_path):
    notes, learner = live(tiny("1.0"), tmp_path)
    assert notes.fits == [(2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])]
    assert [r.model_version for r in learner.records] == [None, None, 1, 2, 3]
    for episode in (learner.store.read(trial) for trial in range(RANDOM, TRIALS)):
        planned = np.flatnonzero(np.isfinite(episode.plan_seconds))
        assert planned.tolist() == [0, 4, 8]  # only when a plan of 4 periods is spent
        assert episode.metadata.provenance == "icem open loop"


def test_1_5_plans_every_period(tmp_path):
    notes, learner = live(tiny("1.5"), tmp_path)
    assert [trial for trial, _ in notes.fits] == [2, 3, 4]
    for episode in (learner.store.read(trial) for trial in range(RANDOM, TRIALS)):
        assert np.isfinite(episode.plan_seconds).all()
        assert episode.metadata.provenance == "icem"


def test_1_5_refits_every_n_periods_also_within_a_trial(tmp_path):
    notes, learner = live(tiny("1.5", refit_every=5), tmp_path)
    assert notes.fits == [(trial, list(range(trial))) for trial in (2, 3, 4) for _ in range(3)]  # before the trial, after 5 and 10 periods
    assert [r.model_version for r in learner.records][2:] == [3, 6, 9]
    last = learner.store.read(4)  # judged on its last 2 periods, which the model has not learned from
    judged = evaluate_model(learner.model, torch.from_numpy(last.x[-3:].copy()), torch.from_numpy(last.applied[-2:].copy()))
    assert learner.records[4].one_step_error == judged.normalised_rmse


def test_2_0_acts_by_a_network_and_never_plans(tmp_path):
    notes, learner = live(tiny("2.0"), tmp_path)
    assert [r.provenance for r in learner.records] == ["random"] * RANDOM + ["policy"] * (TRIALS - RANDOM)
    assert all(r.plan_milliseconds_median is None for r in learner.records)
    assert len(notes.fits) == TRIALS - RANDOM


def test_the_model_is_judged_on_a_trial_before_it_learns_from_it(tmp_path):
    _, learner = live(tiny("1.5"), tmp_path)
    assert all(np.isfinite(r.one_step_error) for r in learner.records[RANDOM:])
    assert all(r.one_step_error is None for r in learner.records[:RANDOM])


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_restored_learner_goes_on_bit_for_bit(tmp_path, name):
    _, whole = live(tiny(name), tmp_path / "whole")
    _, half = live(replace(tiny(name), learning=replace(tiny(name).learning, trials=3)), tmp_path / "half")
    notes = Notes()
    with build_run(tiny(name), EpisodeStore(tmp_path / "half"), notes, 2) as built:
        notes.learner = built.learner
        built.learner.restore(half.tensors(), half.records)
        algorithm(name)(built.learner)
        resumed = built.learner
    for trial in range(TRIALS):
        one, other = whole.store.read(trial), resumed.store.read(trial)
        for field in ("time", "x", "commanded", "applied", "cost"):
            assert np.array_equal(getattr(one, field), getattr(other, field)), (trial, field)
    for key, value in whole.tensors().items():
        assert torch.equal(value, resumed.tensors()[key]), key


def test_a_learned_reward_is_fitted_where_the_task_has_no_cost(tmp_path):
    config = replace(settings_for("gym:InvertedPendulum-v5", 1000), learning=LearningConfig(trials=3, random_trials=2, episode_steps=20))
    config = replace(config, ensemble=replace(config.ensemble, hidden=(8,), weight_decay=(1e-4,)),
                     search=replace(config.search, horizon=4, population=8, elites=2, iterations=1))
    _, learner = live(config, tmp_path)
    assert learner.reward_model.fits == 1
    assert learner.reward_model.sees_endings  # random commands let the pole fall
    assert all(record.terminated for record in learner.records[:2])
    assert learner.records[0].total_return == -learner.store.read(0).cost.sum()


def test_trials_are_random_until_a_learned_reward_varies(tmp_path):
    config = replace(settings_for("gym:InvertedPendulum-v5", 1000), learning=LearningConfig(trials=9, random_trials=2, episode_steps=20))
    with build_run(config, EpisodeStore(tmp_path / "learned"), Notes(), 1) as built:
        learner = built.learner
        learner.listener.learner = learner
        for trial in range(2):
            learner.run_random(trial)
        lived = dict(learner.episodes)
        flat = {trial: replace(episode, cost=np.full(episode.steps, -1.0), cost_terms={}) for trial, episode in lived.items()}
        learner.episodes = flat
        assert [learner.is_random(trial) for trial in (0, 1, 2, 8)] == [True] * 4  # nothing to aim at
        learner.episodes = {0: flat[0], 1: replace(flat[1], cost=np.full(flat[1].steps, -2.0))}
        assert [learner.is_random(trial) for trial in (0, 1, 2, 8)] == [True, True, False, False]
        learner.episodes = flat
        learner.model.fits = 1
        assert not learner.is_random(2)  # what was once learned goes on
    with build_run(tiny("1.5"), EpisodeStore(tmp_path / "known"), Notes(), 1) as built:
        assert [built.learner.is_random(trial) for trial in range(4)] == [True, True, False, False]  # a known cost needs no reward


def test_every_other_random_trial_holds_its_commands(tmp_path):
    _, learner = live(tiny("1.5", trials=4, random_trials=4, hold=3), tmp_path)
    for trial in range(4):
        held = (np.diff(learner.store.read(trial).commanded[:, 0]) == 0).tolist()
        assert held == ([True, True, False] * 4)[:STEPS - 1] if trial % 2 else not any(held), trial


def test_a_fit_that_diverges_within_a_trial_is_no_end_of_an_episode(tmp_path):
    config = tiny("1.5", refit_every=5)
    with build_run(config, EpisodeStore(tmp_path), Notes(), 1) as built:
        learner = built.learner
        learner.listener.learner = learner
        fit = learner.fit

        def diverges(trial, partial=None):
            if partial is not None:
                raise NumericalError("fitting left the numbers")
            fit(trial)

        learner.fit = diverges
        with pytest.raises(NumericalError, match="fitting left"):
            algorithm("1.5")(learner)
        assert len(learner.records) == RANDOM == len(learner.store)  # the trial that failed is not kept as if it were one


def test_a_checkpoint_of_another_policy_or_of_none_is_refused(tmp_path):
    with build_run(tiny("2.0"), EpisodeStore(tmp_path), Notes(), 1) as built:
        whole = built.learner.tensors()
        for name in ("steps_since_fit", "policy.input_mean", "policy.weight0", "model.fits"):
            with pytest.raises(UserError, match=name.split(".")[-1]):
                built.learner.restore({key: value for key, value in whole.items() if key != name}, [])


def test_policy_search_lowers_the_imagined_cost_on_a_known_system(tmp_path):
    from policies.policy_search import improve_policy

    config = replace(tiny("2.0"), policy_search=replace(tiny("2.0").policy_search, horizon=8, rollouts=32, updates=60))
    with build_run(config, EpisodeStore(tmp_path), Notes(), 1) as built:
        learner = built.learner
        learner.listener.learner = learner
        for trial in range(2):
            learner.run_random(trial)
        learner.fit(2)
        starts = torch.from_numpy(np.concatenate([e.x for e in learner.episodes.values()]))
        history = improve_policy(learner.policy, learner.model, learner.planner.evaluator.cost, starts, config.policy_search, 0)
    assert np.mean(history[-10:]) < np.mean(history[:10])


def test_trial_seeds_differ_between_trials_and_runs():
    seeds = {trial_seed(run, trial) for run in range(20) for trial in range(20)}
    assert len(seeds) == 400
    assert trial_seed(3, 4) == trial_seed(3, 4)


def test_unknown_algorithms_and_empty_runs_are_refused():
    with pytest.raises(UnknownNameError, match=r"0\.5"):
        algorithm("0.6")
    with pytest.raises(ConfigurationError, match="trials"):
        LearningConfig(trials=0)
