"""A run's planner becomes a network with a run of its own; the demonstration goes on with what is its own and unfinished."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from dynamics.dataset import transition_data
from dynamics.fitting import FitConfig
from dynamics.neural_ensemble import EnsembleConfig
from dynamics.workers import Workers
from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata
from experiments import arm_demo
from experiments.arm_demo import ATTEMPTS, _live, _run
from experiments.arm_distil import kept_reflex
from experiments.arm_policies import DistilledRun, ReachingRun, arm_policy
from experiments.arm_reaching import ArmReachingConfig, bridge_config, gate_of, reaching_model
from experiments.arm_run import ArmRun, ArmRunConfig
from experiments.cli import Demo, main
from hw_bridge.reaching import draw_goals, offset_command, reaching_state_space
from planners.icem import ICEMConfig
from policies.distillation import DistillationConfig
from policies.policy_search import PolicySearchConfig
from policies.trial import TrialRecord
from robots.arms.ur5e import ur5e
from robots.errors import HardwareError, StoreError

ARM = ur5e()
CONFIG = ArmReachingConfig(ensemble=EnsembleConfig(members=2, hidden=(8,), weight_decay=(1e-4,), fit=FitConfig(batch_size=32, epochs=3)),
                           search=ICEMConfig(horizon=3, population=6, iterations=1, elites=2),
                           distillation=DistillationConfig(hidden=(8,), rounds=2, rollouts=3, steps=4, updates=5),
                           polish=PolicySearchConfig(horizon=3, rollouts=4, updates=3))
RUN = ArmRunConfig("ur5e", 1.0, bridge_config("ur5e", "", CONFIG).safety.fingerprint(), reaching=CONFIG)


def reflexarc(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def lived(seed: int, steps: int = 20) -> Episode:
    """A soft arm that goes wherever its offsets lead it."""
    space, random, nv = reaching_state_space(ARM), np.random.default_rng(seed), ARM.spec.nv
    u = random.uniform(-CONFIG.reaching.offset, CONFIG.reaching.offset, (steps, nv))
    x = np.zeros((steps + 1, space.nx))
    x[:, :nv] = ARM.home + 0.1 * np.cumsum(np.vstack([np.zeros(nv), u]), axis=0)
    x[:, nv : nv + 3] = draw_goals(ARM, CONFIG.reaching, [seed])
    x[1:, nv + 3 : 2 * nv + 3], x[1:, 2 * nv + 3 : 3 * nv + 3] = u, 0.9 * u
    x += 1e-3 * random.normal(size=x.shape)
    metadata = EpisodeMetadata("ur5e-reach", ARM.spec.fingerprint(), ARM.spec.to_json(), seed, seed, "random", None)
    return Episode(0.1 * np.arange(steps + 1), x, u, u, np.zeros(steps), False, True, space.names,
                   offset_command(ARM, CONFIG.reaching).names, metadata)


def learned_run(path: Path, config: ArmRunConfig = RUN) -> ArmRun:
    """A run as `reflexarc reach` leaves it."""
    run, episodes = ArmRun.create(path, config), {seed: lived(seed) for seed in range(2)}
    for index, episode in episodes.items():
        run.store().write(index, episode)
    model, workers = reaching_model(ARM, config.reaching), Workers(1)
    model.fit(transition_data(episodes, reaching_state_space(ARM)), workers)
    workers.close()
    run.save([], {f"model.{name}": value for name, value in model.tensors().items()} | {"steps_since_fit": torch.tensor(0)})
    return run


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> ArmRun:
    return learned_run(tmp_path_factory.mktemp("learned") / "parent")


@pytest.fixture(scope="module")
def distilled(parent) -> ArmRun:
    """The parent distilled, by the command, which chooses torch's product for the whole process."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    assert reflexarc("distil", parent.path, "--runs", parent.path.parent, "--name", "network") == 0
    torch.backends.mkldnn.matmul.fp32_precision = before
    return ArmRun.open(parent.path.parent / "network")


def test_a_distilled_run_is_a_policy_at_servo_rate_with_a_hash_of_its_own(parent, distilled):
    assert distilled.config == replace(RUN, parent=str(parent.path), distilled=True)
    mother, policy = arm_policy(str(parent.path), "ur5e"), arm_policy(str(distilled.path), "ur5e")
    assert type(mother) is ReachingRun and type(policy) is DistilledRun
    assert policy.hash != mother.hash and policy.hash == arm_policy(str(distilled.path), "ur5e").hash
    assert policy.safety().policy_period == ARM.spec.control_dt < mother.safety().policy_period == CONFIG.reaching.period
    assert "every servo period" in policy.words(10) and "every servo period" not in mother.words(10)


def test_the_hash_is_of_what_was_learned(parent, distilled):
    assert reflexarc("distil", parent.path, "--runs", parent.path.parent, "--name", "twice") == 0
    twice = arm_policy(str(parent.path.parent / "twice"), "ur5e")
    assert twice.hash == arm_policy(str(distilled.path), "ur5e").hash, "the same parent, seed and settings"
    changed = distilled.distilled().tensors
    changed["network.bias0"] = changed["network.bias0"] + 1e-6
    copy = ArmRun.create(parent.path.parent / "changed", distilled.config)
    copy.save([], changed)
    assert copy.policy_hash() != twice.hash


