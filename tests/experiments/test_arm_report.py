"""The report of a demonstration tells what the logs hold, shows the arm where there is OpenGL, and stands without it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from matplotlib.image import imread

from episodes.episode import Episode
from episodes.metadata import Clock, EpisodeMetadata
from experiments import arm_video
from experiments.arm_figures import final_errors, shares_of_limits, worst_shares
from experiments.arm_overview import write_overview
from experiments.arm_phases import Phase, goal_spans, live_again
from experiments.arm_report import final_distances, tell, write_arm_report
from experiments.arm_scene import ArmScene, ball_radius
from experiments.arm_video import FPS, choose_clips, film, write_text
from hw_bridge.bridge import policy_spec
from hw_bridge.reaching import reaching_state_space
from hw_bridge.recorder.header import LogHeader
from hw_bridge.recorder.log_row import Level, event_row, servo_dtype
from hw_bridge.recorder.mcap_log import McapLog
from hw_bridge.safety.rules import Rule, State
from robots.arms.panda import panda
from robots.arms.so101 import so101
from robots.arms.ur5e import ur5e
from robots.command import CommandMode
from robots.errors import ConfigurationError, ShapeError
from sim.rendering import Quality, RenderingUnavailableError

ARM, DT_NS, BEGAN = ur5e(), 2_000_000, 10**9
SECOND = 10**9 // DT_NS
POSES = ARM.home + 0.3 * np.random.default_rng(0).uniform(-1, 1, (3, 6))
GOALS = np.array([ARM.kinematics().forward(q)[:3] for q in POSES])
NASTY = "HOLD: <b>no action</b> & $x$"


def lived_rows() -> np.ndarray:
    """2 s of nothing in particular, then twice the same three goals, 1 s each: the arm goes to each pose in half of it, and stays."""
    rows, k = np.zeros(8 * SECOND, servo_dtype(6)), np.arange(8 * SECOND)
    rows["tick"], rows["wake_ns"], rows["q"] = k, BEGAN + DT_NS * k, ARM.home
    for goal in range(6):
        share = np.clip(np.arange(SECOND) / (SECOND / 2), 0, 1)[:, None]
        rows["q"][(2 + goal) * SECOND : (3 + goal) * SECOND] = ARM.home + (POSES[goal % 3] - ARM.home) * share
    rows["dq"], rows["tau"], rows["state"] = 0.1, np.nan, State.ACTIVE
    rows["dq"][3 * SECOND, 1], rows["state"][100:150] = -0.5 * np.pi, State.HOLD
    rows["rules"][[5, 6]], rows["rules"][7], rows["rules"][6 * SECOND] = int(Rule.CLAMPED), int(Rule.BLEND), int(Rule.VELOCITY)
    rows["lateness_ns"], rows["observation_age_ns"] = 4000, 1_500_000
    return rows


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, spec = tmp_path_factory.mktemp("log") / "arm.mcap", policy_spec(ARM, CommandMode.JOINT_POSITION, 0.1)
    header = LogHeader(spec.to_json(), spec.fingerprint(), "factory", "none", "safety", tuple(state.name for state in State),
                       tuple(rule.name for rule in Rule if rule))
    file = McapLog(path, header)
    file.add_rows(lived_rows())
    told = ((-0.5, "IDLE: measured", Level.INFO), (0.2, NASTY, Level.WARNING), (2.5, "ACTIVE: resumed", Level.INFO),
            (9.0, "HOLD: ends", Level.WARNING))
    file.add_events(np.stack([event_row(BEGAN + round(at * 1e9), 0, "transition", text, level) for at, text, level in told]))
    file.finish()
    file.close()
    return path


def phase_of(log: Path, name: str, begin: float, end: float, errors: tuple[float, ...] = (), payload: float = 0.0, **more: object) -> Phase:
    spans = [(BEGAN + round((begin + i) * 1e9), BEGAN + round((begin + i + 1) * 1e9)) for i in range(len(errors))]
    return Phase(name, "Something is done.", BEGAN + round(begin * 1e9), BEGAN + round(end * 1e9), log, GOALS[: len(errors)],
                 np.array(errors), 2, payload, **{"spans_ns": np.array(spans).reshape(-1, 2), **more})


@pytest.fixture
def phases(log: Path) -> list[Phase]:
    return [phase_of(log, "explore", 0, 2), phase_of(log, "reach with MPC", 2, 5, (0.004, 0.006, 0.0095)),
            phase_of(log, "with 1 kg", 5, 8, (0.012, 0.018, 0.05), 1.0)]


def trial(model_version: int | None) -> Episode:
    spec, x = policy_spec(ARM, CommandMode.JOINT_POSITION, 0.1), np.zeros((21, 27))
    x[:, :6], x[:, 6:9] = ARM.home, ARM.kinematics().forward(ARM.home)[:3] + np.array([0, 0, 0.03])
    metadata = EpisodeMetadata("ur5e-reach", spec.fingerprint(), spec.to_json(), 0, 0, "icem", model_version, Clock.MONOTONIC)
    return Episode(1.0 + 0.1 * np.arange(21), x, np.zeros((20, 6)), np.zeros((20, 6)), np.ones(20), False, True,
                   reaching_state_space(ARM).names, tuple("abcdef"), metadata)


class Reader(HTMLParser):
    """Reads a page: what is opened is closed, and nothing is asked for from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        for name, value in attributes:
            assert name not in ("src", "href", "xlink:href") or (value or "").startswith(("data:", "#")), f"{tag} asks for {value}"
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(path: Path) -> tuple[Reader, str]:
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert not reader.open and not re.search(r"#0000[ef]\d", path.read_text()), "unclosed, or a stand-in colour is left"
    return reader, re.sub(r"\s+", " ", " ".join(reader.text))


