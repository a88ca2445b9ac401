"""`reflexarc calibrate`: with the arm in a person's hands, find what its servos' readings mean."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from math import degrees
from pathlib import Path
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from experiments.arm_settings import is_local
from experiments.keyboard import Keyboard
from experiments.progress import make_console
from experiments.termination import sigterm_raises
from hw_bridge.drivers.catalog import DRIVERS, open_driver
from hw_bridge.drivers.servo_bench import DynamixelBench, FeetechBench, ServoBench
from hw_bridge.drivers.servo_calibration import STEP, JointFit, Sweep, fit_joints
from robots.arms.arm import Arm
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.so101 import so101
from robots.command import CommandMode
from robots.errors import ConfigurationError, HardwareError, ReflexarcError, UnknownNameError

if TYPE_CHECKING:
    from experiments.arm_cli import Calibrate

_POLL_S = 0.02


@dataclass(frozen=True)
class Calibrated:
    """An arm that is calibrated by hand."""

    arm: Callable[[], Arm]
    bench: type[ServoBench]
    zero: str
    """The pose with every joint at angle 0, for people."""
    remembers: str
    """What its servos are told to remember, for people; empty: nothing."""


ARMS = {
    "so101": Calibrated(so101, FeetechBench, "the upper arm upright; forearm, wrist and gripper level and straight ahead; the fixed finger "
                        "below, the jaw above it, open by a finger's width (10 degrees)",
                        "their homing and their end stops (EEPROM); another program's calibration of this arm, such as LeRobot's, does not "
                        "hold any more"),
    "dynamixel-arm": Calibrated(dynamixel_arm, DynamixelBench, "the upper arm upright; forearm, wrist and hand level and straight ahead, "
                                "the hand's flat side down", ""),
}


def calibrate_command(options: Calibrate) -> int:
    """Talk a person through a calibration, and keep it."""
    if options.robot not in DRIVERS:
        raise UnknownNameError("robot", options.robot, ARMS)
    if options.robot not in ARMS:
        raise ConfigurationError(f"{options.robot} needs no calibration: its controller keeps its own. Arms that do: {', '.join(ARMS)}")
    _may_write(options.out, options.overwrite)
    kind, console = ARMS[options.robot], make_console()
    arm = kind.arm()
    ids = options.ids or tuple(range(1, arm.spec.nv + 1))
    with sigterm_raises(), kind.bench(arm, options.address, ids) as bench:
        person = Person(console, bench)
        try:
            fits = _measure(person, bench, kind)
        except (KeyboardInterrupt, ReflexarcError):
            console.print("\nnothing was written; torque may be off: lay the arm down")
            raise
        print_fits(console, arm, fits)
        faults = [fit.fault for fit in fits if fit.fault]
        if faults:
            raise ConfigurationError("this is no calibration of the arm, and nothing was written:\n  - " + "\n  - ".join(faults)
                                     + "\nTorque is off: lay the arm down, and begin again")
        _may_write(options.out, options.overwrite)
        person.ask(f"Enter keeps this: the servos remember {kind.remembers}. The arm stays limp." if kind.remembers
                   else "Enter keeps this. Nothing is written to the servos; the arm stays limp.")
        calibration = bench.keep(fits)
        calibration.save(options.out)
    console.print(f"calibration: {options.out}, hash {calibration.fingerprint()}", highlight=False)
    person.watch(None)
    _hold(person, options, arm)
    further = " --patience 0.2" if is_local(options.address) else ""
    person.say(f"Go on with:\n  reflexarc check --robot {options.robot} --address {options.address} --calibration {options.out}{further}")
    return 0


def _may_write(path: Path, overwrite: bool) -> None:
    """Raise ConfigurationError where there is a file already, or none can be."""
    if path.exists() and not overwrite:
        raise ConfigurationError(f"--out {path}: exists already, and is not written over: take another name, or say --overwrite")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigurationError(f"--out {path}: cannot be written there; take another place")


def _measure(person: Person, bench: ServoBench, kind: Calibrated) -> list[JointFit]:
    """Return what the person's hands showed of every joint."""
    arm, driven = bench.arm, bench.driven()
    person.say(f"{len(bench.ids)} servos answer on {bench.device}. You will bring the arm to a pose, and every joint to its ends.")
    person.ask(f"HOLD THE ARM: Enter switches the torque off, and what nobody holds falls. Fingers out of the joints. ({len(driven)} of "
               f"{len(bench.ids)} servos hold it now; Ctrl-C leaves everything as it is.)")
    bench.let_go()
    person.watch(Sweep(bench.readings()))
    person.ask(f"Bring it to angle 0: {kind.zero}. Some degrees off do no harm, the ends will tell. Enter when it is there.")
    sweep = Sweep(bench.readings())
    person.watch(sweep)
    for joint, name in enumerate(arm.spec.joint_names):
        sweep.begin(joint)
        person.ask(f"{name}: to its + end, where {positive_words(arm, joint)}, as far as it goes. Enter there.")
        sweep.at_plus_end()
        person.ask(f"{name}: now to its other end. Enter there.")
        sweep.at_other_end()
    return fit_joints(arm, sweep)


