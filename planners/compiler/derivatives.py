"""Exact first and second derivatives of what is written on a tape, written on the same tape."""

from __future__ import annotations

from collections.abc import Sequence

from planners.compiler.expression import Number, Scalar, Tape
from planners.compiler.operations import OPERATIONS


def gradient(tape: Tape, result: Number | Scalar, variables: Sequence[Number]) -> list[Number | Scalar]:
    """Return the derivatives of `result` by variables: one sweep back (reverse mode)."""
    if not isinstance(result, Number):
        return [0.0] * len(variables)
    behind = tape.behind([result])
    depends = _depending(behind, variables)
    pulled: dict[int, Number | Scalar] = {result.place: 1.0}
    for number in reversed([n for n in behind if n.place in depends]):
        given = pulled.get(number.place)
        if given is None:
            continue
        for argument, pull in zip(number.arguments, OPERATIONS[number.operation].pulls if number.operation else (), strict=False):
            if isinstance(argument, Number) and argument.place in depends:
                _add(pulled, argument.place, pull(given, number, *number.arguments))
    return [pulled.get(v.place, 0.0) for v in variables]


def hessian(tape: Tape, slopes: Sequence[Number | Scalar], variables: Sequence[Number]) -> dict[tuple[int, int], Number | Scalar]:
    """Return the second derivatives (i, j), j <= i, that are not zero everywhere, from first ones: a sweep forward for every variable."""
    found = {}
    for j, variable in enumerate(variables):
        rows = [(i, s) for i, s in enumerate(slopes) if i >= j and isinstance(s, Number)]
        pushed = _pushed(tape, [s for _, s in rows], variable)
        for i, slope in rows:
            if not _is_zero(pushed.get(slope.place, 0.0)):
                found[i, j] = pushed[slope.place]
    return found


def _pushed(tape: Tape, results: Sequence[Number], variable: Number) -> dict[int, Number | Scalar]:
    """Return the derivatives by `variable` of all that results are computed from, by place."""
    pushed: dict[int, Number | Scalar] = {variable.place: 1.0}
    for number in tape.behind(results):
        if number.operation is None:
            continue
        for argument, pull in zip(number.arguments, OPERATIONS[number.operation].pulls, strict=False):
            if isinstance(argument, Number) and argument.place in pushed:  # what is pulled back along one argument is linear: it pushes too
                _add(pushed, number.place, pull(pushed[argument.place], number, *number.arguments))
    return pushed


def _depending(numbers: Sequence[Number], variables: Sequence[Number]) -> set[int]:
    """Return the places of the numbers, in order, that depend on variables."""
    depends = {v.place for v in variables}
    for number in numbers:
        if any(isinstance(a, Number) and a.place in depends for a in number.arguments):
            depends.add(number.place)
    return depends


def _add(sums: dict[int, Number | Scalar], place: int, change: Number | Scalar | None) -> None:
    if change is not None and not _is_zero(change):
        sums[place] = sums[place] + change if place in sums else change


def _is_zero(number: Number | Scalar) -> bool:
    return not isinstance(number, Number) and number == 0.0


def at_zero(results: Sequence[Number | Scalar], name: str) -> tuple[Tape, list[Number | Scalar]]:
    """Return a new tape with the same results where the vector `name` is zero; all else is taken to be finite, so that nothing times zero
    is nothing."""
    old, new = next((r.tape for r in results if isinstance(r, Number)), Tape()), Tape()
    there: dict[int, Number | Scalar] = {}
    for number in old.behind(results):
        if number.operation is None:
            there[number.place] = 0.0 if number.given[0] == name else new.variable(*number.given)
            continue
        arguments = [there[a.place] if isinstance(a, Number) else a for a in number.arguments]
        vanishes = number.operation == "mul" and any(not isinstance(a, Number) and a == 0.0 for a in arguments)
        there[number.place] = 0.0 if vanishes else new.apply(number.operation, *arguments)
    return new, [there[r.place] if isinstance(r, Number) else r for r in results]
