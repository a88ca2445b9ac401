"""Which arm, where, and how carefully: what the commands for people with an arm share."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path

from hw_bridge.bridge import BridgeConfig, policy_spec
from hw_bridge.certificate import Deployment
from hw_bridge.drivers.catalog import open_driver
from hw_bridge.safety.config import SafetyConfig
from robots.arms.arm import Arm
from robots.command import CommandMode
from robots.errors import ConfigurationError

PATIENCE = 0.02
"""The arm's longest silence and our own loop's longest pause that are borne [s]: as UR's own driver."""
WATCHDOG_MAX = 0.2
"""A controller that hears nothing for longer than this [s] stops the arm, whatever we bear."""
SHARED_PATIENCE = 0.1
"""The same for a twin that shares its computer with a planner [s]."""
PATIENCE_MAX, TWIN_PATIENCE_MAX = 0.05, 0.5
"""What a person may ask for, of an arm and of a twin on a busy computer [s]."""


@dataclass(frozen=True)
class ArmSettings:
    """An arm as a person names it."""

    robot: str
    """As the driver catalogue names it."""
    address: str
    mode: CommandMode = CommandMode.JOINT_POSITION
    calibration: Path | None = None
    """File of the calibration, for arms of servos."""
    speed: float = 1.0
    """Share of the arm's velocity limits."""
    patience: float = PATIENCE
    """Longest silence and pause that are borne [s]."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "mode", CommandMode(self.mode))
        except ValueError as error:
            raise ConfigurationError(f"--mode: expected one of {', '.join(CommandMode)}, got {self.mode!r}") from error
        if not 0 < self.speed <= 1:
            raise ConfigurationError(f"--speed: expected a share of the arm's velocity limits within 0 and 1, got {self.speed}")
        most = TWIN_PATIENCE_MAX if is_local(self.address) else PATIENCE_MAX
        if not 0.005 <= self.patience <= most:
            raise ConfigurationError(f"--patience: expected 0.005 to {most} s for {self.address}, got {self.patience}; only a twin on this "
                                     f"computer may be silent for up to {TWIN_PATIENCE_MAX} s")

    @property
    def options(self) -> dict[str, str]:
        """Further options of the driver: where the controller's own watchdog can be set, it is as patient as we are."""
        watchdog = {"watchdog_s": f"{min(max(self.patience, PATIENCE), WATCHDOG_MAX):g}"}
        return watchdog if self.calibration is None else watchdog | {"calibration": str(self.calibration)}

    def arm(self) -> Arm:
        """Return the arm's description; UserError for an unknown robot, a client that is not installed, a calibration that is none."""
        return open_driver(self.robot, self.address, self.options).arm

    def careful(self, safety: SafetyConfig) -> SafetyConfig:
        """Return `safety` with this speed and this patience."""
        return replace(safety, speed=self.speed, observation_age_max=self.patience, gap_max=self.patience,
                       clock_drift_max=max(safety.clock_drift_max, 2.5 * self.patience),
                       action_age_max=max(safety.action_age_max, 2.5 * self.patience))

    def bridge(self, safety: SafetyConfig, task: str, policy_hash: str, provenance: str = "policy", log: str = "") -> BridgeConfig:
        """Return the bridge's configuration."""
        return BridgeConfig(self.robot, self.address, self.mode, safety, log, task, policy_hash, provenance, self.options)

    def deployment(self, arm: Arm, safety: SafetyConfig, policy_hash: str) -> Deployment:
        """Return what is known of a deployment before the arm was asked."""
        spec = policy_spec(arm, self.mode, safety.policy_period)
        return Deployment(self.robot, self.address, str(self.mode), policy_hash, safety.fingerprint(), spec.fingerprint())


def is_local(address: str) -> bool:
    """Return whether what answers at `address` can only be a twin on this computer: loopback, or a pseudo-terminal."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address.startswith("/dev/pts/")
