"""What can be deployed on an arm: first motions, and runs that learned to reach."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from episodes.store import EpisodeStore
from experiments.arm_distil import kept_reflex, reach_at_servo_rate
from experiments.arm_reach_beside import planning_beside, planning_words
from experiments.arm_reaching import at_servo_rate, bridge_config
from experiments.arm_robots import CLIENTS
from experiments.arm_run import ArmRun, reaching
from experiments.quiet import Quiet
from hw_bridge.client import BridgeClient
from hw_bridge.pose_robot import PoseRobot
from hw_bridge.pose_steps import PoseConfig, PoseRefused, PoseSteps
from hw_bridge.robot import BridgeRobot
from hw_bridge.safety.config import SafetyConfig
from policies.asynchronous.exchange import PlanningStopped
from policies.asynchronous.policy import AsynchronousPolicy
from robots.arms.arm import Arm
from robots.command import Command, CommandMode
from robots.errors import ConfigurationError, UnknownNameError

Live = Callable[[int, int], str]
"""live(seed, steps): live one episode and return, in a few words, how it went."""
FIRST_MOTION_SPEED = 0.25
"""Share of the velocity limits for an arm's first motions."""
PERIOD = 0.05
"""Control period of first motions [s]."""


class ArmPolicy(Protocol):
    """What may act on an arm."""

    hash: str
    """Short hash of everything that its actions depend on."""
    speed: float
    """Share of the velocity limits that suits it."""

    def safety(self) -> SafetyConfig:
        """Return the supervisor's rules that it wants, before a person's speed and patience."""
        ...

    def steps(self, arm: Arm) -> int:
        """Return the control periods of an episode where nobody says how many."""
        ...

    def words(self, steps: int) -> str:
        """Return what the arm will do within an episode of `steps` control periods, for the person beside it."""
        ...

    def acting(self, client: BridgeClient, safety: SafetyConfig) -> AbstractContextManager[Live]:
        """A context in which it acts through a bridge that was told `safety`."""
        ...


@dataclass(frozen=True)
class FirstMotion:
    """'hold' and 'swing': around where the arm stands, in joint positions."""

    swing: float
    """Furthest that a joint goes [rad]; 0: the arm holds its pose."""
    seconds: float
    """For 'hold', of an episode; for 'swing', of a joint's turn."""
    speed: float = FIRST_MOTION_SPEED

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr((type(self).__name__, self.swing, self.seconds, PERIOD)).encode()).hexdigest()[:16]

    def safety(self) -> SafetyConfig:
        return SafetyConfig(policy_period=PERIOD)

    def steps(self, arm: Arm) -> int:
        return round(self.seconds / PERIOD) * (arm.spec.nv if self.swing else 1)

    def words(self, steps: int) -> str:
        if not self.swing:
            return f"The arm holds the pose in which it stands for {steps * PERIOD:.0f} s. It should not move."
        return (f"Each joint in turn, from the base on, swings by {self.swing:.2f} rad ({np.degrees(self.swing):.0f} degrees) to both "
                f"sides of where it stands, {self.seconds:.0f} s a joint, {steps * PERIOD:.0f} s in all.")

    def offset(self, step: int, nv: int) -> np.ndarray:
        """Return how far from the start (nv,) [rad] the joints are to be after `step` control periods; at rest as each turn begins."""
        offset, turn = np.zeros(nv), round(self.seconds / PERIOD)
        joint, within = divmod(step, turn)
        s = within / turn
        offset[joint % nv] = self.swing / 0.65 * np.sin(2 * np.pi * s) * np.sin(np.pi * s) ** 2  # the product peaks at 0.65
        return offset

    @contextlib.contextmanager
    def acting(self, client: BridgeClient, safety: SafetyConfig) -> Iterator[Live]:
        start = client.state().q.copy()
        limits, margin = client.arm.spec.limits, safety.position_margin + 0.01
        robot = BridgeRobot(client, CommandMode.JOINT_POSITION, PERIOD, start)

        def live(seed: int, steps: int) -> str:
            robot.reset(seed)
            furthest = 0.0
            for k in range(1, steps + 1):
                target = np.clip(start + self.offset(k, len(start)), limits.position_min + margin, limits.position_max - margin)
                robot.send(Command(CommandMode.JOINT_POSITION, target))
                furthest = max(furthest, float(np.abs(robot.tick().q - start).max()))
            return f"no joint was further than {furthest:.3f} rad from where it had been"

        yield live


