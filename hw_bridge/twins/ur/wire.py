"""What goes wrong between a controller and its client: messages late, lost, twice, out of order, broken, or no longer answered."""

from __future__ import annotations

import heapq

import numpy as np

from robots.errors import ConfigurationError


class WireFaults:
    """The faults that are switched on, for every connection; all off at first. One generator: the same seed, the same faults."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self.heal()

    def heal(self) -> None:
        """Switch every fault off."""
        self.delay_s = self.jitter_s = 0.0
        self.loss = self.duplicate = self.reorder = self.corrupt = 0.0
        self.half_open = False
        self.active = False

    def set(self, name: str, value: float) -> None:
        """Switch one on: seconds for `delay_s` and `jitter_s`, shares of messages for the others."""
        top = np.inf if name in ("delay_s", "jitter_s") else 1.0
        if not 0.0 <= value <= top:
            raise ConfigurationError(f"fault {name}: expected {'seconds of 0 or more' if top > 1 else 'a share from 0 to 1'}, got {value}")
        setattr(self, name, value)
        self.active = any((self.delay_s, self.jitter_s, self.loss, self.duplicate, self.reorder, self.corrupt))

    def happens(self, share: float) -> bool:
        """Return True for `share` of the calls."""
        return share > 0.0 and self._generator.random() < share

    def lateness(self) -> float:
        """Return how late the next message is [s]."""
        return self.delay_s + (self.jitter_s * self._generator.random() if self.jitter_s else 0.0)

    def broken(self, message: bytes) -> bytes:
        """Return `message` with another type in its RTDE header: its length still holds, so the stream can be followed."""
        return message[:2] + bytes([int(self._generator.choice([0, 1, 7, 255]))]) + message[3:]


class Pipe:
    """One direction of one connection: messages go in at one time and come out at another."""

    OVERTAKEN_S = 0.005
    """How long a message is held back so that later ones overtake it."""

    def __init__(self, faults: WireFaults, corruptible: bool) -> None:
        self._faults, self._corruptible = faults, corruptible
        self._queue: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._last_due = 0.0

    def put(self, message: bytes, now: float) -> None:
        """Take one message at `now` [s]."""
        faults = self._faults
        if faults.happens(faults.loss):
            return
        if self._corruptible and faults.happens(faults.corrupt):
            message = faults.broken(message)
        due = now + faults.lateness()
        if faults.happens(faults.reorder):
            due += self.OVERTAKEN_S
        else:
            due = self._last_due = max(due, self._last_due)
        for _ in range(1 + faults.happens(faults.duplicate)):
            self._count += 1
            heapq.heappush(self._queue, (due, self._count, message))

    def through(self, message: bytes, now: float) -> list[bytes]:
        """Put `message` in and return what is due: at once, where nothing is wrong with the wire."""
        if not self._faults.active and not self._queue:
            return [message]
        self.put(message, now)
        return self.take(now)

    def take(self, now: float) -> list[bytes]:
        """Return the messages that are due at `now` [s], in the order in which they arrive."""
        out = []
        while self._queue and self._queue[0][0] <= now:
            out.append(heapq.heappop(self._queue)[2])
        return out
