"""What a figure of the planners' comparison must not be read without: marks, and the words that explain them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from experiments.bench.planners_cells import Cell

PUNCTUAL = 0.99
"""Share of its plans that a planner must end within the budget."""
UNEQUAL = 0.1
"""Share of the rollouts allowed by which what plans took may be off, where rollouts are equal."""
LATE, OTHER_ROLLOUTS, OTHER_CODE, OTHER_MACHINE = "*", "§", "†", "‡"
NOT_RUN = "not run"


def is_late(same: Sequence[Cell]) -> bool:
    """Return whether more than one plan in a hundred took longer than the budget in any of these cells."""
    return any(cell.within is not None and cell.within < PUNCTUAL for cell in same)


def is_unequal(same: Sequence[Cell]) -> bool:
    """Return whether plans took more or fewer rollouts than were allowed in any of these cells, where rollouts are equal."""
    counted = [cell for cell in same if cell.asked.equal == "rollouts" and cell.rollouts is not None]
    return any(abs(cell.rollouts / cell.asked.allowance - 1.0) > UNEQUAL for cell in counted)


def marks(same: Sequence[Cell], here: str, today: str) -> str:
    """Return the marks of a figure made of these cells, on the computer `here` with the code `today`."""
    return "".join(mark for mark, holds in ((LATE, is_late(same)), (OTHER_ROLLOUTS, is_unequal(same)),
                                            (OTHER_CODE, any(cell.code != today for cell in same)),
                                            (OTHER_MACHINE, any(cell.machine != here for cell in same))) if holds)


def legend(cells: Sequence[Cell], here: str, today: str) -> list[str]:
    """Return a line for every mark that occurs; what it stands for, and whose cells they are."""
    lines, old, foreign = [], [c for c in cells if c.code != today], [c for c in cells if c.machine != here]
    if is_late(cells):
        lines.append(r"\* more than one plan in a hundred took longer than the budget.")
    if is_unequal(cells):
        lines.append(f"{OTHER_ROLLOUTS} not equal: plans took over {UNEQUAL:.0%} more or fewer rollouts than they were allowed, in the "
                     "mean of an episode; how many is in the table of rollouts.")
    if old:
        lines.append(f"{OTHER_CODE} an older figure: {_share(old, cells)} with other code, models or packages "
                     f"({_all(c.code for c in old)}; today's are {today}). `reflexarc bench planners --renew` lives them anew.")
    if foreign:
        lines.append(f"{OTHER_MACHINE} {_share(foreign, cells)} on another computer or with another number of threads "
                     f"({_all(c.machine for c in foreign)}) than {here}: their times are not comparable.")
    return lines


def _share(some: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """Return how many of all cells these are, those that were lived and those that were not told apart."""
    told = []
    for words, lived in (("lived", True), ("given up unlived", False)):
        if count := sum(bool(cell.lived) == lived for cell in some):
            told.append(f"{count} of {sum(bool(cell.lived) == lived for cell in cells)} episodes were {words}")
    return " and ".join(told)


def why(same: Sequence[Cell]) -> str:
    """Return in a few words why nothing was lived of these cells."""
    reasons = dict.fromkeys(cell.why or ("skipped" if cell.skipped else "too slow" if cell.plan_ms is not None else "refused")
                            for cell in same)
    return ", ".join(reasons) or NOT_RUN


def _all(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
