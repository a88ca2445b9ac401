"""The subcommands of `reflexarc` for people with an arm, or with its twin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

_RUNS = Path("runs")
File = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")]
Calibration = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(arms of servos need it)")]
Threads = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all cores)")]
ThreadsBeside = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all; with --asynchronous all but one)")]
Cameras = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=SOURCE", help_behavior_hint="(optional)")]
Patience = Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="(default: 0.02)")]


@dataclass(frozen=True)
class Twin:
    """Start the twin of an arm: simulated, behind the vendor's own wire protocol, with the vendor's own stops. Ends with Ctrl-C.

    Further options go to the twin as they are; --own-help lists them. Without a name, the twins are listed.

    Examples: `reflexarc twin`, `reflexarc twin ur5e --address 127.0.0.2`, `reflexarc twin ur5e --payload 1.0`, `reflexarc twin so101`.
    """

    name: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: list them)")]] = None
    """Twin by name."""
    address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="(default: the twin's own)")] = None
    """Loopback address of a networked arm's controller: 127.0.0.2, 127.0.0.3, ..."""
    own_help: bool = False
    """Show the twin's own options."""
    further: tyro.conf.Suppress[tuple[str, ...]] = ()
    """What the twin is told, as `main` found it."""

    def run(self) -> int:
        from experiments.arm_twin import twin_command

        return twin_command(self)


@dataclass(frozen=True)
class Calibrate:
    """Find what the readings of an arm's servos mean, with the arm in your hands: a pose, and both ends of every joint. Torque is off.

    Says what to do, step by step, and shows where the joints are. What is found is compared with the arm's description before anything
    is kept: which way each servo counts, what it reads at angle 0, how far the joint goes. An STS3215 is also told to remember it.
    At the end the servos hold the arm, if you like. The other commands take the file with --calibration.

    Examples: `reflexarc calibrate --robot so101 --address /dev/ttyACM0 --out so101.json`,
    `reflexarc calibrate --robot dynamixel-arm --address /dev/ttyUSB0 --ids 11 12 13 14 15 16 --out arm.json`.
    """

    robot: str
    """'so101' or 'dynamixel-arm'."""
    address: str
    """Serial port."""
    out: Path
    """File of the calibration."""
    ids: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]", help_behavior_hint="(default: 1 2 3 ...)")] = None
    """The servos' addresses on the bus, from the base on."""
    overwrite: bool = False
    """Replace the file if there is one."""

    def run(self) -> int:
        from experiments.arm_calibrate import calibrate_command

        return calibrate_command(self)


@dataclass(frozen=True)
class Check:
    """Look at an arm without moving it: a dry run of the whole bridge, which ends with a deployment certificate, PASSED or REFUSED.

    Who answers, its calibration, whether it stands at rest within its limits and its controller is ready, how old its state is and
    how punctual this computer, for a few seconds; nothing is written to the arm. `reflexarc deploy` wants the certificate, which
    holds for one policy, one arm, one set of safety rules, and 24 hours. Exits with 1 where it refuses.

    Examples: `reflexarc check --robot ur5e --address 192.168.0.10`, `reflexarc check --robot ur5e --address 127.0.0.2 --policy swing`,
    `reflexarc check --robot so101 --address /dev/ttyACM0 --calibration so101.json --policy runs/NAME`.
    """

    robot: str
    """Robot by name (`reflexarc list robots`)."""
    address: str
    """Where it is: an IP address, a serial port."""
    policy: str = "hold"
    """What is to be deployed: 'hold', 'swing', 'tip' or the folder of a run that learned to reach."""
    mode: str = "joint_position"
    """How the arm is to be commanded."""
    calibration: Calibration = None
    """The arm's calibration."""
    speed: Annotated[float | None, tyro.conf.arg(metavar="SHARE", help_behavior_hint="(default: 0.25 for first motions)")] = None
    """Share of the arm's velocity limits that the supervisor allows, 0 to 1."""
    patience: Patience = None
    """Longest silence of the arm and longest pause of our own loop that are borne. Raise it for a twin on a busy computer only."""
    seconds: float = 3.0
    """How long to watch."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: runs/certificates/)")] = None
    """File of the certificate."""

    def run(self) -> int:
        from experiments.arm_check import check_command

        return check_command(self)


@dataclass(frozen=True)
class Deploy:
    """Let a policy move an arm, under the safety supervisor, with everything recorded. Somebody stands by with the emergency stop.

    Refused without a passed certificate of `reflexarc check` that fits what is there now: arm, calibration, spec, safety rules and
    policy. Says what will happen and waits for Enter. Ctrl-C brakes, and leaves the arm to its own controller. Begin with 'hold',
    then 'swing', then 'tip'. Speed and patience are those of the certificate.

    Examples: `reflexarc deploy hold --robot ur5e --address 127.0.0.2 --certificate runs/certificates/FILE`,
    `reflexarc deploy runs/NAME --robot ur5e --address 127.0.0.2 --certificate FILE --episodes 5 --log reach.mcap`.
    """

    policy: tyro.conf.Positional[str]
    """'hold' (the arm holds its pose), 'swing' (each joint in turn, slowly), 'tip' (the end effector 3 cm along each axis and back), or
    the folder of a run that learned to reach."""
    robot: str
    """Robot by name (`reflexarc list robots`)."""
    address: str
    """Where it is: an IP address, a serial port."""
    certificate: File = None
    """What `reflexarc check` wrote."""
    episodes: int = 1
    """Episodes to live."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the policy's own)")] = None
    """Control periods an episode."""
    seed: int = 1000
    """Seed of the first episode's goal and start; the others follow."""
    calibration: Calibration = None
    """The arm's calibration."""
    log: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: runs/logs/)")] = None
    """File of the log (MCAP)."""
    camera: Cameras = ()
    """Record a camera beside the log, as with `reflexarc record`; as often as there are cameras."""
    keep: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(optional)")] = None
    """Keep a run's episodes in this folder (Parquet), for `reflexarc retrain`."""
    json: File = None
    """Write the summary's figures here."""
    yes: bool = False
    """Do not wait for Enter."""
    asynchronous: bool = False
    """For runs that plan: plan in a process beside the arm, which does not wait. Plans are made for where it will be once they are ready,
    and may take longer than a control period; where none comes any more, the last one is followed to its end, then the arm is held."""
    threads: ThreadsBeside = None
    """Cores to plan with. With --asynchronous the arm's servo loop needs one."""

    def run(self) -> int:
        from experiments.arm_deploy import deploy_command

        return deploy_command(self)


