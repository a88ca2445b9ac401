"""A real arm, or its twin, as a `Robot`: what episode loops and policies see of a bridge."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from hw_bridge.bridge import policy_spec
from hw_bridge.cameras.view import CameraView
from hw_bridge.client import ArmState, BridgeClient
from hw_bridge.safety.rules import State
from robots.command import Command, CommandMode, admit
from robots.errors import ConfigurationError, HardwareError
from robots.observation import CameraFrame, Observation
from robots.spec import CameraSpec

_TAKEN_SECONDS = 0.25
_GLANCE_SECONDS = 0.0002
_REST_SECONDS = 1.0
"""A braked arm is at rest well within this [s]."""
_REACHED = 0.05
"""A start pose counts as reached within this [rad, rad/s]; a compliant arm never quite is."""


class BridgeRobot:
    """An armed or idle bridge, acted through once in `period` seconds. `send` returns what the supervisor took the command for;
    observations hold the `reference` (nv,) [rad] that the arm follows at the moment, and `reference_rate` [rad/s].
    """

    def __init__(self, client: BridgeClient, mode: CommandMode, period: float, start: np.ndarray | None = None, spread: float = 0.0,
                 start_speed: float = 0.3, cameras: Sequence[CameraView] = (), picture_age_max: float = np.inf) -> None:
        """`start` (nv,) [rad]: where episodes begin (None: the arm's home), each joint up to `spread` [rad] away, drawn with the seed;
        the arm goes there at `start_speed` [rad/s]. The newest pictures of `cameras` are part of every observation; a policy that cannot
        do without them sets `picture_age_max` [s]: where one is older, HardwareError, and the arm is held.
        """
        self.client = client
        self.spec = policy_spec(client.arm, mode, period)
        self._fingerprint = self.spec.fingerprint()  # as the bridge has it, which knows of no camera
        self._cameras, self._picture_age_max = tuple(cameras), picture_age_max
        seen = [CameraSpec(view.name, view.width, view.height) for view in self._cameras]
        self.spec = replace(self.spec, cameras=(*self.spec.cameras, *seen))
        self._start = np.array(client.arm.home if start is None else start, float)
        self._spread, self._start_speed = spread, start_speed
        self._kinematics = client.arm.kinematics()
        self._share = 1.0
        self._deadline: float | None = None
        """Monotonic time [s] at which the present control period began; None before the first command of an episode."""
        if mode is not CommandMode.JOINT_POSITION:
            raise ConfigurationError("BridgeRobot: episodes begin with a move of joint positions, so the mode must be "
                                     f"{CommandMode.JOINT_POSITION}, got {mode}")

    def reset(self, seed: int) -> Observation:
        """Activate the bridge if need be, go to the start pose drawn with `seed`, wait there until the arm is at rest."""
        self._share = 1.0
        state = self.client.state()
        if state.state is State.IDLE:
            self.client.wish("arm")
            self.client.wish("activate")
        elif state.state is State.ARMED:
            self.client.wish("activate")
        elif state.state is State.HOLD:
            self._resume()
        self._go(self._start + self._spread * np.random.default_rng(seed).uniform(-1.0, 1.0, self.spec.nv))
        self._deadline = None  # the arm is at rest: the policy may think before its first command
        return self._observe(self.client.state())

    def send(self, command: Command) -> Command:
        command = admit(command, self.spec.commands)
        before = self._active()
        if self._deadline is None:
            self._deadline = time.monotonic()
        sequence = self.client.act(command, self._fingerprint, before.generation, self._share)
        ends = time.monotonic() + _TAKEN_SECONDS
        while time.monotonic() < ends:
            state = self._active()
            if state.action_sequence >= sequence:
                return Command(command.mode, state.target)
            time.sleep(0.0005)
        raise HardwareError(f"the supervisor did not take the action: {state.rules.words() or 'no rule fired'}; it is in "
                            f"{self.client.status().state.name}")

    def post(self, command: Command) -> None:
        """As `send`, without waiting until the supervisor took it: for policies that act in every servo period."""
        self.client.act(admit(command, self.spec.commands), self._fingerprint, self._active().generation, self._share)

    def newest(self, after: int) -> tuple[int, Observation]:
        """Return the servo loop's newest tick beyond tick `after` and what it saw, waiting for it if need be; HardwareError where the
        bridge is not ACTIVE or tells nothing for long.
        """
        ends = time.monotonic() + _TAKEN_SECONDS
        while (state := self._active()).tick <= after:
            if time.monotonic() > ends:
                raise HardwareError(f"the bridge told nothing new for {_TAKEN_SECONDS * 1e3:.0f} ms")
            time.sleep(_GLANCE_SECONDS)
        return state.tick, self._observe(state)

    def throttle(self, share: float) -> None:
        """Ask for this share (0 to 1) of the velocity limits from the next command on."""
        self._share = share

    def tick(self) -> Observation:
        now = time.monotonic()
        self._deadline = max((now if self._deadline is None else self._deadline) + self.spec.control_dt, now)
        while (left := self._deadline - time.monotonic()) > 0:
            time.sleep(left)
        return self._observe(self._active())

    def close(self) -> None:
        """Hold the arm and let go of the bridge's boards; the bridge itself goes on."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _resume(self) -> None:
        """Resume as soon as the arm has come to rest; HardwareError where it does not."""
        ends = time.monotonic() + _REST_SECONDS
        while True:
            try:
                return self.client.wish("resume")
            except HardwareError:
                if time.monotonic() > ends or self.client.status().state is not State.HOLD:
                    raise
            time.sleep(0.02)

    def _active(self) -> ArmState:
        state = self.client.state()
        if state.state is not State.ACTIVE:
            raise HardwareError(f"the bridge is in {state.state.name}: {self.client.status().cause}")
        return state

    def _go(self, goal: np.ndarray) -> None:
        """Lead the arm to `goal` (nv,) on a line in joint space, with minimum jerk."""
        here = self._settled().reference
        duration = max(1.875 * float(np.abs(goal - here).max()) / self._start_speed, 0.2)
        begin = self._deadline = time.monotonic()
        while True:
            s = min((time.monotonic() - begin) / duration, 1.0)
            self.send(Command(CommandMode.JOINT_POSITION, here + (goal - here) * s**3 * (10 - 15 * s + 6 * s * s)))
            state = self.tick()
            if s == 1.0 and np.abs(state.q - goal).max() < _REACHED and np.abs(state.dq).max() < _REACHED:
                return
            if time.monotonic() - begin > duration + 5.0:
                raise HardwareError(f"the arm did not reach its start pose: it is {np.abs(state.q - goal).max():.3f} rad away")

    def _settled(self) -> ArmState:
        """Return the first state of ACTIVE whose set-point is known."""
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends:
            state = self.client.state()
            if state.state is State.ACTIVE and np.isfinite(state.written).all():
                return state
            time.sleep(0.001)
        raise HardwareError(f"the bridge did not become active: {self.client.status().cause}")

    def _observe(self, state: ArmState) -> Observation:
        return Observation(state.received_ns, state.q, state.dq, state.tau, self._kinematics.forward(state.q),
                           {view.name: frame for view in self._cameras if (frame := self._picture(view)) is not None},
                           {"reference": state.reference, "reference_rate": state.reference_rate})

    def _picture(self, view: CameraView) -> CameraFrame | None:
        frame = view.newest()
        age = np.inf if frame is None else (time.monotonic_ns() - frame.captured_ns) * 1e-9
        if age > self._picture_age_max:
            raise HardwareError(f"camera {view.name}: its newest picture is {age * 1e3:.0f} ms old, at most "
                                f"{self._picture_age_max * 1e3:.0f} ms are allowed. {view.status().words}")
        return frame
