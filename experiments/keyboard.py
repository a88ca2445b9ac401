"""What a person types, heard without waiting for it: a terminal's lines, or a pipe's."""

from __future__ import annotations

import os
import select
import sys

from robots.errors import ConfigurationError


class Keyboard:
    """Lines of standard input. One at a time: it reads ahead."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._typed = b""

    def line(self, seconds: float) -> str | None:
        """Return the next line without its end, or None where none came within `seconds`; ConfigurationError where nobody is there."""
        while b"\n" not in self._typed:
            if not select.select([self._descriptor], [], [], seconds)[0]:
                return None
            typed = os.read(self._descriptor, 4096)
            if not typed:
                raise ConfigurationError("nobody answers: standard input has ended")
            self._typed += typed
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode(errors="replace").strip()
