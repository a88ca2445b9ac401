"""What the bridge's processes tell each other, one board a direction: the arm's state, the policy's action, a person's wishes."""

from __future__ import annotations

import numpy as np

TEXT_BYTES = 240


def state_dtype(nv: int) -> np.dtype:
    """Return the dtype of what the servo loop tells of an arm with `nv` joints, every servo period."""
    return np.dtype([
        ("tick", "<u8"), ("now_ns", "<i8"), ("received_ns", "<i8"), ("device_s", "<f8"), ("action_sequence", "<i8"), ("rules", "<u8"),
        ("generation", "<i8"), ("q", "<f8", (nv,)), ("dq", "<f8", (nv,)), ("tau", "<f8", (nv,)), ("target", "<f8", (nv,)),
        ("reference", "<f8", (nv,)), ("reference_rate", "<f8", (nv,)), ("written", "<f8", (nv,)), ("state", "u1"), ("vendor", "u1"),
        ("writing", "u1"), ("spare", "u1", (5,)),
    ])


def action_dtype(nv: int) -> np.dtype:
    """Return the dtype of what a policy tells: its newest action; `length` is how many values it had, were it not nv."""
    return np.dtype([("sequence", "<i8"), ("generation", "<i8"), ("speed", "<f8"), ("values", "<f8", (nv,)), ("spec", "S16"),
                     ("length", "<u4"), ("mode", "u1"), ("spare", "u1", (3,))])


WISH_DTYPE = np.dtype([("number", "<u8"), ("stops", "<u8"), ("verb", "S24"), ("text", f"S{TEXT_BYTES}")])
"""What a person wants: `number` counts the wishes, `verb` is one of VERBS, `stops` counts presses of the stop button and is heard whatever
the verb. One board a desk (command line, page), so that each has one writer."""
ANSWER_DTYPE = np.dtype([("number", "<u8"), ("ok", "u1"), ("text", f"S{TEXT_BYTES}")])
"""The bridge's answer to the wish of that number."""
STATUS_DTYPE = np.dtype([("state", "u1"), ("ticks", "<u8"), ("misses", "<u8"), ("skipped", "<u8"), ("worst_ns", "<i8"),
                         ("late_99_ns", "<f8"), ("interventions", "<u8"), ("bus_errors", "<u8"),
                         ("cause", f"S{TEXT_BYTES}"), ("vendor", f"S{TEXT_BYTES}"), ("recorder", f"S{TEXT_BYTES}")])
"""What changes slowly, ten times a second: punctuality, periods in which a rule changed a command, causes in words."""

VERBS = ("arm", "activate", "resume", "hold", "stop", "reset", "disarm", "close")
"""What a person can wish for. `disarm` ends servoing with the arm held by its own controller."""
DESKS = ("cli", "page")


def board_names(name: str) -> dict[str, str]:
    """Return the names of a bridge's boards by what they carry."""
    parts = ["state", "action", "status", *(f"{what}-{desk}" for desk in DESKS for what in ("wish", "answer"))]
    return {part: f"{name}.{part}" for part in parts}