def test_what_is_kept_acts_and_doubts_as_what_was_taught(parent, distilled):
    reflex, episodes = kept_reflex(distilled, ARM), [lived(seed) for seed in range(2)]
    model = reaching_model(ARM, CONFIG)
    model.load_tensors({name.removeprefix("model."): value for name, value in parent.learned().tensors.items()
                        if name.startswith("model.")})
    x, u = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*((e.x[:-1], e.applied) for e in episodes), strict=True))
    doubt = reflex.gate.disagreement(x, u)
    assert torch.allclose(doubt, gate_of(model, episodes, CONFIG.gate).disagreement(x, u), rtol=1e-4) and doubt.std() > 0.01
    tensors = distilled.distilled().tensors
    assert {name: value.tolist() for name, value in reflex.tensors().items()} == {name: value.tolist() for name, value in tensors.items()}
    assert tensors["network.input_std"].std() > 0.01, "it was scaled by what it was taught with"


def test_a_network_is_not_distilled_again_and_what_learned_nothing_is_not_either(distilled, parent, tmp_path, capsys):
    assert reflexarc("distil", distilled.path, "--runs", tmp_path, "--name", "again") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "distilled network already" in said and "parent" in said
    ArmRun.create(tmp_path / "new", RUN)
    assert reflexarc("distil", tmp_path / "new", "--runs", tmp_path, "--name", "again") == 2
    assert "nothing was learned" in " ".join(capsys.readouterr().err.split())
    assert reflexarc("distil", parent.path, "--runs", parent.path.parent, "--name", "network") == 2
    assert "already holds a run" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "again").exists()


def test_a_distillation_that_was_stopped_acts_in_no_way(parent, tmp_path):
    run = ArmRun.create(tmp_path / "stopped", replace(RUN, parent=str(parent.path), distilled=True))
    with pytest.raises(StoreError, match="distil anew: reflexarc distil"):
        run.policy_hash()
    with pytest.raises(StoreError, match="distil anew"):
        kept_reflex(run, ARM)


def test_an_unknown_demonstration_is_refused_with_the_known_ones(capsys, tmp_path):
    assert reflexarc("demo", "nonsense", "--runs", tmp_path) == 2
    said = capsys.readouterr().err
    assert "nonsense" in said and "arm" in said and "cartpole" in said and not list(tmp_path.iterdir())


def pick(runs: Path, seed: int = 0) -> tuple[str, int, str]:
    """Return the name of the run that the demonstration takes, its finished trials, and what was said."""
    said = StringIO()
    run = _run(Demo(seed=seed, runs=runs), Console(file=said, width=500))
    return run.path.name, len(run.records()), said.getvalue()


def keep(run: ArmRun, trials: int) -> None:
    records = [TrialRecord(trial, "random", None, 0.0, 60, False, trial) for trial in range(trials)]
    run.save(records, {"steps_since_fit": torch.tensor(0)})


def test_the_demonstration_goes_on_with_its_own_unfinished_run(tmp_path):
    assert pick(tmp_path)[:2] == ("arm-demo", 0)
    assert pick(tmp_path)[:2] == ("arm-demo", 0) and "going on" in pick(tmp_path)[2]
    keep(ArmRun.open(tmp_path / "arm-demo"), 3)
    assert pick(tmp_path)[:2] == ("arm-demo", 3)
    assert pick(tmp_path, seed=1)[:2] == ("arm-demo-2", 0), "another seed is another demonstration"
    assert pick(tmp_path)[:2] == ("arm-demo", 3) and pick(tmp_path, seed=1)[:2] == ("arm-demo-2", 0)


@pytest.mark.parametrize(("stops", "taught", "lives"),
                         [(0, False, True), (ATTEMPTS - 1, False, True), (ATTEMPTS, False, False), (1, True, False)])
def test_the_demonstration_goes_on_by_itself_where_the_arm_stops_while_it_learns(monkeypatch, tmp_path, stops, taught, lives):
    run = _run(Demo(runs=tmp_path), Console(file=StringIO()))
    begun, said = [], StringIO()

    def circle(show: object) -> None:
        begun.append(len(run.records()))
        keep(run, begun[-1] + 2)
        if len(begun) <= stops:
            if taught:
                (run.path / "network").mkdir()
            raise HardwareError("no action was taken for 401 ms")

    monkeypatch.setattr(arm_demo, "_twin", lambda: contextlib.nullcontext((None, "127.0.0.2")))
    monkeypatch.setattr(arm_demo, "_circle", circle)
    with contextlib.nullcontext() if lives else pytest.raises(HardwareError, match="401 ms"):
        _live(Demo(runs=tmp_path), Console(file=said, width=500), run)
    goes_on = 0 if taught else min(stops, ATTEMPTS - 1)
    assert begun == [2 * attempt for attempt in range(goes_on + 1)], "each attempt goes on after what the last one kept"
    assert said.getvalue().count("401 ms; going on after") == goes_on


def test_the_demonstration_leaves_alone_what_is_finished_damaged_or_another_s(tmp_path):
    finished = ArmRun.open(tmp_path / pick(tmp_path)[0])
    finished.report_path.write_text("a report")
    (tmp_path / pick(tmp_path)[0] / "network").mkdir()
    assert pick(tmp_path)[:2] == ("arm-demo-3", 0), "one has a report, the other is distilled"
    learned_run(tmp_path / "arm-demo-4")  # of other settings
    for number, damage in ((3, {"config": "edited"}), (5, {"config": {"task": "cartpole"}})):
        path = tmp_path / f"arm-demo-{number}"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps(damage))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    name, done, said = pick(tmp_path)
    assert (name, done) == ("arm-demo-6", 0)
    assert f"leaving {tmp_path / 'arm-demo-3'} alone" in said and f"leaving {tmp_path / 'arm-demo-5'} alone" in said
    assert all(path.read_bytes() == content for path, content in before.items())
