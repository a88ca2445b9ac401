"""A report stands on its own, tells what a run did, and is written for whatever there is."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from dynamics.fitting import FitConfig
from dynamics.metrics import evaluate_model
from dynamics.neural_ensemble import EnsembleConfig
from episodes.episode import Episode
from episodes.metadata import EpisodeMetadata
from experiments.build import build_run
from experiments.config import RunConfig
from experiments.report import write, write_report
from experiments.report.drawing import Plot, new_axes, to_svg
from experiments.report.figures import calibration, cost_over_trials, learning_curve, planning_time, series_over_time
from experiments.report.material import gather
from experiments.report.numbers import count, duration, number
from experiments.report.rollouts import predict_along, rollout_plots
from experiments.run_directory import RunDirectory
from planners.icem import ICEMConfig
from policies.model_based import LearningConfig, algorithm
from policies.policy_search import PolicySearchConfig
from policies.trial import TrialRecord
from sim.catalog import make_task
from sim.mujoco_robot import MujocoRobot
from sim.rendering import RenderingUnavailableError

TINY = RunConfig(
    task="cartpole", learning=LearningConfig(trials=4, episode_steps=30),
    ensemble=EnsembleConfig(members=5, hidden=(16,), weight_decay=(1e-5,), fit=FitConfig(epochs=3)),
    search=ICEMConfig(horizon=5, population=8, iterations=1, elites=2),
    policy_search=PolicySearchConfig(hidden=(8,), horizon=4, rollouts=10, updates=2))
VOID = ("meta", "link")


class Quiet:
    """Listens to a run and says nothing."""

    def trial_started(self, *_: object) -> None: ...

    def fitting(self, *_: object) -> None: ...

    def fitted(self, *_: object) -> None: ...

    def stepped(self, *_: object) -> None: ...

    def trial_finished(self, *_: object) -> None: ...


def live(path: Path, config: RunConfig, checkpoint: bool = True) -> RunDirectory:
    run = RunDirectory.create(path, config)
    with build_run(config, run.store(), Quiet(), threads=1) as built:
        algorithm(config.algorithm)(built.learner)
        if checkpoint:
            run.save(built.learner.records, built.learner.tensors())
    return run


class Reader(HTMLParser):
    """Reads a page strictly: what is opened is closed, ids differ, nothing is asked for from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.counts: dict[str, int] = {}
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        values = dict(attributes)
        self.ids += [values["id"]] if values.get("id") else []
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href", "poster", "data", "srcset") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(path: Path) -> tuple[Reader, str]:
    """Return what a strict reader found on the page and its text, spaces joined."""
    html = path.read_text()
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open and len(set(reader.ids)) == len(reader.ids)
    assert all(link.startswith(("data:", "#")) for link in reader.links), "the page asks for something from outside"
    assert not re.search(r"@import|url\((?!#)|<iframe|<object|<embed", html)
    assert not re.search(r"#0000[ef]\d", html), "a stand-in colour is left"
    for used in re.findall(r'(?:url\(|href=")#([^")]+)', html):
        assert used in reader.ids
    return reader, re.sub(r"\s+", " ", " ".join(reader.text))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return live(tmp_path_factory.mktemp("runs") / "a run", TINY)


def test_a_report_shows_all_there_is(run):
    reader, text = read(write_report(run, videos=False))
    for shown in ("Return of every trial", "Cost by term", "One-step error", "Error several steps ahead", "Negative log-likelihood",
                  "Does the model know what it does not know?", "Predicted against lived, trial 3", "The best trial",
                  "Planning time in trial 3", "Where the time went", "reflexarc learn cartpole --seed 0", "running maximum",
                  "counts as solved (170)", "Configuration", "control periods lived by the end of the trial", "not solved yet",
                  "has not learned from this trial", "4.80 s", "Versions"):
        assert shown in text, shown
    assert reader.counts["svg"] == 2 + 4 + 4 + (1 + 4 + 1) + 2 and reader.counts["table"] == 4
    assert reader.counts["title"] == 1 + reader.counts["svg"] and "video" not in reader.counts


def test_it_is_the_same_when_written_again(run):
    first = write_report(run, videos=False).read_bytes()
    assert write_report(run, videos=False).read_bytes() == first


