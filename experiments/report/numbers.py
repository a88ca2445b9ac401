"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` with about `digits` significant digits, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 10 ** (digits + 3) or 0 < size < 1e-3:
        return f"{value:.{max(0, digits - 2)}e}".replace("-", "−")
    decimals = max(0, digits - 1 - (math.floor(math.log10(size)) if size > 0 else 0))
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace(",", "\u202f").replace("-", "−")


def duration(seconds: float | None) -> str:
    """Return a length of time [s] in the units people use."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 59.5:
        return f"{number(seconds)} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def count(value: int, noun: str) -> str:
    """Return '1 trial', '2 trials'."""
    return f"{value:,}".replace(",", "\u202f") + f" {noun}{'' if value == 1 else 's'}"
