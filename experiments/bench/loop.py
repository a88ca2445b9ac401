"""Punctuality of the bridge's loop, and what the pieces of one period cost it, while a planner is busy beside it."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from dynamics.state_space import Channel, StateSpace
from experiments.bench.loop_overhead import measure_overhead
from experiments.bench.result import Bar, BenchResult, Cell, machine
from hw_bridge.realtime.board import Board
from hw_bridge.realtime.privileges import RealTime
from hw_bridge.realtime.schedule import Schedule, ScheduleConfig
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import MODE_CODES, ServoRing, servo_dtype
from hw_bridge.recorder.recorder import Recorder
from policies.fast_network import FastNetwork
from policies.neural_policy import NeuralPolicy
from robots.arms.arm import Arm
from robots.arms.ur5e import ur5e
from robots.command import CommandMode

RATES = (500, 1000)
"""[Hz]"""
SECONDS = 10.0
"""Of every loop."""
LATENESS_BAR_US = 5.0
ROW_BAR_US = 1.0
INFERENCE_BAR_US = 10.0
OVERHEAD_BAR_US = 100.0
REPEATS = 5000
"""Of a piece that is measured by itself."""
HIDDEN = (64, 64)
PIECES = ("log row", "board write", "board read", "policy 2x64")
COLUMNS = ("what", "where", "p50 [us]", "p99 [us]", "worst [us]", "missed")
_BUSY = """import os
import numpy as np
a, parent = np.random.default_rng(0).normal(size=(400, 400)), os.getppid()
print(flush=True)
while os.getppid() == parent:
    a @ a
"""
_BOARD_DTYPE = np.dtype([("q", "<f8", (6,)), ("dq", "<f8", (6,)), ("tau", "<f8", (6,)), ("generation", "<u8")])


def bench_loop(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Return lateness and costs, in a process that has what the system allows, beside one that multiplies matrices.

    cyclictest (package rt-tests) runs in the same conditions, after our loop; where it is not installed nothing is compared.
    A piece by itself is repeated without a pause; in the loop it runs once a period, on caches that others have filled meanwhile,
    after a rehearsal (`Schedule.sleep`). `seeds` and `threads` set nothing here.
    """
    rows: list[tuple[Cell, ...]] = []
    bars: list[Bar] = []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process, _busy_planner(process):
        for rate in RATES:
            console.print(f"a loop at {rate} Hz for {SECONDS:.0f} s, and cyclictest")
            ours, refused = process.submit(_lateness, rate, SECONDS).result()
            rows.append((f"wake-up, {rate} Hz", "our loop", *ours))
            bars.append(Bar(f"lateness at {rate} Hz, p99", ours[1], LATENESS_BAR_US, at_least=False, unit="us"))
            theirs = _cyclictest(rate, SECONDS)
            if isinstance(theirs, str):
                console.print(f"cyclictest at {rate} Hz: {theirs}")
            else:
                rows.append((f"wake-up, {rate} Hz", "cyclictest", *theirs, None))
                bars.append(Bar(f"lateness over cyclictest's at {rate} Hz, p99", ours[1] - theirs[1], 0.0, at_least=False, unit="us"))
        console.print(f"the pieces of a period, and {SECONDS:.0f} s of them in a loop with the recorder")
        alone = process.submit(_pieces_alone).result()
        inside, log_words, lost = process.submit(_pieces_in_the_loop, SECONDS).result()
        console.print(f"the whole loop for {SECONDS:.0f} s, an arm without a wire at its end")
        overhead, work = process.submit(measure_overhead, RATES[0], SECONDS).result()
    for words in refused:
        console.print(f"not allowed here: {words}")
    console.print(log_words)
    for name in PIECES:
        rows.append((name, "by itself", *alone[name], None))
        rows.append((name, f"in the loop, {RATES[-1]} Hz", *inside[name], None))
    rows.append(("observation in, command out", f"in the loop, {RATES[0]} Hz", *_summary(overhead), None))
    rows.append(("all of a period but the wire", f"in the loop, {RATES[0]} Hz", *_summary(work), None))
    bars += [Bar("observation in to command out, p99", _summary(overhead)[1], OVERHEAD_BAR_US, at_least=False, unit="us"),
             Bar("a log row", alone["log row"][0], ROW_BAR_US, at_least=False, unit="us"),
             Bar(f"rows lost at {RATES[-1]} Hz", lost, 0.0, at_least=False),
             Bar("policy 2x64, p99", alone["policy 2x64"][1], INFERENCE_BAR_US, at_least=False, unit="us")]
    return BenchResult("loop", COLUMNS, rows, bars, machine(threads))


