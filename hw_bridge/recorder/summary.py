"""What a deployment was like, from its log: what was done, what the supervisor changed, how punctual the loop was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw_bridge.recorder.log_row import Level
from hw_bridge.recorder.read_log import Log
from hw_bridge.safety.rules import HARMLESS, Rule


@dataclass(frozen=True)
class LogSummary:
    """Figures of one log."""

    seconds: float
    """From the first row to the last [s]."""
    active_periods: int
    """Servo periods in which a policy was followed."""
    actions: int
    """Actions that were taken."""
    intervened: int
    """Servo periods in which a rule changed or refused something; not while nothing was written, when servos are not ready and need not
    be."""
    interventions: Mapping[str, int]
    """The same by rule; several can fire in one period."""
    lateness_99_ms: float
    """99 of 100 periods began no later [ms]; NaN in an empty log."""
    lateness_worst_ms: float
    observation_age_worst_ms: float
    lag_worst: float
    """Furthest that a joint was from what the policy wanted, while it was followed [rad]."""
    warnings: tuple[str, ...]
    """Words of all events that matter: holds, faults, stops, the wire."""


def summarise(log: Log) -> LogSummary:
    """Return the figures of `log`."""
    rows, states = log.rows, [name.upper() for name in log.header.states]
    active = rows[rows["state"] == states.index("ACTIVE")]
    fired = rows["rules"][~np.isin(rows["state"], (states.index("DISCONNECTED"), states.index("IDLE")))]
    counts = {rule.words(): int(((fired & int(rule)) != 0).sum()) for rule in Rule if rule and not rule & HARMLESS}
    judged = int(~HARMLESS & sum(Rule))
    lag = np.abs(active["q"] - active["target"])
    lag = lag[np.isfinite(lag)]
    late, age = rows["lateness_ns"] * 1e-6, rows["observation_age_ns"] * 1e-6
    actions = {(int(row["generation"]), int(row["action_sequence"])) for row in active[["generation", "action_sequence"]]
               if row["action_sequence"] >= 0}
    return LogSummary(
        float(rows["wake_ns"][-1] - rows["wake_ns"][0]) * 1e-9 if len(rows) else 0.0, len(active), len(actions),
        int(((fired & judged) != 0).sum()), {words: count for words, count in counts.items() if count},
        float(np.percentile(late, 99)) if len(rows) else float("nan"), float(late.max(initial=0.0)), float(age.max(initial=0.0)),
        float(lag.max(initial=0.0)), tuple(event["text"].decode(errors="replace") for event in log.events if event["level"] > Level.INFO))
