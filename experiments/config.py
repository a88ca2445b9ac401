"""The whole configuration of a learning run, and the settings that suit each task."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dynamics.catalog import MODELS, model_members
from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from dynamics.propagation import make_propagation
from dynamics.reward import RewardConfig
from dynamics.value import ValueConfig
from planners.catalog import planner_config_type
from planners.evaluation import EvaluationConfig
from planners.icem import ICEMConfig
from planners.mppi import MPPIConfig
from planners.planner import PlannerConfig
from planners.sampling import SamplingConfig
from policies.model_based import ALGORITHMS, LearningConfig
from policies.policy_search import PolicySearchConfig
from robots.errors import ConfigurationError, UnknownNameError, VersionError


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run."""

    task: str = "cartpole"
    """Task by name, as `reflexarc list` shows it."""
    seed: int = 0
    """Seed of everything random."""
    algorithm: str = "1.5"
    """Model-based RL 0.5, 1.0, 1.5 or 2.0."""
    model: str = "probabilistic-ensemble"
    """Dynamics model by name."""
    planner: str = "icem"
    """Planner by name."""
    mode: str | None = None
    """Command mode; None: the robot's default."""
    learning: LearningConfig = LearningConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    reward: RewardConfig = RewardConfig()
    value: ValueConfig = ValueConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: PlannerConfig = field(default_factory=ICEMConfig)
    policy_search: PolicySearchConfig = PolicySearchConfig()

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise UnknownNameError("algorithm", self.algorithm, ALGORITHMS)
        if self.model not in MODELS:
            raise UnknownNameError("dynamics model", self.model, MODELS)
        expected = planner_config_type(self.planner)
        if type(self.search) is not expected:
            raise ConfigurationError(f"planner {self.planner!r} takes a {expected.__name__}, got a {type(self.search).__name__}")
        if not 0 <= self.seed < 2**32:
            raise ConfigurationError(f"seed: expected 0 <= seed < 2^32, got {self.seed}")
        if self.learning.replan_every > self.search.horizon:
            raise ConfigurationError(f"replan_every: expected at most the horizon ({self.search.horizon}), "
                                     f"got {self.learning.replan_every}")
        make_propagation(self.evaluation.propagation).check(self.evaluation.particles, model_members(self.model, self.ensemble))


