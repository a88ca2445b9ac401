"""The bridge: one process that owns the wire to an arm. `python -m hw_bridge.bridge` reads its configuration as a line of JSON from
standard input, says on standard output that it is ready, and ends, with the arm braked and held, when that input closes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from hw_bridge.channels import Channels
from hw_bridge.drivers.catalog import open_driver
from hw_bridge.realtime.privileges import RealTime, RealTimeConfig, threads_before_others
from hw_bridge.realtime.schedule import Schedule, ScheduleConfig
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.recorder import Recorder
from hw_bridge.safety.config import Compliance, SafetyConfig, Workspace
from hw_bridge.safety.rules import Rule, State
from hw_bridge.safety.supervisor import Supervisor
from hw_bridge.servo_loop import ServoLoop
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ReflexarcError
from robots.spec import RobotSpec


@dataclass(frozen=True)
class BridgeConfig:
    """Everything a bridge is told."""

    robot: str
    """As the driver catalogue names it: ur5e, so101, ..."""
    address: str
    """Where the arm is."""
    mode: CommandMode = CommandMode.JOINT_POSITION
    """What set-points and policies command."""
    safety: SafetyConfig = SafetyConfig()
    log: str = ""
    """File of the log; empty: none is written."""
    task: str = "arm"
    policy_hash: str = "none"
    provenance: str = "policy"
    options: Mapping[str, str] = field(default_factory=dict)
    """Further options of the driver."""
    watch_only: bool = False
    """The arm is never armed, nor its faults cleared, whoever asks."""
    real_time: RealTimeConfig = RealTimeConfig()
    name: str = ""
    """Of its boards; empty: made of the process's number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", CommandMode(self.mode))

    def to_text(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what `to_text` wrote."""
        fields = json.loads(text)
        safety = fields.pop("safety")
        compliance = safety.pop("compliance")
        workspace = {key: tuple(value) if isinstance(value, list) else value for key, value in safety.pop("workspace").items()}
        return cls(**fields | {"safety": SafetyConfig(Workspace(**workspace), Compliance(**compliance) if compliance else None, **safety),
                               "real_time": RealTimeConfig(**fields["real_time"])})


def policy_spec(arm: Arm, mode: CommandMode, period: float) -> RobotSpec:
    """Return the spec that a policy sees: the arm, commanded in one mode, once in `period` seconds."""
    return replace(arm.spec, control_dt=period, commands=(arm.spec.command(mode),))


def main() -> int:
    """Run the bridge that standard input describes."""
    config = BridgeConfig.from_text(sys.stdin.readline())
    ending = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.append(True))
    try:
        with contextlib.ExitStack() as stack:
            driver = open_driver(config.robot, config.address, config.options)
            stack.callback(driver.close)
            beside = max(config.real_time.fifo_priority - 5, 0)
            with threads_before_others(beside):
                identity = driver.connect()
            arm = driver.arm
            spec = policy_spec(arm, config.mode, config.safety.policy_period)
            supervisor = Supervisor(arm, config.mode, config.safety, spec.fingerprint())
            channels = Channels.create(config.name or f"bridge-{os.getpid()}", arm.spec.nv)
            stack.callback(channels.close)
            recorder = stack.enter_context(_recorder(config, driver.calibration_hash, spec)) if config.log else None
            schedule = Schedule(ScheduleConfig(round(arm.spec.control_dt * 1e9)))
            loop = ServoLoop(driver, supervisor, schedule, channels, recorder, beside, config.watch_only)
            real_time = stack.enter_context(RealTime(config.real_time))
            loop.event("connected", f"{identity.model}, serial {identity.serial}, firmware {identity.firmware}, at {config.address}")
            for words in real_time.refused:
                loop.event("realtime", f"not allowed: {words}")
            schedule.start_over()
            loop.tick()  # who reads that it is ready finds the arm measured
            name = channels.status.name.rsplit(".", 1)[0]
            print(json.dumps({"ready": True, "name": name, "identity": asdict(identity), "refused": real_time.refused,
                              "calibration": driver.calibration_hash}), flush=True)
            os.set_blocking(sys.stdin.fileno(), False)
            schedule.start_over()
            while not (ending or loop.closing or (schedule.ticks % 16 == 0 and _input_closed())):
                loop.tick()
            loop.finish()
    except ReflexarcError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)
        return 2
    return 0


def _input_closed() -> bool:
    """Return whether whoever started this process is gone."""
    try:
        return os.read(sys.stdin.fileno(), 64) == b""
    except BlockingIOError:
        return False


def _recorder(config: BridgeConfig, calibration_hash: str, spec: RobotSpec) -> Recorder:
    header = LogHeader(spec.to_json(), spec.fingerprint(), calibration_hash, config.policy_hash, config.safety.fingerprint(),
                       tuple(state.name for state in State), tuple(rule.name for rule in Rule if rule), config.task, config.provenance,
                       {"address": config.address, "mode": str(config.mode), "safety": json.dumps(asdict(config.safety), default=str)})
    Path(config.log).parent.mkdir(parents=True, exist_ok=True)
    return Recorder(Path(config.log), header)


if __name__ == "__main__":
    raise SystemExit(main())
