"""Reaching with a real arm: bring the end effector to a point that every episode draws anew, by shifting where the arm is held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dynamics.state_space import Channel, StateSpace, Target
from hw_bridge.robot import BridgeRobot
from planners.cost import Cost
from robots.arms.arm import Arm
from robots.chain import Chain
from robots.command import Command, CommandMode, CommandSpec
from robots.errors import ConfigurationError
from robots.observation import Observation


@dataclass(frozen=True)
class ReachingConfig:
    """Where an arm reaches, and how fast it may be told to."""

    period: float = 0.1
    """Control period [s]."""
    offset: float = 0.08
    """A command holds every joint at most so far from where it is now [rad]."""
    room: float = 0.7
    """No joint is told to go further than this from its home [rad]; the last joint, which only turns the tool, included."""
    goals: float = 0.45
    """Goals are where the end effector would be with every joint up to this far from its home [rad]."""
    spread: float = 0.2
    """Episodes begin with every joint up to this far from its home [rad]."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ConfigurationError(f"ReachingConfig.{name}: expected a positive finite number, got {value}")
        if max(self.goals, self.spread) >= self.room:
            raise ConfigurationError(f"ReachingConfig: expected goals and spread below the room of {self.room} rad, got {self.goals} and "
                                     f"{self.spread}")


def reaching_state_space(arm: Arm) -> StateSpace:
    """Return [q (nv), goal (3), dq (nv), lag (nv)]: positions [rad], the goal in the base frame [m], velocities [rad/s], and how far
    what the arm is pulled to lies before it [rad]: without it the state would not tell where a soft arm goes next.
    """
    names, every = arm.spec.joint_names, tuple(range(arm.spec.nv))
    return StateSpace([Channel("q", names, every),
                       Channel("goal", ("goal_x", "goal_y", "goal_z"), (0, 1, 2), target=Target.CONSTANT, model_input=False),
                       Channel("dq", tuple(f"{name}_rate" for name in names), every),
                       Channel("lag", tuple(f"{name}_lag" for name in names), every, target=Target.ABSOLUTE)])


class ReachingCost(Cost):
    """Distance of the end effector from the goal, far and near: d^2 + 0.01 log(d^2 + 1e-5) as in Levine et al. (2016), in dm and
    without its constant, and a price on commands and speed.
    """

    def __init__(self, arm: Arm, command_weight: float = 0.02, speed_weight: float = 0.002) -> None:
        self._chain, self._nv = Chain(arm.model(), arm.spec.end_effector_frames[0]), arm.spec.nv
        self._command_weight, self._speed_weight = command_weight, speed_weight

    def distance(self, x: Tensor) -> Tensor:
        """Return how far the end effector is from the goal (...) [m] in states x (..., nx)."""
        return (self._chain.position(x[..., : self._nv]) - x[..., self._nv : self._nv + 3]).norm(dim=-1)

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        return {"distance": self.terminal(x), "command": self._command_weight * u.square().sum(-1),
                "speed": self._speed_weight * x[..., self._nv + 3 : 2 * self._nv + 3].square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        square = (10.0 * self.distance(x)).square()
        return square + 0.05 * (torch.log(square + 1e-3) + 6.9078)


class ReachingRobot:
    """A `BridgeRobot` whose commands are offsets (nv,) [rad] from where the joints are, and which draws a goal an episode."""

    def __init__(self, robot: BridgeRobot, config: ReachingConfig) -> None:
        self.robot, self.config, self.arm = robot, config, robot.client.arm
        n, width = self.arm.spec.nv, np.full(self.arm.spec.nv, config.offset)
        names = tuple(f"{name}_offset" for name in self.arm.spec.joint_names)
        self.spec = replace(robot.spec, commands=(CommandSpec(CommandMode.ACTUATOR, names, -width, width, "rad"),))
        limits = self.arm.spec.limits
        self._low = np.maximum(self.arm.home - config.room, limits.position_min + 0.05)
        self._high = np.minimum(self.arm.home + config.room, limits.position_max - 0.05)
        self._kinematics = self.arm.kinematics()
        self._goal, self._q = np.zeros(3), np.zeros(n)
        self.goal: np.ndarray | None = None
        """(3,) the goal of coming episodes [m]; None: every episode draws one with its seed."""

    def draw_goal(self, seed: int) -> np.ndarray:
        """Return the goal (3,) [m] that an episode with `seed` draws."""
        generator = np.random.default_rng([seed, 1])
        q = self.arm.home + self.config.goals * generator.uniform(-1.0, 1.0, self.arm.spec.nv)
        return self._kinematics.forward(np.clip(q, self._low, self._high))[:3]

    def reset(self, seed: int) -> Observation:
        self._goal = self.draw_goal(seed) if self.goal is None else np.array(self.goal, float)
        return self._seen(self.robot.reset(seed))

    def send(self, command: Command) -> Command:
        offset = self.spec.commands[0].clip(command.values)
        target = np.clip(self._q + offset, self._low, self._high)
        applied = self.robot.send(Command(CommandMode.JOINT_POSITION, target))
        return Command(CommandMode.ACTUATOR, applied.values - self._q)

    def tick(self) -> Observation:
        return self._seen(self.robot.tick())

    def close(self) -> None:
        self.robot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _seen(self, observation: Observation) -> Observation:
        self._q = observation.q
        return replace(observation, extra={"goal": self._goal, "lag": observation.extra["reference"] - observation.q})
