"""The wire that fails on purpose, the judge of set-points and the beat of a twin."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from hw_bridge.twins.audit import CommandAudit
from hw_bridge.twins.channel import Channel, WireFaults, heal_wire, wire_actions
from hw_bridge.twins.pace import Pace
from robots.arms.panda import panda
from robots.command import CommandMode
from robots.errors import ConfigurationError

LIMITS, NAMES = panda().spec.limits, panda().spec.joint_names


def passed(faults: WireFaults, count: int = 1000, seed: int = 1) -> list[tuple[float, int]]:
    channel: Channel[int] = Channel(faults, np.random.default_rng(seed), lambda item: -item)
    arrived = []
    for k in range(1, count + 200):
        if k <= count:
            channel.push(k, 1e-3 * k)
        arrived += [(1e-3 * k, item) for item in channel.due(1e-3 * k)]
    return arrived


def test_a_sound_wire_passes_everything_at_once_and_in_order() -> None:
    assert passed(WireFaults()) == [(1e-3 * k, k) for k in range(1, 1001)]


def test_a_delay_is_a_delay_and_jitter_keeps_the_order() -> None:
    assert all(at - 1e-3 * item == pytest.approx(0.02, abs=1.1e-3) for at, item in passed(WireFaults(delay_ms=20.0)))
    items = [item for _, item in passed(WireFaults(delay_ms=5.0, jitter_ms=30.0))]
    assert items == sorted(items) and len(items) == 1000


def test_shares_are_shares() -> None:
    assert len(passed(WireFaults(loss=0.3))) == pytest.approx(700, abs=60)
    assert len(passed(WireFaults(duplicate=0.3))) == pytest.approx(1300, abs=60)
    assert sum(item < 0 for _, item in passed(WireFaults(corrupt=0.3))) == pytest.approx(300, abs=60)
    items = [item for _, item in passed(WireFaults(reorder=0.1))]
    assert sorted(items) == list(range(1, 1001)) and items != sorted(items)
    assert passed(WireFaults(half_open=True)) == []


def test_the_same_seed_fails_the_same_way() -> None:
    faults = WireFaults(jitter_ms=9.0, loss=0.2, duplicate=0.1, reorder=0.1, corrupt=0.1)
    assert passed(faults) == passed(faults) != passed(faults, seed=2)


def test_faults_are_asked_for_and_healed() -> None:
    faults = WireFaults()
    actions = wire_actions(faults)
    actions["delay"](ms=12)
    actions["loss"](share=0.5)
    actions["half_open"]()
    assert (faults.delay_ms, faults.loss, faults.half_open) == (12.0, 0.5, True)
    with pytest.raises(ConfigurationError, match=r"expected 0 to 1, got 1\.5"):
        actions["corrupt"](share=1.5)
    heal_wire(faults)
    assert faults == WireFaults()


def test_the_audit_knows_every_kind_of_violation() -> None:
    def words(mode: CommandMode, *sent: tuple[float, np.ndarray]) -> str:
        audit = CommandAudit(LIMITS, NAMES)
        for now, values in sent:
            audit.look(mode, values, now)
        return " ".join(audit.violations)

    home, one = panda().home, np.eye(7)[0]
    fastest = LIMITS.velocity_max * 0.01
    assert words(CommandMode.JOINT_POSITION, (0.0, home), (0.01, home + fastest)) == ""
    assert "panda_joint1 jumped" in words(CommandMode.JOINT_POSITION, (0.0, home), (0.01, home + 1.1 * fastest))
    assert "outside" in words(CommandMode.JOINT_POSITION, (0.0, home + 3.0 * one))
    assert "outside" in words(CommandMode.JOINT_VELOCITY, (0.0, 2.2 * one))
    assert "outside" in words(CommandMode.JOINT_TORQUE, (0.0, 87.5 * one))
    assert words(CommandMode.JOINT_TORQUE, (0.0, 0.0 * one), (0.001, 1.0 * one)) == ""
    assert "jumped" in words(CommandMode.JOINT_TORQUE, (0.0, 0.0 * one), (0.001, 1.1 * one))
    assert "non-finite" in words(CommandMode.JOINT_POSITION, (0.0, np.where(one > 0, np.inf, home)))


@pytest.mark.parametrize(("mode", "order", "kept"), [
    (CommandMode.JOINT_POSITION, 2, "acceleration_max"), (CommandMode.JOINT_POSITION, 3, "jerk_max"),
    (CommandMode.JOINT_VELOCITY, 2, "jerk_max")])
def test_the_audit_judges_acceleration_and_jerk_however_many_set_points_are_lost(mode: CommandMode, order: int, kept: str) -> None:
    """The power of time whose `order`th derivative is the limit times `share` passes up to its limit, every millisecond or some."""
    generator, free = np.random.default_rng(3), np.full(7, 1e9)
    limits = replace(LIMITS, **{name: free for name in ("velocity_max", "acceleration_max", "jerk_max") if name != kept})
    start = panda().home if mode is CommandMode.JOINT_POSITION else np.zeros(7)

    def count(share: float, times: np.ndarray) -> int:
        audit = CommandAudit(limits, NAMES, exact_times=True)
        for t in times:
            bend = share * getattr(LIMITS, kept)[0] * t**order / math.factorial(order)
            audit.look(mode, start + bend * np.eye(7)[0], 1.0 + t)
        return audit.count

    every = np.arange(0.0, 0.008, 0.001)
    for times in (every, np.sort(generator.choice(every, 5, replace=False))):
        assert count(1.0, times) == 0
        assert count(1.1, times) == len(times) - order


def test_time_that_was_slept_through_is_dropped_and_short_lateness_is_made_up() -> None:
    pace = Pace(0.001, patience=0.05)
    pace.wait()
    start, due = time.monotonic(), 0
    while time.monotonic() - start < 0.1:
        due += pace.wait()
    assert due + pace.skipped == pytest.approx(1000 * (time.monotonic() - start), abs=3)
    before = pace.skipped
    time.sleep(0.2)
    assert pace.wait() == 1 and pace.skipped >= before + 150
