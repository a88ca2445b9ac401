"""`reflexarc deploy`: a policy moves an arm, on a certificate, with somebody beside it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from episodes.store import EpisodeStore
from experiments.arm_cameras import ArmCameras, arm_cameras, camera_sources
from experiments.arm_live import FALLS, HAZARDS, ask_to_go_on, hold_and_disarm, live_state, page_command
from experiments.arm_policies import ArmPolicy, arm_policy
from experiments.arm_settings import ArmSettings
from experiments.progress import make_console
from experiments.run_directory import replace_file
from experiments.termination import EXIT_CODE, Terminated, sigterm_raises
from hw_bridge.certificate import Certificate, Deployment
from hw_bridge.client import BridgeClient, BridgeProcess
from hw_bridge.recorder.read_log import read_log
from hw_bridge.recorder.summary import LogSummary, summarise
from hw_bridge.safety.config import SafetyConfig
from robots.errors import ConfigurationError, HardwareError, NumericalError

if TYPE_CHECKING:
    from experiments.arm_cli import Deploy


def deploy_command(options: Deploy) -> int:
    """Let a policy act; 1 where the arm, its wire or the planning failed, 130 after Ctrl-C."""
    if options.certificate is None:
        raise ConfigurationError("nothing moves without a certificate; make one with: reflexarc check --policy "
                                 f"{options.policy} --robot {options.robot} --address {options.address}{_calibration(options)}, then "
                                 "--certificate FILE")
    certificate = Certificate.load(options.certificate)
    settings = ArmSettings(options.robot, options.address, calibration=options.calibration, speed=certificate.speed,
                           patience=certificate.patience)
    policy = arm_policy(options.policy, settings.robot, options.threads, EpisodeStore(options.keep) if options.keep else None,
                        options.asynchronous)
    arm = settings.arm()
    safety = settings.careful(policy.safety())
    deployment = settings.deployment(arm, safety, policy.hash)
    _refuse(certificate, deployment, options)
    steps = policy.steps(arm) if options.steps is None else options.steps
    for name, value in (("episodes", options.episodes), ("steps", steps)):
        if value < 1:
            raise ConfigurationError(f"--{name}: expected at least 1, got {value}")
    log = options.log or Path("runs") / "logs" / f"{settings.robot}-{Path(options.policy).name}-{datetime.now():%Y%m%d-%H%M%S}.mcap"
    if log.exists():
        raise ConfigurationError(f"--log {log}: exists already; a log is never written over, take another name")
    sources = camera_sources(options.camera, log)
    console = make_console()
    config = settings.bridge(safety, f"{settings.robot}-{Path(options.policy).name}", policy.hash, Path(options.policy).name, str(log))
    with sigterm_raises(), BridgeProcess(config) as bridge, contextlib.ExitStack() as stack:
        ready = bridge.ready
        _refuse(certificate, replace(deployment, calibration=ready["calibration"], **ready["identity"]), options)
        for words in ready["refused"]:
            console.print(f"not allowed: {words}", highlight=False, markup=False)
        who = f"{ready['identity']['model']} (serial {ready['identity']['serial']}) at {settings.address}"
        cameras = stack.enter_context(arm_cameras(ready["name"], sources, log))
        console.print(f"to see and stop it: {page_command(settings, ready['name'], cameras.names)}", highlight=False, markup=False)
        ask_to_go_on(console, f"{who}: {options.policy}, episodes: {options.episodes}, at most {settings.speed:.0%} of the velocity limits "
                     f"and {safety.workspace.tool_speed_max:g} m/s at the tool.\n{policy.words(steps)}\n"
                     f"{HAZARDS}{FALLS if arm.falls else ''}", options.yes)
        code = _live(console, bridge.client, safety, policy, options, steps, cameras)
        for _, words in cameras.close():
            console.print(words, highlight=False, markup=False)
    summary = summarise(read_log(log))
    print_summary(console, summary, log)
    if options.json is not None:
        replace_file(options.json, (json.dumps(vars(summary) | {"log": str(log)}, indent=1) + "\n").encode())
    return code


def _refuse(certificate: Certificate, found: Deployment, options: Deploy) -> None:
    """Raise ConfigurationError where the certificate does not stand for what is there."""
    words = certificate.refusals(found)
    if words:
        raise ConfigurationError(f"the certificate {options.certificate} does not let this deployment move the arm:\n  - "
                                 + "\n  - ".join(words)
                                 + f"\nMake another: reflexarc check --policy {options.policy} --robot {options.robot} --address "
                                 f"{options.address}{_calibration(options)}")


def _calibration(options: Deploy) -> str:
    return f" --calibration {options.calibration}" if options.calibration else ""


def _live(console: Console, client: BridgeClient, safety: SafetyConfig, policy: ArmPolicy, options: Deploy, steps: int,
          cameras: ArmCameras) -> int:
    """Live the episodes, and leave the arm at rest with its own controller whatever happens; the exit code."""
    code = 0
    with policy.acting(client, safety) as live:
        try:
            with live_state(console, client, cameras.line):
                for episode in range(options.episodes):
                    console.print(f"episode {episode}: {live(options.seed + episode, steps)}", highlight=False)
        except KeyboardInterrupt as stop:
            console.print("stopping: the arm brakes and is held")
            code = EXIT_CODE if isinstance(stop, Terminated) else 130
        except (HardwareError, NumericalError) as error:
            console.print(f"the deployment ended: {error}", highlight=False, markup=False)
            code = 1
        finally:
            hold_and_disarm(client)
    return code


def print_summary(console: Console, summary: LogSummary, log: Path) -> None:
    """Print what the deployment was like."""
    fired = ", ".join(f"{words} {count}" for words, count in summary.interventions.items())
    console.print(f"{summary.actions} actions in {summary.active_periods} servo periods; the supervisor intervened in {summary.intervened}"
                  f"{f' ({fired})' if fired else ''}; furthest from what the policy wanted {summary.lag_worst:.3f} rad", highlight=False)
    console.print(f"loop: 99 % of the periods began within {summary.lateness_99_ms:.3f} ms, the worst {summary.lateness_worst_ms:.2f} ms "
                  f"late; oldest observation {summary.observation_age_worst_ms:.1f} ms", highlight=False)
    for words in summary.warnings:
        console.print(f"  - {words}", highlight=False, markup=False)
    console.print(f"log: {log}", highlight=False)
