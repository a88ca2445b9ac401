"""The controller: plant, motion, safety and program, 500 times a second."""

from __future__ import annotations

import mujoco
import numpy as np

from hw_bridge.twins.plant import Mechanics, Plant
from hw_bridge.twins.ur import program as commands
from hw_bridge.twins.ur.motion import DT, Mode, Motion
from hw_bridge.twins.ur.program import Program
from hw_bridge.twins.ur.safety import RobotMode, Safety, SafetyMode
from hw_bridge.twins.ur.setpoints import SetPointAudit
from hw_bridge.twins.ur.variables import defaults
from robots.arms.arm import Arm
from robots.errors import ConfigurationError
from robots.validation import checked_array

AMPERE = np.array([12.0, 12.0, 12.0, 10.0, 10.0, 10.0])
"""(6,) torque per motor current [N·m/A], an estimate: UR publishes none."""

MECHANICS = Mechanics(
    viscous=np.array([8.0, 8.0, 6.0, 1.5, 1.5, 1.5]), coulomb=np.array([4.0, 4.0, 3.0, 1.0, 1.0, 1.0]),
    armature=np.array([0.7, 0.7, 0.7, 0.12, 0.12, 0.12]), torque_max=np.array([150.0, 150.0, 150.0, 28.0, 28.0, 28.0]),
    backlash=np.zeros(6), encoder_step=np.full(6, 2 * np.pi / 2**19))
"""Harmonic drives without play; friction and rotor inertia are estimates of the size that identifications of this arm report."""

DEVIATION_MAX = 0.1
"""Protective stop where a joint is this far from its reference [rad]."""
SPEED_MARGIN = 1.05
"""Protective stop where a joint is faster than its limit by this factor."""
FORCE_MAX = np.array([90.0, 90.0, 90.0, 22.0, 22.0, 22.0])
"""(6,) protective stop where the joints need so much more torque than the model says, for 10 ms [N·m]."""
SAFETY_LIMIT = 0.05
"""The safety controller's position limits lie this far outside the joints' [rad]."""
ENCODER_MISMATCH = 0.03
"""Fault where the joint's two encoders disagree by this [rad]."""
PROTECTIVE_DECELERATION = 20.0
"""[rad/s^2]"""
_INT_REGISTERS, _DOUBLE_REGISTERS = ([f"output_{kind}_register_{i}" for i in range(n)] for kind, n in (("int", 3), ("double", 6)))
"""What the program answers in."""


