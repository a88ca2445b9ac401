"""A serial port that one program holds alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
from typing import Self

from robots.errors import HardwareError

WIRE_ERRORS = (OSError, termios.error, TypeError)
"""What pyserial raises where a device vanishes or is closed under it."""


class PortLock:
    """Holds a serial device against every other program: `flock`, which pyserial's exclusive mode honours, and after `exclude` also
    the terminal's own exclusive flag, which refuses any other open (except by root). HardwareError where somebody has it already.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise HardwareError(f"{device} does not exist: is the adapter plugged in? `ls /dev/serial/by-id` shows it") from error
        except PermissionError as error:
            raise HardwareError(f"no permission to open {device}: add yourself to its group (`ls -l {device}`; usually dialout)") from error
        except OSError as error:
            raise HardwareError(f"{device} cannot be opened ({error.strerror}): another program may hold it alone; end that one") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise HardwareError(f"another program holds {device}: two writers on one bus would fight over the arm; end the other first "
                                f"(`fuser {device}` names it)") from error

    def exclude(self) -> Self:
        """Refuse every open from now on."""
        fcntl.ioctl(self._fd, termios.TIOCEXCL)
        return self

    def close(self) -> None:
        """Let go; harmless twice."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # the device is gone, and the flag with it
                fcntl.ioctl(self._fd, termios.TIOCNXCL)
            os.close(self._fd)
            self._fd = -1
