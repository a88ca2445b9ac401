"""The learning ladder: tasks of rising difficulty, what others published on them, and what our runs should reach."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.config import RunConfig, settings_for
from robots.errors import ConfigurationError, UnknownNameError
from sim.catalog import make_task


@dataclass(frozen=True)
class Published:
    """One point of somebody's learning curve."""

    steps: int
    """Control periods lived."""
    value: float
    source: str
    running_maximum: bool = False
    """True where the best return so far was published, not the return at that moment."""

    @property
    def label(self) -> str:
        """Whose figure it is, and of which kind."""
        return f"{self.source}, running maximum" if self.running_maximum else self.source


@dataclass(frozen=True)
class LadderTask:
    """A rung: which task, for how long, and beside which figures."""

    task: str
    """As `reflexarc list tasks` shows it."""
    steps: int
    """Control periods a seed lives unless --steps says otherwise."""
    longest: int
    """Control periods that a seed can be taken to, by later calls with more steps."""
    seeds: int = 3
    """Seeds 0, 1, ... unless told otherwise."""
    published: tuple[Published, ...] = ()
    bars: Mapping[int, float] = field(default_factory=dict)
    """What the median over seeds of the raw return must reach, by control periods."""
    pitch: str | None = None
    """State whose value is the body's pitch [rad], 0 upright, not wrapped; None: the task has no such body."""
    settings: RunConfig | None = None
    """Settings of its own; None: those of `reflexarc learn`."""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.longest or self.seeds < 1:
            raise ConfigurationError(f"LadderTask {self.task!r}: expected 1 <= steps <= longest and a seed at least, got "
                                     f"steps={self.steps}, longest={self.longest}, seeds={self.seeds}")

    @property
    def slug(self) -> str:
        """The task's name as a file's name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.task)

    @property
    def marks(self) -> tuple[int, ...]:
        """Control periods at which there is a published figure or a bar, ascending."""
        return tuple(sorted({*self.bars, *(point.steps for point in self.published)}))

    def run_config(self) -> RunConfig:
        """Return the configuration of a run with seed 0; its trials last for `longest`, and a call may stop earlier."""
        config = self.settings
        if config is None:
            task = make_task(self.task)
            with task.robot() as robot:
                config = settings_for(self.task, task.episode_steps, robot.spec.control_dt)
        trials = max(self.longest // config.learning.episode_steps, 1)
        return replace(config, seed=0, learning=replace(config.learning, trials=trials))


def _pets(**values: float) -> tuple[Published, ...]:
    return tuple(Published(int(steps.removeprefix("at_")), value, "PETS", running_maximum=True) for steps, value in values.items())


_TD_MPC2 = 100_000
"""Steps of the earliest figures that TD-MPC2 (Hansen et al. 2024) published."""

_TASKS = (
    LadderTask("cartpole", 2400, 2400, published=_pets(at_800=75.0, at_1200=168.0, at_1600=177.0, at_2400=180.0), bars={1200: 168.0}),
    LadderTask("reacher7", 15_000, 15_000, published=_pets(at_2700=-48.0, at_15000=-39.0), bars={2700: -48.0, 15_000: -39.0}),
    LadderTask("pusher7", 15_000, 15_000, published=_pets(at_2700=-78.0, at_15000=-66.0), bars={2700: -78.0, 15_000: -66.0}),
    LadderTask("half-cheetah", 50_000, 200_000, published=(Published(200_000, 2795.0, "PETS-CEM in Wang et al. 2019"),), pitch="pitch"),
    LadderTask("gym:HalfCheetah-v5", 50_000, 200_000, pitch="observation_1"),
    LadderTask("dmc:cartpole-swingup", 20_000, _TD_MPC2, published=(Published(_TD_MPC2, 839.0, "TD-MPC2"),)),
    LadderTask("dmc:reacher-hard", 20_000, _TD_MPC2, published=(Published(_TD_MPC2, 414.0, "TD-MPC2"),)),
    LadderTask("dmc:cheetah-run", 20_000, _TD_MPC2, published=(Published(_TD_MPC2, 519.0, "TD-MPC2"),), pitch="position_1"),
    LadderTask("dmc:walker-walk", 20_000, _TD_MPC2),
)
LADDER: Mapping[str, LadderTask] = {entry.task: entry for entry in _TASKS}
"""The rungs by task, the easiest first. PETS: Chua et al. 2018, https://arxiv.org/abs/1805.12114. Wang et al. 2019: Benchmarking
Model-Based Reinforcement Learning, https://arxiv.org/abs/1907.02057. TD-MPC2: Hansen et al. 2024, https://arxiv.org/abs/2310.16828."""


def ladder_task(name: str) -> LadderTask:
    """Return the rung of task `name`; UnknownNameError lists the known ones."""
    if name not in LADDER:
        raise UnknownNameError("task of the ladder", name, LADDER, "`reflexarc bench learn` shows them all")
    return LADDER[name]
