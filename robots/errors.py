"""The error tree: every refusal says what was got, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReflexarcError(Exception):
    """Root of every error this stack raises on purpose."""


class UserError(ReflexarcError):
    """The caller asked for something that cannot be done; the command line prints it and exits with 2."""


class ConfigurationError(UserError):
    """A value of a configuration is outside what it may be."""


class UnknownNameError(UserError):
    """A name is not known; the message lists the known ones, the nearest first."""

    def __init__(self, kind: str, got: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        near = difflib.get_close_matches(got, known, n=5, cutoff=0.3)
        rest = [name for name in known if name not in near]
        shown = near + rest[: max(0, 12 - len(near))]
        more = len(known) - len(shown)
        listing = ", ".join(shown) + (f", and {more} more" if more > 0 else "")
        super().__init__(f"unknown {kind} {got!r}; known, the nearest first: {listing}{'. ' + hint if hint else ''}")
        self.kind, self.got, self.nearest = kind, got, near


class ShapeError(UserError):
    """An array has another shape than the contract says."""


class NonFiniteError(UserError):
    """An array holds NaN or infinity where a number is needed."""


class StoreError(UserError):
    """Data on disk cannot be used: missing, empty, truncated or foreign."""


class VersionError(UserError):
    """A file was written by another version and cannot be read by this one."""


class MissingExtraError(UserError):
    """A part needs a package that is not installed; the message names the extra to install."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'reflexarc[{extra}]'")


class NumericalError(ReflexarcError):
    """A computation left the numbers (diverged physics, non-finite weights)."""


class HardwareError(ReflexarcError):
    """The machine or its wire failed; the arm is being stopped."""
