"""A benchmark tells the truth about its bars: in its last line, its file and its exit code."""

from __future__ import annotations

import json
import math

import pytest

from experiments.bench.catalog import BENCHMARKS, bench_command
from experiments.bench.result import Bar, Benchmark, BenchResult, machine
from robots.errors import ConfigurationError, StoreError, UnknownNameError


@pytest.mark.parametrize(("measured", "at_least", "met"), [
    (171.0, True, True), (170.0, True, True), (169.9, True, False), (math.nan, True, False), (-math.inf, True, False),
    (169.9, False, True), (170.0, False, True), (171.0, False, False), (math.nan, False, False), (math.inf, False, False),
])
def test_a_bar_is_met_on_its_side_and_never_by_nan(measured, at_least, met):
    assert Bar("return", measured, 170.0, at_least).met is met


def test_bars_are_told_with_unit_and_direction():
    assert str(Bar("return", 171.234, 170.0, at_least=True)) == "return 171.2 (bar >= 170)"
    assert str(Bar("time", 12.5, 180.0, at_least=False, unit="s")) == "time 12.5 s (bar <= 180 s)"


def result(*measured: float) -> BenchResult:
    bars = [Bar(f"figure {i}", value, 1.0, at_least=True) for i, value in enumerate(measured)]
    return BenchResult("fake", ("what", "value"), [("a", 1.5), ("b", None)], bars, machine(2))


def test_all_bars_must_be_met():
    assert result(1.0, 2.0).met and result(1.0, 2.0).last_line() == "fake: figure 0 1 (bar >= 1); figure 1 2 (bar >= 1): MET"
    assert not result(1.0, math.nan).met and result(1.0, 0.0).last_line().endswith(": MISSED")
    assert machine(2).endswith("2 threads") and machine(None).endswith("all threads")


@pytest.mark.parametrize(("measured", "code"), [(2.0, 0), (0.5, 1), (math.nan, 1)])
def test_the_command_exits_by_the_verdict_and_ends_with_it(measured, code, monkeypatch, capsys, tmp_path):
    asked = []
    fake = Benchmark("a fake", lambda console, seeds, threads: asked.append((seeds, threads)) or result(measured))
    monkeypatch.setitem(BENCHMARKS, "fake", fake)
    assert bench_command("fake", 4, tmp_path / "out.json", 1) == code
    assert asked == [(4, 1)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == result(measured).last_line() and any("value" in line for line in lines[:-1])
    written = json.loads((tmp_path / "out.json").read_bytes())
    assert written["met"] is (code == 0) and written["rows"] == [["a", 1.5], ["b", None]]


def test_a_file_that_cannot_be_written_does_not_hide_the_verdict(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(BENCHMARKS, "fake", Benchmark("a fake", lambda *_: result(2.0)))
    (tmp_path / "file").touch()
    for place in (tmp_path / "nowhere" / "out.json", tmp_path / "file" / "out.json"):
        with pytest.raises(StoreError, match=r"out\.json"):
            bench_command("fake", 1, place, 1)
        assert capsys.readouterr().out.splitlines()[-1] == result(2.0).last_line()


def test_unknown_names_and_no_seeds_are_refused():
    with pytest.raises(UnknownNameError, match="learn-cartpole"):
        bench_command("learn-cart", 3, None, None)
    with pytest.raises(ConfigurationError, match="--seeds"):
        bench_command("learn-cartpole", 0, None, None)