@dataclass(frozen=True)
class TipMotion:
    """'tip': the end effector goes along each axis of the base frame in turn and back, its orientation as near to what it was as the arm
    can keep it."""

    distance: float
    """[m]"""
    seconds: float
    """Of an axis's turn."""
    speed: float = FIRST_MOTION_SPEED

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr((type(self).__name__, self.distance, self.seconds, PERIOD)).encode()).hexdigest()[:16]

    def safety(self) -> SafetyConfig:
        return SafetyConfig(policy_period=PERIOD)

    def steps(self, arm: Arm) -> int:
        return 3 * round(self.seconds / PERIOD)

    def words(self, steps: int) -> str:
        return (f"From where it is, the end effector goes {100 * self.distance:.0f} cm along x, y and z of the base frame in turn, and "
                f"back: {self.seconds:.0f} s an axis, {steps * PERIOD:.0f} s in all. It is commanded by poses; every joint may move.")

    def offset(self, step: int) -> np.ndarray:
        """Return how far from the start (3,) [m] the end effector is to be after `step` control periods; at rest at both ends."""
        offset, turn = np.zeros(3), round(self.seconds / PERIOD)
        axis, within = divmod(step, turn)
        offset[axis % 3] = self.distance * np.sin(np.pi * within / turn) ** 2
        return offset

    @contextlib.contextmanager
    def acting(self, client: BridgeClient, safety: SafetyConfig) -> Iterator[Live]:
        start = client.state().q.copy()
        self.rehearse(PoseSteps(client.arm, safety, PoseConfig(period=PERIOD)), start)
        robot = PoseRobot(BridgeRobot(client, CommandMode.JOINT_POSITION, PERIOD, start), safety)
        mode = robot.spec.commands[0].mode

        def live(seed: int, steps: int) -> str:
            before = robot.reset(seed).ee_pose[:3]
            origin, furthest, now = robot.command_now(), 0.0, before
            for k in range(1, steps + 1):
                command = origin.copy()
                command[:3] += self.offset(k)
                robot.send(Command(mode, command))
                now = robot.tick().ee_pose[:3]
                furthest = max(furthest, float(np.linalg.norm(now - before)))
            return (f"the end effector was {1e3 * furthest:.1f} mm away at most and is {1e3 * np.linalg.norm(now - before):.1f} mm from "
                    "where it had been")

        yield live

    def rehearse(self, steps: PoseSteps, start: np.ndarray) -> None:
        """Raise ConfigurationError, before anything moves, where the arm cannot go the whole way from `start` (nv,) [rad]."""
        origin, q, turn = steps.forward(start), start, round(self.seconds / PERIOD)
        for k in range(3 * turn + 1):
            pose = origin.copy()
            pose[:3] += self.offset(k)
            try:
                q = steps.step(pose, q)
            except PoseRefused as refusal:
                raise ConfigurationError(f"nothing was moved: from this pose the end effector cannot go {100 * self.distance:.0f} cm along "
                                         f"{'xyz'[k // turn % 3]}: {refusal}. Bring the arm to another pose, such as "
                                         "its home, and try again") from refusal


