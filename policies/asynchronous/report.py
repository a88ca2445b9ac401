"""How planning beside the robot went: whether the planner keeps up, and how old what is acted on is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

ADVICE = ("plan less (fewer candidates, fewer rounds, a shorter horizon, a deadline below the period), on more cores, or lengthen the "
          "control period")
"""For whoever sets the planner up."""

JUDGED_FROM = 5
"""Plans before a planner is called slow."""


@dataclass
class AsynchronousReport:
    """One episode; times in seconds."""

    control_dt: float
    """The robot's period."""
    advice: str = ADVICE
    """What helps against a planner that is too slow."""
    planning: list[float] = field(default_factory=list)
    """Time spent on every plan, the way to its beginning included."""
    delays: list[float] = field(default_factory=list)
    """From the beginning of the period whose state was handed over until the plan was ready; empty where the delay is declared."""
    handovers: list[float] = field(default_factory=list)
    """From the request's leaving to the planner's hearing of it; where an answer was waited for, from its being done to its arrival too."""
    iterations: list[int] = field(default_factory=list)
    """Of every plan."""
    ages: list[float] = field(default_factory=list)
    """Every period: how long ago the state was observed that the plan in use was made from."""
    fresh: int = 0
    """Periods in which a plan began."""
    at_once: int = 0
    """Plans that the planner began within a period, as soon as the one before was done."""
    late: list[int] = field(default_factory=list)
    """Plans that came after their beginning: periods that were over by then."""
    useless: int = 0
    """Plans that came after their own end."""
    failures: Counter[str] = field(default_factory=Counter)
    """Plans without actions, by the planner's status."""
    silence: float = 0.0
    """Longest that the planner did not answer for, where that was far longer than its plans take."""
    lost: str = ""
    """Why nothing plans any more; empty while something does."""
    held: int = 0
    """Periods in which a spent plan's last action was held on."""
    stopped: str = ""
    """Why nothing was commanded any more; empty while there was something to act on."""

    @property
    def periods(self) -> int:
        """Control periods so far."""
        return len(self.ages)

    @property
    def without_fresh(self) -> float:
        """Share of periods in which no plan began."""
        return 1.0 - self.fresh / self.periods if self.periods else 0.0

    @property
    def too_slow(self) -> bool:
        """Whether more than one plan of five takes longer than a period, of at least `JUDGED_FROM`."""
        return len(self.delays) >= JUDGED_FROM and float(np.quantile(self.delays, 0.8)) > self.control_dt

    def words(self) -> str:
        """Return it for a person, in a line; the advice only where it is needed."""
        taken, parts = self.delays or self.planning, []
        if taken:
            parts.append(f"a plan takes {_ms(np.median(taken))} (95 % of them: {_ms(np.quantile(taken, 0.95))}), a period "
                         f"{_ms(self.control_dt)}")
        if self.handovers:
            parts.append(f"handing over {_ms(np.median(self.handovers))} (95 %: {_ms(np.quantile(self.handovers, 0.95))})")
        if self.ages:
            parts.append(f"what is acted on was seen {_ms(np.median(self.ages))} ago (at most {_ms(max(self.ages))})")
        parts.append(f"{self.without_fresh:.0%} of {self.periods} periods without a fresh plan")
        if self.late:
            parts.append(f"{len(self.late)} plans came late, by up to {max(self.late)} periods")
        if self.useless:
            parts.append(f"{self.useless} came after their own end")
        if self.failures:
            parts.append("without a plan: " + ", ".join(f"{words} ({count} times)" for words, count in self.failures.items()))
        if self.silence:
            parts.append(f"the planner was silent for {_ms(self.silence)}")
        if self.lost:
            parts.append(self.lost)
        if self.held:
            parts.append(f"in {self.held} periods a spent plan's last action was held")
        if self.too_slow:
            parts.append(f"the planner is slower than the robot: {self.advice}")
        return "; ".join(parts)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