@contextmanager
def _busy_planner(measuring: ProcessPoolExecutor) -> Iterator[subprocess.Popen[bytes]]:
    """Let a process multiply matrices on all cores, as a planner does, once the one that measures has loaded what it needs."""
    measuring.submit(_loaded).result()
    process = subprocess.Popen([sys.executable, "-c", _BUSY], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def _loaded() -> bool:
    """Return True, from a process that has imported this module."""
    return True


def _lateness(rate: int, seconds: float) -> tuple[tuple[float, float, float, int], tuple[str, ...]]:
    """Return p50, p99 and worst lateness [us] and the missed deadlines of an empty loop, and what the system did not allow."""
    with RealTime() as real_time:
        schedule = Schedule(ScheduleConfig(10**9 // rate))
        schedule.start()
        for _ in range(int(seconds * rate)):
            schedule.wait()
    return (*(schedule.lateness_quantile(q) * 1e-3 for q in (0.5, 0.99, 1.0)), schedule.misses), real_time.refused


def _cyclictest(rate: int, seconds: float) -> tuple[float, float, float] | str:
    """Return cyclictest's p50, p99 and worst lateness [us], in its whole microseconds, or why there is none."""
    if shutil.which("cyclictest") is None:
        return "skipped, it is not installed (Debian: apt-get install rt-tests)"
    done = subprocess.run(["cyclictest", "-q", "-m", "-t1", "-p80", f"-i{10**6 // rate}", f"-l{int(seconds * rate)}", "-h100000"],
                          capture_output=True, text=True, check=False)
    bins = [(int(us), int(count)) for us, count in re.findall(r"^(\d+)\s+(\d+)$", done.stdout, re.MULTILINE)]
    worst = re.search(r"# Max Latencies: (\d+)", done.stdout)
    if done.returncode or not bins or worst is None:
        return f"skipped, it failed: {done.stderr.strip() or done.stdout.strip()}"
    lateness = np.repeat([us for us, _ in bins], [count for _, count in bins])
    return float(np.quantile(lateness, 0.5)), float(np.quantile(lateness, 0.99)), float(worst.group(1))


class _Period:
    """The pieces of a period, ready to be done one by one."""

    def __init__(self, arm: Arm, rows: ServoRing) -> None:
        nv = arm.spec.nv
        names = arm.spec.joint_names
        space = StateSpace([Channel("q", names, range(nv)), Channel("dq", [f"{name}_rate" for name in names], range(nv))])
        policy = NeuralPolicy(space, arm.spec.command(CommandMode.JOINT_VELOCITY), HIDDEN, 0)
        policy.standardise(torch.randn(100, 2 * nv, generator=torch.Generator().manual_seed(0)))
        self.network, self.x, self.rows = FastNetwork(policy), np.concatenate([arm.home, np.zeros(nv)]), rows
        self.vectors = tuple(np.random.default_rng(0).normal(size=(6, nv)))
        self.scratch = ServoRing.create(f"bench-{os.getpid()}-scratch", rows.dtype, 2)
        self.board = Board.create(f"bench-{os.getpid()}", _BOARD_DTYPE)
        self.reader = Board.attach(self.board.name, _BOARD_DTYPE)
        self.tick, self.now, self.mode = 0, time.monotonic_ns(), MODE_CODES[CommandMode.JOINT_VELOCITY]

    def log_row(self, rows: ServoRing) -> None:
        tick, now, mode = self.tick, self.now, self.mode
        q, dq, tau, action, target, written = self.vectors
        rows.push_row(tick, now, now, 1.25, 1_000_000, 100, tick, now, 1_000_000, 3, q, dq, tau, action, target, target, dq, written, 0,
                      1, mode, mode, 3, 0)

    def rehearse(self) -> None:
        """Do all pieces once, for the caches' sake."""
        self.log_row(self.scratch)
        self.scratch.take()
        self.board.publish()
        self.reader.read()
        self.network.action(self.x)

    def timed(self) -> tuple[int, int, int, int]:
        """Do all pieces and return how long each took [ns], PIECES in order."""
        now = time.perf_counter_ns
        a = now()
        self.log_row(self.rows)
        b = now()
        self.board.publish()
        c = now()
        self.reader.read()
        d = now()
        self.network.action(self.x)
        e = now()
        self.tick += 1
        return b - a, c - b, d - c, e - d

    def close(self) -> None:
        for shared in (self.scratch, self.reader, self.board):
            shared.close()


def _pieces_alone() -> dict[str, tuple[float, float, float]]:
    """Return p50, p99 and worst [us] of every piece, repeated without a pause; a clock's own time is in them."""
    arm = ur5e()
    rows = ServoRing.create(f"bench-{os.getpid()}-rows", servo_dtype(arm.spec.nv), 1 << 13)
    with RealTime():
        period = _Period(arm, rows)
        actions = {"log row": lambda: period.log_row(rows), "board write": period.board.publish, "board read": _read_new(period),
                   "policy 2x64": lambda: period.network.action(period.x)}
        times = {}
        for name, action in actions.items():
            taken = np.zeros(REPEATS)
            for i in range(REPEATS):
                started = time.perf_counter_ns()
                action()
                taken[i] = time.perf_counter_ns() - started
            times[name] = _summary(taken)
    period.close()
    rows.close()
    return times


def _read_new(period: _Period) -> object:
    """Return what reads the board as if its value were new."""
    first = period.reader.read()

    def read() -> None:
        period.reader._last = first
        period.reader.read()

    period.board.publish()
    return read


def _pieces_in_the_loop(seconds: float) -> tuple[dict[str, tuple[float, float, float]], str, int]:
    """Return p50, p99 and worst [us] of every piece once a period, words about the log, and how many rows it lacks."""
    arm, rate = ur5e(), RATES[-1]
    count = int(seconds * rate)
    header = LogHeader(arm.spec.to_json(), arm.spec.fingerprint(), "none", "none", "none", ("ACTIVE",), ())
    taken = np.zeros((count, len(PIECES)), np.int64)
    with tempfile.TemporaryDirectory() as folder, RealTime(), Recorder(Path(folder) / "log.mcap", header) as recorder:
        period = _Period(arm, recorder.rows)
        schedule = Schedule(ScheduleConfig(10**9 // rate, spin_ns=250_000))
        schedule.start()
        recorder_seconds = -_processor_seconds(recorder.process.pid)
        for i in range(count):
            schedule.sleep()
            period.rehearse()
            schedule.spin()
            taken[i] = period.timed()
        recorder_seconds += _processor_seconds(recorder.process.pid)
        status = recorder.close()
        period.close()
    words = (f"recorder: {status.rows} of {count} rows on the disk, {status.bytes / max(status.rows, 1):.0f} bytes each, "
             f"{100 * recorder_seconds / seconds:.1f} % of a core; {status.error or 'no error'}")
    return {name: _summary(taken[:, i]) for i, name in enumerate(PIECES)}, words, count - status.rows


def _summary(nanoseconds: np.ndarray) -> tuple[float, float, float]:
    return tuple(float(v) * 1e-3 for v in np.quantile(nanoseconds, [0.5, 0.99, 1.0]))


def _processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