@dataclass(frozen=True)
class Reach:
    """Let an arm that knows nothing learn to reach: random motion, a model, planning through it, again. It moves: stand by.

    Begins with a dry run (as `reflexarc check`), says what will happen and waits for Enter. Everything is kept in RUNS/NAME: episodes,
    the model's checkpoint, a log a session. After Ctrl-C or a stop of the arm the same command with the same --name goes on after the
    last finished trial. What was learned acts with `reflexarc check --policy RUNS/NAME` and `reflexarc deploy RUNS/NAME`.

    Examples: `reflexarc reach --robot ur5e --address 127.0.0.2 --name reacher`, `reflexarc reach --robot ur5e --address 192.168.0.10
    --name reacher --speed 0.5`.
    """

    robot: str
    """Robot by name (`reflexarc list robots`)."""
    address: str
    """Where it is."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: robot, seed and time)")] = None
    """Name of the run; that of one that was begun goes on with it."""
    seed: int = 0
    """Seed of everything random."""
    trials: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 10)")] = None
    """Trials in all, random ones included."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 60)")] = None
    """Control periods of a trial, ten a second."""
    speed: float = 1.0
    """Share of the arm's velocity limits that the supervisor allows, 0 to 1."""
    patience: Patience = None
    """Longest silence of the arm and longest pause of our own loop that are borne. Raise it for a twin on a busy computer only."""
    runs: Path = _RUNS
    """Folder that runs are kept in."""
    yes: bool = False
    """Do not wait for Enter."""
    threads: Threads = None
    """Cores to use."""

    def run(self) -> int:
        from experiments.arm_reach import reach_command

        return reach_command(self)


@dataclass(frozen=True)
class Retrain:
    """Fit a model from nothing to what was recorded on an arm, as when the arm is not what it was: worn, loaded, repaired.

    The new run names its parent, whose settings it takes over; the parent stays as it is. No arm is needed.

    Examples: `reflexarc retrain runs/reacher --data runs/logs/ur5e-reacher-20261121-101500.mcap`,
    `reflexarc retrain runs/reacher --data runs/logs --name reacher-loaded`.
    """

    run_directory: tyro.conf.Positional[Path]
    """The parent's folder."""
    data: Path
    """A log (MCAP), or a folder of logs or of reaching episodes (`reflexarc deploy --keep`)."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the parent's and the time)")] = None
    """Name of the new run."""
    runs: Path = _RUNS
    """Folder that runs are kept in."""
    threads: Threads = None
    """Cores to use."""

    def run(self) -> int:
        from experiments.arm_reach import retrain_command

        return retrain_command(self)


@dataclass(frozen=True)
class Distil:
    """Distil what a run plans into a network that answers every measurement of the arm, hundreds of times a second.

    DAgger in the learned model's imagination: the network acts, the planner says what it would have done, the network learns it; then
    backpropagation through the model polishes it. No arm is needed.

    Example: `reflexarc distil runs/reacher`, then `reflexarc check --policy runs/reacher-distilled-20261121-101500 --robot ur5e --address
    127.0.0.2` and `reflexarc deploy`.
    """

    run_directory: tyro.conf.Positional[Path]
    """Folder of the run whose planner is distilled."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the parent's and the time)")] = None
    """Name of the new run."""
    runs: Path = _RUNS
    """Folder that runs are kept in."""

    def run(self) -> int:
        from experiments.arm_distil import distil_command

        return distil_command(self)
