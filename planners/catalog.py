"""Planners by name."""

from __future__ import annotations

from planners.cem import CEM, CEMConfig
from planners.evaluation import PlanEvaluator
from planners.icem import ICEM, ICEMConfig
from planners.mppi import MPPI, MPPIConfig
from planners.random_shooting import RandomShooting
from planners.sampling import SamplingConfig, SamplingPlanner
from robots.command import CommandSpec
from robots.errors import ConfigurationError, UnknownNameError

PLANNERS: dict[str, tuple[type[SamplingPlanner], type[SamplingConfig]]] = {
    "random-shooting": (RandomShooting, SamplingConfig),
    "cem": (CEM, CEMConfig),
    "icem": (ICEM, ICEMConfig),
    "mppi": (MPPI, MPPIConfig),
}


def planner_config_type(name: str) -> type[SamplingConfig]:
    """Return the configuration class of planner `name`; UnknownNameError lists the known ones."""
    if name not in PLANNERS:
        raise UnknownNameError("planner", name, PLANNERS)
    return PLANNERS[name][1]


def make_planner(name: str, evaluator: PlanEvaluator, command: CommandSpec, control_dt: float, config: SamplingConfig) -> SamplingPlanner:
    """Return planner `name` over an evaluator, for commands in the box of `command`."""
    expected = planner_config_type(name)
    if not isinstance(config, expected):
        raise ConfigurationError(f"planner {name!r} takes a {expected.__name__}, got a {type(config).__name__}")
    return PLANNERS[name][0](evaluator, command, control_dt, config)