class Controller:
    """Everything behind the network. Times called `now` are simulated, `host_now` the host's monotonic clock [s]."""

    def __init__(self, arm: Arm, unlock_after_s: float) -> None:
        self.plant = Plant(arm, MECHANICS)
        self.safety = Safety(unlock_after_s)
        self.motion = Motion(arm, MECHANICS, self.plant.q)
        self.program = Program(self.motion, self.protective_stop)
        self.audit = SetPointAudit(arm.spec.limits, arm.spec.joint_names)
        self._judges = {commands.SERVOJ: self.audit.position, commands.SPEEDJ: self.audit.velocity, commands.TORQUE: self.audit.torque}
        self._places: dict[tuple[str, ...], tuple[tuple[bool, int], ...]] = {}
        self.values = defaults()
        self.stuck: dict[int, float] = {}
        """Joints whose first encoder stands still, and where [rad]."""
        self.clock_offset = 0.0
        """What the controller's clock is ahead of simulated time [s]."""
        self.frozen_timestamp: float | None = None
        self._limits, self._names = arm.spec.limits, arm.spec.joint_names
        self._strained = 0
        self._cycles = 0
        self._jacobian = np.empty((6, 6))
        self._site = mujoco.mj_name2id(self.plant.model, mujoco.mjtObj.mjOBJ_SITE, arm.spec.end_effector_frames[0])
        self.cycle(0.0)

    def receive(self, names: tuple[str, ...], values: tuple, host_now: float) -> None:
        """Take inputs as one data package brought them."""
        program = self.program
        places = self._places.get(names)
        if places is None:
            places = self._places[names] = _registers(names)
        for (whole, number), value in zip(places, values, strict=True):
            if number >= 0:
                (program.int_in if whole else program.double_in)[number] = value
        if (True, 0) in places:
            program.heard = host_now
            judge = self._judges.get(program.int_in[0])
            if judge is not None and program.running:
                judge(np.array(program.double_in[:6]), host_now)

    def load(self, script: str) -> bool:
        """Take a script from the script port; False where nothing will come of it."""
        self.audit.restart()
        return self.safety.may_move and self.program.load(script, self.plant.time)

    def cycle(self, host_now: float) -> None:
        """Run one period."""
        plant, motion, program = self.plant, self.motion, self.program
        q, dq = self._encoders()
        ran = program.running
        program.cycle(plant.time, host_now, q, dq, plant.tau)
        if ran and not program.running:
            self._stop_motion(PROTECTIVE_DECELERATION)
        motion.step(q, dq)
        self._watch(q, dq)
        plant.advance(plant.time + DT, self._law)
        self._cycles += 1
        self._publish(*self._encoders())

    def _law(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        if self.stuck:
            q, dq = self._with_stuck(q.copy(), dq.copy())
        return self.motion.law(q, dq)

    def _encoders(self) -> tuple[np.ndarray, np.ndarray]:
        return self._with_stuck(self.plant.encoders(), self.plant.dq)

    def _with_stuck(self, q: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for joint, at in self.stuck.items():
            q[joint], dq[joint] = at, 0.0
        return q, dq

    def _watch(self, q: np.ndarray, dq: np.ndarray) -> None:
        """The safety controller's look at one period."""
        if self.safety.robot_mode is not RobotMode.RUNNING:
            return
        limits, motion = self._limits, self.motion
        for joint, at in self.stuck.items():
            if abs(self.plant.data.qpos[joint] - at) > ENCODER_MISMATCH:
                self._cut_power(SafetyMode.FAULT, f"{self._names[joint]}: the joint's two encoders disagree")
                return
        outside = np.maximum(limits.position_min - q, q - limits.position_max)
        if outside.max() > SAFETY_LIMIT:
            self._cut_power(SafetyMode.VIOLATION, f"{self._names[int(outside.argmax())]}: joint position outside its safety limit")
            return
        if self.safety.mode is SafetyMode.ROBOT_EMERGENCY_STOP:
            if motion.at_rest:
                self._brake()
            return
        if self.safety.mode is not SafetyMode.NORMAL:
            self._strained = 0
            return
        speed = np.abs(dq) - SPEED_MARGIN * limits.velocity_max
        if speed.max() > 0:
            self.protective_stop(f"{self._names[int(speed.argmax())]}: joint faster than its limit")
        elif motion.mode is not Mode.HOLD and not motion.within_limits(motion.q_ref):
            self.protective_stop("a joint reached its position limit")
        elif motion.mode is not Mode.TORQUE:
            deviation = np.abs(motion.q_ref - q)
            strain = np.abs(self.plant.tau - motion.feedforward) - FORCE_MAX
            self._strained = self._strained + 1 if strain.max() > 0 else 0
            if deviation.max() > DEVIATION_MAX:
                self.protective_stop(f"{self._names[int(deviation.argmax())]}: position deviates from path")
            elif self._strained > 5:
                self.protective_stop(f"{self._names[int(strain.argmax())]}: collision: more torque than the model explains")

    def protective_stop(self, words: str) -> None:
        """Stop on the reference, keep the power on, end the program."""
        if self.safety.trip(SafetyMode.PROTECTIVE_STOP, words, self.plant.time):
            self.program.end(f"protective stop: {words}")
            self._stop_motion(PROTECTIVE_DECELERATION)

    def unlock_protective_stop(self) -> str:
        """Return the dashboard's answer; the arm goes on from where it stands, without strain."""
        was = self.safety.mode
        answer = self.safety.unlock_protective_stop(self.plant.time)
        if self.safety.mode is not was:
            self.motion.hold(self._encoders()[0])
        return answer

    def emergency_stop(self) -> None:
        """Somebody pressed the button: stop, then brakes and no power."""
        if self.safety.trip(SafetyMode.ROBOT_EMERGENCY_STOP, "the emergency stop button was pressed", self.plant.time):
            self.program.end("emergency stop")
            self._stop_motion(PROTECTIVE_DECELERATION)

    def _cut_power(self, mode: SafetyMode, words: str) -> None:
        if self.safety.trip(mode, words, self.plant.time):
            self.program.end(words)
            self._brake()

    def _stop_motion(self, deceleration: float) -> None:
        if self.motion.mode is not Mode.HOLD:
            q, dq = self._encoders()
            self.motion.stop(deceleration, q, dq)

    def _brake(self) -> None:
        self.plant.braked = True
        self.safety.robot_mode = RobotMode.POWER_OFF
        self.motion.hold(self.plant.q)

    def end_program(self, why: str) -> None:
        """End the program and slow the arm down."""
        self.program.end(why)
        self._stop_motion(PROTECTIVE_DECELERATION)

    def power(self, mode: RobotMode) -> bool:
        """Switch the power; with RUNNING the brakes are released too. False where the safety mode forbids it."""
        if mode is not RobotMode.POWER_OFF and self.safety.mode is not SafetyMode.NORMAL:
            return False
        if mode is not RobotMode.RUNNING:
            self.program.end("power off")
            self._brake()
        elif self.plant.braked:
            self.motion.hold(self._encoders()[0])
            self.plant.braked = False
        self.safety.robot_mode = mode
        return True

    def place(self, q: np.ndarray) -> None:
        """Put the resting arm at `q` (6,) [rad], as a person with the brakes open would."""
        if self.motion.mode is not Mode.HOLD:
            raise ConfigurationError(f"place: the arm is led by {self.motion.mode}: stop it first")
        self.plant.data.qpos[:] = checked_array("q", q, (len(self._names),))
        self.plant.data.qvel[:] = 0.0
        self.motion.hold(self.plant.q)

    def stick_encoder(self, joint: int) -> None:
        """Let the first encoder of `joint` stand still from now on."""
        if not 0 <= joint < len(self._names):
            raise ConfigurationError(f"stuck_encoder: expected a joint from 0 to {len(self._names) - 1}, got {joint}")
        self.stuck[joint] = float(self.plant.encoders()[joint])

    @property
    def clock(self) -> float:
        """The controller's own clock [s]."""
        return self.plant.time + self.clock_offset if self.frozen_timestamp is None else self.frozen_timestamp

    def _publish(self, q: np.ndarray, dq: np.ndarray) -> None:
        values, motion, plant, program, safety = self.values, self.motion, self.plant, self.program, self.safety
        values["timestamp"] = (self.clock,)
        values["actual_q"], values["actual_qd"] = q.tolist(), dq.tolist()
        values["target_q"], values["target_qd"], values["target_qdd"] = motion.q_ref.tolist(), motion.v_ref.tolist(), motion.a_ref.tolist()
        values["target_moment"], values["target_current"] = motion.feedforward.tolist(), (motion.feedforward / AMPERE).tolist()
        values["actual_current"] = values["joint_control_output"] = (plant.tau_mean / AMPERE).tolist()
        values["actual_current_as_torque"] = plant.tau_mean.tolist()
        values["robot_mode"], values["safety_mode"] = (int(safety.robot_mode),), (int(safety.mode),)
        values["safety_status"], values["safety_status_bits"] = (int(safety.mode),), (safety.safety_bits,)
        values["robot_status_bits"] = (safety.robot_bits(program.running),)
        values["runtime_state"] = (2 if program.running else 1,)
        values["payload"], values["payload_cog"] = (motion.payload[0],), motion.payload[1]
        for name, value in zip(_INT_REGISTERS, program.int_out, strict=False):
            values[name] = (value,)
        for name, value in zip(_DOUBLE_REGISTERS, program.double_out, strict=False):
            values[name] = (value,)
        if self._cycles % 5 == 1:
            self._publish_tool(dq)

    def _publish_tool(self, dq: np.ndarray) -> None:
        """The tool's pose and speed, a hundred times a second: nobody here steers by them."""
        data = self.plant.data
        quaternion, turn = np.empty(4), np.empty(3)
        mujoco.mju_mat2Quat(quaternion, data.site_xmat[self._site])
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        mujoco.mj_jacSite(self.plant.model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        self.values["actual_TCP_pose"] = self.values["target_TCP_pose"] = (*data.site_xpos[self._site], *turn)
        self.values["actual_TCP_speed"] = self.values["target_TCP_speed"] = (self._jacobian @ dq).tolist()


def _registers(names: tuple[str, ...]) -> tuple[tuple[bool, int], ...]:
    """Return for each input whether it is an integer's register, and its number; -1 where it is none."""
    parts = (name.removeprefix("input_").partition("_register_") for name in names)
    return tuple((kind == "int", int(number or -1)) for kind, _, number in parts)
