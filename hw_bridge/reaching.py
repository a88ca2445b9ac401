"""Reaching with a real arm: bring the end effector to a point that every episode draws anew, by shifting where the arm is held."""

from __future__ import annotations

from collections.abc import Sequence
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

    start_speed: float = 0.5
    """The fastest joint's mean speed on the way to where an episode begins [rad/s]."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ConfigurationError(f"ReachingConfig.{name}: expected a positive finite number, got {value}")
        if max(self.goals, self.spread) >= self.room:
            raise ConfigurationError(f"ReachingConfig: expected goals and spread below the room of {self.room} rad, got {self.goals} and "
                                     f"{self.spread}")


def reaching_state_space(arm: Arm) -> StateSpace:
    """Return [q (nv), goal (3), dq (nv), lag (nv), reference_rate (nv)]: positions [rad], the goal in the base frame [m], velocities
    [rad/s], how far what the arm is pulled to lies before it [rad], and how fast that moves [rad/s]: without these two the state would not
    tell where a soft arm goes next.
    """
    names, every = arm.spec.joint_names, tuple(range(arm.spec.nv))
    return StateSpace([Channel("q", names, every),
                       Channel("goal", ("goal_x", "goal_y", "goal_z"), (0, 1, 2), target=Target.CONSTANT, model_input=False),
                       Channel("dq", tuple(f"{name}_rate" for name in names), every),
                       Channel("lag", tuple(f"{name}_lag" for name in names), every, target=Target.ABSOLUTE),
                       Channel("reference_rate", tuple(f"{name}_reference_rate" for name in names), every, target=Target.ABSOLUTE)])


def reflex_state_space(arm: Arm) -> StateSpace:
    """Return what a network that reaches sees: as `reaching_state_space`, with the way that is missing from the end effector to the goal
    (3) [m] in the goal's place. The arm's geometry is known, so that nobody need learn it.
    """
    q, _, *others = reaching_state_space(arm).channels
    return StateSpace([q, Channel("miss", ("miss_x", "miss_y", "miss_z"), (0, 1, 2), target=Target.CONSTANT, model_input=False), *others])


class MissingWay:
    """From states (..., nx) of `reaching_state_space` to those of `reflex_state_space`; differentiable."""

    def __init__(self, arm: Arm) -> None:
        self._chain, self._nv = Chain(arm.model(), arm.spec.end_effector_frames[0]), arm.spec.nv

    def __call__(self, x: Tensor) -> Tensor:
        q, goal, others = x[..., : self._nv], x[..., self._nv : self._nv + 3], x[..., self._nv + 3 :]
        return torch.cat([q, goal - self._chain.position(q), others], dim=-1)


class ReachingCost(Cost):
    """Distance of the end effector from the goal, far and near: d^2 + 0.05 log(d^2 + 1e-3), d in dm, the form of Levine et al. (2016),
    without its constant, and a price on commands, on speed, on poses far from home, and on targets that nobody is told to go to.
    """

    pure = True

    def __init__(self, arm: Arm, config: ReachingConfig, command_weight: float = 0.02, speed_weight: float = 0.002,
                 posture_weight: float = 0.005, room_weight: float = 100.0) -> None:
        self._chain, self._nv = Chain(arm.model(), arm.spec.end_effector_frames[0]), arm.spec.nv
        self._command_weight, self._speed_weight = command_weight, speed_weight
        self._posture_weight, self._room_weight = posture_weight, room_weight
        self._home, self._low, self._high = (torch.from_numpy(q.copy()) for q in (arm.home, *_room(arm, config)))

    def distance(self, x: Tensor) -> Tensor:
        """Return how far the end effector is from the goal (...) [m] in states x (..., nx)."""
        return (self._chain.position(x[..., : self._nv]) - x[..., self._nv : self._nv + 3]).norm(dim=-1)

    def terms(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        q = x[..., : self._nv]
        target = q + u
        beyond = target - target.clamp(self._low.to(x), self._high.to(x))
        return {"distance": self.terminal(x), "command": self._command_weight * u.square().sum(-1),
                "posture": self._posture_weight * (q - self._home.to(x)).square().sum(-1),
                "room": self._room_weight * beyond.square().sum(-1),
                "speed": self._speed_weight * x[..., self._nv + 3 : 2 * self._nv + 3].square().sum(-1)}

    def terminal(self, x: Tensor) -> Tensor:
        square = (10.0 * self.distance(x)).square()
        return square + 0.05 * (torch.log(square + 1e-3) + 6.9078)


def draw_goals(arm: Arm, config: ReachingConfig, seeds: Sequence[int]) -> np.ndarray:
    """Return the goals (n, 3) [m], in the base frame, that episodes with `seeds` draw."""
    drawn = np.array([np.random.default_rng([seed, 1]).uniform(-1.0, 1.0, arm.spec.nv) for seed in seeds])
    kinematics, q = arm.kinematics(), np.clip(arm.home + config.goals * drawn, *_room(arm, config))
    return np.array([kinematics.forward(pose)[:3] for pose in q])


def offset_command(arm: Arm, config: ReachingConfig) -> CommandSpec:
    """Return what policies that reach command: how far from where it is each joint is to be held (nv,) [rad]."""
    width = np.full(arm.spec.nv, config.offset)
    return CommandSpec(CommandMode.ACTUATOR, tuple(f"{name}_offset" for name in arm.spec.joint_names), -width, width, "rad")


def _room(arm: Arm, config: ReachingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest joint positions (nv,) [rad] that the arm is told to go to."""
    limits = arm.spec.limits
    return np.maximum(arm.home - config.room, limits.position_min + 0.05), np.minimum(arm.home + config.room, limits.position_max - 0.05)