# A constant step: settling costs the first, short fits more than it gives the later ones.
_FIT = FitConfig(batch_size=64, epochs=100, largest_updates=1200, last_learning_rate=1.0)
_CARTPOLE = RunConfig(
    task="cartpole",
    learning=LearningConfig(trials=12, episode_steps=200),
    ensemble=EnsembleConfig(hidden=(128, 128, 128), fit=_FIT),
    evaluation=EvaluationConfig(rows_per_portion=640),  # small nets: one thread with whole batches is as fast as two with halves
    search=ICEMConfig(horizon=25, population=120, iterations=3, elites=12, beta=1.0),
)
_ARM = RunConfig(
    learning=LearningConfig(trials=20, episode_steps=150),
    # Few epochs or an early end leave the first models half learned: steps of Adam are what counts (docs/decisions.md 21).
    ensemble=EnsembleConfig(hidden=(200, 200, 200),
                            fit=FitConfig(batch_size=128, epochs=1000, largest_updates=3000, patience=200, products="bfloat16")),
    # Full effort costs more than the task is worth: wide samples would be ranked by how little they do (docs/decisions.md 20).
    search=ICEMConfig(horizon=30, population=60, iterations=3, elites=10, beta=2.0, initial_std=0.15),
)
_CHEETAH = RunConfig(
    learning=LearningConfig(trials=20, episode_steps=1000),
    ensemble=EnsembleConfig(hidden=(200, 200, 200, 200), weight_decay=(2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
                            fit=FitConfig(batch_size=256, epochs=1000, largest_updates=3000, patience=100, products="bfloat16")),
    search=ICEMConfig(horizon=30, population=60, iterations=3, elites=10, beta=0.25),
)

SETTINGS: dict[str, RunConfig] = {
    "cartpole": _CARTPOLE,
    "pendulum": replace(_CARTPOLE, task="pendulum", learning=LearningConfig(trials=8, episode_steps=200)),
    # Its joints have stops, where they bounce: the likelihood alone takes that for noise (docs/decisions.md 84). Far goals want a plan
    # that is searched for longer (86).
    "reacher7": replace(_ARM, task="reacher7", search=replace(_ARM.search, iterations=5), ensemble=replace(
        _ARM.ensemble, hidden=(200, 200, 200, 200), weight_decay=(2.5e-5, 5e-5, 5e-5, 5e-5, 7.5e-5), beyond=0.1, variance_power=0.5,
        fit=replace(_ARM.ensemble.fit, learning_rate=7.5e-4))),
    "pusher7": replace(_ARM, task="pusher7", search=replace(_ARM.search, initial_std=0.2)),
    "half-cheetah": replace(_CHEETAH, task="half-cheetah"),
    "gym:HalfCheetah-v5": replace(
        _CHEETAH, task="gym:HalfCheetah-v5", learning=replace(_CHEETAH.learning, random_trials=3, hold=8),
        evaluation=EvaluationConfig(propagation="E", particles=1),  # its reward is learned
        reward=RewardConfig(fit=FitConfig(batch_size=256, epochs=40, largest_updates=3000))),
}
"""Settings by task, tried here or after PETS' own; `settings_for` fills in the rest by kind of robot."""


LOOK_AHEAD = 0.8
"""A plan of a task that nobody has tuned looks this far ahead [s], in 15 to 40 control periods."""


def settings_for(task: str, episode_steps: int, control_dt: float = 0.04) -> RunConfig:
    """Return the settings of `task`, or sensible ones for a task that nobody has tuned; control_dt is its period [s]."""
    if task in SETTINGS:
        return SETTINGS[task]
    horizon = min(max(round(LOOK_AHEAD / control_dt), 15), 40)
    replan_every = 2 if episode_steps >= 500 and horizon > 30 else 1  # a long plan that is made often takes minutes a trial
    general = RunConfig(
        task=task,
        learning=LearningConfig(trials=12, random_trials=3, episode_steps=episode_steps, hold=8, replan_every=replan_every,
                                refit_every=250 if episode_steps >= 500 else None),
        evaluation=EvaluationConfig(propagation="E", particles=1),
        ensemble=EnsembleConfig(hidden=(128, 128, 128), fit=FitConfig(batch_size=64, epochs=200, largest_updates=1500)),
        reward=RewardConfig(fit=FitConfig(batch_size=64, epochs=200, largest_updates=2500)),
        search=ICEMConfig(horizon=horizon, population=120, iterations=3, elites=12, beta=1.0),
    )
    if task.startswith("bullet:"):
        return replace(general, learning=LearningConfig(trials=12, episode_steps=episode_steps), search=replace(general.search, beta=2.0),
                       evaluation=EvaluationConfig())
    return general


Config = typing.TypeVar("Config")
_COMMON = ("horizon", "interpolation", "knots")
"""Settings that mean the same to every planner that has them; the samplers have more in common."""


def with_planner(config: RunConfig, planner: str) -> RunConfig:
    """Return `config` with another planner that keeps what the two have in common (horizon; between samplers population, ...)."""
    kind = planner_config_type(planner)
    both_sample = issubclass(kind, SamplingConfig) and isinstance(config.search, SamplingConfig)
    shared = {f.name: getattr(config.search, f.name) for f in dataclasses.fields(kind)
              if hasattr(config.search, f.name) and (both_sample or f.name in _COMMON)}
    if kind is MPPIConfig:
        shared.pop("effective_samples", None)
    return replace(config, planner=planner, search=kind(**shared))


def with_settings(search: Config, settings: Sequence[str]) -> Config:
    """Return a planner's configuration with settings 'NAME=VALUE', values as JSON writes them, text as it is.

    Raises UnknownNameError for a setting that this planner does not have, ConfigurationError for a value of another kind.
    """
    hints, given = typing.get_type_hints(type(search)), {}
    known = [f.name for f in dataclasses.fields(search)]
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigurationError(f"--search: expected NAME=VALUE, got {setting!r}")
        if name not in known:
            raise UnknownNameError(f"setting of {type(search).__name__}", name, known)
        try:
            value = text if hints[name] is str else json.loads(text)
            if typing.get_origin(hints[name]) is tuple and not isinstance(value, list):
                value = [value]
            given[name] = _value(hints[name], value, name)
        except (json.JSONDecodeError, VersionError):
            kind = getattr(hints[name], "__name__", hints[name])
            raise ConfigurationError(f"--search {name}: expected a value of kind {kind}, written as in JSON, got {text!r}") from None
    return replace(search, **given)


def to_json(config: object) -> object:
    """Return a configuration as plain JSON values."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_json(value) for value in config]
    return config


def run_config_from_json(values: object) -> RunConfig:
    """Return the configuration that `to_json` described.

    Raises VersionError if an entry is missing, not known or of another type: it was written by another version.
    """
    if not isinstance(values, dict):
        raise VersionError(f"config: expected a table of settings, got {type(values).__name__}; it was written by another version "
                           "of Reflexarc, or edited")
    try:
        search = planner_config_type(values["planner"])
        return typing.cast(RunConfig, _read(RunConfig, values, {"search": search}, "config"))
    except KeyError as error:
        raise VersionError(f"config: the entry {error} is missing; it was written by another version of Reflexarc") from error


def read_config(kind: type[Config], values: object) -> Config:
    """Return the dataclass `kind` that `to_json` described; VersionError as `run_config_from_json`."""
    return typing.cast(Config, _read(kind, values, {}, "config"))


def _read(kind: type, values: object, overrides: dict[str, type], where: str) -> object:
    if not isinstance(values, dict):
        raise VersionError(f"{where}: expected a table of settings, got {type(values).__name__}; "
                           "it was written by another version of Reflexarc")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    if set(values) != known:
        differing = sorted(set(values) ^ known)
        raise VersionError(f"{where}: the entries {differing} are not the same as in this version of Reflexarc; "
                           "the run was written by another one")
    read = {}
    for name, value in values.items():
        read[name] = _value(overrides.get(name, hints[name]), value, f"{where}.{name}")
    return kind(**read)


def _value(hint: object, value: object, where: str) -> object:
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast(type, hint), value, {}, where)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise VersionError(f"{where}: expected {hint}, got {value!r}; the run was written by another version of Reflexarc, or edited")