@pytest.fixture
def drawn_by_hand(monkeypatch):
    """Pictures that take no OpenGL; returns what was drawn."""
    drawn = []

    class ByHand:
        def __init__(self, model, quality):
            self.quality = quality

        def picture(self, data, camera, width, height):
            drawn.append((data.qpos.copy(), data.mocap_pos[0].copy()))
            return np.full((height, width, 3), 128, np.uint8)

        def close(self):
            drawn.append("closed")

    monkeypatch.setattr("experiments.arm_scene.SceneRenderer", ByHand)
    return drawn


def refuse(*_: object) -> None:
    raise RenderingUnavailableError("no OpenGL here")


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == FPS
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_phase_has_what_its_log_holds_of_it(phases):
    lived = live_again(phases, ARM)
    explored, nominal, loaded = lived.phases
    assert not lived.troubles and [len(one.rows) for one in lived.phases] == [2 * SECOND, 3 * SECOND, 3 * SECOND]
    assert explored.summary.interventions == {"clamped": 2} and explored.summary.intervened == 2 and not explored.distances
    assert nominal.summary.intervened == 0 and loaded.summary.interventions == {"velocity": 1}
    assert [name for name, _ in lived.events] == ["", "explore", "reach with MPC", ""]
    for (time, distance), goal in zip(nominal.distances, GOALS, strict=True):
        assert time[0] == 0 and np.allclose(np.diff(time), 0.02) and 0.9 < time[-1] < 1.0
        assert distance[-1] < 1e-9 and distance[0] == pytest.approx(np.linalg.norm(ARM.kinematics().forward(ARM.home)[:3] - goal))


def test_largest_shares_are_those_of_the_rows(phases):
    lived = live_again(phases, ARM).phases
    shares = worst_shares(lived, "dq", ARM.spec.limits.velocity_max)
    assert shares[1] == pytest.approx(np.where(np.arange(6) == 1, 0.5, 0.1 / np.pi)) and shares[0] == pytest.approx(np.full(6, 0.1 / np.pi))
    assert np.isnan(worst_shares(lived, "tau", ARM.spec.limits.torque_max)).all()
    (speed,) = shares_of_limits(lived, ARM)
    assert speed.note == "Worst: 50.0 % of shoulder_lift_joint's limit, in 'reach with MPC'."


@pytest.mark.parametrize(("changes", "error"), [
    ({"goals": GOALS[:2]}, ShapeError), ({"spans_ns": np.zeros((1, 2), int)}, ShapeError), ({"ended_ns": 0}, ConfigurationError),
    ({"errors": (0.1, np.nan, 0.1)}, ConfigurationError), ({"spans_ns": [(3, 3)] * 3}, ConfigurationError)])
def test_a_phase_that_does_not_fit_is_refused(phases, changes, error):
    with pytest.raises(error, match="reach with MPC"):
        replace(phases[1], **changes)


def test_before_and_after(log, phases):
    story = tell(phases)
    assert (story.nominal, story.loaded, story.retrained) == (phases[1], phases[2], None)
    assert story.times_nominal(phases[2]) == pytest.approx(3.0) and np.isnan(story.times_nominal(None))
    again = [phase_of(log, "network", 2, 5, (0.005,)), phase_of(log, "MPC loaded", 5, 6, (0.02,), 1.0),
             phase_of(log, "last", 6, 7, (0.006,), 1.0)]
    story = tell([*phases, *again])
    assert (story.nominal, story.loaded, story.retrained) == (phases[1], phases[2], again[2]), "the network came after the load"
    assert tell(phases[:1]).nominal is None and tell(phases[2:]).nominal is None


