"""What every twin is to those who start it: a process, a line that says it is ready, and a port for faults on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from robots.errors import ConfigurationError, HardwareError

FaultCall = Callable[..., object]
"""Takes the request's further fields by name; what it returns must be plain JSON."""


_NICE = -15
_ENDS_WITH_STDIN = "REFLEXARC_TWIN_ENDS_WITH_STDIN"
"""Environment variable, set by `TwinProcess` alone: a twin that a person starts may have any standard input, or none."""


class FaultPort:
    """A server on loopback: one JSON object a line in ({"do": NAME, ...}), one a line out ({"ok": true, "result": ...} or
    {"ok": false, "error": WORDS}). `actions` are called from a thread of their own: they must lock what they share.
    """

    def __init__(self, actions: Mapping[str, FaultCall], address: str = "127.0.0.1", port: int = 0) -> None:
        if not address.startswith("127."):
            raise ConfigurationError(f"the fault port listens on loopback only (127.x.x.x), got {address!r}")
        self._actions = dict(actions)
        self._server = socket.create_server((address, port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, name="fault-port", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw") as stream, contextlib.suppress(OSError):
            for line in stream:
                stream.write(json.dumps(self._answer(line)) + "\n")
                stream.flush()

    def _answer(self, line: str) -> dict[str, object]:
        try:
            request = json.loads(line)
            name = request.pop("do")
            if name not in self._actions:
                return {"ok": False, "error": f"unknown action {name!r}; known: {', '.join(sorted(self._actions))}"}
            return {"ok": True, "result": self._actions[name](**request)}
        except Exception as error:  # whatever a fault does, the port goes on answering
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def close(self) -> None:
        """Stop listening."""
        self._server.close()


def favour(process: int) -> None:
    """Let a twin's process run before ordinary ones, where the system allows it: a real controller has a computer of its own."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, _NICE)


def announce(**fields: object) -> None:
    """Print the line that `TwinProcess` waits for: the twin takes connections now. From here on it ends with the process that started it,
    where that was a `TwinProcess`: as at a SIGTERM, which the twin must be ready for."""
    if os.environ.get(_ENDS_WITH_STDIN):
        threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    print(json.dumps({"ready": True, **fields}), flush=True)


def _end_with_stdin() -> None:
    while os.read(0, 1):  # nobody writes there: it ends when whoever holds the other end does, in whatever way
        pass
    os.kill(os.getpid(), signal.SIGTERM)


class TwinProcess:
    """A twin that was started as a process of its own: `python -m hw_bridge.twins.NAME OPTIONS`. A context manager. The twin does not
    outlive the process that started it, not even one that was killed."""

    def __init__(self, name: str, *options: str, timeout: float = 30.0) -> None:
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
                       _ENDS_WITH_STDIN: "1"}
        self.name = name
        self.process = subprocess.Popen([sys.executable, "-m", f"hw_bridge.twins.{name}", *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                                        process_group=0)  # a Ctrl-C is for those who let go of the arm first. Not a session of its
        # own: its leader gets the first terminal that it opens as its own, and is hung up on when a serial line's client leaves.
        favour(self.process.pid)
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            raise HardwareError(f"twin {name} did not start: {self.process.communicate()[1].strip()[-2000:]}")
        self.ready: dict = json.loads(line)
        """What the twin said of itself: address, device, fault_port."""
        self._faults: socket.socket | None = None

    def fault(self, do: str, **fields: object) -> object:
        """Ask the twin's fault port for `do` and return its result; HardwareError with the twin's words where it refuses."""
        if self._faults is None:
            self._faults = socket.create_connection(("127.0.0.1", self.ready["fault_port"]), timeout=10.0)
            self._stream = self._faults.makefile("rw")
        self._stream.write(json.dumps({"do": do, **fields}) + "\n")
        self._stream.flush()
        answer = json.loads(self._stream.readline())
        if not answer["ok"]:
            raise HardwareError(f"twin {self.name}: {answer['error']}")
        return answer["result"]

    def pause(self) -> None:
        """Freeze the twin's process (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Thaw it (SIGCONT)."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process; harmless twice."""
        if self._faults is not None:
            self._stream.close()
            self._faults.close()
            self._faults = None
        if self.process.poll() is None:
            self.go_on()
            self.process.terminate()
            try:
                self.process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
