"""A wire that fails on purpose: what goes in comes out late, twice, out of order, broken or never."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from robots.errors import ConfigurationError

Item = TypeVar("Item")

REORDER_S = 0.005
"""How long a packet that is to be overtaken waits [s]."""
LONGEST_MS = 5000.0


@dataclass
class WireFaults:
    """What is wrong with a wire. Shares are of packets, 0 to 1."""

    delay_ms: float = 0.0
    """Constant delay [ms]."""
    jitter_ms: float = 0.0
    """Extra delay, drawn anew for every packet, at most this [ms]; packets stay in order."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Share of packets that the next ones overtake."""
    corrupt: float = 0.0
    half_open: bool = False
    """True: nothing passes, and the connection stays open."""


class Channel(Generic[Item]):
    """One direction of a wire. `corrupt` returns the broken form of an item; times are in [s] of any one clock."""

    def __init__(self, faults: WireFaults, generator: np.random.Generator, corrupt: Callable[[Item], Item]) -> None:
        self._faults, self._generator, self._corrupt = faults, generator, corrupt
        self._waiting: list[tuple[float, int, Item]] = []
        self._count, self._latest = 0, 0.0

    def push(self, item: Item, now: float) -> None:
        """Send `item` at `now`."""
        faults, chance = self._faults, self._generator.random
        if faults.half_open or (faults.loss and chance() < faults.loss):
            return
        if faults.corrupt and chance() < faults.corrupt:
            item = self._corrupt(item)
        due = now + 1e-3 * faults.delay_ms + (1e-3 * faults.jitter_ms * chance() if faults.jitter_ms else 0.0)
        due = max(due, self._latest)
        if faults.reorder and chance() < faults.reorder:
            due += REORDER_S
        else:
            self._latest = due
        for _ in range(2 if faults.duplicate and chance() < faults.duplicate else 1):
            self._count += 1
            heapq.heappush(self._waiting, (due, self._count, item))

    def due(self, now: float) -> Iterable[Item]:
        """Yield what arrives by `now`, in the order of arrival."""
        while self._waiting and self._waiting[0][0] <= now:
            yield heapq.heappop(self._waiting)[2]


def wire_actions(faults: WireFaults) -> dict[str, Callable[..., object]]:
    """Return the fault port's actions that set `faults`: delay and jitter take `ms`, half_open `on`, the others a `share`."""

    def put(field: str, value: float, highest: float) -> None:
        if not 0.0 <= value <= highest:
            raise ConfigurationError(f"{field}: expected 0 to {highest:g}, got {value}")
        setattr(faults, field, float(value))

    def span(field: str) -> Callable[[float], None]:
        return lambda ms: put(field, ms, LONGEST_MS)

    def portion(field: str) -> Callable[[float], None]:
        return lambda share: put(field, share, 1.0)

    def half_open(on: bool = True) -> None:
        faults.half_open = bool(on)

    return {"delay": span("delay_ms"), "jitter": span("jitter_ms"), "half_open": half_open,
            **{field: portion(field) for field in ("loss", "duplicate", "reorder", "corrupt")}}


def heal_wire(faults: WireFaults) -> None:
    """Set every field of `faults` back to a wire without faults."""
    vars(faults).update(vars(WireFaults()))
