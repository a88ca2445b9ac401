"""Configurations survive the disk, refuse what does not fit, and know another version when they see one."""

from __future__ import annotations

import json

import pytest

from experiments.cli import Learn
from experiments.commands import run_config
from experiments.config import SETTINGS, RunConfig, run_config_from_json, settings_for, to_json, with_planner
from planners.catalog import PLANNERS
from robots.errors import ConfigurationError, UnknownNameError, UserError, VersionError

TASKS = [*SETTINGS, "dmc:reacher-easy", "gym:InvertedPendulum-v5", "bullet:panda-reach"]


@pytest.mark.parametrize("planner", sorted(PLANNERS))
@pytest.mark.parametrize("task", TASKS)
def test_a_configuration_comes_back_from_json_as_it_was(task, planner):
    config = with_planner(settings_for(task, 100), planner)
    assert run_config_from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("damage", [
    lambda c: c.pop("seed"),
    lambda c: c.update(new_setting=1),
    lambda c: c["learning"].update(trials="many"),
    lambda c: c["search"].pop("horizon"),
    lambda c: c.update(ensemble=3),
    lambda c: c.pop("planner"),
])
def test_another_versions_configuration_is_refused(damage):
    content = json.loads(json.dumps(to_json(RunConfig())))
    damage(content)
    with pytest.raises(VersionError):
        run_config_from_json(content)


def test_options_override_the_tasks_settings_and_nothing_else():
    config = run_config(Learn("cartpole", seed=7, trials=3, horizon=9, members=2))
    assert (config.seed, config.learning.trials, config.search.horizon, config.ensemble.members) == (7, 3, 9, 2)
    assert config.evaluation.particles == 2  # follows the members
    assert config.search.population == SETTINGS["cartpole"].search.population


@pytest.mark.parametrize(("options", "words"), [
    (Learn("cartpoel"), "cartpole"),
    (Learn("cartpole", planner="cemm"), "cem"),
    (Learn("cartpole", model="probabilistic-ensembel"), "probabilistic-ensemble"),
    (Learn("cartpole", algorithm="1.6"), "1.5"),
    (Learn("cartpole", propagation="TS2"), "TS1"),
    (Learn("cartpole", risk="cvr"), "cvar"),
    (Learn("cartpole", interpolation="cubik"), "cubic"),
    (Learn("dmc:cheeta-run"), "dmc:cheetah-run"),
    (Learn("gym:InvertedPendulm-v5"), "gym:InvertedPendulum-v5"),
])
def test_unknown_names_are_answered_with_the_nearest_known_one(options, words):
    with pytest.raises(UnknownNameError) as caught:
        run_config(options)
    assert words in caught.value.nearest[:3]


@pytest.mark.parametrize("options", [
    Learn("cartpole", trials=0), Learn("cartpole", seed=-1), Learn("cartpole", population=1), Learn("cartpole", elites=1000),
    Learn("cartpole", particles=7), Learn("cartpole", replan_every=100), Learn("cartpole", planner="mppi", elites=5),
    Learn("cartpole", hidden=(0,)), Learn("cartpole", epochs=0), Learn("cartpole", risk="cvar:2"),
])
def test_values_that_do_not_fit_are_refused(options):
    with pytest.raises(UserError):
        run_config(options)


def test_a_model_without_members_takes_any_number_of_particles():
    assert run_config(Learn("cartpole", model="linear", members=3)).model == "linear"


def test_a_setting_that_a_planner_lacks_is_named():
    with pytest.raises(ConfigurationError, match="--elites"):
        run_config(Learn("cartpole", planner="mppi", elites=5))
