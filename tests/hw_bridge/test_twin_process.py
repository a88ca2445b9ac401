"""A twin and who started it: whatever ends the one ends the other, and nothing else does."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys

import pytest

PARENT = """
import json, time
from hw_bridge.twins.twin import TwinProcess
twin = TwinProcess("so101")
print(json.dumps(twin.process.pid), flush=True)
time.sleep(600.0)
"""


def ended(process: int, seconds: float) -> bool:
    """Return whether a process ends in that time; `process` is its descriptor."""
    return bool(select.select([process], [], [], seconds)[0])


def test_a_twin_does_not_outlive_a_parent_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        number = json.loads(parent.stdout.readline())
        twin = os.pidfd_open(number)
        try:
            assert not ended(twin, 0.2)
            parent.kill()
            assert ended(twin, 10.0)
        finally:
            if not ended(twin, 0.0):
                signal.pidfd_send_signal(twin, signal.SIGKILL)
            os.close(twin)
            parent.kill()


@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, subprocess.PIPE])
def test_a_twin_that_a_person_starts_does_without_a_standard_input(stdin: int) -> None:
    with subprocess.Popen([sys.executable, "-m", "hw_bridge.twins.so101"], stdin=stdin, stdout=subprocess.PIPE) as twin:
        try:
            assert json.loads(twin.stdout.readline())["ready"]
            if twin.stdin is not None:
                twin.stdin.close()
            with pytest.raises(subprocess.TimeoutExpired):
                twin.wait(0.5)
        finally:
            twin.terminate()
