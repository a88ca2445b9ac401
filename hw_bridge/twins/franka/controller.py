"""Franka's controller on the plant: modes, motions, inner loops, reflexes, and the state that it reports."""

from __future__ import annotations

from collections import deque

import mujoco
import numpy as np

from hw_bridge.twins.audit import CommandAudit
from hw_bridge.twins.franka.reflexes import PACKETS_LOST_MAX, ContactObserver, Reflexes
from hw_bridge.twins.franka.wire import ERRORS, PERIOD, Controller, Generator, MoveStatus, RobotMode, column_major, fresh_state
from hw_bridge.twins.plant import Plant
from robots.command import CommandMode

GRAVITY = 9.81
STIFFNESS = np.array([3000.0, 3000.0, 3000.0, 2500.0, 2500.0, 2000.0, 2000.0])
"""Joint impedance of the internal controller [N·m/rad]."""
DAMPING = np.array([100.0, 100.0, 100.0, 80.0, 30.0, 25.0, 15.0])
"""[N·m·s/rad] at that stiffness."""
OBSERVER_SHARE = 0.1
"""Of the newest estimate of external torque in the filtered one, every ms: about 16 Hz."""
FORCE_EVERY = 10
"""Ticks from one estimate of the external force to the next."""
START_GRACE = 500
"""Ticks that a client may take from MOVE to its first set-point."""

MODES = {Generator.JOINT_POSITION: CommandMode.JOINT_POSITION, Generator.JOINT_VELOCITY: CommandMode.JOINT_VELOCITY,
         Generator.NONE: CommandMode.JOINT_TORQUE}


