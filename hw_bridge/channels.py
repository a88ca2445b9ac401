"""The boards of one bridge, opened for its servo loop or for those who talk to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Self

from hw_bridge.boards import ANSWER_DTYPE, DESKS, STATUS_DTYPE, TEXT_BYTES, WISH_DTYPE, action_dtype, board_names, state_dtype
from hw_bridge.realtime.board import Board
from hw_bridge.recorder.log_row import cut


class Channels:
    """All boards of the bridge called `name`. The servo loop creates them, everyone else attaches."""

    def __init__(self, boards: Mapping[str, Board]) -> None:
        self._boards = dict(boards)
        self.state, self.action, self.status = (boards[part] for part in ("state", "action", "status"))
        self.wishes = {desk: boards[f"wish-{desk}"] for desk in DESKS}
        self.answers = {desk: boards[f"answer-{desk}"] for desk in DESKS}

    @classmethod
    def create(cls, name: str, nv: int) -> Self:
        """Make them; they vanish with this process."""
        return cls({part: Board.create(full, dtype) for (part, full), dtype in zip(board_names(name).items(), _dtypes(nv), strict=True)})

    @classmethod
    def attach(cls, name: str, nv: int) -> Self:
        """Open those of a running bridge; HardwareError where it does not run."""
        return cls({part: Board.attach(full, dtype) for (part, full), dtype in zip(board_names(name).items(), _dtypes(nv), strict=True)})

    def answer(self, desk: str, number: int, ok: bool, text: str) -> None:
        """Answer wish `number` of `desk`."""
        record = self.answers[desk].record
        record["number"], record["ok"], record["text"] = number, ok, cut(text, TEXT_BYTES)
        self.answers[desk].publish(time.monotonic_ns())

    def tell_status(self, *, cause: str, vendor: str, recorder: str, **numbers: float) -> None:
        """Publish the status; `numbers` by their names in STATUS_DTYPE."""
        record = self.status.record
        for key, value in numbers.items():
            record[key] = value
        for key, text in (("cause", cause), ("vendor", vendor), ("recorder", recorder)):
            record[key] = cut(text, TEXT_BYTES)
        self.status.publish(time.monotonic_ns())

    def close(self) -> None:
        """Let go of all of them."""
        for board in self._boards.values():
            board.close()


def _dtypes(nv: int) -> list:
    return [state_dtype(nv), action_dtype(nv), STATUS_DTYPE, *[WISH_DTYPE, ANSWER_DTYPE] * len(DESKS)]