class Person:
    """Who holds the arm: reads what is asked, does it, presses Enter; sees meanwhile where the joints are."""

    def __init__(self, console: Console, bench: ServoBench) -> None:
        self._console, self._bench, self._keyboard = console, bench, Keyboard()
        self._sweep: Sweep | None = None

    def say(self, words: str) -> None:
        self._console.print(words, highlight=False, markup=False)

    def watch(self, sweep: Sweep | None) -> None:
        """Follow the servos with `sweep` from now on, whenever something is asked; None: not any more."""
        self._sweep = sweep

    def ask(self, words: str) -> str:
        """Say `words`, wait for Enter, and return what was typed before it; the servos are followed meanwhile and once more after it."""
        self.say(words)
        live = contextlib.nullcontext()
        if self._console.is_terminal and self._sweep is not None:
            live = Live(console=self._console, auto_refresh=False, transient=True)
        with live as display:
            while (typed := self._keyboard.line(_POLL_S)) is None:
                self._look()
                if display is not None:
                    display.update(_table(self._bench.arm, self._sweep), refresh=True)
        self._look()
        return typed

    def _look(self) -> None:
        if self._sweep is not None:
            self._sweep.see(self._bench.readings())


def _table(arm: Arm, sweep: Sweep) -> Table:
    """Return where the joints are and were, in degrees from the pose held as angle 0."""
    table = Table("joint", "lowest", "now", "highest", "described", title="degrees from the pose of angle 0", title_style="")
    for i, name in enumerate(arm.spec.joint_names):
        sign = sweep.direction[i] or 1
        low, high = sorted((sign * int(sweep.low[i]), sign * int(sweep.high[i])))
        table.add_row(name, *(f"{degrees(steps * STEP):+.0f}" for steps in (low, sign * int(sweep.now[i]), high)), _described(arm, i))
    return table


def print_fits(console: Console, arm: Arm, fits: list[JointFit]) -> None:
    """Print what was found, joint by joint."""
    table = Table("joint", "counts", "at 0", "reached", "described", "pose off by", box=None)
    for i, fit in enumerate(fits):
        table.add_row(fit.name, {1: "up", -1: "down", 0: "?"}[fit.direction], str(fit.zero),
                      f"{degrees(fit.low):+.0f} to {degrees(fit.high):+.0f}", _described(arm, i),
                      "?" if fit.pose_error is None else f"{degrees(fit.pose_error):+.1f}")
    console.print(table)
    console.print("In degrees; 'at 0' is the servo's reading. Ends as far apart as described tell angle 0, else the pose is it.",
                  highlight=False, markup=False)


def _described(arm: Arm, joint: int) -> str:
    limits = arm.spec.limits
    return f"{degrees(limits.position_min[joint]):+.0f} to {degrees(limits.position_max[joint]):+.0f}"


def _hold(person: Person, options: Calibrate, arm: Arm) -> None:
    """Let the servos hold the arm where the person wants it, through the driver: which also shows that the calibration fits."""
    while not person.ask("The next steps want an arm that stands: bring it to the middle of its ranges and hold it. Enter: the servos hold "
                         "it there. n and Enter: it stays limp, lay it down.").lower().startswith("n"):
        driver = open_driver(options.robot, options.address, {"calibration": str(options.out)})
        try:
            driver.connect()
            driver.begin(CommandMode.JOINT_POSITION)
            pose = ", ".join(f"{name} {degrees(angle):+.0f}" for name, angle in zip(arm.spec.joint_names, driver.read().q, strict=True))
            driver.end()
            person.say(f"The servos hold it. By the new calibration it stands at, in degrees: {pose}. Does that look right?")
            return
        except HardwareError as error:
            person.say(f"not held: {error}")
        finally:
            driver.close()


def positive_words(arm: Arm, joint: int) -> str:
    """Return what moves where, with the arm in its pose of angle 0, as the angle of `joint` grows; x is ahead, y left, z up."""
    model = arm.model()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    tip = arm.kinematics().jacobian(data.qpos)[:, joint]
    if np.linalg.norm(tip[:3]) > 0.02:
        return f"the gripper goes {_way(tip[:3])}"
    if np.linalg.norm(tip[3:]) > 0.5:
        return f"the gripper turns, its top to the {_way(np.cross(tip[3:], [0.0, 0.0, 1.0]))}"
    body = int(model.jnt_bodyid[joint])
    geom = int(np.flatnonzero(model.geom_bodyid == body)[0])
    lever = np.cross(data.xaxis[joint], data.geom_xpos[geom] - data.xanchor[joint])
    return f"the {model.body(body).name.replace('_', ' ')} goes {_way(lever)}"


def _way(direction: np.ndarray) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return (("ahead", "back"), ("left", "right"), ("up", "down"))[axis][0 if direction[axis] > 0 else 1]