class ReachingRobot:
    """A `BridgeRobot` whose commands are offsets (nv,) [rad] from where the joints are, and which draws a goal an episode."""

    def __init__(self, robot: BridgeRobot, config: ReachingConfig) -> None:
        self.robot, self.config, self.arm = robot, config, robot.client.arm
        self.spec = replace(robot.spec, commands=(offset_command(self.arm, config),))
        self._low, self._high = _room(self.arm, config)
        self._goal, self._q = np.zeros(3), np.zeros(self.arm.spec.nv)
        self.goal: np.ndarray | None = None
        """(3,) the goal of coming episodes [m]; None: every episode draws one with its seed."""

    def reset(self, seed: int) -> Observation:
        self._goal = draw_goals(self.arm, self.config, [seed])[0] if self.goal is None else np.array(self.goal, float)
        return self._seen(self.robot.reset(seed))

    def send(self, command: Command) -> Command:
        applied = self.robot.send(self._target(command))
        return Command(CommandMode.ACTUATOR, applied.values - self._q)

    def post(self, command: Command) -> None:
        """Send `command` without waiting for the supervisor, as `BridgeRobot.post`."""
        self.robot.post(self._target(command))

    def newest(self, after: int) -> tuple[int, Observation]:
        """Return what the servo loop saw last, as `BridgeRobot.newest`."""
        tick, observation = self.robot.newest(after)
        return tick, self._seen(observation)

    def hold(self, observation: Observation) -> Command:
        """Return what keeps the set-point where it is: what the arm is pulled to, not where it sank to."""
        return Command(CommandMode.ACTUATOR, self.spec.commands[0].clip(observation.extra["lag"]))

    def throttle(self, share: float) -> None:
        """Ask for this share of the velocity limits from the next command on."""
        self.robot.throttle(share)

    def _target(self, command: Command) -> Command:
        offset = self.spec.commands[0].clip(command.values)
        return Command(CommandMode.JOINT_POSITION, np.clip(self._q + offset, self._low, self._high))

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
        return replace(observation, extra={"goal": self._goal, "lag": observation.extra["reference"] - observation.q,
                                           "reference_rate": observation.extra["reference_rate"],
                                           "miss": self._goal - observation.ee_pose[:3]})
