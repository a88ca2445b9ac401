"""A listener that hears and says nothing."""

from __future__ import annotations

from dynamics.neural_ensemble import FitReport
from episodes.episode import Episode
from policies.episode_loop import Recording
from policies.trial import TrialRecord


class Quiet:
    """A `LearningListener` for those who only act."""

    def trial_started(self, trial: int, provenance: str, steps: int) -> None: ...

    def fitting(self, trial: int) -> None: ...

    def fitted(self, trial: int, report: FitReport) -> None: ...

    def stepped(self, trial: int, recording: Recording) -> None: ...

    def trial_finished(self, record: TrialRecord, episode: Episode) -> None: ...
