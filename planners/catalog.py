"""Planners by name."""

from __future__ import annotations

from planners.cem import CEM, CEMConfig
from planners.cma_es import CMAES, CMAESConfig
from planners.evaluation import Evaluator
from planners.gradient import GradientConfig, GradientPlanner
from planners.icem import ICEM, ICEMConfig
from planners.ilqr import FDDP, ILQR, ILQRConfig
from planners.mppi import MPPI, MPPIConfig
from planners.multiple_shooting import MultipleShooting, MultipleShootingConfig
from planners.planner import Planner, PlannerConfig
from planners.random_shooting import RandomShooting
from planners.sampling import SamplingConfig
from planners.tree_search import PUCT, Gumbel, GumbelConfig, PUCTConfig
from robots.command import CommandSpec
from robots.errors import ConfigurationError, UnknownNameError

PLANNERS: dict[str, tuple[type[Planner], type[PlannerConfig]]] = {
    "random-shooting": (RandomShooting, SamplingConfig),
    "cem": (CEM, CEMConfig),
    "icem": (ICEM, ICEMConfig),
    "mppi": (MPPI, MPPIConfig),
    "cma-es": (CMAES, CMAESConfig),
    "gradient": (GradientPlanner, GradientConfig),
    "puct": (PUCT, PUCTConfig),
    "gumbel": (Gumbel, GumbelConfig),
    "ilqr": (ILQR, ILQRConfig),
    "fddp": (FDDP, ILQRConfig),
    "collocation": (MultipleShooting, MultipleShootingConfig),
}


def planner_config_type(name: str) -> type[PlannerConfig]:
    """Return the configuration class of planner `name`; UnknownNameError lists the known ones."""
    if name not in PLANNERS:
        raise UnknownNameError("planner", name, PLANNERS)
    return PLANNERS[name][1]


def make_planner(name: str, evaluator: Evaluator, command: CommandSpec, control_dt: float, config: PlannerConfig) -> Planner:
    """Return planner `name` over an evaluator, for commands in the box of `command`."""
    expected = planner_config_type(name)
    if not isinstance(config, expected):
        raise ConfigurationError(f"planner {name!r} takes a {expected.__name__}, got a {type(config).__name__}")
    return PLANNERS[name][0](evaluator, command, control_dt, config)
