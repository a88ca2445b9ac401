"""A task: a simulated robot, what of it is the state, and what it is to achieve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dynamics.state_space import StateSpace
from planners.cost import Cost
from robots.errors import ConfigurationError
from robots.robot import Robot


@dataclass(frozen=True)
class CameraRequest:
    """Pictures that a robot is asked to take at every tick."""

    names: tuple[str, ...] = ()
    """Cameras of the scene; empty: none, and no renderer is started."""
    width: int = 64
    """[pixel]"""
    height: int = 64
    """[pixel]"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if self.width < 1 or self.height < 1:
            raise ConfigurationError(f"CameraRequest: expected a positive size, got {self.width} x {self.height}")


@dataclass(frozen=True)
class Task:
    """Everything needed to run and to learn a task, by name."""

    name: str
    """As `reflexarc list` shows it: 'cartpole', 'dmc:cheetah-run', 'gym:Pusher-v5', 'bullet:panda-reach'."""
    summary: str
    """One line for people."""
    engine: str
    """'mujoco', 'dm_control', 'gymnasium' or 'pybullet'."""
    make: Callable[[CameraRequest], Robot]
    """Builds the robot. It also has `camera_names` and `render(width, height, camera=None) -> (height, width, 3) uint8`."""
    state_space: StateSpace
    cost: Cost | None
    """The task's cost in torch, or None where only the engine knows the reward: then `Observation.extra['reward']` carries it
    and a reward model is learned beside the dynamics."""
    episode_steps: int
    """Control periods an episode lasts."""
    solved_return: float | None = None
    """The return (sum of -cost) above which people call the task solved."""
    tags: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.episode_steps < 1:
            raise ConfigurationError(f"task {self.name!r}: episode_steps must be at least 1, got {self.episode_steps}")

    def robot(self, cameras: CameraRequest | None = None) -> Robot:
        """Return a new robot of this task; the caller closes it."""
        return self.make(cameras or CameraRequest())
