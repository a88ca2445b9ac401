"""`reflexarc check`: the dry run, and the certificate that it ends with."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from experiments.arm_policies import arm_policy
from experiments.arm_settings import PATIENCE, ArmSettings
from experiments.progress import make_console
from experiments.run_directory import replace_file
from hw_bridge.certificate import LIFETIME, Certificate
from hw_bridge.dry_run import dry_run
from hw_bridge.safety.config import SafetyConfig
from robots.command import CommandMode
from robots.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from experiments.arm_cli import Check


def check_command(options: Check) -> int:
    """Look without moving, print and keep the certificate; 1 where it refuses."""
    settings = ArmSettings(options.robot, options.address, options.mode, options.calibration, options.speed or 1.0,
                           PATIENCE if options.patience is None else options.patience)
    policy = arm_policy(options.policy, settings.robot)
    settings = replace(settings, speed=policy.speed if options.speed is None else options.speed)
    console = make_console()
    console.print(f"Looking at {settings.robot} at {settings.address} for {options.seconds:g} s. Nothing is written to it: it does not "
                  "move.", highlight=False)
    certificate = certify(settings, policy.safety(), policy.hash, options.seconds)
    path = _path(settings.robot) if options.out is None else options.out
    _keep(path, certificate)
    print_certificate(console, certificate)
    console.print(f"certificate: {path}", highlight=False)
    if not certificate.passed:
        return 1
    if settings.mode is CommandMode.JOINT_POSITION:
        further = f" --calibration {settings.calibration}" if settings.calibration else ""
        console.print(f"It holds for {LIFETIME.total_seconds() / 3600:.0f} hours. Go on with:\n  reflexarc deploy {options.policy} --robot "
                      f"{settings.robot} --address {settings.address}{further} --certificate {path}", highlight=False)
    return 0


def certify(settings: ArmSettings, safety: SafetyConfig, policy_hash: str, seconds: float) -> Certificate:
    """Return the certificate of a dry run of `seconds` under a policy's rules; UserError for an arm or rules that cannot be."""
    if not 0.5 <= seconds <= 600.0:
        raise ConfigurationError(f"--seconds: expected 0.5 to 600, got {seconds}")
    arm, safety = settings.arm(), settings.careful(safety)
    safety.check(arm, settings.mode)
    found = dry_run(settings.bridge(safety, "dry-run", policy_hash), seconds)
    deployment = replace(settings.deployment(arm, safety, policy_hash), calibration=found.calibration)
    if found.identity is not None:
        deployment = replace(deployment, model=found.identity.model, serial=found.identity.serial, firmware=found.identity.firmware)
    return Certificate(deployment, found.reasons, settings.speed, settings.patience, found.figures, found.real_time_refused)


def print_certificate(console: Console, certificate: Certificate) -> None:
    """Print what was found: who answered, hashes, figures, and every reason."""
    table = Table(show_header=False, box=None)
    entries = {name: "unknown" if value is None else value for name, value in vars(certificate.deployment).items()}
    entries |= {"share of the velocity limits": f"{certificate.speed:g}", "longest silence borne": f"{1e3 * certificate.patience:g} ms"}
    entries |= {name.removesuffix("_ms").replace("_", " "): f"{value:.3f} ms" if name.endswith("_ms") else f"{value:.0f}"
                for name, value in certificate.figures.items()}
    for name, value in entries.items():
        table.add_row(name, str(value))
    console.print(table)
    for words in certificate.real_time_refused:
        console.print(f"not allowed: {words}", highlight=False, markup=False)
    console.print("PASSED" if certificate.passed else "REFUSED:", style="bold green" if certificate.passed else "bold red")
    for reason in certificate.reasons:
        console.print(f"  - {reason}", highlight=False, markup=False)


def _path(robot: str) -> Path:
    return Path("runs") / "certificates" / f"{robot}-{datetime.now():%Y%m%d-%H%M%S}.json"


def _keep(path: Path, certificate: Certificate) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be made ({error.strerror}); choose another place with --out FILE") from error
    replace_file(path, certificate.to_text().encode())
