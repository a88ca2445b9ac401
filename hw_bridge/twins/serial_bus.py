"""A half-duplex servo bus behind a pseudo-terminal: bytes take their time on the wire, and the wire can be spoiled."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import time
import tty
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields

from robots.errors import ConfigurationError

BITS_PER_BYTE = 10
"""Start bit, eight data bits, stop bit."""

Split = Callable[[bytearray], list[bytes]]
"""Takes whole request packets off the front of what has come in, rubbish before them too."""
Answer = Callable[[bytes], list[tuple[float, bytes]]]
"""From one request to the servos' answers: each a pause before it [s] and its bytes."""


@dataclass
class WireFaults:
    """What is wrong with the wire; all zero is a good one. `share` is a probability per packet, either way."""

    delay_ms: float = 0.0
    """Requests reach the servos this much later [ms], and the answers with them."""
    jitter_ms: float = 0.0
    """Up to this much more, at random [ms]; the order stays."""
    loss: float = 0.0
    """Share of packets that vanish."""
    duplicate: float = 0.0
    """Share of answers that come twice."""
    reorder: float = 0.0
    """Share of answers that change places with the next one."""
    corrupt: float = 0.0
    """Share of packets with a bit turned over."""
    half_open: bool = False
    """Nothing gets through either way; the terminal stays open."""

    def put(self, name: str, value: float) -> None:
        """Set one fault; ConfigurationError for a value that means nothing."""
        top = 10_000.0 if name.endswith("_ms") else 1.0
        if not 0.0 <= value <= top:
            raise ConfigurationError(f"wire fault {name}: expected 0 to {top:g}, got {value}")
        setattr(self, name, value)

    def heal(self) -> None:
        """Make the wire good again."""
        for field in fields(self):
            setattr(self, field.name, field.default)


class SerialBus:
    """The pseudo-terminal `device` and what lies behind it. One thread calls `serve`.

    An answer is delivered when its last bit would have arrived: never earlier than the wire allows, later only by the scheduler.
    """

    def __init__(self, split: Split, answer: Answer, baud: int, seed: int = 0) -> None:
        self.split, self.answer = split, answer
        self.byte_s = BITS_PER_BYTE / baud
        self.faults = WireFaults()
        self.counters = {"requests": 0, "answers": 0, "lost": 0, "corrupted": 0}
        self._random = random.Random(seed)
        self._master, slave = os.openpty()
        self.device = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)  # a lock that a client leaves behind goes with the client, as on a real port
        os.set_blocking(self._master, False)
        self._received = bytearray()
        self._requests: deque[tuple[float, bytes]] = deque()
        self._answers: deque[tuple[float, bytes]] = deque()
        self._held: list[bytes] = []
        self._wire_free = 0.0

    def serve(self, until: float) -> None:
        """Receive, answer and deliver until the monotonic clock shows `until` [s]."""
        while True:
            now = time.monotonic()
            while self._requests and self._requests[0][0] <= now:
                self._handle(now, self._requests.popleft()[1])
            while self._answers and self._answers[0][0] <= now:
                self._deliver(self._answers.popleft()[1])
            if now >= until:
                return
            following = min([until] + [queue[0][0] for queue in (self._requests, self._answers) if queue])
            self._wait(max(following - now, 0.0))

    def _wait(self, seconds: float) -> None:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return
        try:
            self._received += os.read(self._master, 4096)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EAGAIN):  # the latter: somebody opened it since it was looked at
                raise
            time.sleep(min(seconds, 0.002))  # nobody has the terminal open
            return
        now = time.monotonic()
        for packet in self.split(self._received):
            if self.faults.half_open or self._struck(self.faults.loss):
                self.counters["lost"] += 1
                continue
            late = (self.faults.delay_ms + self.faults.jitter_ms * self._random.random()) / 1000.0
            due = max(now + late, self._requests[-1][0] if self._requests else 0.0)
            self._requests.append((due, self._spoiled(packet)))

    def _handle(self, now: float, packet: bytes) -> None:
        self.counters["requests"] += 1
        free = max(now, self._wire_free) + len(packet) * self.byte_s
        for pause, data in self._shuffled(self.answer(packet)):
            free += pause + len(data) * self.byte_s
            if self.faults.half_open or self._struck(self.faults.loss):
                self.counters["lost"] += 1
                continue
            data = self._spoiled(data)
            self._answers.append((free, data))
            if self._struck(self.faults.duplicate):
                free += len(data) * self.byte_s
                self._answers.append((free, data))
        self._wire_free = free

    def _shuffled(self, answers: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
        """Return the answers with some a place later; the last of a burst may come after the next burst."""
        share = self.faults.reorder
        answers = answers + [(0.0, data) for data in self._held if answers]
        if answers:
            self._held.clear()
        for i in range(len(answers) - 1):
            if self._struck(share):
                answers[i], answers[i + 1] = answers[i + 1], answers[i]
        if len(answers) == 1 and self._struck(share):
            self._held.append(answers.pop()[1])
        return answers

    def _spoiled(self, packet: bytes) -> bytes:
        if not self._struck(self.faults.corrupt):
            return packet
        self.counters["corrupted"] += 1
        at = self._random.randrange(len(packet))
        return packet[:at] + bytes([packet[at] ^ (1 << self._random.randrange(8))]) + packet[at + 1:]

    def _struck(self, share: float) -> bool:
        return share > 0.0 and self._random.random() < share

    def _deliver(self, data: bytes) -> None:
        self.counters["answers"] += 1
        with contextlib.suppress(OSError):  # nobody has the terminal open, or nobody reads it
            os.write(self._master, data)

    def clear(self) -> None:
        """Forget what is under way, either way."""
        self._requests.clear()
        self._answers.clear()
        self._held.clear()

    def close(self) -> None:
        """Hang up."""
        os.close(self._master)
