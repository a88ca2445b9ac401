"""What a figure of the planners' comparison must not be read without: marks, and the words that explain them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from experiments.bench.planners_cells import Cell

PUNCTUAL = 0.99
"""Share of its plans that a planner must end within the budget."""
LATE, OTHER_CODE, OTHER_MACHINE = "*", "†", "‡"
NOT_RUN = "not run"


def is_late(same: Sequence[Cell]) -> bool:
    """Return whether more than one plan in a hundred took longer than the budget in any of these cells."""
    return any(cell.within is not None and cell.within < PUNCTUAL for cell in same)


def marks(same: Sequence[Cell], here: str, today: str) -> str:
    """Return the marks of a figure made of these cells, on the computer `here` with the code `today`."""
    return "".join(mark for mark, holds in ((LATE, is_late(same)), (OTHER_CODE, any(cell.code != today for cell in same)),
                                            (OTHER_MACHINE, any(cell.machine != here for cell in same))) if holds)


def legend(cells: Sequence[Cell], here: str, today: str) -> list[str]:
    """Return a line for every mark that occurs; what it stands for, and whose cells they are."""
    lines, old, foreign = [], [c for c in cells if c.code != today], [c for c in cells if c.machine != here]
    if is_late(cells):
        lines.append(r"\* more than one plan in a hundred took longer than the budget.")
    if old:
        lines.append(f"{OTHER_CODE} an older figure: {len(old)} of {len(cells)} episodes were lived with other code, models or packages "
                     f"({_all(c.code for c in old)}; today's are {today}). `reflexarc bench planners --renew` lives them anew.")
    if foreign:
        lines.append(f"{OTHER_MACHINE} {len(foreign)} of {len(cells)} episodes were lived on another computer or with another number of "
                     f"threads ({_all(c.machine for c in foreign)}) than the others' ({here}): their times are not comparable.")
    return lines


def why(same: Sequence[Cell]) -> str:
    """Return in a few words why nothing was lived of these cells."""
    reasons = dict.fromkeys(cell.why or ("skipped" if cell.skipped else "too slow" if cell.plan_ms is not None else "refused")
                            for cell in same)
    return ", ".join(reasons) or NOT_RUN


def _all(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
