"""Calibrations: angles and steps are each other's inverse, and a file is as it was saved or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hw_bridge.calibration import Calibration
from robots.errors import ConfigurationError, StoreError, VersionError

GOOD = Calibration(arm="so101", joints=("a", "b"), ids=(1, 2), models=(777, 777), homing=(-113, 871), zero=(2048, 2000), direction=(1, -1),
                   range_min=(100, 200), range_max=(4000, 3900))


def test_angles_undo_steps():
    q = np.array([0.3, -1.2])
    assert GOOD.angles(GOOD.steps(q)) == pytest.approx(q)
    assert GOOD.angles([2048 + 1024, 2000 + 1024]) == pytest.approx([np.pi / 2, -np.pi / 2])


def test_a_file_gives_back_what_was_saved(tmp_path):
    GOOD.save(tmp_path / "deep" / "arm.json")
    loaded = Calibration.load(tmp_path / "deep" / "arm.json")
    assert loaded == GOOD and loaded.fingerprint() == GOOD.fingerprint()


@pytest.mark.parametrize("change", [{"zero": (2049, 2000)}, {"direction": (-1, -1)}, {"ids": (1, 3)}, {"homing": (-112, 871)}])
def test_every_change_changes_the_hash(change):
    assert replace(GOOD, **change).fingerprint() != GOOD.fingerprint()


@pytest.mark.parametrize("change", [{"ids": (1, 1)}, {"ids": (1,)}, {"direction": (0, 1)}, {"zero": (50, 2000)}, {"zero": (2048.0, 2000)},
                                    {"range_min": (4000, 200)}, {"steps_per_turn": 0}, {"joints": ()}])
def test_what_makes_no_sense_is_refused(change):
    with pytest.raises(ConfigurationError, match="Calibration"):
        replace(GOOD, **change)


def test_a_servo_that_was_homed_again_or_changed_makes_it_stale():
    assert GOOD.stale({1: 777, 2: 777}, {1: -113, 2: 871}) == []
    assert "homing 870" in GOOD.stale({1: 777, 2: 777}, {1: -113, 2: 870})[0]
    assert "no servo answers at id 2" in GOOD.stale({1: 777}, {1: -113})[0]
    assert "model 1020" in GOOD.stale({1: 1020, 2: 777}, {1: -113, 2: 871})[0]


def test_files_that_are_none_are_refused(tmp_path):
    path = tmp_path / "arm.json"
    with pytest.raises(StoreError, match="cannot be read"):
        Calibration.load(path)
    for text in ("", "[1]", "{}", "rubbish"):
        path.write_text(text)
        with pytest.raises(StoreError, match="is no calibration"):
            Calibration.load(path)
    GOOD.save(path)
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({**entries, "version": 99}))
    with pytest.raises(VersionError, match="version 99"):
        Calibration.load(path)
    path.write_text(json.dumps({**entries, "zero": [2048, 2001]}))
    with pytest.raises(StoreError, match="changed by hand"):
        Calibration.load(path)
    path.write_text(json.dumps({**entries, "surprise": 1}))
    with pytest.raises(StoreError, match="cannot be used"):
        Calibration.load(path)
