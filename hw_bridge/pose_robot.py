"""An arm behind a bridge as a `Robot` that is commanded by poses of its end effector."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from hw_bridge.pose_steps import PoseConfig, PoseSteps
from hw_bridge.robot import BridgeRobot
from hw_bridge.safety.config import SafetyConfig
from hw_bridge.safety.rules import State
from robots.command import Command, CommandMode, CommandSpec
from robots.errors import HardwareError, UnknownNameError
from robots.observation import Observation
from robots.validation import checked_array

_POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")


class PoseRobot:
    """A `BridgeRobot` whose commands are poses (7,), position [m] and quaternion wxyz in the base frame, and for an arm with one joint that
    does not move the end effector an eighth entry: that gripper's opening, 0 at its lowest angle to 1 at its highest.

    Every pose is resolved from the last command, never from what was measured: noise and sag do not come back as commands, and the same
    pose is always the same joint positions. The supervisor checks these as any others.
    """

    def __init__(self, robot: BridgeRobot, safety: SafetyConfig, config: PoseConfig | None = None) -> None:
        """`safety`: what the bridge was told; a step keeps its speeds and margins. `config`'s period becomes the robot's."""
        self.robot = robot
        self.steps = PoseSteps(robot.client.arm, safety, replace(config or PoseConfig(), period=robot.spec.control_dt))
        self._gripper = self.steps.idle[0] if len(self.steps.idle) == 1 else None
        self.spec = replace(robot.spec, commands=(_pose_command(self.steps, self._gripper),))
        self._last: np.ndarray | None = None
        """(nv,) joint positions that the supervisor took last [rad]."""
        self._generation = -1
        """Stop generation that `_last` belongs to."""

    def reset(self, seed: int) -> Observation:
        observation = self.robot.reset(seed)
        self._last = observation.extra["reference"]
        self._generation = self.robot.client.state().generation
        return observation

    def command_now(self) -> np.ndarray:
        """Return the command (7,) or (8,) that was given last; after a reset or a stop, where the arm's reference is."""
        return self._command(self._origin())

    def send(self, command: Command) -> Command:
        """Hand over a pose and return the one that the supervisor took; PoseRefused, and nothing is sent, where there is no way to it."""
        spec, last = self.spec.commands[0], self._origin()
        if command.mode is not spec.mode:
            raise UnknownNameError("command mode", command.mode, [spec.mode])
        values = checked_array(f"command in mode {spec.mode}", command.values, (spec.nu,))
        q = self.steps.step(values[:7], last)
        if self._gripper is not None:
            i, steps = self._gripper, self.steps
            opening = steps.low[i] + min(max(float(values[7]), 0.0), 1.0) * (steps.high[i] - steps.low[i])
            q[i] = min(max(opening, last[i] - steps.stride[i]), last[i] + steps.stride[i])
        self._last = self.robot.send(Command(CommandMode.JOINT_POSITION, q)).values
        taken = self._command(self._last)
        if taken[3:7] @ values[3:7] < 0:
            taken[3:7] *= -1.0  # two quaternions are one orientation: the one that was asked for, so that it does not jump
        return Command(spec.mode, taken)

    def tick(self) -> Observation:
        return self.robot.tick()

    def close(self) -> None:
        self.robot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _origin(self) -> np.ndarray:
        """Return the joint positions (nv,) that the next pose starts from: the last command, but after a stop what the arm follows now."""
        state = self.robot.client.state()
        if state.state is not State.ACTIVE:
            raise HardwareError(f"the bridge is in {state.state.name}: {self.robot.client.status().cause}")
        if self._last is None or state.generation != self._generation:
            self._last, self._generation = state.reference.copy(), state.generation
        return self._last

    def _command(self, q: np.ndarray) -> np.ndarray:
        pose = self.steps.forward(q)
        if self._gripper is None:
            return pose
        i, steps = self._gripper, self.steps
        return np.append(pose, np.clip((q[i] - steps.low[i]) / (steps.high[i] - steps.low[i]), 0.0, 1.0))


def _pose_command(steps: PoseSteps, gripper: int | None) -> CommandSpec:
    """Return the spec of the commands: positions within the arm's whole length of its base."""
    model = steps.arm.model()
    reach = float(np.linalg.norm(model.body_pos, axis=1).sum() + np.linalg.norm(model.site(steps.arm.spec.end_effector_frames[0]).pos))
    low, high = np.r_[np.full(3, -reach), np.full(4, -1.0)], np.r_[np.full(3, reach), np.full(4, 1.0)]
    if gripper is None:
        return CommandSpec(CommandMode.END_EFFECTOR_POSE, _POSE, low, high, "m, quaternion wxyz")
    return CommandSpec(CommandMode.END_EFFECTOR_POSE, (*_POSE, steps.arm.spec.joint_names[gripper]), np.r_[low, 0.0], np.r_[high, 1.0],
                       "m, quaternion wxyz, opening", gripper=True)
