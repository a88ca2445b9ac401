"""The driver's end of ur_rtde's control client, which runs in a process of its own (`ur_client` says why)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from hw_bridge.drivers import ur_client
from robots.errors import HardwareError


class ClientProcess:
    """Starts the client and connects it to `address`; HardwareError with its words where that fails."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-m", "hw_bridge.drivers.ur_client", address, str(theirs.fileno())],
                                             pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                             env=environment)
        self._answer("connect", 15.0)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def request(self, what: str, kind: int, values: np.ndarray, extra: float = 0.0, timeout: float = 8.0) -> None:
        """Ask for one of `ur_client`'s requests and wait for its end; HardwareError, which names `what`, where it fails."""
        if not self.alive:
            raise HardwareError(f"{self._address}: cannot {what}: ur_rtde's process has ended; connect again")
        with contextlib.suppress(BlockingIOError):  # what failed before is known and no answer to this
            while self._channel.recv(4096):
                pass
        try:
            self._channel.send(ur_client.SETPOINT.pack(kind, *values, extra))
        except OSError as error:
            raise HardwareError(f"{self._address}: cannot {what}: ur_rtde's process has ended ({error}); connect again") from error
        self._answer(what, timeout)

    def send(self, kind: int, values: np.ndarray) -> str:
        """Send a set-point (6,) on, without waiting; return why an earlier one was not taken, or nothing."""
        try:
            self._channel.send(ur_client.SETPOINT.pack(kind, *values, 0.0))
            failure = self._channel.recv(4096)
        except BlockingIOError:
            return ""
        except OSError as error:
            return f"ur_rtde's process died: {error}"
        return failure[1:].decode() or "ur_rtde's process died"

    def kill(self) -> None:
        """End the process at once; harmless twice."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def _answer(self, what: str, timeout: float) -> None:
        until = time.monotonic() + timeout
        while True:
            if not select.select([self._channel], [], [], max(until - time.monotonic(), 0.0))[0]:
                self.kill()
                raise HardwareError(f"{self._address}: ur_rtde did not {what} within {timeout:g} s")
            packet = self._channel.recv(4096)
            if packet[:1] == ur_client.DONE:
                return
            if not packet:
                self.kill()
                raise HardwareError(f"{self._address}: ur_rtde's process died while it should {what} ({self._process.returncode})")
            if packet[:1] == ur_client.REFUSED:
                words = packet[1:].decode()
                second = " A second client is connected: end it first." if "already in use" in words else ""
                raise HardwareError(f"{self._address} refuses to {what}: {words}{second}")