def test_videos_are_carried_within_and_made_once(run, monkeypatch):
    made = []

    def render(self: MujocoRobot, width: int, height: int, camera: str | None = None) -> np.ndarray:
        made.append(self)
        return np.zeros((height, width, 3), dtype=np.uint8)

    monkeypatch.setattr(MujocoRobot, "render", render)
    reader, text = read(write_report(run))
    shown = len({gather(run).first, gather(run).best})
    assert reader.counts["video"] == shown and "first trial that a model acted in" in text
    assert sum(link.startswith("data:video/mp4;base64,") for link in reader.links) == shown
    before = len(made)
    write_report(run)
    assert len(made) == before > 0


def test_without_opengl_it_says_so(tmp_path, run, monkeypatch):
    def refuse(*_: object) -> None:
        raise RenderingUnavailableError("no <OpenGL> here")

    monkeypatch.setattr(MujocoRobot, "render", refuse)
    monkeypatch.setattr(RunDirectory, "video_path", lambda self, name: tmp_path / f"{name}.mp4")
    reader, text = read(write_report(run))
    assert "no <OpenGL> here" in text and "video" not in reader.counts and reader.counts["svg"] > 10


def test_nothing_lived_yet(tmp_path):
    reader, text = read(write_report(RunDirectory.create(tmp_path / "run", TINY)))
    assert "Nothing was lived yet." in text and "svg" not in reader.counts


def test_only_random_commands(tmp_path):
    made = live(tmp_path / "run", replace(TINY, learning=LearningConfig(trials=1, random_trials=1, episode_steps=8)))
    _, text = read(write_report(made, videos=False))
    assert "Only random commands so far, 1 trial of them" in text and "nothing to judge" in text and "no planning times" in text


def test_without_a_checkpoint_the_episodes_speak(tmp_path):
    made = live(tmp_path / "run", replace(TINY, learning=LearningConfig(trials=2, episode_steps=8)), checkpoint=False)
    _, text = read(write_report(made, videos=False))
    assert "no checkpoint with a fitted model" in text and "Cost by term" in text and "So far" not in text


def test_a_damaged_checkpoint_and_a_missing_episode_are_told(tmp_path):
    made = live(tmp_path / "run", replace(TINY, learning=LearningConfig(trials=2, episode_steps=8)))
    (made.path / "checkpoints" / "latest.json").write_text("{broken")
    _, text = read(write_report(made, videos=False))
    assert "Could not be read" in text and "latest.json" in text and "Return of every trial" in text
    made.store().path(0).write_bytes(b"")
    assert "Nothing was lived yet" in read(write_report(made, videos=False))[1]


@pytest.mark.parametrize(("changes", "expected", "missing"), [
    ({"algorithm": "0.5"}, ["icem open loop", "has not learned from this trial"], []),
    ({"algorithm": "2.0"}, ["no planning times", "Predicted against lived"], ["Planning time in"]),
    ({"model": "linear", "evaluation": replace(TINY.evaluation, propagation="DS")}, ["Does the model know", "90 %"], []),
    ({"model": "deterministic", "evaluation": replace(TINY.evaluation, propagation="DS")},
     ["states no doubt, so there is none to check", "so there are no bands"], ["Does the model know", "50 % of the model"]),
    ({"learning": LearningConfig(trials=2, episode_steps=11, refit_every=5)},  # 1 period after the last fit: too few to judge by
     ["already learned from at least a part", "fitted again within"], []),
])
def test_other_algorithms_and_models(tmp_path, changes, expected, missing):
    config = replace(replace(TINY, learning=LearningConfig(trials=3, episode_steps=12)), **changes)
    _, text = read(write_report(live(tmp_path / "run", config), videos=False))
    assert all(part in text for part in expected) and not any(part in text for part in missing)


def test_a_learned_reward_and_many_observations(tmp_path):
    made = live(tmp_path / "run", replace(TINY, task="dmc:quadruped-walk", learning=LearningConfig(trials=2, episode_steps=7)))
    _, text = read(write_report(made, videos=False))
    assert "reward" in text and re.search(r"6 of \d\d predicted entries", text) and re.search(r"6 of 12 commands and 8 of \d\d state", text)


