"""Every planner can be chosen and set from the command line, and a setting that is not its own is refused in words."""

from __future__ import annotations

import json

import pytest

from experiments.cli import Learn
from experiments.commands import run_config
from experiments.config import run_config_from_json, to_json, with_settings
from planners.catalog import planner_config_type
from planners.tree_search import PUCTConfig
from robots.errors import ConfigurationError, UnknownNameError


@pytest.mark.parametrize(("planner", "options", "search", "expected"), [
    ("cma-es", {"population": 30, "iterations": 12}, ("sigma=0.3", "covariance=diagonal", "act_on_mean=true"),
     {"population": 30, "iterations": 12, "sigma": 0.3, "covariance": "diagonal", "act_on_mean": True, "horizon": 25}),
    ("gradient", {"iterations": 5, "interpolation": "linear", "knots": 4}, ("restarts=2", "step=1"),
     {"iterations": 5, "restarts": 2, "step": 1.0, "interpolation": "linear", "knots": 4, "horizon": 25}),
    ("puct", {"horizon": 12}, ("simulations=7", "levels=[3]", "rollout=random", "rollout_periods=4", "exploration=2"),
     {"simulations": 7, "levels": (3,), "rollout": "random", "rollout_periods": 4, "exploration": 2.0, "horizon": 12}),
    ("gumbel", {}, ("levels=7", "actions=[[-1.0], [0.5]]", "rollout_periods=null"),
     {"levels": (7,), "actions": ((-1.0,), (0.5,)), "rollout_periods": None, "horizon": 25}),
    ("icem", {}, ("beta=0.25",), {"beta": 0.25, "population": 120}),
])
def test_every_setting_of_a_planner_is_reached(planner, options, search, expected):
    config = run_config(Learn("cartpole", planner=planner, search=search, **options))
    assert type(config.search) is planner_config_type(planner)
    assert {name: getattr(config.search, name) for name in expected} == expected
    assert run_config_from_json(json.loads(json.dumps(to_json(config)))) == config


def test_what_only_sounds_alike_is_not_taken_over():
    """Three iterations of 120 plans are a search; three steps of Adam are none."""
    own = planner_config_type("gradient")()
    assert run_config(Learn("cartpole", planner="gradient")).search.iterations == own.iterations > 3
    assert run_config(Learn("cartpole", planner="cma-es")).search.iterations == 3


@pytest.mark.parametrize(("planner", "options", "option"), [
    ("gradient", {"elites": 5}, "--elites"), ("gradient", {"population": 100}, "--population"), ("puct", {"iterations": 9}, "--iterations"),
    ("gumbel", {"population": 9}, "--population"), ("puct", {"interpolation": "cubic"}, "--interpolation"),
    ("cma-es", {"elites": 5}, "--elites"),
])
def test_an_option_that_does_not_apply_is_refused_with_those_that_do(planner, options, option):
    kind = planner_config_type(planner).__name__
    with pytest.raises(ConfigurationError, match=f"{option}: a {kind} has no such setting; it has .*horizon"):
        run_config(Learn("cartpole", planner=planner, **options))


@pytest.mark.parametrize(("setting", "words"), [
    ("simulations", "NAME=VALUE"), ("simulations=many", "simulations: expected a value of kind int.*'many'"),
    ("simulations=1.5", "kind int"), ("exploration=true", "kind float"), ("levels=[3, x]", "levels"), ("levels=[0.5]", "levels"),
])
def test_a_value_of_another_kind_is_refused(setting, words):
    with pytest.raises(ConfigurationError, match=words):
        with_settings(PUCTConfig(), [setting])


def test_an_unknown_setting_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="simulations"):
        with_settings(PUCTConfig(), ["simulation=3"])
    with pytest.raises(ConfigurationError, match="discount"):
        with_settings(PUCTConfig(), ["discount=2"])
