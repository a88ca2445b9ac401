"""What is known of one trial of a learning run, in plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from robots.errors import VersionError


@dataclass(frozen=True)
class TrialRecord:
    """One trial: who acted, what it earned, what the model was worth, how long it took. NaN is written as None."""

    trial: int
    """Counts from 0, random trials included."""
    provenance: str
    """Who acted: 'random', 'icem', 'icem open loop', 'policy'."""
    model_version: int | None
    """Fits that the acting model had seen; None where no model acted."""
    total_return: float
    """Sum of rewards (minus the cost)."""
    steps: int
    """Control periods lived."""
    terminated: bool
    seed: int
    """Seed of the episode."""
    cost_by_term: dict[str, float] = field(default_factory=dict)
    """Sums of the lived cost's terms."""
    fit_seconds: float = 0.0
    """Time spent fitting before and during the trial [s]."""
    fit_updates: int = 0
    """Gradient steps of a member."""
    training_loss: float | None = None
    validation_loss: float | None = None
    """On held-out episodes; None where none are held out."""
    one_step_error: float | None = None
    """Normalised one-step error on this trial, before it was learned from; 1 is no better than the mean change."""
    one_step_rmse: dict[str, float] = field(default_factory=dict)
    """One-step root mean square error of every output in its own unit."""
    negative_log_likelihood: float | None = None
    """On this trial, before it was learned from [nat]."""
    coverage: dict[str, float] = field(default_factory=dict)
    """Share of outcomes inside the central interval of each stated probability."""
    k_step_error: dict[str, float] = field(default_factory=dict)
    """Normalised error k steps ahead."""
    plan_milliseconds_median: float | None = None
    plan_milliseconds_p99: float | None = None
    seconds: float = 0.0
    """Wall-clock time of the trial, fits included [s]."""

    def to_json(self) -> dict:
        """Return the record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> TrialRecord:
        """Return the record that `to_json` described; VersionError if it was written by another version."""
        known = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or set(values) != known:
            got = sorted(values) if isinstance(values, dict) else repr(values)
            raise VersionError(f"trial record: expected the entries {sorted(known)}, got {got}; "
                               "it was written by another version")
        return cls(**values)