class ReachingRun:
    """What a run of `reflexarc reach` or `reflexarc retrain` learned: it plans through its model, to goals drawn with the seed."""

    def __init__(self, run: ArmRun, threads: int | None = None, keep: EpisodeStore | None = None, asynchronous: bool = False) -> None:
        """`keep`: where the episodes that it lives go. `asynchronous`: it plans in a process of its own, while the arm goes on."""
        self.run, self._threads, self._keep, self.speed = run, threads, keep, run.config.speed
        self._asynchronous = asynchronous

    @cached_property
    def hash(self) -> str:
        return self.run.policy_hash()

    def safety(self) -> SafetyConfig:
        return bridge_config(self.run.config.robot, "", self.run.config.reaching).safety

    def steps(self, arm: Arm) -> int:
        return 40

    def words(self, steps: int) -> str:
        config = self.run.config.reaching.reaching
        return (f"Every episode the arm goes to a pose within {config.spread:g} rad of its home, on a line in joint space, then brings "
                f"its flange to a point drawn with the seed: {steps * config.period:.0f} s. No joint goes further than {config.room:g} rad "
                "from its home. It is held like a spring: it gives way.")

    @contextlib.contextmanager
    def acting(self, client: BridgeClient, safety: SafetyConfig) -> Iterator[Live]:
        with contextlib.ExitStack() as stack:
            arm = stack.enter_context(reaching(self.run, client, Quiet(), self._threads))
            planning = (stack.enter_context(planning_beside(self.run, arm.arm, self._threads)) if self._asynchronous
                        else arm.learner.planning_policy(1))

            def live(seed: int, steps: int) -> str:
                episodes = arm.reach([seed], steps, planning)
                if self._keep is not None:
                    self._keep.append(episodes[0])
                if isinstance(planning, AsynchronousPolicy) and planning.report.stopped:
                    raise PlanningStopped(planning.report.stopped)
                return f"{1e3 * float(arm.final_errors(episodes)[0]):.1f} mm from the goal at the end; {planning_words(planning)}"

            yield live


class DistilledRun(ReachingRun):
    """A network that `reflexarc distil` taught: it answers every measurement of the arm."""

    def safety(self) -> SafetyConfig:
        return at_servo_rate(super().safety(), CLIENTS[self.run.config.robot].arm())

    def words(self, steps: int) -> str:
        return super().words(steps) + " A network commands it, in every servo period."

    @contextlib.contextmanager
    def acting(self, client: BridgeClient, safety: SafetyConfig) -> Iterator[Live]:
        reflex, config = kept_reflex(self.run, client.arm), self.run.config.reaching

        def live(seed: int, steps: int) -> str:
            error, run = reach_at_servo_rate(client, config, reflex, seed, steps)
            return (f"{1e3 * error:.1f} mm from the goal at the end; {run.answered} measurements answered, {run.missed} missed, 99 of 100 "
                    f"within {1e3 * run.answer_99_s:.2f} ms")

        yield live


FIRST_MOTIONS: dict[str, ArmPolicy] = {"hold": FirstMotion(0.0, 5.0), "swing": FirstMotion(0.1, 4.0), "tip": TipMotion(0.03, 4.0)}


def arm_policy(name: str, robot: str, threads: int | None = None, keep: EpisodeStore | None = None,
               asynchronous: bool = False) -> ArmPolicy:
    """Return the policy called `name`: a first motion or a run's folder. UserError where it is neither, knows another robot, or is to plan
    beside the arm and does not plan.
    """
    no_planner = f"--asynchronous: {name} does not plan; leave it out, or name the folder of a run that learned to reach"
    if name in FIRST_MOTIONS:
        if asynchronous:
            raise ConfigurationError(no_planner)
        return FIRST_MOTIONS[name]
    if not Path(name).is_dir():
        raise UnknownNameError("policy", name, FIRST_MOTIONS, hint="or the folder of a run that learned to reach, as in runs/NAME")
    run = ArmRun.open(Path(name))
    if run.config.robot != robot:
        raise ConfigurationError(f"{name} learned on {run.config.robot!r}, not on {robot!r}: its model knows another arm")
    if asynchronous and run.config.distilled:
        raise ConfigurationError(no_planner)
    policy = (DistilledRun if run.config.distilled else ReachingRun)(run, threads, keep, asynchronous)
    if ReachingRun.safety(policy).fingerprint() != run.config.safety:
        raise ConfigurationError(f"{name} learned under other safety rules or another compliance than this version's: to its model the arm "
                                 f"would be another. Learn again: reflexarc reach --robot {robot}")
    return policy