def test_a_trial_ends_where_its_states_say():
    assert final_distances([trial(None), replace(trial(1), state_names=tuple(map(str, range(27))))], ARM) == pytest.approx(
        [0.03, np.nan], nan_ok=True)
    assert goal_spans([trial(1).time]).tolist() == [[10**9, 3 * 10**9]] and goal_spans([]).shape == (0, 2)


def test_the_report_stands_alone_and_says_what_happened(tmp_path, phases, drawn_by_hand):
    last = phase_of(phases[0].log, "retrained", 5, 8, (0.005, 0.007, 0.009), 1.0)
    path = write_arm_report(tmp_path / "out", ARM, [*phases, last], 412.0, [trial(None), trial(1)])
    reader, text = read(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["arm.mp4", "report.html"]
    assert reader.seen.count("video") == 1 and reader.seen.count("svg") == 8 and "b" not in reader.seen
    titles = ("Before and after", "The film", "Learning", "Distance over time", "Within its limits", "The safety log", "Punctuality",
              "How to go on")
    assert [text.index(title) for title in titles] == sorted(text.index(title) for title in titles)
    assert ("Within 6 min 52 s the arm ur5e learned to reach from 2 trials, 4.00 s of motion, and came within 6.00 mm (median) of 3 goals "
            "that it had not seen (reach with MPC); with 1 kg at its flange that nobody told it of it missed them by 18.0 mm, 3.00 times "
            "as far; retrained on what was recorded, by 7.00 mm, 1.17 times as far.") in text
    for shown in ("recovered", NASTY, "0.2000", "clamped (2) 1 000 950 2 1 0", "Holds, faults and stops (2)", "All events (4)", "−0.5000",
                  "4.00", "1.50", f"reflexarc replay {phases[0].log}", "Every goal of every phase"):
        assert shown in text
    assert "Not known of" not in text and "No film" not in text


@pytest.mark.parametrize(("errors", "badge"), [((0.0075,), "recovered"), ((0.0076,), "not recovered"), ((), "")])
def test_recovered_is_said_only_where_it_did(tmp_path, log, phases, monkeypatch, errors, badge):
    monkeypatch.setattr(arm_video.ArmScene, "__init__", refuse)
    last = [phase_of(log, "retrained", 5, 6, errors, 1.0)] if errors else []
    _, text = read(write_arm_report(tmp_path, ARM, [*phases, *last], 1.0))
    assert re.search(r"ur5e reaches\s+(recovered|not recovered|)\s*Within", text)[1] == badge


def test_without_opengl_it_says_so_and_goes_on(tmp_path, phases, monkeypatch):
    monkeypatch.setattr("experiments.arm_scene.SceneRenderer", refuse)
    reader, text = read(write_arm_report(tmp_path, ARM, phases, 1.0))
    assert "No film: no OpenGL here" in text and "video" not in reader.seen and "Punctuality" in text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    monkeypatch.undo()
    monkeypatch.setenv("MUJOCO_GL", "crayons")
    assert "No film: environment variable MUJOCO_GL" in read(write_arm_report(tmp_path, ARM, phases, 1.0))[1]


def test_what_is_missing_is_named(tmp_path, phases):
    lost = replace(phases[1], name="lost", log=tmp_path / "none.mcap")
    unnoted, outside = replace(phases[1], name="unnoted", spans_ns=()), phase_of(phases[0].log, "outside", 100, 103, (0.01, 0.01, 0.01))
    _, text = read(write_arm_report(tmp_path, ARM, [phases[0], lost, unnoted, outside], 1.0))
    assert "No film: no log tells" in text and "Not known of: lost, unnoted, outside" in text and "No trials were handed over" in text
    assert "none.mcap: cannot be read" in text and "holds no row of the phase 'outside'" in text
    with pytest.raises(ConfigurationError, match="at least one phase"):
        live_again([], ARM)
    with pytest.raises(ConfigurationError, match="expected a log of panda"):
        live_again(phases, panda())


def test_the_film_replays_what_was_measured(tmp_path, phases, drawn_by_hand):
    clips = choose_clips(live_again(phases, ARM).phases, ARM)
    assert [(clip.lived.phase.name, clip.goal) for clip in clips] == [("reach with MPC", 0), ("reach with MPC", 1), ("with 1 kg", 0),
                                                                     ("with 1 kg", 1)], "goals that are typical of both phases"
    pictures = decoded(film(clips, ARM, tmp_path / "a.mp4", 160, 120))
    shown = [drawn for drawn in drawn_by_hand if drawn != "closed"]
    assert len(shown) == sum(len(clip.rows) for clip in clips) == 100 and len(pictures) == 100 + 4 * 15 and drawn_by_hand[-1] == "closed"
    for i, (q, goal) in enumerate(shown[:25]):
        assert np.array_equal(goal, GOALS[0]) and q == pytest.approx(lived_rows()["q"][2 * SECOND + 20 * i])
    assert all(picture[:12].mean() < 110 and abs(picture[80:].mean() - 128) < 4 for picture in pictures)


def test_a_film_is_never_longer_than_its_time(phases, monkeypatch):
    lived = live_again(phases, ARM).phases
    for seconds, expected in ((40.0, 100), (4.0, 50), (2.4, 2 * 15)):
        monkeypatch.setattr(arm_video, "SECONDS_MAX", seconds)
        assert sum(len(clip.rows) for clip in choose_clips(lived, ARM)) == expected


def test_goals_that_phases_do_not_share_are_chosen_for_each(phases):
    other = replace(phases[2], goals=GOALS[::-1])
    assert [clip.goal for clip in choose_clips(live_again([phases[1], other], ARM).phases, ARM)] == [0, 1, 0, 1]
    other = replace(other, errors=(0.2, 0.019, 0.018))
    assert [clip.goal for clip in choose_clips(live_again([phases[1], other], ARM).phases, ARM)] == [0, 1, 1, 2]


def test_text_is_written_where_it_is_wanted_and_cut_at_the_edge():
    picture = np.zeros((40, 60, 3), np.uint8)
    write_text(picture, "dog " * 20, 10, 20, 12, (200, 100, 0))
    rows, columns = np.nonzero(picture[:, :, 0])
    assert columns.min() >= 10 and columns.max() > 55 and 8 <= rows.min() < 14 and 20 < rows.max() <= 24, "'g' goes below the line"
    assert (picture[:, :, 2] == 0).all() and picture[:, :, 0].max() == 200
    write_text(picture, "off", 55, 3, 30, (255, 255, 255))


@pytest.mark.parametrize("arm", [ARM, so101()], ids=lambda arm: arm.spec.name)
def test_a_real_picture_shows_arm_goal_and_payload(arm):
    goal = arm.kinematics().forward(arm.home)[:3] + np.array([0.0, 0.0, 0.12])
    try:
        scene = ArmScene(arm, arm.home[None], goal[None])
    except RenderingUnavailableError as error:
        pytest.skip(str(error))
    with scene:
        pending, reached, loaded, moved = (scene.picture(arm.home + turn, goal, near, load, 200, 150).astype(int) for turn, near, load in
                                           ((0, False, 0.0), (0, True, 0.0), (0, False, 1.0), (0.2, False, 0.0)))
        differs = np.abs(reached - pending).sum(axis=2) > 60
        assert differs.sum() > 10 and (reached - pending)[differs][:, 0].mean() < 0 < (reached - pending)[differs][:, 1].mean(), "green"
        darker = np.abs(loaded - pending).sum(axis=2) > 60
        assert darker.sum() > 10 and loaded[darker].mean() < pending[darker].mean()
        assert (np.abs(moved - pending).sum(axis=2) > 60).sum() > 200
    assert ball_radius(1.0) == pytest.approx(0.0312, abs=1e-4) and ball_radius(0.0) == 0.0


def test_a_film_is_drawn_as_people_like_it_but_quicker(phases):
    pictures = {}
    for quality in (Quality.FILM, Quality.PRETTY):
        try:
            with ArmScene(ARM, ARM.home[None], GOALS[:1], quality) as scene:
                pictures[quality] = scene.picture(ARM.home, GOALS[0], False, 0.0, 160, 120).astype(int)
        except RenderingUnavailableError as error:
            pytest.skip(str(error))
    assert np.abs(pictures[Quality.FILM] - pictures[Quality.PRETTY]).mean() < 12, "the same light and shadow"


def test_the_overview_is_one_picture(tmp_path, phases, monkeypatch, drawn_by_hand):
    path = write_overview(tmp_path / "docs" / "arm.png", phases, ARM)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture = imread(path)[:, :, :3]
    wide = picture.shape[1]
    assert (np.abs(picture - 128 / 255).max(axis=2) < 0.01)[:, : wide // 3].mean() > 0.4, "the arm stands at the left"
    monkeypatch.setattr("experiments.arm_scene.SceneRenderer", refuse)
    assert imread(write_overview(path, phases, ARM)).shape[1] < wide, "without the arm"
    with pytest.raises(ConfigurationError, match="reached for goals"):
        write_overview(path, phases[:1], ARM)


def test_every_goal_is_a_dot_and_the_median_a_line(phases):
    axes = final_errors(phases[1:]).figure.axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [sorted(line.get_ydata().tolist()) for line in dots] == [pytest.approx(sorted(phase.errors * 1e3)) for phase in phases[1:]]
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_marker() != "o"]
    assert levels == pytest.approx([6.0, 18.0, 10.0])
