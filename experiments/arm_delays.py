"""`reflexarc delays`: how late an arm is seen and how late it acts, from a log, and what a planner must look ahead."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console

from experiments.arm_sysid import arm_of
from experiments.progress import make_console
from experiments.run_directory import replace_file
from hw_bridge.delays import Delays as Estimate
from hw_bridge.delays import Span, estimate_delays
from hw_bridge.recorder.read_log import read_log

if TYPE_CHECKING:
    from experiments.arm_log_cli import Delays

_NEGLIGIBLE = 0.1
"""A planner need not look ahead by less than this share of its period."""


def delays_command(options: Delays) -> int:
    """Estimate, print, and write the figures where asked to; 1 where the arm's answer is not told by the log."""
    log = read_log(options.log)
    estimate = estimate_delays(log, arm_of(log.header.robot_spec["name"]), str(options.log))
    _print(make_console(), estimate)
    if options.json is not None:
        replace_file(options.json, json.dumps(_plain(asdict(estimate) | {"ahead": estimate.ahead}), indent=1).encode())
    return 0 if math.isfinite(estimate.answer.delay) else 1


def _print(console: Console, found: Estimate) -> None:
    period, answer = found.control_period, found.answer
    lines = [f"servo period {found.period * 1e3:.2f} ms, control period {period * 1e3:g} ms; medians, and what 9 of 10 lie within",
             f"a state, when the loop uses it, arrived     {_words(found.arrival_age, period)} before",
             f"                        and was measured    {_words(found.age, period)} before" if found.device_clock else
             "                        when it was measured the device does not tell: it has no clock"]
    if found.action_age is not None:
        lines.append(f"an action, when the loop uses it, was given  {_words(found.action_age, period)} before")
    if math.isfinite(answer.delay):
        lines.append(f"the arm answers {found.mode} after      {answer.delay * 1e3:.2f} ms ±{answer.half_width * 1e3:.2f} (95 %), "
                     f"{answer.delay / period:.0%} of the control period; {answer.explained:.2%} of the motion is explained")
        lines.append("the quickest way of a state to here cannot be told apart from the answer and is in it")
        lines.append(_advice(found.ahead, period))
    else:
        lines.append(f"the arm's answer is not told by this log: {answer.why_not}")
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _advice(ahead: float, period: float) -> str:
    share = ahead / period
    if share < _NEGLIGIBLE:
        return f"a planner need not look ahead: {ahead * 1e3:.2f} ms are {share:.0%} of its period"
    return (f"a planner must look {ahead * 1e3:.1f} ms ahead, {share:.0%} of its period: let it predict the state by so much, under the "
            "actions that are already given, and plan from there")


def _words(span: Span, period: float) -> str:
    return f"{span.median * 1e3:7.3f} ms ({span.low * 1e3:.3f} to {span.high * 1e3:.3f}), {span.median / period:.1%} of the control period,"


def _plain(value: object) -> object:
    """Return `value` with None for what is not known: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
