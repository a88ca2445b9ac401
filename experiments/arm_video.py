"""Films what an arm did from its log: the joint positions that were measured, at their own speed, with the goal and how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font

from experiments.arm_figures import GOAL_BAR
from experiments.arm_phases import LivedPhase, rows_between, tip_distances
from experiments.arm_scene import ArmScene
from experiments.report.numbers import number
from experiments.video import write_video
from robots.arms.arm import Arm
from robots.kinematics import Kinematics
from sim.rendering import Quality

FPS = 25
SECONDS_MAX = 40.0
"""A film is not longer."""
_CLIPS = 2
"""Goals that are shown of a phase, where there is time."""
_STILL = 0.6
"""Each goal's last picture stands so long [s]."""
_POSES = 40
"""Joint positions that decide where the camera stands."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One goal of a phase as it is filmed."""

    lived: LivedPhase
    goal: int
    """Its number within the phase, from 0."""
    rows: np.ndarray
    """(n,) of `servo_dtype`, one a picture."""
    distances: np.ndarray
    """(n,) [m]"""


def choose_clips(phases: Sequence[LivedPhase], arm: Arm) -> list[Clip]:
    """Return typical goals of every phase that reached for some: those whose errors are nearest to their phase's median, the same goals of
    all phases where these share their goals. Empty where no log tells.
    """
    shown = [lived for lived in phases if lived.distances and len(lived.rows)]
    if not shown:
        return []
    shared = all(np.array_equal(lived.phase.goals, shown[0].phase.goals) for lived in shown)
    longest = max(float((lived.phase.spans_ns[:, 1] - lived.phase.spans_ns[:, 0]).max()) * 1e-9 for lived in shown) + _STILL
    count = max(1, min(_CLIPS, int(SECONDS_MAX / (len(shown) * longest))))
    longest = min(longest, SECONDS_MAX / (len(shown) * count))
    kinematics = arm.kinematics()
    clips = [_clip(lived, goal, longest - _STILL, kinematics) for lived in shown for goal in _typical(shown if shared else [lived], count)]
    return [clip for clip in clips if len(clip.rows)]


def film(clips: Sequence[Clip], arm: Arm, path: Path, width: int = 640, height: int = 480) -> Path:
    """Film `clips` one after another and return `path`, an MP4 (H.264) of `FPS` pictures a second.

    The file appears whole or not at all. RenderingUnavailableError where pictures cannot be drawn, StoreError where it cannot be written.
    """
    with _scene(clips, arm, Quality.FILM) as scene:
        return write_video(path, _pictures(clips, scene, width, height), Fraction(FPS), width, height, f"{arm.spec.name} reaches",
                           preset="veryfast")


def photograph(clips: Sequence[Clip], arm: Arm, width: int = 960, height: int = 720) -> np.ndarray:
    """Return the end of the first clip that shows a payload, else of the first: (height, width, 3) uint8."""
    clip = next((clip for clip in clips if clip.lived.phase.payload_kg > 0), clips[0])
    phase = clip.lived.phase
    with _scene(clips, arm, Quality.PRETTY) as scene:
        return scene.picture(clip.rows["q"][-1], phase.goals[clip.goal], bool(clip.distances[-1] <= GOAL_BAR), phase.payload_kg, width,
                             height)


def write_text(picture: np.ndarray, text: str, left: int, baseline: int, size: int, colour: tuple[int, int, int]) -> None:
    """Write a line of `text` into picture (height, width, 3) uint8, cut off where the picture ends; `size` [pixel]."""
    font = _font(size)
    font.set_text(text, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image(), float)[:, :, None] / 255.0
    top = baseline - ink.shape[0] + round(font.get_descent() / 64)
    under = picture[max(top, 0) : top + ink.shape[0], left : left + ink.shape[1]]
    ink = ink[max(-top, 0) :][: under.shape[0], : under.shape[1]]
    under[:] = np.round(under * (1.0 - ink) + np.array(colour) * ink)


@lru_cache
def _font(size: int) -> FT2Font:
    font = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"))
    font.set_size(size, 72)
    return font


def _typical(phases: Sequence[LivedPhase], count: int) -> list[int]:
    """Return the numbers of the goals whose errors are nearest to the median of every one of `phases`, which share their goals."""
    unusual = [np.abs(np.log(np.maximum(lived.phase.errors, 1e-6) / max(lived.phase.median, 1e-6))) for lived in phases]
    return sorted(np.argsort(np.max(unusual, axis=0), kind="stable")[:count].tolist())


def _clip(lived: LivedPhase, goal: int, seconds: float, kinematics: Kinematics) -> Clip:
    begin, end = lived.phase.spans_ns[goal].tolist()
    rows = rows_between(lived.rows, begin, min(end, begin + round(seconds * 1e9)))
    rows = rows[np.isfinite(rows["q"]).all(axis=1)]
    if len(rows):
        moments = np.arange(rows["wake_ns"][0], rows["wake_ns"][-1] + 1, round(1e9 / FPS))
        rows = rows[np.searchsorted(rows["wake_ns"], moments, side="right") - 1]
    return Clip(lived, goal, rows, tip_distances(rows, lived.phase.goals[goal], kinematics))


def _scene(clips: Sequence[Clip], arm: Arm, quality: Quality) -> ArmScene:
    q = np.concatenate([clip.rows["q"] for clip in clips])
    return ArmScene(arm, q[:: max(1, len(q) // _POSES)], np.array([clip.lived.phase.goals[clip.goal] for clip in clips]), quality)


def _pictures(clips: Sequence[Clip], scene: ArmScene, width: int, height: int) -> Iterator[np.ndarray]:
    for clip in clips:
        phase, picture = clip.lived.phase, np.zeros((height, width, 3), np.uint8)
        for q, distance in zip(clip.rows["q"], clip.distances, strict=True):
            reached = bool(distance <= GOAL_BAR)
            picture = scene.picture(q, phase.goals[clip.goal], reached, phase.payload_kg, width, height)
            _caption(picture, clip, f"{number(distance * 1e3)} mm from the goal", reached)
            yield picture
        still = picture.copy()
        _caption(still, clip, f"ended {number(float(phase.errors[clip.goal]) * 1e3)} mm from it", bool(phase.errors[clip.goal] <= GOAL_BAR))
        for _ in range(round(_STILL * FPS)):
            yield still


def _caption(picture: np.ndarray, clip: Clip, words: str, reached: bool) -> None:
    """Write what is seen on a dark band at the top, replacing what stood there."""
    phase, size = clip.lived.phase, max(8, picture.shape[0] // 30)
    picture[: 3 * size] = (26, 30, 38)
    carried = f"  ·  carries {phase.payload_kg:g} kg" if phase.payload_kg > 0 else ""
    write_text(picture, phase.name + carried, size, round(1.35 * size), size, (236, 239, 244))
    write_text(picture, f"goal {clip.goal + 1} of {len(phase.goals)}: {words}", size, round(2.6 * size), size,
               (95, 220, 170) if reached else (255, 176, 92))