class FrankaController:
    """Advanced by `tick` once every ms. Not for use from two threads at once."""

    def __init__(self, plant: Plant, lost_max: int = PACKETS_LOST_MAX, late_max: int = 3) -> None:
        limits = plant.arm.spec.limits
        self.plant, self.lost_max, self.late_max = plant, lost_max, late_max
        self.mode = RobotMode.IDLE
        self.reflexes, self.contacts = Reflexes(limits), ContactObserver()
        self.audit = CommandAudit(limits, plant.arm.spec.joint_names, exact_times=True)
        self.errors: list[str] = []
        """Errors that stand."""
        self.last_motion_errors: list[str] = []
        self.ended: deque[tuple[int, MoveStatus]] = deque()
        """Motions that ended, by the number of their MOVE: to be answered."""
        self.stiffness = STIFFNESS.copy()
        self.load_mass, self.load_centre = 0.0, np.zeros(3)
        self.message_id = 0
        self._stepped = 0
        """By how much faults have set the clock of `message_id` ahead of the plant's [ms]."""
        self.counters = {"set_points": 0, "refused": 0, "lost": 0, "late": 0, "lost_in_a_row": 0, "lost_in_a_row_peak": 0, "reflexes": 0}
        self.encoder_stuck: dict[int, float] = {}
        self._motion: int | None = None
        self._generator = Generator.NONE
        self._since = self._since_start = 0
        self._started = False
        self._answered = -1
        self._success: deque[bool] = deque(maxlen=100)
        self._target = plant.q
        self._target_rate = np.zeros(len(self._target))
        self._torque = np.zeros(len(self._target))
        self._external, self._force = np.zeros(7), np.zeros(6)
        self._tau_before = plant.tau
        self._nominal = plant.arm.model()
        self._scratch = mujoco.MjData(self._nominal)
        self._site = mujoco.mj_name2id(self._nominal, mujoco.mjtObj.mjOBJ_SITE, plant.arm.spec.end_effector_frames[0])
        self._jacobian = np.zeros((6, self._nominal.nv))
        self._state = fresh_state()
        self._state["O_ddP_O"] = 0.0, 0.0, -GRAVITY
        self._flagged = False
        self._look()

    @property
    def moving(self) -> bool:
        """Whether a motion is active."""
        return self._motion is not None

    def move(self, number: int, controller: int, generator: int) -> MoveStatus:
        """Begin the motion that MOVE `number` asks for, or say why not."""
        if generator not in MODES or (generator == Generator.NONE) != (controller == Controller.EXTERNAL):
            return MoveStatus.NOT_POSSIBLE  # the twin takes joint torques, joint velocities and joint positions, one at a time
        if self.mode is not RobotMode.IDLE or self.errors or self.moving:
            return MoveStatus.NOT_POSSIBLE
        self._motion, self._generator, self.mode = number, Generator(generator), RobotMode.MOVE
        self._target, self._target_rate, self._torque = self.plant.q, np.zeros(7), np.zeros(7)
        self._since = self._since_start = self.counters["lost_in_a_row"] = 0
        self._started, self._answered = False, self.message_id
        self._success.clear()
        self.reflexes.begin(self._target if generator == Generator.JOINT_POSITION else np.zeros(7))
        self.audit.forget()
        if generator == Generator.NONE:  # the first position is the reflexes' to judge: it may lie a little beside the arm
            self.audit.begin(CommandMode.JOINT_TORQUE, self._torque, self._plant_time(self.message_id))
        self.last_motion_errors = []
        return MoveStatus.MOTION_STARTED

    def step_clock(self, ticks: int) -> None:
        """Set the clock that the client sees ahead by `ticks` ms, back where negative. Set-points that answer states from before count as
        late; to those after, the step lends no time.
        """
        before, self.message_id = self.message_id, max(0, self.message_id + ticks)
        self._stepped += self.message_id - before
        self._answered = max(self._answered, before)

    def _plant_time(self, message_id: int) -> float:
        """Return the time of the state `message_id` [s], on a clock that never steps."""
        return PERIOD * (message_id - self._stepped)

    def finish(self, status: MoveStatus) -> None:
        """End the motion, if there is one, and hold the arm where it stands."""
        if self._motion is None:
            return
        self.ended.append((self._motion, status))
        self._motion, self._generator = None, Generator.NONE
        self._target, self._target_rate, self._torque = self.plant.q, np.zeros(7), np.zeros(7)
        if self.mode is RobotMode.MOVE:
            self.mode = RobotMode.IDLE

    def reflex(self, error: str) -> None:
        """Stop for `error`: the motion is aborted, the arm held, until errors are recovered from."""
        self.counters["reflexes"] += 1
        self.errors.append(error)
        self.last_motion_errors = [error]
        self.mode = RobotMode.REFLEX
        self.finish(MoveStatus.REFLEX_ABORTED)

    def user_stop(self) -> None:
        """The enabling device opens: brakes close."""
        self.mode = RobotMode.USER_STOPPED
        self.plant.braked = True
        self.finish(MoveStatus.EMERGENCY_ABORTED)

    def user_release(self) -> None:
        """The enabling device closes again."""
        if self.mode is RobotMode.USER_STOPPED:
            self.plant.braked, self._target = False, self.plant.q
            self.mode = RobotMode.REFLEX if self.errors else RobotMode.IDLE

    def recover(self) -> bool:
        """Take the errors back; False where a person must move the arm first: it stands outside its limits."""
        if self.reflexes.standing(self.plant.q, np.zeros(7)) is not None:
            return False
        self.errors.clear()
        self._external[:] = self._force[:] = 0.0
        self._target = self.plant.q
        if self.mode is RobotMode.REFLEX:
            self.mode = RobotMode.IDLE
        return True

    def tick(self, commands: list[np.ndarray], sent: int, own_lateness: bool = False) -> None:
        """Advance by 1 ms with the set-points () of `COMMAND` that came since the last tick; `sent` is the id of the newest state
        that the client can know. `own_lateness`: the twin, not the client, is why none came.
        """
        self.message_id += 1
        self._since += 1
        if self.moving:
            self._serve(commands, sent, own_lateness)
        self.plant.advance(self.plant.time + PERIOD, self._law)
        self._look()
        if self.mode in (RobotMode.MOVE, RobotMode.IDLE):
            error = self.reflexes.standing(self.plant.q, self.plant.dq)
            error = error or ("self_collision_avoidance_violation" if self.plant.data.ncon else None)
            error = error or self.contacts.look(self._external, self._force)
            if error is not None:
                self.reflex(error)

    def _serve(self, commands: list[np.ndarray], sent: int, own_lateness: bool) -> None:
        newest = None
        for command in commands:
            self.counters["set_points"] += 1
            if command["message_id"] <= self._answered or sent - int(command["message_id"]) > self.late_max:
                self.counters["late"] += 1
            else:
                newest, self._answered = command, int(command["message_id"])
        if newest is not None:
            self._started = True
            self.counters["lost_in_a_row"] = 0
            self._success.append(True)
            self._obey(newest)
        elif self._started:
            if self._generator is Generator.JOINT_POSITION:
                self._target, self._target_rate = self.reflexes.lost_position()
            elif self._generator is Generator.JOINT_VELOCITY:
                self._target_rate = self.reflexes.lost_velocity()
            if not own_lateness:
                self._lose()
        else:
            self._since_start += 1
            if self._since_start > START_GRACE:
                self.reflex("communication_constraints_violation")

    def _lose(self) -> None:
        counters = self.counters
        counters["lost"] += 1
        counters["lost_in_a_row"] += 1
        counters["lost_in_a_row_peak"] = max(counters["lost_in_a_row_peak"], counters["lost_in_a_row"])
        self._success.append(False)
        if counters["lost_in_a_row"] > self.lost_max:
            self.reflex("communication_constraints_violation")

    def _obey(self, command: np.ndarray) -> None:
        if command["motion_generation_finished"] or command["torque_command_finished"]:
            self.finish(MoveStatus.SUCCESS)
            return
        values = {Generator.JOINT_POSITION: command["q_c"], Generator.JOINT_VELOCITY: command["dq_c"]}.get(
            self._generator, command["tau_J_d"]).copy()
        # Judged by the packets that the client saw: it makes one set-point for each, and on a busy machine they arrive in bunches.
        made_for = self._plant_time(int(command["message_id"]))
        if self._generator is not Generator.NONE or not np.isfinite(values).all():
            self.audit.look(MODES[self._generator], values, made_for)
        if not np.isfinite(values).all():
            self.finish(MoveStatus.INPUT_ERROR_ABORTED)
            return
        elapsed, self._since = max(self._since, 1), 0
        if self._generator is Generator.NONE:
            error = self.reflexes.torque(values, elapsed)
        elif self._generator is Generator.JOINT_VELOCITY:
            error = self.reflexes.velocity(values)
        else:
            error = self.reflexes.position(values)
        if error is not None:
            self.counters["refused"] += 1
            self.reflex(error)
        elif self._generator is Generator.NONE:
            self.audit.look(MODES[self._generator], values, made_for)  # a torque that jumps is made by the vendor's own loop, and refused
            self._torque = values
        elif self._generator is Generator.JOINT_VELOCITY:
            self._target_rate = values
        else:
            self._target_rate = (values - self._target) / PERIOD
            self._target = values

    def _law(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        carried = self.plant.gravity_torque()
        if self.load_mass:
            carried = carried + self._load_gravity()
        if self.moving and self._generator is Generator.NONE:
            return self._torque + carried
        if self.moving and self._generator is Generator.JOINT_VELOCITY:
            self._target = self._target + self.plant.model.opt.timestep * self._target_rate
        damping = DAMPING * np.sqrt(self.stiffness / STIFFNESS)
        return self.stiffness * (self._target - q) + damping * (self._target_rate - dq) + carried

    def _load_gravity(self) -> np.ndarray:
        """Return (7,) the torques [N·m] that carry the load that the client told of."""
        arm = self._jacobian[:3] - _cross(self._scratch.site_xmat[self._site].reshape(3, 3) @ self.load_centre) @ self._jacobian[3:]
        return arm.T @ np.array([0.0, 0.0, self.load_mass * GRAVITY])

    def _look(self) -> None:
        """Estimate external torque and force as the controller does: its model against what its motors give."""
        data, nominal, scratch = self.plant.data, self._nominal, self._scratch
        scratch.qpos[:], scratch.qvel[:], scratch.qacc[:] = data.qpos, data.qvel, data.qacc
        mujoco.mj_kinematics(nominal, scratch)
        mujoco.mj_comPos(nominal, scratch)
        mujoco.mj_comVel(nominal, scratch)
        mujoco.mj_jacSite(nominal, scratch, self._jacobian[:3], self._jacobian[3:], self._site)
        if self.plant.braked:
            return
        needed = np.zeros(nominal.nv)
        mujoco.mj_rne(nominal, scratch, 1, needed)
        mechanics = self.plant.mechanics
        needed += mechanics.armature * data.qacc + mechanics.viscous * data.qvel
        if self.load_mass:
            needed += self._load_gravity()
        self._external += OBSERVER_SHARE * (needed - self.plant.tau - self._external)
        if self.message_id % FORCE_EVERY == 0:
            self._force = np.linalg.lstsq(self._jacobian.T, self._external, rcond=0.05)[0]

    def encoders(self) -> np.ndarray:
        """Return (7,) joint positions [rad] as they are reported."""
        q = self.plant.encoders()
        for joint, angle in self.encoder_stuck.items():
            q[joint] = angle
        return q

    def state(self) -> bytes:
        """Return the state of `STATE` as it goes over the wire."""
        s, plant, scratch = self._state, self.plant, self._scratch
        q, torque_control = self.encoders(), self.moving and self._generator is Generator.NONE
        s["message_id"], s["robot_mode"] = self.message_id, self.mode
        dq = plant.dq
        s["q"], s["dq"] = s["theta"], s["dtheta"] = q, dq
        s["q_d"], s["dq_d"] = (q, dq) if torque_control else (self._target, self._target_rate)
        s["tau_J"], s["tau_J_d"] = plant.tau, self._torque
        s["dtau_J"] = (plant.tau - self._tau_before) / PERIOD
        self._tau_before = plant.tau
        pose = column_major(scratch.site_xpos[self._site], scratch.site_xmat[self._site])
        s["O_T_EE"] = s["O_T_EE_d"] = s["O_T_EE_c"] = pose
        s["elbow"] = s["elbow_d"] = s["elbow_c"] = q[2], np.sign(q[3])
        s["m_load"], s["F_x_Cload"] = self.load_mass, self.load_centre
        s["tau_ext_hat_filtered"], s["O_F_ext_hat_K"] = self._external, self._force
        s["K_F_ext_hat_K"] = self._force
        contacts = self.contacts
        if self.message_id % FORCE_EVERY == 0:
            s["joint_contact"], s["joint_collision"] = contacts.joint_contact, contacts.joint_collision
            s["cartesian_contact"], s["cartesian_collision"] = contacts.cartesian_contact, contacts.cartesian_collision
        s["motion_generator_mode"] = 1 + self._generator if self.moving else 0
        s["controller_mode"] = (Controller.OTHER if not self.moving else
                                Controller.EXTERNAL if torque_control else Controller.JOINT_IMPEDANCE)
        if self.errors or self.last_motion_errors or self._flagged:
            self._flagged = bool(self.errors or self.last_motion_errors)
            s["errors"] = [name in self.errors for name in ERRORS]
            s["reflex_reason"] = [name in self.last_motion_errors for name in ERRORS]
        s["control_command_success_rate"] = sum(self._success) / len(self._success) if self._success else 0.0
        return s.tobytes()


def _cross(vector: np.ndarray) -> np.ndarray:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