def test_nasty_names_stay_text(tmp_path, run):
    nasty = '<script>alert("1")</script> & $x_1$ \'"'
    whole = gather(run)
    records = [replace(record, provenance=nasty, cost_by_term={nasty: 1.0, "$\\frac{": -2.0}, one_step_rmse={nasty: 1.0})
               for record in whole.records]
    run.save(records, whole.checkpoint.tensors)
    try:
        path = write_report(run, videos=False)
        reader, text = read(path)
    finally:
        run.save(whole.records, whole.checkpoint.tensors)
    assert reader.counts["script"] == 1 and nasty in text and "$\\frac{" in text
    figure, axes = new_axes("$\\frac{", nasty)
    axes.set_title("$$")
    drawing = to_svg(Plot(nasty, figure, nasty), 7)
    assert "<script" not in drawing and "$\\frac{" in drawing


def test_numbers_that_are_none_do_not_stop_it(run):
    whole = gather(run)
    odd = [replace(record, total_return=float("nan") if record.trial == 1 else record.total_return, one_step_error=None,
                   k_step_error={"10": float("inf")}, negative_log_likelihood=None, coverage={}, cost_by_term={"tip": float("nan")},
                   plan_milliseconds_median=None, seconds=0.0) for record in whole.records]
    run.save(odd, whole.checkpoint.tensors)
    try:
        read(write_report(run, videos=False))
    finally:
        run.save(whole.records, whole.checkpoint.tensors)


def test_the_sentence_counts_what_was_lived_until_it_was_solved(run, monkeypatch):
    records = [replace(record, total_return=value) for record, value in zip(gather(run).records, (-3, 12, 171, 170), strict=True)]
    whole = replace(gather(run), records=records)
    assert write._what_happened(whole) == "Solved at trial 2, after 90 control periods (3.60 s of experience)."
    assert (whole.first, whole.best, whole.solved_at) == (1, 2, 2)
    plot = learning_curve(whole)
    lines = {tuple(line.get_ydata()) for line in plot.figure.axes[0].lines}
    assert (-3, 12, 171, 170) in lines and (-3, 12, 171, 171) in lines


def test_the_reproduction_marks_what_differs(run):
    values = write._flat(write.to_json(run.config))
    differing = write._differing(gather(run), values)
    assert values["search.horizon"] == "5" and differing["search.horizon"] == "25" and "task" not in differing and "seed" not in differing


def test_rollouts_start_in_the_lived_state_and_agree_with_the_metrics(run):
    whole = gather(run)
    episode = whole.episode(3)
    rollouts = predict_along(whole.model, episode, 5, seed=0)
    assert rollouts.starts == (0, 6, 12, 19, 25) and rollouts.stochastic
    assert np.array_equal(rollouts.mean[:, 0], rollouts.lived[list(rollouts.starts)])
    assert (np.diff(rollouts.quantiles, axis=0) >= 0).all()
    one_step = rollouts.mean[:, 1] - rollouts.lived[[s + 1 for s in rollouts.starts]]
    x, u = torch.from_numpy(episode.x.copy()), torch.from_numpy(episode.applied.copy())
    rmse = evaluate_model(whole.model, x[:2], u[:1], k_steps=(1,)).one_step_rmse
    noise = np.array([rollouts.quantiles[3, 0, 1, i] - rollouts.quantiles[0, 0, 1, i] for i in range(4)]) / np.sqrt(200)
    assert (np.abs(np.abs(one_step[0]) - np.array(list(rmse.values()))) < 4 * noise).all()
    plots = rollout_plots(rollouts)
    errors = dict(zip(rollouts.names, rollouts.relative_errors(), strict=True))
    assert [plot.title for plot in plots] == sorted(errors, key=errors.get, reverse=True)


def test_rollouts_of_wound_up_angles_stay_near_the_lived_curve(run):
    whole = gather(run)
    episode = whole.episode(3)
    wound = episode.x.copy()
    turned = wound[:, 1] - wound[2, 1] + np.pi - 1e-6
    wound[:, 1] = np.arctan2(np.sin(turned), np.cos(turned))
    assert np.abs(np.diff(wound[:6, 1])).max() > 6, "it jumps within the first rollout"
    rollouts = predict_along(whole.model, replace(episode, x=wound), 5, seed=0)
    lived = np.stack([rollouts.lived[s:s + 6, 1] for s in rollouts.starts])
    assert np.abs(rollouts.mean[:, :, 1] - lived).max() < np.pi


