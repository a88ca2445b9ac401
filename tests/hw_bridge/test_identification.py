"""System identification against a plant whose payload, friction and rotors are known, through genuine logs."""

from __future__ import annotations

import json
from pathlib import Path

import mujoco
import numpy as np
import pytest

from experiments import arm_sysid
from experiments.cli import main
from hw_bridge.drivers.driver import VendorState
from hw_bridge.identification.file import load_parameters, sha256, to_text
from hw_bridge.identification.identify import identify
from hw_bridge.identification.parameters import ArmParameters, bounds, names, spread
from hw_bridge.identification.recording import clock, new_states, stretches
from hw_bridge.identification.windows import moving_windows
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import VENDOR_CODES, servo_dtype
from hw_bridge.recorder.mcap_log import McapLog
from hw_bridge.recorder.read_log import Log, read_log
from hw_bridge.safety.rules import State
from hw_bridge.twins.plant import Mechanics, Plant
from hw_bridge.twins.ur.motion import DT, Motion
from robots.arms.panda import panda
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, MissingExtraError, StoreError

ARM = ur5e()
JOINTS = ARM.spec.joint_names
PARTS = Mechanics(viscous=np.array([7.0, 9.0, 5.0, 1.2, 1.8, 1.5]), coulomb=np.array([3.0, 5.0, 2.5, 1.2, 0.8, 1.0]),
                  armature=np.array([0.6, 0.8, 0.5, 0.15, 0.1, 0.12]), torque_max=ARM.spec.limits.torque_max, backlash=np.zeros(6),
                  encoder_step=np.full(6, 2 * np.pi / 2**19))
MASS, CENTRE = 1.2, (0.02, -0.01, 0.06)
STIFFNESS, DAMPING = np.array([800.0, 800, 600, 150, 150, 80]), np.array([70.0, 70, 55, 12, 12, 6])


def vector(mass: float = MASS, centre: tuple[float, float, float] = CENTRE) -> np.ndarray:
    return np.concatenate([[mass], centre, PARTS.viscous, PARTS.coulomb, PARTS.armature])


def lived(seconds: float, mass: float, moving: np.ndarray, noise: float = 0.3) -> np.ndarray:
    """Return the rows of an arm that follows sines softly, through torques on top of the controller's gravity compensation."""
    plant = Plant(ARM, PARTS)
    plant.set_payload(mass, CENTRE)
    motion, generator = Motion(ARM, PARTS, plant.q), np.random.default_rng(3)
    rate, phase = generator.uniform(1.5, 5.0, (3, 6)), generator.uniform(0.0, 6.0, (3, 6))
    rows = np.zeros(round(seconds / DT), servo_dtype(6))
    for k, row in enumerate(rows):
        begun = min(k * DT, 1.0) * moving * 0.15
        wanted = ARM.home + (begun * np.sin(rate * k * DT + phase)).sum(axis=0)
        speed = (begun * rate * np.cos(rate * k * DT + phase)).sum(axis=0)
        q, dq = plant.encoders(), plant.dq
        row["q"], row["dq"] = q, dq + 0.003 * noise * generator.standard_normal(6)
        row["tau"] = plant.tau + noise * generator.standard_normal(6) * [1.0, 1.0, 1.0, 0.2, 0.2, 0.2]
        row["written"] = STIFFNESS * (wanted - q) + DAMPING * (speed - dq)
        motion.torque(row["written"], np.zeros(6), np.zeros(6))
        motion.step(q, dq)
        plant.advance(plant.time + DT, motion.law)
    rows["tick"] = np.arange(len(rows))
    rows["device_s"] = 100.0 + rows["tick"] * DT
    rows["received_ns"] = 10**9 + np.round(rows["tick"] * DT * 1e9) + generator.integers(300_000, 1_500_000, len(rows))
    rows["wake_ns"], rows["state"], rows["vendor"] = rows["received_ns"], State.ACTIVE, VENDOR_CODES[VendorState.READY]
    return rows[1:]


def header(arm=ARM) -> LogHeader:
    return LogHeader(arm.spec.to_json(), arm.spec.fingerprint(), "factory", "p", "s", tuple(state.name for state in State), (), "sines")


