"""Runs a peer's script by the Python of the environment that `make bench-peers` builds for it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from rich.console import Console

ENVIRONMENTS = Path(__file__).resolve().parents[3] / ".peers"
"""One environment for each peer."""


def peer_is_installed(peer: str, console: Console) -> bool:
    """Return whether the environment of `peer` (mbrl) is there; says so in a line where it is not."""
    there = _python(peer).exists()
    if not there:
        console.print(f"no {peer} in {ENVIRONMENTS}: nothing to compare with (`make bench-peers` installs it)", highlight=False)
    return there


def run_peer(peer: str, script: str, *arguments: object) -> dict:
    """Return the JSON object that `script`, a file beside this one, prints on its last line.

    Raises RuntimeError with what the peer said where it fails.
    """
    command = [str(_python(peer)), str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{peer}: {' '.join(command)} failed ({done.returncode}):\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def peer_file(peer: str, name: str) -> Path:
    """Return where a file of an installed peer's packages is."""
    return next(ENVIRONMENTS.joinpath(peer).glob(f"lib/python*/site-packages/{name}"))


def _python(peer: str) -> Path:
    return ENVIRONMENTS / peer / "bin" / "python"
