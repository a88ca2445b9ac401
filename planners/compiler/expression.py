"""Arithmetic on numbers that are not known yet: what was computed is written down, once where it is the same."""

from __future__ import annotations

from collections.abc import Iterable

from planners.compiler.operations import OPERATIONS

Scalar = float | int | bool
LARGEST = 5_000
"""Numbers on a tape: a second of LLVM. What needs more (a network) torch computes faster than it is compiled; costs by hand need 2000."""


class NotCompilable(Exception):
    """What the compiler does not know, in words."""


class Tape:
    """What was computed, in its order: a number's arguments come before it. NotCompilable for more than `largest` numbers."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self.numbers: list[Number] = []
        self._known: dict[tuple, Number] = {}

    def variable(self, name: str, index: int) -> Number:
        """Return entry `index` of the vector `name`, which is to be given."""
        return self._number((name, index), None, (), (name, index))

    def apply(self, operation: str, *arguments: Number | Scalar) -> Number | Scalar:
        """Return the result of an operation: a plain number where all arguments are, else what stands for it."""
        known = OPERATIONS[operation]
        if not any(isinstance(a, Number) for a in arguments):
            return known.value(*arguments)
        simpler = known.simplify(*arguments)
        if simpler is not None:
            return simpler
        key = (operation, *(a.place if isinstance(a, Number) else (type(a), repr(a)) for a in arguments))
        return self._number(key, operation, arguments, None)

    def _number(self, key: tuple, operation: str | None, arguments: tuple, given: tuple[str, int] | None) -> Number:
        if key not in self._known:
            if len(self.numbers) == self._largest:
                raise NotCompilable(f"it is computed from more than {self._largest} numbers")
            self._known[key] = Number(self, len(self.numbers), operation, arguments, given)
            self.numbers.append(self._known[key])
        return self._known[key]

    def behind(self, results: Iterable[Number | Scalar]) -> list[Number]:
        """Return all that results are computed from, and themselves, in order."""
        needed, open_ = set(), [r for r in results if isinstance(r, Number)]
        while open_:
            number = open_.pop()
            if number.place not in needed:
                needed.add(number.place)
                open_ += [a for a in number.arguments if isinstance(a, Number)]
        return [self.numbers[place] for place in sorted(needed)]


class Number:
    """A number on a tape: a variable, or what an operation makes of others."""

    __slots__ = ("arguments", "given", "operation", "place", "tape")

    def __init__(self, tape: Tape, place: int, operation: str | None, arguments: tuple, given: tuple[str, int] | None) -> None:
        self.tape, self.place, self.operation, self.arguments, self.given = tape, place, operation, arguments, given

    def __add__(self, other: Number | Scalar) -> Number:
        return self.tape.apply("add", self, other)

    def __sub__(self, other: Number | Scalar) -> Number:
        return self.tape.apply("sub", self, other)

    def __mul__(self, other: Number | Scalar) -> Number:
        return self.tape.apply("mul", self, other)

    def __truediv__(self, other: Number | Scalar) -> Number:
        return self.tape.apply("div", self, other)

    def __radd__(self, other: Scalar) -> Number:
        return self.tape.apply("add", other, self)

    def __rsub__(self, other: Scalar) -> Number:
        return self.tape.apply("sub", other, self)

    def __rmul__(self, other: Scalar) -> Number:
        return self.tape.apply("mul", other, self)

    def __rtruediv__(self, other: Scalar) -> Number:
        return self.tape.apply("div", other, self)

    def __neg__(self) -> Number:
        return self.tape.apply("neg", self)

    def apply(self, operation: str, *others: Number | Scalar) -> Number:
        """Return what an operation makes of this number and others."""
        return self.tape.apply(operation, self, *others)
