"""What the benchmark of the loop makes of cyclictest, and of a system without it."""

from __future__ import annotations

import os

import pytest

from experiments.bench import loop

OUTPUT = """# /dev/cpu_dma_latency set to 0us
# Histogram
000000 000000
000012 000090
000030 000009
000400 000001
# Total: 000000100
# Min Latencies: 00012
# Avg Latencies: 00017
# Max Latencies: 00400
"""


@pytest.fixture
def cyclictest(tmp_path, monkeypatch):
    def install(script: str) -> None:
        path = tmp_path / "cyclictest"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def test_its_histogram_is_read(cyclictest, tmp_path):
    (tmp_path / "output").write_text(OUTPUT)
    cyclictest(f'echo "$@" > {tmp_path}/asked; cat {tmp_path}/output')
    p50, p99, worst = loop._cyclictest(500, 2.0)
    assert p50 == 12.0 and 30.0 <= p99 <= 34.0 and worst == 400.0
    asked = (tmp_path / "asked").read_text().split()
    assert "-i2000" in asked and "-l1000" in asked


def test_where_it_is_missing_or_fails_that_is_said(cyclictest, monkeypatch):
    cyclictest("echo 'not allowed' >&2; exit 1")
    assert loop._cyclictest(500, 1.0) == "skipped, it failed: not allowed"
    monkeypatch.setattr(loop.shutil, "which", lambda name: None)
    assert "not installed" in loop._cyclictest(500, 1.0)


def test_the_busy_planner_ends_with_the_benchmark():
    class Measuring:
        def submit(self, work):
            return self

        def result(self):
            return True

    with loop._busy_planner(Measuring()) as process:
        assert process.poll() is None
    assert process.poll() is not None
