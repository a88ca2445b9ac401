"""Pictures a second of a moving half-cheetah."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from rich.console import Console

from experiments.bench.result import Bar, BenchResult, machine
from robots.errors import NumericalError
from sim.rendering import Quality, SceneRenderer, environment_default
from sim.tasks import OWN_TASKS

FRAMES_BAR = 3000.0
"""Training pictures of 64x64 a second."""
FRAMES = 1000
"""Pictures of a row at most; the episode that they show has as many states."""
SECONDS = 4.0
"""Wall-clock of a row at most, after the first pictures, in which OpenGL compiles its shaders."""
_WARM_UP = 20
_OURS = "half-cheetah"
_GYMNASIUM = "Gymnasium's half-cheetah"
_BULLET = "PyBullet's half-cheetah"

Show = Callable[[int], None]
"""Puts the robot where it is in picture i; not timed."""
Draw = Callable[[], np.ndarray]
"""Returns the picture (height, width, 3) uint8; timed."""
Renderer = Callable[[str, int, int], tuple[Show, Draw]]
"""renderer(scene, width, height)"""


def bench_render(console: Console, seeds: int, threads: int | None) -> BenchResult:
    """Return pictures a second of every renderer, each in a fresh process: OpenGL takes its threads once in a process's life.

    A picture's time is the update of the scene, the drawing and the reading of pixels; the robot moves between two pictures.
    `threads` sets nothing here: every renderer draws as it does by itself.
    """
    training, pretty = partial(_ours, Quality.TRAINING), partial(_ours, Quality.PRETTY)
    cases: list[tuple[str, str, int, int, Renderer]] = [
        ("training preset", _OURS, 64, 64, training),
        ("MuJoCo's Renderer", _OURS, 64, 64, _mujoco),
        ("training preset", _GYMNASIUM, 64, 64, training),
        ("MuJoCo's Renderer", _GYMNASIUM, 64, 64, _mujoco),
        ("PyBullet's TinyRenderer", _BULLET, 64, 64, _bullet),
        ("training preset", _OURS, 480, 360, training),
        ("pretty preset", _OURS, 480, 360, pretty),
        ("MuJoCo's Renderer", _OURS, 480, 360, _mujoco),
    ]
    rows, rates = [], []
    for name, scene, width, height, renderer in cases:
        console.print(f"{name}, {scene}, {width}x{height}")
        with _mujoco_default_of_this_system(), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            times = process.submit(_picture_times, renderer, scene, width, height).result()
        rates.append(len(times) / float(times.sum()))
        rows.append((name, scene, f"{width}x{height}", rates[-1], *(float(1e3 * q) for q in np.quantile(times, [0.5, 0.99]))))
    console.print("every row in a process of its own; MuJoCo's Renderer with the scene's own settings: shadows, reflections, 4 samples")
    return BenchResult("render", ("renderer", "scene", "pixel", "1/s", "p50 [ms]", "p99 [ms]"), rows,
                       [Bar("training pictures of 64x64", rates[0], FRAMES_BAR, at_least=True, unit="1/s")], machine(threads))


def _mujoco_default_of_this_system() -> AbstractContextManager[None]:
    """Let processes that start in here draw without a screen on Linux, where MuJoCo's Renderer takes GLFW unless told otherwise."""
    return environment_default("MUJOCO_GL", "egl") if sys.platform.startswith("linux") else nullcontext()


def _picture_times(renderer: Renderer, scene: str, width: int, height: int) -> np.ndarray:
    """Return the seconds that each picture took. Raises NumericalError where the robot does not move in them: that is no picture."""
    show, draw = renderer(scene, width, height)
    show(0)
    first = draw().copy()
    for i in range(1, _WARM_UP):
        show(i)
        last = draw()
    if np.array_equal(first, last):
        raise NumericalError(f"{scene}: the pictures of two moments are equal; is OpenGL at work?")
    times: list[float] = []
    ends = time.perf_counter() + SECONDS
    while len(times) < FRAMES and time.perf_counter() < ends:
        show(_WARM_UP + len(times))
        started = time.perf_counter()
        draw()
        times.append(time.perf_counter() - started)
    return np.array(times)


def _ours(quality: Quality, scene: str, width: int, height: int) -> tuple[Show, Draw]:
    model = _model(scene)
    data = mujoco.MjData(model)
    renderer = SceneRenderer(model, quality)
    return _show(model, data), lambda: renderer.picture(data, 0, width, height)


def _mujoco(scene: str, width: int, height: int) -> tuple[Show, Draw]:
    model = _model(scene)
    data = mujoco.MjData(model)
    renderer = mujoco.Renderer(model, height, width)

    def draw() -> np.ndarray:
        renderer.update_scene(data, camera=0)
        return renderer.render()

    return _show(model, data), draw


def _bullet(scene: str, width: int, height: int) -> tuple[Show, Draw]:
    import pybullet
    import pybullet_data

    pybullet.connect(pybullet.DIRECT)
    pybullet.setAdditionalSearchPath(pybullet_data.getDataPath())
    pybullet.loadURDF("plane.urdf")
    body = pybullet.loadMJCF("mjcf/half_cheetah.xml")[0]
    joints = [joint for joint in range(pybullet.getNumJoints(body)) if pybullet.getJointInfo(body, joint)[2] == pybullet.JOINT_REVOLUTE]
    view = pybullet.computeViewMatrix([0, -3, 1], [0, 0, 0.5], [0, 0, 1])
    projection = pybullet.computeProjectionMatrixFOV(45, width / height, 0.05, 20)

    def show(i: int) -> None:
        for number, joint in enumerate(joints):
            pybullet.resetJointState(body, joint, 0.3 * np.sin(0.2 * i + number))

    def draw() -> np.ndarray:
        pixels = pybullet.getCameraImage(width, height, view, projection, shadow=0, renderer=pybullet.ER_TINY_RENDERER)[2]
        return np.asarray(pixels, dtype=np.uint8).reshape(height, width, 4)[:, :, :3]

    return show, draw


def _model(scene: str) -> mujoco.MjModel:
    if scene == _OURS:
        with OWN_TASKS[_OURS]().robot() as robot:
            return robot.model
    return mujoco.MjModel.from_xml_path(str(Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"))


def _show(model: mujoco.MjModel, data: mujoco.MjData) -> Show:
    """Return what shows a robot that is driven by random torques, a control period of 0.05 s between two pictures."""
    generator, driven, states = np.random.default_rng(0), mujoco.MjData(model), []
    for _ in range(FRAMES):
        driven.ctrl[:] = generator.uniform(-1, 1, model.nu)
        mujoco.mj_step(model, driven, 5)
        states.append(driven.qpos.copy())

    def show(i: int) -> None:
        data.qpos[:] = states[i % FRAMES]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)

    return show