def write_log(path: Path, rows: np.ndarray, arm=ARM) -> Path:
    log = McapLog(path, header(arm))
    log.add_rows(rows)
    log.finish()
    log.close()
    return path


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return lived(9.0, MASS, np.ones(6))


@pytest.fixture(scope="module")
def loaded(rows, tmp_path_factory) -> Path:
    return write_log(tmp_path_factory.mktemp("logs") / "loaded.mcap", rows)


@pytest.fixture(scope="module")
def identified(loaded):
    return identify(moving_windows(stretches(read_log(loaded), ARM, "log"), ARM), ARM)


def test_payload_friction_and_rotors_are_those_of_the_plant(identified):
    found = identified.parameters
    assert found.payload_mass == pytest.approx(MASS, rel=0.02)
    assert found.payload_centre == pytest.approx(CENTRE, abs=0.004)
    for name in ("viscous", "coulomb", "armature"):
        assert getattr(found, name) == pytest.approx(getattr(PARTS, name), rel=0.06)
    assert identified.names == names(ARM) and identified.identifiable.all()


def test_intervals_hold_the_truth_and_are_no_wider_than_need_be(identified):
    off = np.abs(identified.value - vector())
    assert (off < identified.half_width).mean() >= 0.85
    assert (off < 2.0 * identified.half_width).all()
    assert (identified.half_width[4:] < 0.12 * vector()[4:]).all()


def test_what_was_held_out_is_predicted(identified):
    found, described = identified.held_out, identified.held_out_prior
    assert identified.held_out_windows >= 10
    assert found.position < 2e-3 and found.velocity < 0.03
    assert found.torque < 0.2 * described.torque and found.position < 0.01 * described.position


def test_what_the_motion_does_not_tell_is_said():
    log = Log(header(), lived(6.5, 0.0, np.array([1, 1, 1, 1, 1, 0.0])), np.zeros(0), True, ())
    found = identify(moving_windows(stretches(log, ARM, "log"), ARM), ARM)
    unknown = {name for name, known in zip(found.names, found.identifiable, strict=True) if not known}
    assert unknown == {*names(ARM)[1:4], *(f"{what} wrist_3_joint" for what in ("viscous", "coulomb", "armature"))}
    assert found.parameters.payload_mass < 0.03, "nothing hangs there"


def test_parameters_make_the_model_of_the_plant():
    plant = Plant(ARM, PARTS)
    plant.set_payload(MASS, CENTRE)
    model = ArmParameters.from_vector(vector()).model(ARM)
    assert model.nu == 0 and np.array_equal(ArmParameters.from_vector(vector()).vector(), vector())
    data, inertia, other = mujoco.MjData(model), np.zeros((6, 6)), np.zeros((6, 6))
    for q in np.random.default_rng(0).uniform(-2.0, 2.0, (5, 6)):
        data.qpos[:] = plant.data.qpos[:] = q
        mujoco.mj_forward(model, data)
        mujoco.mj_forward(plant.model, plant.data)
        assert data.qfrc_bias == pytest.approx(plant.gravity_torque(q, payload=True), abs=1e-9)
        mujoco.mj_fullM(model, data, inertia)
        mujoco.mj_fullM(plant.model, plant.data, other)
        assert inertia == pytest.approx(other, abs=1e-9)
    assert np.array_equal(model.dof_frictionloss, PARTS.coulomb) and np.array_equal(model.dof_damping, PARTS.viscous)


@pytest.mark.parametrize("arm", [ARM, panda()], ids=lambda arm: arm.spec.name)
def test_every_arm_has_a_prior_within_its_bounds(arm):
    prior, (low, high) = ArmParameters.of(arm).vector(), bounds(arm)
    assert (low <= prior).all() and (prior < high).all() and (spread(arm) > 0).all() and len(names(arm)) == len(prior)
    with pytest.raises(ConfigurationError, match="joints"):
        ArmParameters(0.0, np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)).model(arm)