def test_rollouts_that_leave_the_numbers_are_drawn(run):
    whole = gather(run)
    rollouts = predict_along(whole.model, whole.episode(3), 5, seed=0)
    mean, quantiles = rollouts.mean.copy(), rollouts.quantiles.copy()
    mean[:, 2:], quantiles[:, :, 2:] = np.nan, np.nan
    broken = replace(rollouts, mean=mean, quantiles=quantiles)
    assert np.isfinite(broken.relative_errors()).all()
    assert all("<svg" in to_svg(plot, i) for i, plot in enumerate(rollout_plots(broken)))


def record(trial: int, **changes: object) -> TrialRecord:
    return replace(TrialRecord(trial, "icem", 1, 1.0, 10, False, 0), **changes)


def test_cost_bars_add_up_and_rare_terms_are_joined():
    names = [f"term {i}" for i in range(12)]
    records = [record(t, cost_by_term={name: (i + 1) * (-1) ** i for i, name in enumerate(names)}) for t in range(3)]
    plot = cost_over_trials(records)
    bars = plot.figure.axes[0].patches
    assert len(bars) == 3 * 8 and plot.legend[-1].label == "other terms"
    assert sum(bar.get_height() for bar in bars) == pytest.approx(3 * sum(records[0].cost_by_term.values()))
    assert cost_over_trials([record(0)]) is None


def test_calibration_shows_first_and_newest():
    records = [record(t, coverage={"0.9": 0.5 + t / 10, "0.1": 0.1}) for t in range(4)]
    plot = calibration([record(9), *records])
    assert [key.label for key in plot.legend] == ["honest", "trial 0", "trial 3"]
    assert list(plot.figure.axes[0].lines[-1].get_ydata()) == [0.1, 0.8]
    assert "0.0500" in plot.note and calibration([record(0, coverage={})]) is None


def episode_of(plan_seconds: np.ndarray | None) -> Episode:
    task = make_task("cartpole")
    with task.robot() as robot:
        spec = robot.spec
    metadata = EpisodeMetadata("cartpole", spec.fingerprint(), spec.to_json(), 0, 0, "icem", 1)
    return Episode(np.arange(41) * 0.04, np.random.default_rng(0).normal(size=(41, 4)), np.zeros((40, 1)), np.zeros((40, 1)), np.zeros(40),
                   False, True, task.state_space.names, ("slider",), metadata, {}, plan_seconds)


def test_planning_times_count_late_plans():
    seconds = np.full(40, 0.02)
    seconds[::4], seconds[1] = np.nan, 0.1
    plot = planning_time(episode_of(seconds), 0.04)
    assert "3.3 % of plans took longer than the control period of 40.0 ms" in plot.note and "Median 20.0 ms" in plot.note
    assert sum(patch.get_height() for patch in plot.figure.axes[0].patches) == 30
    assert planning_time(episode_of(np.full(40, np.nan)), 0.04) is None and planning_time(episode_of(None), 0.04) is None
    assert "Every plan was ready" in planning_time(episode_of(np.full(40, 0.02)), 0.04).note


def test_the_entries_that_move_most_are_shown_in_their_order():
    episode = episode_of(None)
    values = episode.x * [1, 5, 0, 3]
    assert [plot.title for plot in series_over_time(episode, values, episode.state_names, "#0000f0", {}, 2)] == [
        episode.state_names[1], episode.state_names[3]]


@pytest.mark.parametrize(("value", "expected"), [
    (None, "–"), (float("nan"), "–"), (float("inf"), "–"), (0.0, "0.00"), (-0.0, "0.00"), (179.71, "180"), (-5.9188, "−5.92"),
    (0.0075, "0.00750"), (1e-9, "1.0e−09"), (1234.0, "1\u202f234"), (12345678.0, "1.2e+07"), (99.99, "99.99")])
def test_numbers(value, expected):
    assert number(value, 4 if value == 99.99 else 3) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, "0.500 s"), (40, "40 s"), (59.7, "1 min"), (62, "1 min 2 s"),
                                                   (3599.9, "1 h 0 min"), (7260, "2 h 1 min"), (None, "–")])
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_counts():
    assert [count(1, "trial"), count(0, "trial"), count(1400, "control period")] == ["1 trial", "0 trials", "1\u202f400 control periods"]
