"""A certificate lets through what was certified, for a day, and nothing else; what a dry run measures is judged against its limits."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from hw_bridge.certificate import LIFETIME, Certificate, Deployment
from hw_bridge.dry_run import pose_faults, punctuality
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import EVENT_DTYPE, NO_MODE, servo_dtype
from hw_bridge.recorder.read_log import Log
from hw_bridge.recorder.summary import summarise
from hw_bridge.safety.config import SafetyConfig, Workspace
from hw_bridge.safety.rules import Rule, State
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, StoreError, VersionError

DEPLOYMENT = Deployment("ur5e", "127.0.0.2", "joint_position", "policy0", "safety0", "spec0", "ur5e", "2026", "5.26", "factory")
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PERIOD_NS = 2_000_000


def certificate(**changes: object) -> Certificate:
    values = {"deployment": DEPLOYMENT, "reasons": (), "speed": 0.25, "patience": 0.02, "figures": {"periods": 1500.0},
              "created_at": NOW.isoformat()}
    return Certificate(**values | changes)


def log_of(rows: np.ndarray) -> Log:
    spec = ur5e().spec
    header = LogHeader(spec.to_json(), spec.fingerprint(), "factory", "none", "safety", tuple(state.name for state in State),
                       tuple(rule.name for rule in Rule if rule))
    return Log(header, rows, np.zeros(0, EVENT_DTYPE), True, ())


def idle_rows(count: int = 1000) -> np.ndarray:
    rows = np.zeros(count, servo_dtype(6))
    rows["tick"] = np.arange(count)
    rows["wake_ns"] = 10**9 + PERIOD_NS * np.arange(count)
    rows["dt_ns"], rows["observation_age_ns"], rows["lateness_ns"] = PERIOD_NS, 1_000_000, 5_000
    rows["state"], rows["written_mode"], rows["action_mode"], rows["action_sequence"] = State.IDLE, NO_MODE, NO_MODE, -1
    for name in ("action", "target", "written"):
        rows[name] = np.nan
    return rows


def test_what_was_certified_may_move_and_the_file_says_the_same(tmp_path):
    written = certificate()
    (tmp_path / "c.json").write_text(written.to_text())
    read = Certificate.load(tmp_path / "c.json")
    assert read == written and read.passed
    assert read.refusals(DEPLOYMENT, NOW + timedelta(hours=1)) == []


@pytest.mark.parametrize("name", [entry.name for entry in fields(Deployment)])
def test_anything_else_than_what_was_certified_is_named(name):
    found = replace(DEPLOYMENT, **{name: "another"})
    words = certificate().refusals(found, NOW)
    assert len(words) == 1 and "'another'" in words[0] and repr(getattr(DEPLOYMENT, name)) in words[0]


def test_what_is_not_known_yet_is_not_compared_but_what_was_never_certified_is():
    unknown = replace(DEPLOYMENT, model=None, serial=None, firmware=None, calibration=None)
    assert certificate().refusals(unknown, NOW) == []
    assert len(certificate(deployment=unknown).refusals(DEPLOYMENT, NOW)) == 4


def test_it_lasts_a_day_and_does_not_come_from_the_future():
    assert certificate().refusals(DEPLOYMENT, NOW + LIFETIME - timedelta(seconds=1)) == []
    assert "hours old" in certificate().refusals(DEPLOYMENT, NOW + LIFETIME + timedelta(seconds=1))[0]
    assert "future" in certificate().refusals(DEPLOYMENT, NOW - timedelta(minutes=5))[0]


def test_one_that_did_not_pass_lets_nothing_move_and_says_why():
    refused = certificate(reasons=("elbow_joint moves",))
    assert not refused.passed and refused.refusals(DEPLOYMENT, NOW) == ["it did not pass: elbow_joint moves"]


@pytest.mark.parametrize("change", [{"reasons": []}, {"created_at": (NOW + timedelta(days=3)).isoformat()}, {"speed": 1.0},
                                    {"patience": 0.5}, {"deployment": vars(DEPLOYMENT) | {"serial": "mine"}}, {"verdict": "PASSED"}])
def test_a_file_that_was_changed_by_hand_is_refused(tmp_path, change):
    values = json.loads(certificate(reasons=("it moves",)).to_text()) | change
    (tmp_path / "c.json").write_text(json.dumps(values))
    with pytest.raises(StoreError, match="changed after it was written"):
        Certificate.load(tmp_path / "c.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "hash": "", "verdict": "", "deployment": {}}'])
def test_what_is_no_certificate_is_refused_in_words(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(StoreError, match="reflexarc check"):
        Certificate.load(tmp_path / "c.json")
    with pytest.raises(StoreError, match="cannot be read"):
        Certificate.load(tmp_path / "none.json")


def test_another_version_and_a_time_without_a_zone_are_refused(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(json.loads(certificate().to_text()) | {"version": 99}))
    with pytest.raises(VersionError):
        Certificate.load(tmp_path / "c.json")
    with pytest.raises(ConfigurationError, match="time zone"):
        certificate(created_at="2026-11-20T12:00:00")


def test_every_fault_of_a_pose_is_told():
    arm, config, still = ur5e(), SafetyConfig(), np.zeros(6)
    assert pose_faults(arm, config, arm.home, still) == []
    beyond = arm.home.copy()
    beyond[2], beyond[5] = 3.2, 6.4
    words = " ".join(pose_faults(arm, config, beyond, still + 0.1))
    names = arm.spec.joint_names
    assert f"{names[2]} is at 3.200" in words and f"{names[5]} is at 6.400" in words
    assert all(f"{name} moves" in words for name in names)
    assert len(pose_faults(arm, config, np.full(6, np.nan), still)) == 6
    box = SafetyConfig(Workspace((-0.01, -0.01, 3.0), (0.01, 0.01, 3.1)))
    assert "outside its box" in pose_faults(arm, box, arm.home, still)[0]


def test_a_punctual_loop_passes_and_its_figures_are_right():
    figures, words = punctuality(log_of(idle_rows()), SafetyConfig())
    assert words == [] and figures["period_median_ms"] == 2.0 and figures["observation_age_worst_ms"] == 1.0
    assert figures["lateness_99_ms"] == pytest.approx(0.005) and figures["jitter_99_ms"] == 0.0
    assert figures["periods"] == pytest.approx(1000 - 150, abs=1)  # the loop's first moments are not judged


@pytest.mark.parametrize(("column", "value", "rows", "words"), [
    ("observation_age_ns", 21_000_000, slice(500, 501), "observation age"), ("dt_ns", 21_000_000, slice(500, 501), "period longest"),
    ("lateness_ns", 2_100_000, slice(500, 600), "lateness 99"),
    ("rules", int(Rule.DEVICE_CLOCK), slice(500, 502), "device clock' fired in 2"),
])
def test_what_is_too_late_is_told(column, value, rows, words):
    late = idle_rows()
    late[column][rows] = value
    found = punctuality(log_of(late), SafetyConfig())[1]
    assert len(found) == 1 and words in found[0]
    assert punctuality(log_of(idle_rows(20)), SafetyConfig())[1] != []


def test_a_summary_counts_what_the_supervisor_changed_and_not_what_is_harmless():
    rows = idle_rows()
    rows["state"][200:600] = State.ACTIVE
    rows["action_sequence"][210:600] = np.arange(390) // 39
    rows["target"][210:600] = 0.05
    rows["rules"][:150] = int(Rule.VENDOR)  # servos are not ready before servoing
    rows["rules"][200:400] = int(Rule.BLEND | Rule.ACCELERATION)
    rows["rules"][300:310] |= int(Rule.VELOCITY)
    rows["rules"][305:315] |= int(Rule.CLAMPED)
    summary = summarise(log_of(rows))
    assert summary.active_periods == 400 and summary.actions == 10 and summary.lag_worst == 0.05
    assert summary.interventions == {"velocity": 10, "clamped": 10} and summary.intervened == 15
    assert summary.seconds == pytest.approx(999 * PERIOD_NS * 1e-9) and summary.lateness_worst_ms == pytest.approx(0.005)
    assert summarise(log_of(idle_rows(0))).actions == 0
