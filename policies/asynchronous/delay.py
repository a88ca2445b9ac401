"""How long a plan takes until it can be acted on: a high quantile of the last ones."""

from __future__ import annotations

from collections import deque

import numpy as np


class DelayEstimate:
    """The `quantile` of the last `window` delays: the smallest that so many of them did not exceed."""

    def __init__(self, quantile: float, window: int) -> None:
        self._quantile = quantile
        self._delays: deque[int] = deque(maxlen=window)

    def __len__(self) -> int:
        return len(self._delays)

    def add(self, delay_ns: int) -> None:
        """Take in a measured delay [ns]."""
        self._delays.append(delay_ns)

    @property
    def nanoseconds(self) -> int:
        """The estimate [ns]; 0 before the first delay."""
        return int(np.quantile(self._delays, self._quantile, method="inverted_cdf")) if self._delays else 0

    def periods(self, period_ns: int) -> int:
        """Return the estimate in whole control periods, at least 1."""
        return max(1, -(-self.nanoseconds // period_ns))
