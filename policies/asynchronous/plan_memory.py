"""Requests and answers in memory that two processes share; no object is serialised."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from policies.asynchronous.committed_plan import Way
from policies.asynchronous.exchange import PlanAnswer, PlanRequest
from policies.asynchronous.request_planner import RequestPlanner
from robots.errors import ConfigurationError

_WORDS_BYTES = 4000
_NO_SEED = -1
_CHECKED = 8
"""Bytes of a request before what its checksum is of."""


@dataclass(frozen=True)
class PlanSizes:
    """How large plans are."""

    horizon: int
    """H, also the longest way."""
    nx: int
    ndx: int
    nu: int

    @classmethod
    def of(cls, planner: RequestPlanner) -> PlanSizes:
        """Return the sizes of a planner's plans."""
        space = planner.model.state_space
        return cls(planner.planner.horizon, space.nx, space.ndx, planner.command.nu)

    def check(self, planner: RequestPlanner) -> None:
        """Raise ConfigurationError unless the planner's plans are this large."""
        own = PlanSizes.of(planner)
        if own != self:
            raise ConfigurationError(f"the planner that was made has {own}, expected {self}; tell its maker and its worker the same")

    @property
    def request(self) -> np.dtype:
        """A request as plain numbers."""
        h, nx, ndx, nu = self.horizon, self.nx, self.ndx, self.nu
        return np.dtype([("check", "<u8"), ("number", "<i8"), ("after", "<i8"), ("begin_by_ns", "<i8"), ("x", "<f8", (nx,)),
                         ("length", "<i8"), ("later", "<i8"), ("seed", "<i8"), ("actions", "<f8", (h, nu)),
                         ("states", "<f8", (h + 1, nx)), ("gains", "<f8", (h, nu, ndx))])

    @property
    def answer(self) -> np.dtype:
        """An answer as plain numbers."""
        h, nx, ndx, nu = self.horizon, self.nx, self.ndx, self.nu
        return np.dtype([("has_actions", "?"), ("has_states", "?"), ("has_gains", "?"), ("broken", "?"), ("length", "<u4"),
                         ("words", f"V{_WORDS_BYTES}"), ("cost", "<f8"), ("iterations", "<i8"), ("started_ns", "<i8"),
                         ("finished_ns", "<i8"), ("goes_on", "<i8"), ("actions", "<f8", (h, nu)), ("states", "<f8", (h + 1, nx)),
                         ("gains", "<f8", (h, nu, ndx))])


def write_request(record: np.ndarray, request: PlanRequest) -> None:
    """Put a request into `record` () of `PlanSizes.request`. ConfigurationError where its way is longer than a plan."""
    length, horizon = len(request.way.actions), record["actions"].shape[0]
    if length > horizon:
        raise ConfigurationError(f"a plan was asked for {length} periods ahead, but plans are {horizon} long; the planner is too slow, or "
                                 "its horizon too short")
    record["x"], record["length"], record["later"] = request.x, length, request.later
    record["seed"] = _NO_SEED if request.seed is None else request.seed
    record["actions"][:length], record["states"][:length + 1] = request.way.actions, request.way.states
    record["gains"][:length] = request.way.gains
    record["number"], record["after"], record["begin_by_ns"] = request.number, request.after, request.begin_by_ns


def read_request(record: np.ndarray) -> PlanRequest:
    """Return the request in `record`, a copy."""
    length, seed = int(record["length"]), int(record["seed"])
    way = Way(record["actions"][:length].copy(), record["states"][:length + 1].copy(), record["gains"][:length].copy())
    return PlanRequest(record["x"].copy(), way, int(record["later"]), None if seed == _NO_SEED else seed, int(record["number"]),
                       int(record["after"]), int(record["begin_by_ns"]))


def write_offer(memory: np.ndarray, request: PlanRequest) -> None:
    """Put an offer into `memory` () of `PlanSizes.request`, where it may be read at any moment; ConfigurationError as `write_request`."""
    record = np.zeros((), memory.dtype)
    write_request(record, request)
    record["check"] = _checksum(record)
    memory[()] = record


def read_offer(memory: np.ndarray) -> PlanRequest | None:
    """Return the offer in `memory`; None where there is none, or it is being written."""
    record = memory.copy()
    return read_request(record) if record["check"] == _checksum(record) else None


def _checksum(record: np.ndarray) -> int:
    return zlib.crc32(memoryview(record.reshape(1).view(np.uint8))[_CHECKED:])


def write_answer(record: np.ndarray, answer: PlanAnswer) -> None:
    """Put an answer into `record` () of `PlanSizes.answer`; words that are too long lose their middle."""
    for name in ("actions", "states", "gains"):
        value = getattr(answer, name)
        record[f"has_{name}"] = value is not None
        if value is not None:
            record[name] = value
    words, half = answer.words.encode(), _WORDS_BYTES // 2
    words = words if len(words) <= _WORDS_BYTES else words[:half - 5] + b" ... " + words[-half:]
    record["words"], record["length"], record["broken"] = np.void(words.ljust(_WORDS_BYTES, b"\0")), len(words), answer.broken
    record["cost"], record["iterations"] = answer.cost, answer.iterations
    record["started_ns"], record["finished_ns"], record["goes_on"] = answer.started_ns, answer.finished_ns, answer.goes_on


def read_answer(record: np.ndarray) -> PlanAnswer:
    """Return the answer in `record`, a copy."""
    actions, states, gains = (record[name].copy() if record[f"has_{name}"] else None for name in ("actions", "states", "gains"))
    return PlanAnswer(actions, states, gains, float(record["cost"]), int(record["iterations"]), int(record["started_ns"]),
                      int(record["finished_ns"]), read_words(record), bool(record["broken"]), int(record["goes_on"]))


def read_words(record: np.ndarray) -> str:
    """Return the words in `record`."""
    return record["words"].tobytes()[:int(record["length"])].decode(errors="replace")
