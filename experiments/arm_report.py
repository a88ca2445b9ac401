"""Writes the report of a demonstration on an arm: what it could before and after, its film, and the safety log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from episodes.episode import Episode
from episodes.metadata import software_version
from experiments import arm_figures as figures
from experiments.arm_phases import Lived, LivedPhase, Phase, live_again
from experiments.arm_reaching import FINAL_PERIODS
from experiments.arm_video import choose_clips, film
from experiments.report.numbers import count, duration, number
from experiments.report.page import Page, Tile
from experiments.run_directory import replace_file
from hw_bridge.recorder.log_row import Level
from hw_bridge.safety.rules import State
from robots.arms.arm import Arm
from robots.errors import ReflexarcError, StoreError

logger = logging.getLogger(__name__)

REPORT, VIDEO = "report.html", "arm.mp4"
RECOVERED = 1.25
"""After retraining it counts as recovered below so many times the error without the payload."""


@dataclass(frozen=True)
class Story:
    """The judged phases that before and after are told by."""

    nominal: Phase | None
    """The first, where it carried nothing."""
    loaded: Phase | None
    """The first that carried something."""
    retrained: Phase | None
    """The last that carried something, where that is another."""

    def times_nominal(self, phase: Phase | None) -> float:
        """Return the median error of `phase` over the nominal one; NaN where either is missing."""
        return float("nan") if phase is None or self.nominal is None else phase.median / max(self.nominal.median, 1e-9)


def write_arm_report(folder: Path, arm: Arm, phases: Sequence[Phase], seconds: float, episodes: Sequence[Episode] = ()) -> Path:
    """Write `folder`/report.html, one file that holds all it shows, with the film beside it, and return its path.

    `phases` are in the order in which they were lived, `seconds` is what all of it took, and `episodes` are the trials that it learned
    from. It is written for whatever there is: where no pictures can be drawn, or a log cannot be read, it says so. StoreError where the
    file cannot be written.
    """
    lived, story = live_again(phases, arm), tell(phases)
    page = Page(f"{arm.spec.name} reaches · Reflexarc")
    _headline(page, arm, phases, story, seconds, episodes)
    _before_and_after(page, lived, story)
    _film(page, lived, arm, folder / VIDEO)
    _learning(page, episodes, arm)
    _on_the_way(page, lived)
    page.section("Within its limits", "What was measured at servo rate, in every phase at its worst. Torques are as the arm reports them, "
                 "gravity included.")
    page.plots(figures.shares_of_limits(lived.phases, arm))
    _safety_log(page, lived)
    _punctuality(page, lived)
    _going_on(page, arm, phases, story)
    for trouble in lived.troubles:
        logger.warning("report: %s", trouble)
        page.notice(f"Could not be read: {trouble}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / REPORT, page.document(f"{software_version()} · {folder.resolve().name}").encode())
    except OSError as error:
        raise StoreError(f"{folder / REPORT}: the report could not be written ({error.strerror or error}); make room or name another "
                         "folder") from error
    return folder / REPORT


def tell(phases: Sequence[Phase]) -> Story:
    """Return the phases that before and after are told by."""
    judged = [phase for phase in phases if phase.judged]
    first = next((i for i, phase in enumerate(judged) if phase.payload_kg > 0), len(judged))
    carried = [phase for phase in judged[first:] if phase.payload_kg > 0]
    return Story(judged[0] if first else None, carried[0] if carried else None, carried[-1] if len(carried) > 1 else None)


def _headline(page: Page, arm: Arm, phases: Sequence[Phase], story: Story, seconds: float, episodes: Sequence[Episode]) -> None:
    after, badge = story.times_nominal(story.retrained), None
    if np.isfinite(after):
        badge = ("recovered", True) if after <= RECOVERED else ("not recovered", False)
    motion = sum(float(episode.time[-1] - episode.time[0]) for episode in episodes)
    page.header("Reflexarc on an arm", f"{arm.spec.name} reaches", _what_happened(arm, story, seconds, episodes, motion), badge)
    interventions = sum(phase.interventions for phase in phases)
    page.tiles([
        Tile("Took", duration(seconds), count(len(phases), "phase")),
        Tile("Learned from", duration(motion) if episodes else "–", f"of motion, {count(len(episodes), 'trial')}"),
        *(Tile(title, _millimetres(phase), "median" + (f", {number(times, 3)} times" if title != "Nominal" and np.isfinite(times) else ""))
          for title, phase in (("Nominal", story.nominal), ("With the payload", story.loaded), ("Retrained", story.retrained))
          for times in [story.times_nominal(phase)]),
        Tile("Interventions", str(interventions), "servo periods in which the supervisor stepped in"),
    ])


def _what_happened(arm: Arm, story: Story, seconds: float, episodes: Sequence[Episode], motion: float) -> str:
    learned = f" learned to reach from {count(len(episodes), 'trial')}, {duration(motion)} of motion" if episodes else " reached for goals"
    said = f"Within {duration(seconds)} the arm {arm.spec.name}{learned}"
    if story.nominal is not None:
        said += (f", and came within {_millimetres(story.nominal)} (median) of {count(len(story.nominal.errors), 'goal')} that it had not "
                 f"seen ({story.nominal.name})")
    if story.loaded is not None:
        said += (f"; with {story.loaded.payload_kg:g} kg at its flange that nobody told it of it missed them by "
                 f"{_millimetres(story.loaded)}{_times(story, story.loaded)}")
    if story.retrained is not None:
        said += f"; retrained on what was recorded, by {_millimetres(story.retrained)}{_times(story, story.retrained)}"
    return said + "."


def _times(story: Story, phase: Phase) -> str:
    times = story.times_nominal(phase)
    return f", {number(times)} times as far" if np.isfinite(times) else ""


def _millimetres(phase: Phase | None) -> str:
    return "–" if phase is None else f"{number(phase.median * 1e3)} mm"


def _before_and_after(page: Page, lived: Lived, story: Story) -> None:
    judged = [one.phase for one in lived.phases if one.phase.judged]
    page.section("Before and after", "How far the end effector was from each goal when its time was up.")
    if not judged:
        page.notice("No phase reached for goals, so there is nothing to compare.")
    else:
        known = _with_distances(lived)
        page.plots([figures.final_errors(judged), figures.travel(known) if known else None], columns="lead" if known else 2)
    page.table("Phases", ("phase", "what was done", "payload [kg]", "goals", "median [mm]", "worst [mm]", "within 10 mm", "times nominal",
                          "interventions"), (_phase_row(one.phase, story) for one in lived.phases), numeric=True, unfolded=True)


def _phase_row(phase: Phase, story: Story) -> tuple[str, ...]:
    numbers = ("–",) * 5 if not phase.judged else (
        str(len(phase.errors)), number(phase.median * 1e3), number(float(phase.errors.max()) * 1e3),
        str(int((phase.errors <= figures.GOAL_BAR).sum())), number(story.times_nominal(phase)))
    return phase.name, phase.words, f"{phase.payload_kg:g}", *numbers, str(phase.interventions)


def _film(page: Page, lived: Lived, arm: Arm, path: Path) -> None:
    page.section("The film", "The arm as its encoders saw it, at its own speed: typical goals of every phase, those whose errors are "
                 "nearest to the median. The goal is the ball in the air, green within 10 mm; a dark ball at the flange is the payload.")
    clips = choose_clips(lived.phases, arm)
    if not clips:
        page.notice("No film: no log tells when a goal was reached for.")
        return
    try:
        page.videos([(film(clips, arm, path), f"{arm.spec.name} reaches", f"also in {path.name}, beside this page")], columns="lead")
    except ReflexarcError as error:  # no OpenGL, a full disk: the rest of the report stands
        logger.warning("report: no film: %s", error)
        page.notice(f"No film: {error}")


def _learning(page: Page, episodes: Sequence[Episode], arm: Arm) -> None:
    page.section("Learning")
    if episodes:
        page.plots(figures.learning(episodes, final_distances(episodes, arm)))
    else:
        page.notice("No trials were handed over, so there is no learning curve.")


def final_distances(episodes: Sequence[Episode], arm: Arm) -> np.ndarray:
    """Return how far from its goal every episode ended (n,) [m], mean of its last periods; NaN where its states do not hold the goal."""
    kinematics, nv, found = arm.kinematics(), arm.spec.nv, np.full(len(episodes), np.nan)
    for i, episode in enumerate(episodes):
        if episode.state_names[:nv] == tuple(arm.spec.joint_names) and episode.state_names[nv : nv + 3] == ("goal_x", "goal_y", "goal_z"):
            last = episode.x[-FINAL_PERIODS:]
            found[i] = np.mean([np.linalg.norm(kinematics.forward(x[:nv])[:3] - x[nv : nv + 3]) for x in last])
    return found


def _on_the_way(page: Page, lived: Lived) -> None:
    known = _with_distances(lived)
    page.section("Distance over time", "Every goal of every phase, and their median.")
    if known:
        page.plots(figures.travel_of_each(known), columns=2 if len(known) in (1, 2, 4) else 3)
    left_out = [one.phase.name for one in lived.phases if one.phase.judged and one not in known]
    if left_out or not known:
        page.notice(f"Not known of: {', '.join(left_out) or 'any phase'}. Nobody noted when goals were given, or no log holds it.")


def _with_distances(lived: Lived) -> list[LivedPhase]:
    return [one for one in lived.phases if any(len(time) for time, _ in one.distances)]


def _safety_log(page: Page, lived: Lived) -> None:
    page.section("The safety log", "Every period the supervisor judges what may be written to the arm. Intervening means that it changed "
                 "or refused something; what it did for every period is in the log.")
    page.table("Rules that fired, in servo periods", ("phase", "rules", "periods", "a policy was followed", "intervened", "holds", "stops"),
               map(_safety_row, lived.phases), numeric=True, unfolded=True)
    rows = [(number((int(event["stamp_ns"]) - lived.began_ns) * 1e-9, 4), phase or "–", event["kind"].decode(errors="replace"),
             Level(event["level"]).name.lower(), event["text"].decode(errors="replace")) for phase, event in lived.events]
    grave = [row for row in rows if row[3] != Level.INFO.name.lower()]
    head = ("time [s]", "phase", "kind", "matters", "in words")
    if grave:
        page.table(f"Holds, faults and stops ({len(grave)})", head, grave, numeric=False, unfolded=True)
    else:
        page.notice("No hold, no fault, no stop.")
    page.table(f"All events ({len(rows)})", head, rows, numeric=False)


def _safety_row(one: LivedPhase) -> tuple[str, ...]:
    if one.summary is None:
        return one.phase.name, "not known", *("–",) * 5
    rules = ", ".join(f"{words} ({times})" for words, times in one.summary.interventions.items()) or "none"
    began = one.rows["state"][np.flatnonzero(np.diff(one.rows["state"].astype(int), prepend=-1))]
    return (one.phase.name, rules, f"{len(one.rows):,}".replace(",", "\u202f"), f"{one.summary.active_periods:,}".replace(",", "\u202f"),
            str(one.summary.intervened), str(int((began == State.HOLD).sum())), str(int(np.isin(began, (State.FAULT, State.ESTOP)).sum())))


def _punctuality(page: Page, lived: Lived) -> None:
    page.section("Punctuality", "How late the servo loop's periods began, and how old what it saw of the arm was.")
    rows = []
    for one in lived.phases:
        if one.summary is not None:
            age = one.rows["observation_age_ns"]
            rows.append((one.phase.name, duration(one.summary.seconds), number(one.summary.lateness_99_ms * 1e3),
                         number(one.summary.lateness_worst_ms), number(float(np.percentile(age, 99)) * 1e-6),
                         number(one.summary.observation_age_worst_ms)))
    if rows:
        page.table("Lateness and age", ("phase", "lasted", "late, p99 [µs]", "late, worst [ms]", "age, p99 [ms]",
                                        "age, worst [ms]"), rows, numeric=True, unfolded=True)
    else:
        page.notice("No log tells.")


def _going_on(page: Page, arm: Arm, phases: Sequence[Phase], story: Story) -> None:
    page.section("How to go on", "Drive a twin again as the log says; see what the arm carries, and how late it answers; then look at your "
                 "own arm without moving it, and let it learn. docs/put-it-on-your-arm.md names the hazards first.")
    robot = arm.spec.name.replace("_", "-")
    log = (story.retrained or story.loaded or phases[-1]).log
    page.command("\n".join((f"reflexarc replay {phases[0].log}", f"reflexarc sysid {log}", f"reflexarc delays {phases[0].log}",
                            f"reflexarc check --robot {robot} --address ADDRESS",
                            f"reflexarc reach --robot {robot} --address ADDRESS --name reacher --speed 0.5")))