def test_the_file_is_read_back_to_the_same_model(identified, loaded, tmp_path):
    path = tmp_path / "arm.json"
    path.write_text(to_text(identified, ARM, [loaded]))
    assert np.array_equal(load_parameters(path, ARM).vector(), identified.value)
    content = json.loads(path.read_text())
    assert content["logs"] == [{"file": "loaded.mcap", "sha256": sha256(loaded)}] and len(content["logs"][0]["sha256"]) == 64
    with pytest.raises(ConfigurationError, match="'ur5e', expected 'panda'"):
        load_parameters(path, panda())
    for bad in ("no JSON", "{}", json.dumps(content | {"parameters": content["parameters"][1:]}),
                json.dumps(content | {"parameters": [row | {"value": "x"} for row in content["parameters"]]})):
        path.write_text(bad)
        with pytest.raises(StoreError):
            load_parameters(path, ARM)


def changed(rows: np.ndarray, **fields: object) -> Log:
    rows = rows.copy()
    for name, value in fields.items():
        rows[name] = value
    return Log(header(), rows, np.zeros(0), True, ())


def test_useless_logs_are_refused_in_words(rows):
    for log, words in ((changed(rows[:60]), "too short"), (changed(rows, vendor=VENDOR_CODES[VendorState.FAULT]), "too short"),
                       (changed(rows, tau=np.nan), "no measured torques"), (changed(rows, tau=0.0), "every measured torque is 0")):
        with pytest.raises(StoreError, match=words):
            stretches(log, ARM, "log")
    for log in (changed(rows, dq=0.0), changed(rows[:1500])):
        with pytest.raises(StoreError, match="too little motion"):
            moving_windows(stretches(log, ARM, "log"), ARM)
    with pytest.raises(ConfigurationError, match="of the arm 'ur5e'"):
        stretches(changed(rows), panda(), "log")


def test_states_count_once_at_even_times_and_gaps_split(rows):
    again = np.concatenate([rows[:500], rows[499:500], rows[500:1000], rows[1020:2000]])  # one row saw nothing new, twenty are missing
    log = Log(header(), again, np.zeros(0), True, ())
    first, second = stretches(log, ARM, "log")
    assert np.diff(first.time) == pytest.approx(DT, abs=1e-6) and len(first.time) == pytest.approx(1000, abs=1)
    assert second.time[0] - first.time[-1] == pytest.approx(21 * DT, abs=2 * DT)
    assert first.q[::100] == pytest.approx(rows["q"][:1000:100][: len(first.q[::100])], abs=2e-3)


def test_time_is_the_devices_but_for_the_shortest_way(rows):
    states = new_states(changed(rows), "log")
    truth = 1.0 + states["tick"] * DT
    assert np.abs(clock(states) - truth - 0.0003).max() < 5e-5, "the shortest way took 0.3 ms, the others up to 1.2 ms more"
    assert np.array_equal(clock(new_states(changed(rows, device_s=np.nan), "log")), states["received_ns"] * 1e-9)


def test_without_its_extra_it_says_what_to_install(monkeypatch, identified, capsys):
    from mujoco import sysid

    monkeypatch.delattr(sysid, "optimize")
    with pytest.raises(MissingExtraError, match=r"reflexarc\[sysid\]"):
        identify(None, ARM)
    with pytest.raises(SystemExit) as ended:
        main(["sysid", "nowhere.mcap"])
    assert ended.value.code == 2 and "reflexarc[sysid]" in capsys.readouterr().err


def test_the_command_prints_every_parameter_and_both_errors(loaded, identified, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(arm_sysid, "identify", lambda windows, arm: identified)  # once is enough
    with pytest.raises(SystemExit) as ended:
        main(["sysid", str(loaded), "--out", str(tmp_path / "arm.json")])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and "as identified" in told and "as described" in told
    assert all(name in told for name in names(ARM))
    assert load_parameters(tmp_path / "arm.json", ARM).payload_mass == pytest.approx(MASS, rel=0.02)
    still = write_log(tmp_path / "still.mcap", changed(lived(1.0, 0.0, np.zeros(6))).rows)
    with pytest.raises(SystemExit) as ended:
        main(["sysid", str(still)])
    assert ended.value.code == 2 and "too little motion" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sysid", "delays"])
def test_help_explains_the_commands(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and "Example" in capsys.readouterr().out
